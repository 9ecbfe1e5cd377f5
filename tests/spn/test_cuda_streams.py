"""The CUDA kernels on a GPU: streams, threads and graphs."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path
from threading import Barrier, Thread

import pytest
import torch
from cuda_calls import FOUR_WAY, needs_kernels
from gpu_or_stand_in import GPU, Gpu
from operator_cases import Case, gradients
from torch import Tensor

import spn

pytestmark = needs_kernels


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
    """Both passes are queued on the current stream, not on the default stream."""
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


def test_freed_memory_is_not_reused_while_the_call_runs(gpu: Gpu):
    """Workspace and intermediate results belong to the call's stream, so another stream must not overwrite them."""
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
        # Allocate sizes that the passes may have used, and free them immediately.
        for megabytes in (1, 2, 4, 8, 16, 32):
            torch.full((megabytes << 18,), float("nan"), device=gpu.device)
        stream.synchronize()
        assert torch.equal(out, expected[0])
        assert all(torch.equal(a, b) for a, b in zip(grads, expected[1], strict=True))


def test_threads_do_not_disturb_each_other(gpu: Gpu):
    """Each thread requests a different amount of shared memory for the same kernel."""
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
            print("the capture is invalid")
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


@pytest.mark.skipif(GPU.stands_in, reason="needs a kernel launch that the device refuses")
def test_a_failed_launch_is_reported_once():
    """The next torch operator, which reads the last error, must not report it again.

    The launch fails because it belongs to an invalid capture.
    """
    root = Path(spn.__file__).parents[1]
    process = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(FAILED_LAUNCH)], capture_output=True, text=True, cwd=root
    )
    assert process.returncode == 0, process.stdout + process.stderr
    lines = process.stdout.splitlines()
    assert any(line.startswith("refused: spn::propagate: ") for line in lines), lines
    assert "another operator runs" in lines and lines[-1] == "done", lines
