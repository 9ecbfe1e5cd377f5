"""The CUDA kernels on a real GPU. Without one the CPU stands in, which tests these tests; tests/emulator then runs the
kernels' source.
"""

from __future__ import annotations

import subprocess
import sys
import textwrap
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from threading import Barrier, Thread

import pytest
import torch
from cuda_cases import RUNS
from gpu_or_stand_in import GPU, Gpu
from hypothesis import given, settings
from operator_cases import (
    DIRECTIONS,
    DTYPES,
    MERGES,
    NORMALIZATIONS,
    WANTED,
    Case,
    assert_close,
    cases,
    gradients,
    needs_cpu_kernels,
)
from torch import Tensor

import spn
from spn import _ops

pytestmark = pytest.mark.skipif(
    GPU.stands_in and not _ops.CPU.loaded, reason="needs the CUDA kernels, or the CPU's to stand in"
)

FOUR_WAY = Case(shape=(2, 4, 37, 42), groups=2)
propagate = torch.ops.spn.propagate.default
propagate_backward = torch.ops.spn.propagate_backward.default


@pytest.fixture(scope="session", params=[GPU], ids=lambda gpu: gpu.name)
def gpu(request) -> Gpu:
    return request.param


def options_of(case: Case, tensors) -> tuple[list[Tensor | None], tuple[str, str, str]]:
    """The operators' own arguments: gates (N, D, 3, G, H, W), source (N, D, G_s, H, W); direction, normalize, merge."""
    x, gates, *source = tensors
    source = source[0] if source else None
    if case.direction == "four_way":
        return [x, gates, source], (case.direction, case.normalize, case.merge or "none")
    source = None if source is None else source.unsqueeze(1)
    return [x, gates.unsqueeze(1), source], (case.direction, case.normalize, "none")


# ---- Values -----------------------------------------------------------------------------------------------------


class Reference:
    """A problem whose values every dtype can hold, and the reference's answer in float64, for all dtypes at once."""

    def __init__(self, case: Case, device: str):
        generator = torch.Generator(device).manual_seed(0)
        self.case = case

        def draw(*shape: int, uniform: bool = False) -> Tensor:
            make = torch.rand if uniform else torch.randn
            values = make(shape, generator=generator, device=device, dtype=torch.float32)
            return values.to(torch.bfloat16).to(torch.float16).double()

        n, _, *plane = case.shape
        gates = draw(n, *case.lead, 3, case.groups, *plane) / 2
        inputs = [draw(*case.shape), gates.clamp(-1, 1) / 4 if case.normalize == "none" else gates]
        if case.source_groups:
            inputs.append(draw(n, *case.lead, case.source_groups, *plane, uniform=True))
        self.leaves = [t.requires_grad_() for t in inputs]
        self.hidden = case.with_(merge=None)(*self.leaves, api=spn.reference)
        self.merged = None
        if case.direction == "four_way" and case.merge != "max":
            self.merged = spn.reference.merge_directions(self.hidden, case.merge)
        elif case.direction != "four_way":
            self.merged = self.hidden
        self.grad = draw(*(case.shape if self.merged is None else self.merged.shape))
        self._winner = self._gradients = None

    def inputs(self, dtype: torch.dtype) -> list[Tensor]:
        return [t.detach().to(dtype) for t in self.leaves]

    def chosen(self, winner: Tensor) -> Tensor:
        return self.hidden.gather(1, winner.long().unsqueeze(1)).squeeze(1)

    def gradients(self, winner: Tensor | None) -> tuple[Tensor, ...]:
        """With "max" a rounding decides between values that are nearly equal: gradients follow the kernel's choice."""
        known = self._gradients is not None and (winner is None or torch.equal(winner, self._winner))
        if not known:
            out = self.merged if winner is None else self.chosen(winner)
            self._winner = winner
            self._gradients = torch.autograd.grad(out, self.leaves, self.grad, retain_graph=True)
        return self._gradients


# A few problems follow each other in all their dtypes.
reference_of = lru_cache(maxsize=1)(Reference)


# What stands in for a GPU makes the same problem of several.
PROBLEMS = dict.fromkeys((GPU.sized(run.case), dtype) for run in RUNS for dtype in run.dtypes)


