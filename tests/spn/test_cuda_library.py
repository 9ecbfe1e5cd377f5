"""The CUDA kernels on a GPU under opcheck, torch.compile and autocast."""

from __future__ import annotations

import pytest
import torch
from cuda_calls import FOUR_WAY, needs_kernels, propagate, propagate_backward
from gpu_or_stand_in import Gpu
from operator_cases import Case, assert_close
from torch import Tensor

import spn

pytestmark = needs_kernels


@pytest.mark.slow
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
    """Compile both passes between other operators and call them again on new values, as a recorded graph must allow."""

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
