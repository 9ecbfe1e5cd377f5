"""restart_every: sweeps in independent pieces."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from operator_cases import DEVICES, DIRECTIONS, MERGES, Case, assert_close, gradients
from test_propagate import assert_equals_reference

import spn

pytestmark = pytest.mark.parametrize("device", DEVICES)

# One plane, several small planes, and rows and columns that cross blocks of 16 and of 64.
SHAPES = [(1, 1, 40, 70), (2, 8, 9, 33), (1, 2, 150, 21)]
EVERY = [1, 2, 3, 8, 16, 24]


def pieces_along(tensor: torch.Tensor, direction: str, every: int) -> list[torch.Tensor]:
    """Return the pieces of a map in the order of the sweep; the last piece may be shorter."""
    along = -1 if direction in DIRECTIONS[:2] else -2
    if direction in DIRECTIONS[::2]:
        return list(tensor.split(every, along))
    return [piece.flip(along) for piece in tensor.flip(along).split(every, along)]


def join(pieces: list[torch.Tensor], direction: str) -> torch.Tensor:
    along = -1 if direction in DIRECTIONS[:2] else -2
    return torch.cat(pieces if direction in DIRECTIONS[::2] else pieces[::-1], along)


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("every", EVERY)
@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: "x".join(map(str, shape)))
@pytest.mark.parametrize("source_groups", [0, 1])
def test_a_sweep_equals_its_pieces_swept_alone(shape, every, direction, source_groups, device):
    case = Case(shape, 1, source_groups, direction, "sigmoid")
    inputs = case.inputs(torch.float64, device)
    pieces = zip(*(pieces_along(t, direction, every) for t in inputs), strict=True)
    grad = torch.randn(shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64).to(device)
    alone = [
        gradients(case, piece, g)
        for piece, g in zip(pieces, pieces_along(grad, direction, every), strict=True)
    ]
    out, grads = gradients(case.with_(restart_every=every), inputs, grad)
    assert_close(out, join([o for o, _ in alone], direction))
    for i, name in enumerate(("x", "gates", "source")[: len(inputs)]):
        assert_close(grads[i], join([g[i] for _, g in alone], direction), what=name)


@pytest.mark.parametrize("merge", MERGES)
@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("every", [2, 5, 16])
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16], ids=str)
def test_four_way_equals_the_reference(dtype, every, groups, merge, device):
    for n, _, height, width in SHAPES:
        case = Case((n, 2, height, width), groups, 2, "four_way", "abs", merge, every)
        assert_equals_reference(case, dtype, device)


@pytest.mark.parametrize("every", [40, 70, np.int64(1000), 2**70])
def test_a_restart_beyond_the_last_line_has_no_effect(every, device):
    case = Case((1, 2, 40, 40), 1, 0)
    inputs = case.inputs(torch.float32, device)
    assert torch.equal(case.with_(restart_every=every)(*inputs), case(*inputs))


def test_a_restart_on_every_line_returns_x(device):
    case = Case((1, 2, 6, 40), 1, 0, restart_every=1)
    x, gates = case.inputs(torch.float32, device)
    out, (grad_x, grad_gates) = gradients(case, (x, gates), torch.ones_like(x))
    assert torch.equal(out, x)
    assert torch.equal(grad_x, torch.ones_like(x))
    assert not grad_gates.any()


@pytest.mark.parametrize("poison", [float("nan"), float("inf")])
@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("shape", [(1, 1, 40, 40), (1, 8, 12, 12)], ids=["plane", "set"])
def test_nan_and_infinity_stay_in_one_piece(shape, direction, poison, device):
    case = Case(shape, 1, 0, direction, "abs", restart_every=4)
    x, gates = case.inputs(torch.float32, device)
    clean, clean_grads = gradients(case, (x, gates), torch.ones_like(x))
    x[..., 5, 5] = poison
    out, grads = gradients(case, (x, gates), torch.ones_like(x))
    elsewhere = torch.ones(shape[2:], dtype=torch.bool, device=device)
    along = -1 if direction in DIRECTIONS[:2] else -2
    elsewhere.narrow(along, 4, 4).fill_(False)  # from both sides of 12 or 40, line 5 is in this piece
    assert torch.equal(out[..., elsewhere], clean[..., elsewhere])
    for grad, before in zip(grads, clean_grads, strict=True):
        assert torch.equal(grad[..., elsewhere], before[..., elsewhere])


@pytest.mark.parametrize("direction", ["four_way", *DIRECTIONS])
def test_results_are_the_same_bits_for_any_number_of_threads(direction, device):
    case = Case((1, 1, 96, 130), 1, 0, direction, "abs", None if direction == "four_way" else "max", 8)
    inputs = case.inputs(torch.float32, device)
    threads = torch.get_num_threads()
    found = []
    try:
        for count in (1, 2, 5):
            torch.set_num_threads(count)
            out, grads = gradients(case, inputs)
            found.append([out, *grads])
    finally:
        torch.set_num_threads(threads)
    for other in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found[0], other, strict=True))


class TestErrors:
    @pytest.mark.parametrize("value", [0, -3])
    def test_value(self, value, device):
        with pytest.raises(ValueError, match=rf"restart_every must be at least 1 line, or None, got {value}"):
            Case(restart_every=value)(*Case().inputs(device=device))
        with pytest.raises(ValueError, match="restart_every"):
            spn.FourWayPropagate(restart_every=value)

    @pytest.mark.parametrize("value, name", [(2.0, "float"), ("2", "str"), (True, "bool")])
    def test_type(self, value, name, device):
        case = Case(direction="left_to_right", restart_every=value)
        with pytest.raises(TypeError, match=f"restart_every must be an int or None, got {name}"):
            case(*case.inputs(device=device))
        with pytest.raises(TypeError, match="restart_every"):
            spn.Propagate("left_to_right", restart_every=value)
