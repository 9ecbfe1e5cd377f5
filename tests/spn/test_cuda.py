"""Values of the CUDA kernels on a GPU.

Without a GPU, the CPU stands in, which checks the tests themselves; tests/emulator runs the kernels' source.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from cuda_calls import FOUR_WAY, needs_kernels, options_of, propagate, reference_of
from cuda_cases import RUNS
from gpu_or_stand_in import GPU, Gpu
from hypothesis import given, settings
from operator_cases import (
    DIRECTIONS,
    DTYPES,
    MERGES,
    NORMALIZATIONS,
    Case,
    assert_close,
    cases,
    gradients,
    needs_cpu_kernels,
)
from torch import Tensor

import spn
from spn import _ops

pytestmark = [needs_kernels, pytest.mark.slow]

# The stand-in shrinks several problems to the same one.
PROBLEMS = dict.fromkeys((GPU.sized(run.case), dtype) for run in RUNS for dtype in run.dtypes)


@pytest.mark.parametrize(("case", "dtype"), PROBLEMS, ids=str)
def test_every_kind_of_plan(gpu: Gpu, case: Case, dtype: torch.dtype):
    reference = reference_of(case, gpu.device)
    inputs = reference.inputs(dtype)
    out, grads = gradients(case, inputs, reference.grad.to(dtype))
    expected, winner = reference.merged, None
    if expected is None:
        tensors, options = options_of(case, inputs)
        saved_out, winner, _ = propagate(*tensors, *options, True, True, case.restart_every or 0)
        assert torch.equal(saved_out, out)
        expected = reference.chosen(winner)
        state = torch.float64 if dtype == torch.float64 else torch.float32
        assert_close(expected, reference.hidden.amax(1), state, "the maximum")
    assert_close(out, expected, dtype, "out")
    assert torch.equal(case(*inputs), out), "saving for the backward pass changes the result"
    names = ("x", "gates", "source")
    for name, got, wanted in zip(names, grads, reference.gradients(winner), strict=False):
        assert_close(got, wanted, dtype, f"gradient of {name}")


def check(gpu: Gpu, case: Case, dtype: torch.dtype = torch.float64) -> None:
    """Compare both passes with the reference in float64, on values that are exact in the dtype."""
    inputs = case.inputs(dtype, gpu.device)
    exact = [t.double() for t in inputs]
    grad = torch.randn(case(*exact, api=spn.reference).shape, device=gpu.device).to(dtype)
    out, grads = gradients(case, inputs, grad)
    expected, expected_grads = gradients(case, exact, grad.double(), api=spn.reference)
    assert_close(out, expected, dtype, "out")
    for name, got, wanted in zip(("x", "gates", "source"), grads, expected_grads, strict=False):
        assert_close(got, wanted, dtype, f"gradient of {name}")


def test_the_reference_does_not_stand_in(gpu: Gpu):
    assert _ops.why_reference(torch.device(gpu.device)) is None


@settings(max_examples=100)
@given(case=cases())
def test_equals_reference(gpu: Gpu, case: Case):
    check(gpu, case)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("direction", [*DIRECTIONS, "four_way"])
def test_every_dtype(gpu: Gpu, direction: str, dtype: torch.dtype):
    # Without "max", where a rounding may select another direction than float64 for a whole gradient.
    check(gpu, FOUR_WAY.with_(direction=direction, merge="mean"), dtype)


@pytest.mark.parametrize("normalize", NORMALIZATIONS)
@pytest.mark.parametrize("merge", MERGES)
@pytest.mark.parametrize("source_groups", [0, 1, 4])
def test_every_option(gpu: Gpu, source_groups: int, merge: str | None, normalize: str):
    check(gpu, FOUR_WAY.with_(source_groups=source_groups, merge=merge, normalize=normalize))


@pytest.mark.parametrize(
    "shape",
    [(1, 1, 1, 1), (1, 2, 1, 700), (1, 2, 700, 1), (300, 2, 16, 16), (1, 1, 17, 1500)],
    ids=str,
)
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16], ids=str)
def test_shapes(gpu: Gpu, shape: tuple[int, int, int, int], dtype: torch.dtype):
    """One pixel, lines of one position, one line, many planes, and a line much longer than the sweep."""
    check(gpu, gpu.sized(Case(shape=shape, groups=1, merge="sum")), dtype)


@pytest.mark.parametrize("normalize", NORMALIZATIONS)
@pytest.mark.parametrize("direction", [*DIRECTIONS, "four_way"])
def test_gradcheck(gpu: Gpu, direction: str, normalize: str):
    case = Case(
        shape=(1, 2, 3, 4), groups=1, source_groups=2, direction=direction, normalize=normalize, merge="mean"
    )
    inputs = case.inputs(device=gpu.device, requires_grad=True)
    assert torch.autograd.gradcheck(case, inputs, fast_mode=True)
    assert torch.autograd.gradgradcheck(case, inputs, fast_mode=True)


@needs_cpu_kernels
def test_agrees_with_the_cpu_kernels(gpu: Gpu):
    """Includes ties and the selected direction: zero gates make all four directions equal."""
    x, gates = FOUR_WAY.inputs(torch.float64)
    gates[..., :20] = 0
    grad = torch.randn_like(x)
    out, grads = gradients(FOUR_WAY, (x, gates), grad)
    on_gpu = [t.to(gpu.device) for t in (x, gates)]
    got, got_grads = gradients(FOUR_WAY, on_gpu, grad.to(gpu.device))
    assert_close(got, out)
    for a, b in zip(got_grads, grads, strict=True):
        assert_close(a, b)
    winners = [
        propagate(*tensors, None, "four_way", "abs", "max", True, True)[1] for tensors in ((x, gates), on_gpu)
    ]
    assert torch.equal(winners[0], winners[1].cpu())


EXTREMES: dict[str, Callable[[Tensor, Tensor, float], object]] = {
    "NaN in x": lambda x, g, largest: x[..., 7, 11].fill_(float("nan")),
    "infinity in x": lambda x, g, largest: x[..., 7, 11].fill_(float("inf")),
    "minus infinity in x": lambda x, g, largest: x[..., 7, 11].fill_(float("-inf")),
    "NaN in a gate": lambda x, g, largest: g[:, :, 1, :, 7, 11].fill_(float("nan")),
    "infinity in a gate": lambda x, g, largest: g[:, :, 2, :, 7, 11].fill_(float("inf")),
    "minus infinity in all gates": lambda x, g, largest: g[..., 7, 11].fill_(float("-inf")),
    "gates that sum to more than 2^126": lambda x, g, largest: g[..., 5:9].mul_(largest / 4),
    "gates that sum to more than any number": lambda x, g, largest: g[..., 5:9].sign_().mul_(largest),
    "gates below -60": lambda x, g, largest: g[..., 5:9].sub_(75),
    "subnormal gates": lambda x, g, largest: g[..., 5:9].mul_(2.0**-130),
    "gates of zero": lambda x, g, largest: g[..., 5:9].zero_(),
}


@needs_cpu_kernels
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize(
    ("extreme", "normalize"),
    [
        (extreme, normalize)
        for extreme in EXTREMES
        for normalize in NORMALIZATIONS
        # Without normalisation, values of huge gates may or may not overflow, depending on a rounding.
        if normalize != "none" or "sum" not in extreme
    ],
)
def test_extreme_values_as_on_the_cpu(gpu: Gpu, extreme: str, normalize: str, dtype: torch.dtype):
    case = FOUR_WAY.with_(shape=(1, 4, 20, 40), normalize=normalize)
    x, gates = case.inputs(torch.float64)
    # Sums of up to three gates may or may not overflow the dtype; bfloat16 has the range of float32.
    EXTREMES[extreme](x, gates.clamp_(-1, 1), torch.finfo(dtype).max)
    inputs = x.to(dtype), gates.to(dtype)
    grad = torch.randn(1, 4, 4, 20, 40).to(dtype)
    tolerance = {"rtol": 1e-4, "atol": 1e-4} if dtype == torch.float32 else {"rtol": 2e-2, "atol": 1e-2}
    for merge, incoming in ((None, grad), ("max", None), ("mean", grad[:, 0])):
        merged = case.with_(merge=merge)
        on_gpu = [t.to(gpu.device) for t in inputs]
        if incoming is None:  # a rounding may select another direction for the gradient
            results = [(merged(*on_gpu), merged(*inputs))]
        else:
            out, grads = gradients(merged, inputs, incoming)
            got, got_grads = gradients(merged, on_gpu, incoming.to(gpu.device))
            results = [(got, out), *zip(got_grads, grads, strict=True)]
        for actual, expected in results:
            torch.testing.assert_close(actual.cpu(), expected, equal_nan=True, **tolerance)


@pytest.mark.parametrize("shape", [(1, 2, 20, 24), (80, 1, 64, 64), (80, 1, 200, 200)], ids=str)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_gradients_do_not_change_a_rounded_maximum(
    gpu: Gpu, shape: tuple[int, int, int, int], dtype: torch.dtype
):
    """Without gradients, the maximum is taken of rounded values, which has the same result."""
    case = gpu.sized(Case(shape=shape, groups=1))
    inputs = case.inputs(dtype, gpu.device)
    assert torch.equal(case(*inputs), case(*(t.requires_grad_() for t in inputs)))