@pytest.mark.parametrize(("case", "dtype"), PROBLEMS, ids=str)
def test_every_kind_of_plan(gpu: Gpu, case: Case, dtype: torch.dtype):
    reference = reference_of(case, gpu.device)
    inputs = reference.inputs(dtype)
    out, grads = gradients(case, inputs, reference.grad.to(dtype))
    expected, winner = reference.merged, None
    if expected is None:
        tensors, options = options_of(case, inputs)
        saved_out, winner, _ = propagate(*tensors, *options, True, True)
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
    """Both passes against the reference in float64, on values that the dtype can hold."""
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
    # Without a maximum: there a rounding may send a whole gradient another way than float64 does.
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
    """One position, lines of one position, one line; many planes; a line much longer than the sweep."""
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
    """Also on ties and on which direction wins: zero gates make all four equal."""
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
        # Without a sum, huge gates drive values to where a rounding decides between a number and infinity.
        if normalize != "none" or "sum" not in extreme
    ],
)
def test_extreme_values_as_on_the_cpu(gpu: Gpu, extreme: str, normalize: str, dtype: torch.dtype):
    case = FOUR_WAY.with_(shape=(1, 4, 20, 40), normalize=normalize)
    x, gates = case.inputs(torch.float64)
    # Sums of up to three stay within the dtype, or not: bfloat16 has float32's range.
    EXTREMES[extreme](x, gates.clamp_(-1, 1), torch.finfo(dtype).max)
    inputs = x.to(dtype), gates.to(dtype)
    grad = torch.randn(1, 4, 4, 20, 40).to(dtype)
    tolerance = {"rtol": 1e-4, "atol": 1e-4} if dtype == torch.float32 else {"rtol": 2e-2, "atol": 1e-2}
    for merge, incoming in ((None, grad), ("max", None), ("mean", grad[:, 0])):
        merged = case.with_(merge=merge)
        on_gpu = [t.to(gpu.device) for t in inputs]
        if incoming is None:  # whose gradient goes another way after any rounding
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
    """Without them the maximum is taken of rounded values, which gives the same."""
    case = gpu.sized(Case(shape=shape, groups=1))
    inputs = case.inputs(dtype, gpu.device)
    assert torch.equal(case(*inputs), case(*(t.requires_grad_() for t in inputs)))


# ---- Layouts ----------------------------------------------------------------------------------------------------


def at_offset(t: Tensor, count: int) -> Tensor:
    """The same values, `count` values into a storage of their own."""
    return torch.cat([t.new_zeros(count), t.flatten()])[count:].view(t.shape)


@pytest.mark.parametrize("which", ["x", "gates", "source", "grad", "all"])
@pytest.mark.parametrize(
    ("dtype", "count"),
    [(torch.float64, 1), (torch.float32, 1), (torch.float32, 2), *((torch.bfloat16, n) for n in (1, 2, 4))],
    ids=str,
)
@pytest.mark.parametrize("direction", ["four_way", "right_to_left"])
def test_storage_offsets(gpu: Gpu, direction: str, dtype: torch.dtype, count: int, which: str):
    """Pieces of 16 bytes, of 8 or of 4 can only be moved where every array is aligned for them."""
    case = Case((2, 4, 20, 40), groups=2, source_groups=4, direction=direction, merge="mean")
    inputs = case.inputs(dtype, gpu.device)
    grad = torch.randn_like(inputs[0])
    expected, expected_grads = gradients(case, inputs, grad)
    moved = [
        at_offset(t, count) if which in (name, "all") else t
        for name, t in zip(("x", "gates", "source", "grad"), (*inputs, grad), strict=True)
    ]
    assert any(t.storage_offset() for t in moved)
    out, grads = gradients(case, moved[:3], moved[3])
    assert_close(out, expected)
    for got, wanted in zip(grads, expected_grads, strict=True):
        assert_close(got, wanted)


def test_noncontiguous(gpu: Gpu):
    x, gates = FOUR_WAY.inputs(torch.float32, gpu.device)
    expected, expected_grads = gradients(FOUR_WAY, (x, gates))
    strided = x.to(memory_format=torch.channels_last), gates.transpose(-1, -2).contiguous().transpose(-1, -2)
    out, grads = gradients(FOUR_WAY, strided)
    assert torch.equal(out, expected)
    assert all(torch.equal(a, b) for a, b in zip(grads, expected_grads, strict=True))


def test_inputs_are_not_written(gpu: Gpu):
    case = FOUR_WAY.with_(source_groups=2)
    inputs = case.inputs(torch.float32, gpu.device)
    copies = [t.clone() for t in inputs]
    gradients(case, inputs)
    assert all(torch.equal(a, b) for a, b in zip(inputs, copies, strict=True))


@pytest.mark.parametrize("direction", ["four_way", "left_to_right"])
@pytest.mark.parametrize("merge", MERGES)
def test_an_empty_batch(gpu: Gpu, merge: str | None, direction: str):
    case = Case((0, 4, 5, 6), 2, 2, direction, "abs", merge)
    inputs = case.inputs(torch.float32, gpu.device)
    out, grads = gradients(case, inputs)
    assert out.shape == case(*inputs, api=spn.reference).shape
    assert [g.shape for g in grads] == [t.shape for t in inputs]
    gpu.synchronize()


