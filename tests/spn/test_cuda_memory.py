"""The CUDA kernels on a GPU: memory of a call, and sizes beyond 32 bits."""

from __future__ import annotations

import pytest
import torch
from cuda_calls import needs_kernels, options_of, propagate, reference_of
from gpu_or_stand_in import Gpu
from operator_cases import Case, assert_close, gradients
from torch import Tensor

pytestmark = needs_kernels


# ---- Memory -----------------------------------------------------------------------------------------------------


def bytes_of(*tensors: Tensor) -> int:
    return sum(t.numel() * t.element_size() for t in tensors)


# Plans that stream planes, keep planes on chip, have few planes, or run one sweep.
MEMORY_CASES = [
    (Case((100, 1, 256, 256), groups=1), torch.float32),
    (Case((100, 1, 256, 256), groups=1), torch.bfloat16),
    (Case((200, 1, 128, 128), groups=1), torch.float32),
    (Case((1, 8, 256, 256), groups=8), torch.float32),
    (Case((100, 1, 256, 256), groups=1, direction="left_to_right"), torch.bfloat16),
]


def workspace_of(case: Case, out: Tensor) -> int:
    """Return the workspace limit: one plane per sweep, in the state's dtype. A single sweep needs none."""
    return 4 * 4 * out.numel() if case.direction == "four_way" else 0


@pytest.mark.parametrize(("case", "dtype"), MEMORY_CASES, ids=str)
def test_memory_of_a_call_without_gradients(gpu: Gpu, case: Case, dtype: torch.dtype):
    case = gpu.sized(case)
    inputs = case.inputs(dtype, gpu.device)
    out, left, most = gpu.memory(lambda: case(*inputs))
    assert left == bytes_of(out)
    assert most <= left + workspace_of(case, out)


@pytest.mark.parametrize(("case", "dtype"), MEMORY_CASES, ids=str)
def test_memory_of_training(gpu: Gpu, case: Case, dtype: torch.dtype):
    """Besides its inputs and result, a call saves lines 16, 32, ... of each sweep, and the selected direction."""
    case = gpu.sized(case)
    inputs = case.inputs(dtype, gpu.device, requires_grad=True)
    out, left, most = gpu.memory(lambda: case(*inputs))
    tensors, options = options_of(case, [t.detach() for t in inputs])
    _, winner, checkpoints = propagate(*tensors, *options, True, True)
    assert checkpoints.numel() <= (4 if case.lead else 1) * out.numel() / 16
    assert winner.numel() == (out.numel() if case.direction == "four_way" else 0)
    assert left == bytes_of(out, winner, checkpoints)
    assert most <= left + workspace_of(case, out)
    del winner, checkpoints
    grad = torch.randn_like(out)
    grads, left, most = gpu.memory(lambda: torch.autograd.grad(out, inputs, grad, retain_graph=True))
    assert left == bytes_of(*grads)
    assert most <= left + workspace_of(case, out)


@pytest.mark.parametrize("shape", [(1, 64, 512, 512), (8, 8, 512, 512)], ids=str)
def test_memory_of_shared_gates_is_bounded(gpu: Gpu, shape: tuple[int, int, int, int]):
    """Partial sums need no more memory than x in float32, or 32 MB."""
    case = gpu.sized(Case(shape, groups=1))
    inputs = case.inputs(torch.float32, gpu.device, requires_grad=True)
    out = case(*inputs)
    grad = torch.randn_like(out)
    _, left, most = gpu.memory(lambda: torch.autograd.grad(out, inputs, grad, retain_graph=True))
    carried = 1 << 20
    assert most <= left + workspace_of(case, out) + max(bytes_of(out), 32 << 20) + carried


# ---- Sizes beyond 32 bits ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("case", "backward", "gigabytes"),
    [
        # x has more than 2^31 values: in vertical and horizontal sweeps, and in channels that share gates.
        (Case((17, 1, 16384, 8192), 1, direction="top_to_bottom"), True, 60),
        (Case((17, 1, 16384, 8192), 1, direction="right_to_left"), False, 30),
        (Case((1, 70, 4096, 8192), 1), False, 25),
        # gates have more than 2^31 values.
        (Case((70, 1, 1600, 1600), 1), True, 20),
    ],
    ids=str,
)
def test_more_than_two_to_the_31_values(gpu: Gpu, case: Case, backward: bool, gigabytes: float):
    """The last plane lies beyond the limit; its results must equal those of the plane alone."""
    gpu.needs_memory(gigabytes)
    reference_of.cache_clear()
    case = gpu.sized(case)
    n, _, *plane = case.shape
    options = {"dtype": torch.bfloat16, "device": gpu.device}
    x = torch.randn(case.shape, **options)
    gates = torch.randn(n, *case.lead, 3, 1, *plane, **options)
    last = x[-1:, -1:], gates[-1:]
    if not backward:
        assert_close(case(x, gates)[-1:, -1:], case(*last))
        return
    out, grads = gradients(case, (x, gates), grad := torch.ones_like(x))
    expected, expected_grads = gradients(case, last, grad[-1:, -1:])
    assert_close(out[-1:, -1:], expected)
    assert_close(grads[0][-1:, -1:], expected_grads[0])
    assert_close(grads[1][-1:], expected_grads[1])
