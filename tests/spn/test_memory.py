"""Bytes that a call saves for its backward pass."""

import pytest
import torch
from operator_cases import DEVICES, DIRECTIONS, MERGES, Case

import spn


def saved_by(call):
    """Return the result of a call, and the tensors that autograd saves during it."""
    saved = []

    def pack(tensor):
        saved.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        out = call()
    return out, saved


def bytes_of(tensors):
    return sum(t.numel() * t.element_size() for t in tensors)


def expected_bytes(case, dtype):
    """Return the bytes saved besides the inputs: lines 16, 32, ... of each state; for "max", one byte per element."""
    n, c, height, width = case.shape
    state = 8 if dtype == torch.float64 else 4
    values = 0
    for direction in DIRECTIONS if case.direction == "four_way" else [case.direction]:
        lines, positions = (width, height) if direction in DIRECTIONS[:2] else (height, width)
        values += (lines - 1) // 16 * positions
    winner = n * c * height * width if case.direction == "four_way" and case.merge == "max" else 0
    return n * c * values * state + winner


CASES = [
    Case((2, 4, height, width), 2, source_groups, direction, "abs", merge)
    for height, width in [(1, 1), (16, 17), (33, 64), (40, 130)]
    for source_groups in (0, 2)
    for direction, merge in [
        *(("four_way", m) for m in MERGES),
        ("left_to_right", None),
        ("bottom_to_top", None),
    ]
]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_training_call_saves_its_inputs_uncopied_and_what_the_docstring_says(case, dtype, device):
    inputs = case.inputs(dtype, device, requires_grad=True)
    out, saved = saved_by(lambda: case(*inputs))
    addresses = {t.untyped_storage().data_ptr() for t in inputs}
    own = [t for t in saved if t.untyped_storage().data_ptr() not in addresses or t.numel() == 0]
    kept_inputs = [t for t in saved if t.numel() and t.untyped_storage().data_ptr() in addresses]
    assert bytes_of(kept_inputs) == bytes_of(inputs), "each input is saved once, without a copy"
    assert bytes_of(own) == expected_bytes(case, dtype)
    assert not any(
        t.untyped_storage().data_ptr() == out.untyped_storage().data_ptr() for t in saved if t.numel()
    )
    # The bound in the docstrings: 1/16 of x's elements per sweep.
    sweeps = 4 if case.direction == "four_way" else 1
    states = [t for t in own if t.dtype != torch.uint8]
    assert sum(t.numel() for t in states) <= sweeps * inputs[0].numel() / 16


def test_saved_memory_of_a_large_map():
    """Four-way "max", float32, two planes of 512 x 512: x 2 MiB, gates 24 MiB, all other saved tensors below 1 MiB."""
    case = Case((1, 2, 512, 512), 2, 0, "four_way", "abs", "max")
    inputs = case.inputs(torch.float32, requires_grad=True)
    _, saved = saved_by(lambda: case(*inputs))
    checkpoints = 2 * 4 * 31 * 512 * 4  # channels, sweeps, saved lines of 512, positions, bytes
    winner = 2 * 512 * 512
    assert bytes_of(saved) == (2 + 24) * 2**20 + checkpoints + winner


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(
    "make", [lambda t: t.transpose(-1, -2), lambda t: t[:1].expand_as(t), lambda t: t[..., ::2]]
)
def test_non_contiguous_inputs_are_kept_as_they_are(make, device):
    case = Case((2, 4, 20, 40))
    x, gates = (make(t) for t in case.inputs(torch.float32, device))
    gates.requires_grad_()
    _, saved = saved_by(lambda: case(x, gates))
    storages = [t.untyped_storage().data_ptr() for t in saved]
    assert x.untyped_storage().data_ptr() in storages and gates.untyped_storage().data_ptr() in storages
    own = [t for t in saved if t.untyped_storage().data_ptr() not in (x.data_ptr(), gates.data_ptr())]
    assert bytes_of(own) == expected_bytes(case.with_(shape=tuple(x.shape)), torch.float32)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize(
    "case", [Case((2, 4, 33, 40)), Case((2, 4, 33, 40), direction="left_to_right")], ids=str
)
def test_a_call_without_gradients_keeps_and_computes_nothing_more(case, mode, device, monkeypatch):
    inputs = case.inputs(torch.float32, device, requires_grad=True)
    results = []
    original = spn._ops.propagate
    monkeypatch.setattr(spn._ops, "propagate", lambda *a: results.append(original(*a)) or results[-1])
    with mode():
        _, saved = saved_by(lambda: case(*inputs))
    case(*(t.detach() for t in inputs))
    assert not saved and len(results) == 2
    assert all(winner.numel() == 0 and checkpoints.numel() == 0 for _, winner, checkpoints in results)


@pytest.mark.parametrize("device", DEVICES)
def test_the_graph_is_freed_by_the_backward_pass(device):
    inputs = Case().inputs(torch.float32, device, requires_grad=True)
    out = Case()(*inputs).sum()
    out.backward()
    with pytest.raises(RuntimeError, match="second time"):
        out.backward()