def test_no_channels_are_refused(gpu: Gpu):
    x, gates = torch.zeros(1, 0, 5, 6, device=gpu.device), torch.zeros(1, 4, 3, 1, 5, 6, device=gpu.device)
    with pytest.raises(ValueError, match="C, H, W >= 1"):
        spn.propagate_four_way(x, gates)


@pytest.mark.parametrize("wanted", WANTED, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize("direction", ["four_way", "bottom_to_top"])
def test_frozen_inputs(gpu: Gpu, direction: str, groups: int, dtype: torch.dtype, wanted: tuple[bool, ...]):
    case = FOUR_WAY.with_(shape=(2, 4, 20, 40), groups=groups, source_groups=2, direction=direction)
    inputs = case.inputs(dtype, gpu.device)
    _, expected = gradients(case, inputs, grad := torch.randn_like(inputs[0]))
    leaves = [t.detach().requires_grad_(asked) for t, asked in zip(inputs, wanted, strict=True)]
    case(*leaves).backward(grad)
    for leaf, full, asked in zip(leaves, expected, wanted, strict=True):
        assert torch.equal(leaf.grad, full) if asked else leaf.grad is None


# ---- Devices ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("elsewhere", ["x", "gates", "source", "grad", "winner", "checkpoints"])
def test_tensors_of_two_devices_are_refused(gpu: Gpu, elsewhere: str):
    case = FOUR_WAY.with_(source_groups=2)
    tensors, options = options_of(case, case.inputs(torch.float32, gpu.device))
    out, winner, checkpoints = propagate(*tensors, *options, True, True)
    names = ("grad", "x", "gates", "source", "winner", "checkpoints")
    arguments = dict(zip(names, (out, *tensors, winner, checkpoints), strict=True))
    arguments[elsewhere] = arguments[elsewhere].to("meta" if gpu.stands_in else "cpu")
    if elsewhere in ("x", "gates", "source"):
        with pytest.raises((RuntimeError, ValueError), match="must be on"):
            propagate(*(arguments[name] for name in ("x", "gates", "source")), *options, True, True)
    with pytest.raises((RuntimeError, ValueError), match="must be on"):
        propagate_backward(*arguments.values(), *options, True, True, True)
    gpu.synchronize()


def test_another_device_than_the_current_one(gpu: Gpu):
    case = FOUR_WAY.with_(source_groups=2, merge="mean")
    inputs = case.inputs(torch.float32, gpu.other_device())
    current = gpu.current_device()
    out, grads = gradients(case, inputs)
    assert gpu.current_device() == current
    assert all(t.device == inputs[0].device for t in (out, *grads))
    exact = [t.double() for t in inputs]
    expected, expected_grads = gradients(case, exact, api=spn.reference)
    assert_close(out, expected, torch.float32)
    for got, wanted in zip(grads, expected_grads, strict=True):
        assert_close(got, wanted, torch.float32)


# ---- Streams, threads, graphs -----------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(2, 8, 200, 300), (40, 8, 64, 64), (1, 1, 480, 854)], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_deterministic(gpu: Gpu, shape: tuple[int, int, int, int], dtype: torch.dtype):
    case = gpu.sized(Case(shape=shape, groups=1, source_groups=shape[1]))
    inputs = case.inputs(dtype, gpu.device)
    first, first_grads = gradients(case, inputs)
    for _ in range(5):
        again, again_grads = gradients(case, inputs)
        assert torch.equal(again, first)
        assert all(torch.equal(a, b) for a, b in zip(again_grads, first_grads, strict=True))


@pytest.mark.parametrize("backward_on_the_stream", [True, False])
def test_current_stream(gpu: Gpu, backward_on_the_stream: bool):
    """Both passes are queued behind what their own stream does, not behind the default stream."""
    inputs = FOUR_WAY.inputs(torch.float32, gpu.device)
    grad = torch.randn_like(inputs[0])
    expected, expected_grads = gradients(FOUR_WAY, inputs, grad)
    late = [torch.zeros_like(t) for t in (*inputs, grad)]
    leaves = [t.requires_grad_() for t in late[:2]]
    stream = gpu.stream()
    gpu.synchronize()
    with gpu.on(stream):
        gpu.be_busy()
        with torch.no_grad():
            for empty, full in zip(late, (*inputs, grad), strict=True):
                empty.copy_(full)
        out = FOUR_WAY(*leaves)
        if backward_on_the_stream:
            out.backward(late[2])
    if not backward_on_the_stream:
        # Autograd itself runs the backward pass on the stream of the forward pass.
        gpu.current_stream().wait_stream(stream)
        out.backward(late[2])
    stream.synchronize()
    gpu.synchronize()
    assert torch.equal(out, expected)
    assert all(torch.equal(leaf.grad, wanted) for leaf, wanted in zip(leaves, expected_grads, strict=True))


def test_what_a_call_frees_is_not_taken_while_it_runs(gpu: Gpu):
    """Workspace and intermediate results belong to the call's stream: another one may not overwrite them."""
    case = Case((2, 8, 100, 120), groups=1)
    inputs = case.inputs(torch.float32, gpu.device)
    grad = torch.randn_like(inputs[0])
    expected = gradients(case, inputs, grad)
    stream = gpu.stream()
    gpu.synchronize()
    for _ in range(gpu.times(20)):
        with gpu.on(stream):
            gpu.be_busy()
            out, grads = gradients(case, inputs, grad)
        # As large as what the passes may have taken, and freed at once.
        for megabytes in (1, 2, 4, 8, 16, 32):
            torch.full((megabytes << 18,), float("nan"), device=gpu.device)
        stream.synchronize()
        assert torch.equal(out, expected[0])
        assert all(torch.equal(a, b) for a, b in zip(grads, expected[1], strict=True))


def test_threads_do_not_disturb_each_other(gpu: Gpu):
    """Each asks the same kernel for another amount of shared memory."""
    problems = [gpu.sized(Case((80, 1, side, side), groups=1)) for side in (48, 128)]
    inputs = [case.inputs(torch.float32, gpu.device) for case in problems]
    grads = [torch.randn_like(x) for x, _ in inputs]
    expected = [gradients(*problem) for problem in zip(problems, inputs, grads, strict=True)]
    gpu.synchronize()
    failures: list[object] = []
    start = Barrier(len(problems))

    def work(case: Case, tensors: list[Tensor], grad: Tensor, expected: tuple) -> None:
        try:
            start.wait()
            with gpu.on(gpu.stream()):
                for _ in range(gpu.times(100)):
                    out, got = gradients(case, tensors, grad)
                    assert torch.equal(out, expected[0])
                    assert all(torch.equal(a, b) for a, b in zip(got, expected[1], strict=True))
        except Exception as error:
            failures.append(error)

    threads = [
        Thread(target=work, args=arguments)
        for arguments in zip(problems, inputs, grads, expected, strict=True)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures, failures


def test_does_not_synchronize(gpu: Gpu):
    inputs = FOUR_WAY.inputs(torch.float32, gpu.device, requires_grad=True)
    FOUR_WAY(*inputs).sum().backward()
    with gpu.synchronization_is_an_error():
        FOUR_WAY(*inputs).sum().backward()


@pytest.mark.parametrize("shape", [(2, 4, 37, 42), (1, 1, 100, 200), (200, 2, 32, 32)], ids=str)
def test_graph(gpu: Gpu, shape: tuple[int, int, int, int]):
    case = Case(shape=shape, groups=1)
    x, gates = case.inputs(torch.float32, gpu.device, requires_grad=True)
    grad = torch.randn_like(x)

    def both() -> tuple[Tensor, ...]:
        out = case(x, gates)
        return out, *torch.autograd.grad(out, (x, gates), grad)

    captured, replay = gpu.capture(both)
    with torch.no_grad():
        x.copy_(torch.randn_like(x))
        gates.copy_(torch.randn_like(gates))
    replay()
    assert all(torch.equal(a, b) for a, b in zip(captured, both(), strict=True))


FAILED_LAUNCH = """
    import torch, spn
    x, gates = torch.randn(1, 1, 40, 48, device="cuda"), torch.randn(1, 4, 3, 1, 40, 48, device="cuda")
    expected = spn.propagate_four_way(x, gates, normalize="abs")
    count, other, stream = torch.zeros(1, device="cuda"), torch.cuda.Stream(), torch.cuda.Stream()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.stream(stream):
        graph.capture_begin()
        try:
            torch.cuda.synchronize()
        except RuntimeError:
            print("the capture is spoilt")
        try:
            spn.propagate_four_way(x, gates, normalize="abs")
        except RuntimeError as error:
            print(f"refused: {error}")
    with torch.cuda.stream(other):
        count.add_(1)
        print("another operator runs")
    with torch.cuda.stream(stream):
        try:
            graph.capture_end()
        except RuntimeError:
            print("the capture has failed")
    torch.cuda.synchronize()
    assert count.item() == 1
    assert torch.equal(spn.propagate_four_way(x, gates, normalize="abs"), expected)
    print("done")
"""


@pytest.mark.skipif(GPU.stands_in, reason="needs a launch that the device refuses")
def test_a_failed_launch_is_reported_once():
    """Not again by the next operator of torch, which asks for the last error. A launch into a spoilt capture fails."""
    root = Path(spn.__file__).parents[1]
    process = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(FAILED_LAUNCH)], capture_output=True, text=True, cwd=root
    )
    assert process.returncode == 0, process.stdout + process.stderr
    lines = process.stdout.splitlines()
    assert any(line.startswith("refused: spn::propagate: ") for line in lines), lines
    assert "another operator runs" in lines and lines[-1] == "done", lines


