"""Small maps: on a CPU, one plane per lane of a vector register is processed at the same time."""

import pytest
import torch
from operator_cases import DEVICES, Case, gradients
from test_propagate import assert_equals_reference

# Complete and incomplete sets of 2 to 16 planes: one channel group per plane, groups within a set, groups of several
# sets; sums over the source's groups within a set, over several sets, and across the groups of the gates.
GROUPED = [
    Case((1, 40, 7, 7), 40, 0),
    Case((1, 40, 7, 7), 40, 40, merge="sum"),
    Case((1, 40, 7, 7), 40, 1, merge="sum"),
    Case((3, 5, 9, 6), 5, 5, normalize="sigmoid"),
    Case((2, 24, 6, 10), 8, 0),
    Case((2, 24, 6, 10), 12, 12, merge=None),
    Case((2, 24, 6, 10), 4, 24, normalize="unit"),
    Case((2, 36, 5, 9), 2, 0),
    Case((2, 36, 5, 9), 2, 2, normalize="sigmoid", merge="mean"),
    Case((2, 36, 5, 9), 1, 36, normalize="none"),
    Case((2, 36, 5, 9), 1, 4),
    Case((1, 70, 18, 33), 1, 1),
    Case((1, 19, 40, 2), 19, 19, "left_to_right"),
    Case((1, 19, 2, 40), 19, 0, "right_to_left"),
    Case((1, 19, 33, 17), 1, 0, "bottom_to_top"),
]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("case", GROUPED, ids=str)
def test_planes_in_any_groups_equal_the_reference(case, dtype, device):
    assert_equals_reference(case, dtype, device)


@pytest.mark.parametrize("shape", [(1, 16, 64, 64), (1, 16, 65, 64)])
def test_maps_around_the_largest_small_one_equal_the_reference(shape):
    assert_equals_reference(Case(shape, 16, 0), torch.float32)


@pytest.mark.parametrize("groups", [32, 1])
@pytest.mark.parametrize("poison", [float("nan"), float("inf")])
def test_nan_and_infinity_stay_in_one_plane(groups, poison):
    case = Case((1, 32, 7, 9), groups, 0)
    x, gates = case.inputs(torch.float32)
    x[0, 5, 3, 3] = poison
    if groups > 1:
        gates[0, :, :, 20] = poison
    out, (grad_x, _) = gradients(case, (x, gates))
    for values in (out, grad_x):
        finite = values[0].isfinite().flatten(1).all(1)
        assert finite.sum() >= 30, "other planes must stay finite"
    assert not out[0, 5].isfinite().all()


@pytest.mark.parametrize("normalize", ["abs", "sigmoid"])
def test_a_plane_does_not_depend_on_its_neighbours(normalize):
    """Results are equal to the last bit at any position in a set of planes."""
    case = Case((1, 48, 7, 9), 48, 0, normalize=normalize)
    x, gates = case.inputs(torch.float32)
    grad = torch.randn(x.shape, generator=torch.Generator().manual_seed(2))
    out, grads = gradients(case, (x, gates), grad)
    part = slice(11, 37)
    some, some_grads = gradients(case, (x[:, part], gates[:, :, :, part]), grad[:, part])
    assert torch.equal(some, out[:, part])
    assert torch.equal(some_grads[0], grads[0][:, part])
    assert torch.equal(some_grads[1], grads[1][:, :, :, part])
