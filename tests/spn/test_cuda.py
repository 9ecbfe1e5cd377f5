"""The CUDA kernels on a real GPU. Without one, tests/emulator runs their source on the CPU instead."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from operator_cases import DIRECTIONS, DTYPES, MERGES, NORMALIZATIONS, Case, assert_close, cases, gradients

import spn
from spn import _ops

pytestmark = [
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"),
    pytest.mark.skipif(not _ops.CUDA.loaded, reason=f"needs the CUDA kernels: {_ops.CUDA.reason}"),
]

FOUR_WAY = Case(shape=(2, 4, 37, 42), groups=2)


def check(case: Case, dtype: torch.dtype = torch.float32) -> None:
    """Both passes against the reference in float64, on values that the dtype can hold."""
    inputs = case.inputs(dtype, "cuda")
    exact = [t.double() for t in inputs]
    grad = torch.randn(case(*exact, api=spn.reference).shape, device="cuda").to(dtype)
    out, grads = gradients(case, inputs, grad)
    expected, expected_grads = gradients(case, exact, grad.double(), api=spn.reference)
    assert_close(out, expected, dtype, "out")
    for name, got, wanted in zip(("x", "gates", "source"), grads, expected_grads, strict=False):
        assert_close(got, wanted, dtype, f"gradient of {name}")


def test_the_reference_does_not_stand_in():
    assert _ops.why_reference(torch.device("cuda")) is None


@settings(max_examples=150)
@given(cases())
def test_equals_reference(case: Case):
    check(case, torch.float64)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("direction", [*DIRECTIONS, "four_way"])
def test_every_dtype(direction: str, dtype: torch.dtype):
    # Without a maximum: there a rounding may send a whole gradient another way than float64 does.
    check(FOUR_WAY.with_(direction=direction, merge="mean"), dtype)


@pytest.mark.parametrize("normalize", NORMALIZATIONS)
@pytest.mark.parametrize("merge", MERGES)
@pytest.mark.parametrize("source_groups", [0, 1, 4])
def test_every_option(source_groups: int, merge: str | None, normalize: str):
    check(FOUR_WAY.with_(source_groups=source_groups, merge=merge, normalize=normalize), torch.float64)


@pytest.mark.parametrize(
    "shape",
    [(1, 1, 1, 1), (1, 2, 1, 700), (1, 2, 700, 1), (300, 2, 16, 16), (1, 2, 20, 1500), (1, 1, 17, 9000)],
    ids=str,
)
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16], ids=str)
def test_shapes(shape: tuple[int, int, int, int], dtype: torch.dtype):
    """Lines of one position, of more than a block's threads, of more than shared memory holds; many planes."""
    check(Case(shape=shape, groups=1, merge="sum"), dtype)


def test_many_planes_stay_on_chip_and_few_run_side_by_side():
    for planes in (1, 400):
        check(Case(shape=(planes, 1, 64, 96), groups=1, merge="max"), torch.float64)


@pytest.mark.parametrize("normalize", NORMALIZATIONS)
@pytest.mark.parametrize("direction", [*DIRECTIONS, "four_way"])
def test_gradcheck(direction: str, normalize: str):
    case = Case(
        shape=(1, 2, 3, 4), groups=1, source_groups=2, direction=direction, normalize=normalize, merge="mean"
    )
    inputs = case.inputs(device="cuda", requires_grad=True)
    assert torch.autograd.gradcheck(case, inputs, fast_mode=True)
    assert torch.autograd.gradgradcheck(case, inputs, fast_mode=True)


@pytest.mark.parametrize("operator", ["propagate", "propagate_backward"])
def test_opcheck(operator: str):
    x, gates = (t.requires_grad_() for t in Case(shape=(1, 2, 5, 6), groups=2).inputs(device="cuda"))
    options = ("four_way", "abs", "max")
    if operator == "propagate":
        torch.library.opcheck(_ops.propagate, (x, gates, None, *options, True))
    else:
        out, winner, checkpoints = _ops.propagate(x, gates, None, *options, True)
        arguments = (torch.ones_like(out), x, gates, None, winner, checkpoints.detach(), *options)
        torch.library.opcheck(_ops.propagate_backward, arguments)