# ---- What torch does with the operators -------------------------------------------------------------------------


@pytest.mark.parametrize("operator", ["propagate", "propagate_backward"])
def test_opcheck(gpu: Gpu, operator: str):
    x, gates = (t.requires_grad_() for t in Case(shape=(1, 2, 5, 6), groups=2).inputs(device=gpu.device))
    options = ("four_way", "abs", "max")
    if operator == "propagate":
        results = torch.library.opcheck(propagate, (x, gates, None, *options, True, True))
    else:
        out, winner, checkpoints = propagate(x, gates, None, *options, True, True)
        grad = torch.ones_like(out).requires_grad_()
        arguments = (grad, x, gates, None, winner, checkpoints.detach(), *options, True, True, False)
        results = torch.library.opcheck(propagate_backward, arguments)
    assert set(results.values()) == {"SUCCESS"}


@pytest.mark.parametrize("mode", ["default", "reduce-overhead"])
def test_compile(gpu: Gpu, mode: str):
    """Between other operators, both passes, and again on other values, which a recorded graph has to take in."""

    def network(x: Tensor, gates: Tensor) -> Tensor:
        return 2 * spn.propagate_four_way(3 * x, gates, normalize="abs")

    compiled = torch.compile(network, fullgraph=True, mode=mode)
    for seed in range(3):
        inputs = FOUR_WAY.inputs(torch.float32, gpu.device, seed=seed)
        grad = torch.randn_like(inputs[0])
        results = []
        for call in (network, compiled):
            torch.compiler.cudagraph_mark_step_begin()
            leaves = [t.detach().requires_grad_() for t in inputs]
            out = call(*leaves)
            grads = torch.autograd.grad(out, leaves, grad)
            results.append([t.detach().clone() for t in (out, *grads)])
        for got, wanted in zip(*reversed(results), strict=True):
            assert_close(got, wanted)
    torch.compiler.reset()


