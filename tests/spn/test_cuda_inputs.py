"""Inputs of the CUDA kernels on a GPU: memory layouts, missing inputs and devices."""

from __future__ import annotations

import pytest
import torch
from cuda_calls import FOUR_WAY, needs_kernels, options_of, propagate, propagate_backward
from gpu_or_stand_in import Gpu
from operator_cases import MERGES, WANTED, Case, assert_close, gradients
from torch import Tensor

import spn

pytestmark = needs_kernels

# ---- Layouts ----------------------------------------------------------------------------------------------------


def at_offset(t: Tensor, count: int) -> Tensor:
    """Return the same values, at an offset of `count` values in a new storage."""
    return torch.cat([t.new_zeros(count), t.flatten()])[count:].view(t.shape)


@pytest.mark.parametrize("which", ["x", "gates", "source", "grad", "all"])
@pytest.mark.parametrize(
    ("dtype", "count"),
    [(torch.float64, 1), (torch.float32, 1), (torch.float32, 2), *((torch.bfloat16, n) for n in (1, 2, 4))],
    ids=str,
)
@pytest.mark.parametrize("direction", ["four_way", "right_to_left"])
def test_storage_offsets(gpu: Gpu, direction: str, dtype: torch.dtype, count: int, which: str):
    """Accesses of 16, 8 or 4 bytes require that every array is aligned accordingly."""
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