@pytest.mark.parametrize("shape", [(2, 8, 200, 300), (40, 8, 64, 64), (1, 1, 480, 854)], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_deterministic(shape: tuple[int, int, int, int], dtype: torch.dtype):
    case = Case(shape=shape, groups=1, source_groups=shape[1])
    inputs = case.inputs(dtype, "cuda")
    first, first_grads = gradients(case, inputs)
    for _ in range(5):
        again, again_grads = gradients(case, inputs)
        assert torch.equal(again, first)
        assert all(torch.equal(a, b) for a, b in zip(again_grads, first_grads, strict=True))


def test_inputs_are_not_written():
    inputs = FOUR_WAY.with_(source_groups=2).inputs(torch.float32, "cuda")
    copies = [t.clone() for t in inputs]
    gradients(FOUR_WAY.with_(source_groups=2), inputs)
    assert all(torch.equal(a, b) for a, b in zip(inputs, copies, strict=True))


def test_current_stream():
    """Work is queued behind what its own stream does, not behind the default stream."""
    inputs = FOUR_WAY.inputs(torch.float32, "cuda")
    expected = FOUR_WAY(*inputs)
    stream = torch.cuda.Stream()
    late = torch.zeros_like(inputs[0])
    torch.cuda.synchronize()
    with torch.cuda.stream(stream):
        torch.cuda._sleep(50_000_000)
        late.copy_(inputs[0])
        out = FOUR_WAY(late, inputs[1])
    stream.synchronize()
    assert torch.equal(out, expected)


def test_does_not_synchronize():
    inputs = FOUR_WAY.inputs(torch.float32, "cuda", requires_grad=True)
    FOUR_WAY(*inputs).sum().backward()
    torch.cuda.set_sync_debug_mode("error")
    try:
        FOUR_WAY(*inputs).sum().backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("shape", [(2, 4, 37, 42), (1, 1, 100, 200), (200, 2, 32, 32)], ids=str)
def test_graph(shape: tuple[int, int, int, int]):
    case = Case(shape=shape, groups=1)
    x, gates = case.inputs(torch.float32, "cuda", requires_grad=True)
    grad = torch.randn_like(x)

    def both() -> tuple[torch.Tensor, ...]:
        out = case(x, gates)
        return out, *torch.autograd.grad(out, (x, gates), grad)

    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        both()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = both()
    with torch.no_grad():
        x.copy_(torch.randn_like(x))
        gates.copy_(torch.randn_like(gates))
    graph.replay()
    assert all(torch.equal(a, b) for a, b in zip(captured, both(), strict=True))


def test_device_guard():
    if torch.cuda.device_count() < 2:
        pytest.skip("needs two GPUs")
    inputs = FOUR_WAY.inputs(torch.float32, "cuda:1")
    with torch.cuda.device(0):
        out, grads = gradients(FOUR_WAY, inputs)
        assert torch.cuda.current_device() == 0
    assert out.device.index == 1 and all(g.device.index == 1 for g in grads)
    assert_close(out, FOUR_WAY(*(t.double() for t in inputs), api=spn.reference), torch.float32)


def test_noncontiguous():
    x, gates = FOUR_WAY.inputs(torch.float32, "cuda")
    expected, expected_grads = gradients(FOUR_WAY, (x, gates))
    strided = x.to(memory_format=torch.channels_last), gates.transpose(-1, -2).contiguous().transpose(-1, -2)
    out, grads = gradients(FOUR_WAY, strided)
    assert torch.equal(out, expected)
    assert all(torch.equal(a, b) for a, b in zip(grads, expected_grads, strict=True))


def test_agrees_with_the_cpu_kernels():
    """Also on ties and on which direction wins: zero gates make all four equal."""
    x, gates = FOUR_WAY.inputs(torch.float64)
    gates[..., :20] = 0
    grad = torch.randn_like(x)
    out, grads = gradients(FOUR_WAY, (x, gates), grad)
    cuda_out, cuda_grads = gradients(FOUR_WAY, (x.cuda(), gates.cuda()), grad.cuda())
    assert_close(cuda_out, out)
    for got, wanted in zip(cuda_grads, grads, strict=True):
        assert_close(got, wanted)


def test_compile():
    compiled = torch.compile(
        lambda x, gates: spn.propagate_four_way(x, gates, normalize="abs"), fullgraph=True
    )
    inputs = FOUR_WAY.inputs(torch.float32, "cuda")
    assert torch.equal(compiled(*inputs), FOUR_WAY(*inputs))


def test_autocast():
    x, gates = FOUR_WAY.inputs(torch.float32, "cuda")
    with torch.autocast("cuda", torch.bfloat16):
        out = FOUR_WAY(x, gates)
    assert torch.equal(out, FOUR_WAY(x.bfloat16(), gates.bfloat16()))


def test_more_than_two_to_the_31_elements():
    shape = (17, 1, 16384, 8192)  # 2.28e9 elements of x, three times as many gates
    values = 17 * 16384 * 8192
    if torch.cuda.mem_get_info()[0] < 2 * 6 * values:
        pytest.skip("needs 27 GB of free GPU memory")
    x = torch.zeros(shape, dtype=torch.bfloat16, device="cuda")
    x[:, :, 0] = torch.randn(17, 1, 8192, device="cuda")
    x[:, :, :, 0] = torch.randn(17, 1, 16384, device="cuda")
    gates = torch.zeros(17, 3, 1, 16384, 8192, dtype=torch.bfloat16, device="cuda")
    gates[:, 1] = 1  # the first line is copied along
    out = spn.propagate(x, gates, "top_to_bottom")
    assert torch.equal(out, x[:, :, :1].expand(shape))
    del out
    out = spn.propagate(x, gates, "left_to_right")
    assert torch.equal(out, x[..., :1].expand(shape))