def test_autocast(gpu: Gpu):
    x, gates = FOUR_WAY.inputs(torch.float32, gpu.device)
    with torch.autocast(gpu.device, torch.bfloat16):
        out = FOUR_WAY(x, gates)
    assert out.dtype == torch.bfloat16
    assert torch.equal(out, FOUR_WAY(x.bfloat16(), gates.bfloat16()))


# ---- Memory -----------------------------------------------------------------------------------------------------


def bytes_of(*tensors: Tensor) -> int:
    return sum(t.numel() * t.element_size() for t in tensors)


# Streamed, on chip, few planes, one sweep.
MEMORY_CASES = [
    (Case((100, 1, 256, 256), groups=1), torch.float32),
    (Case((100, 1, 256, 256), groups=1), torch.bfloat16),
    (Case((200, 1, 128, 128), groups=1), torch.float32),
    (Case((1, 8, 256, 256), groups=8), torch.float32),
    (Case((100, 1, 256, 256), groups=1, direction="left_to_right"), torch.bfloat16),
]


def workspace_of(case: Case, out: Tensor) -> int:
    """The most that sweeps may take: a plane each, in the state's dtype. One sweep alone needs none."""
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
    """Beside its inputs and result a call keeps line 16, 32, ... of each sweep, and who won."""
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
    """Parts of sums take no more than x in float32, or 32 MB."""
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
        # More values of x than 2^31: as lines and as columns, and as channels that share gates.
        (Case((17, 1, 16384, 8192), 1, direction="top_to_bottom"), True, 60),
        (Case((17, 1, 16384, 8192), 1, direction="right_to_left"), False, 30),
        (Case((1, 70, 4096, 8192), 1), False, 25),
        # More gates.
        (Case((70, 1, 1600, 1600), 1), True, 20),
    ],
    ids=str,
)
def test_more_than_two_to_the_31_values(gpu: Gpu, case: Case, backward: bool, gigabytes: float):
    """The last plane is the one beyond: alone it has to give the same."""
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
