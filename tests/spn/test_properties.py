"""Properties of propagation for any map, gates and size, tested for the operator and for the specification."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from operator_cases import (
    BACKENDS,
    DEVICES,
    DIRECTIONS,
    DTYPES,
    MERGES,
    NORMALIZATIONS,
    Case,
    assert_close,
    cases,
    gradients,
    kernels_on,
)

import spn

pytestmark = [pytest.mark.parametrize("device", DEVICES), pytest.mark.parametrize("api", BACKENDS)]

LINEAR_MERGES = ("mean", "sum", None)
# A flip or a transpose, the new direction for each direction, and whether taps -1 and +1 are swapped, as they are
# if the axis across the sweep is reversed.
SYMMETRIES = {
    "flip left-right": (
        lambda t: t.flip(-1),
        ("right_to_left", "left_to_right", "top_to_bottom", "bottom_to_top"),
        (False, False, True, True),
    ),
    "flip up-down": (
        lambda t: t.flip(-2),
        ("left_to_right", "right_to_left", "bottom_to_top", "top_to_bottom"),
        (True, True, False, False),
    ),
    "transpose": (
        lambda t: t.transpose(-1, -2),
        ("top_to_bottom", "bottom_to_top", "left_to_right", "right_to_left"),
        (False, False, False, False),
    ),
    "rotate by 180 degrees": (
        lambda t: t.flip(-1, -2),
        ("right_to_left", "left_to_right", "bottom_to_top", "top_to_bottom"),
        (True, True, True, True),
    ),
}


def along(direction):
    """Return the axis of the sweep and the index of its first line."""
    return (-1 if direction in DIRECTIONS[:2] else -2), (-1 if direction in DIRECTIONS[1::2] else 0)


# ---- Fixed points and bounds -----------------------------------------------------------------------


@given(
    case=cases(forms=("spn",), merges=("max", "mean", None)),
    value=st.floats(-1e3, 1e3, width=16),
    data=st.data(),
)
def test_a_constant_map_is_a_fixed_point_of_any_gates(api, device, case, value, data):
    dtype = data.draw(st.sampled_from(DTYPES))
    _, gates = case.inputs(dtype, device)
    gates = gates * data.draw(st.sampled_from([0.0, 1.0, 100.0]))
    exact = api is spn and kernels_on(device)
    if not exact and case.normalize == "none":
        gates = gates.clamp(
            -0.3, 0.3
        )  # (1 - sum p) c + sum p c is rounded; large gates would amplify the error
    x = torch.full(case.shape, value, dtype=dtype, device=device)
    h = case(x, gates, api=api)
    if exact:
        assert bool((h == value).all()), "to the last bit"
    else:
        torch.testing.assert_close(
            h, torch.full_like(h, value), rtol=1e-2 if dtype == torch.bfloat16 else 2e-3, atol=0
        )


@given(case=cases(forms=("spn",), merges=("max", "mean", None)), data=st.data())
def test_non_negative_weights_of_sum_at_most_one_keep_h_within_the_range_of_x(api, device, case, data):
    x, gates = case.inputs(torch.float64, device, seed=data.draw(st.integers(0, 99)))
    h = case(x, gates if case.normalize == "sigmoid" else gates.abs(), api=api)
    low, high = x.amin((-1, -2)), x.amax((-1, -2))
    if case.direction == "four_way" and case.merge is None:
        low, high = low.unsqueeze(1), high.unsqueeze(1)
    assert (h.amin((-1, -2)) >= low - 1e-12).all() and (h.amax((-1, -2)) <= high + 1e-12).all()


@given(case=cases(forms=("spn",), normalizations=("none", "abs", "unit")), data=st.data())
def test_zero_gates_are_the_identity(api, device, case, data):
    dtype = data.draw(st.sampled_from(DTYPES))
    x, gates = case.inputs(dtype, device)
    h = case(x, torch.zeros_like(gates), api=api)
    if case.direction != "four_way" or case.merge in ("max", "mean"):
        assert torch.equal(h, x)
    elif case.merge == "sum":
        assert torch.equal(h, 4 * x)
    else:
        assert torch.equal(h, x.unsqueeze(1).expand_as(h))


@given(case=cases(forms=("source",), normalizations=("none", "abs", "unit")))
def test_zero_gates_in_source_form_scale_by_lambda(api, device, case):
    x, gates, source = case.with_(merge=None).inputs(torch.float64, device)
    h = case.with_(merge=None)(x, torch.zeros_like(gates), source, api=api)
    lambdas = source.repeat_interleave(case.shape[1] // case.source_groups, dim=-3)
    assert_close(h, lambdas * (x.unsqueeze(1) if case.direction == "four_way" else x))


@pytest.mark.parametrize("direction", DIRECTIONS)
@given(case=cases(forms=("spn",), normalizations=("none",), restarts=(None,)))
def test_a_middle_tap_of_one_copies_the_first_line_along(api, device, direction, case):
    case = case.with_(direction=direction)
    _, gates = case.inputs(torch.float32, device)
    gates = torch.zeros_like(gates)
    gates[:, 1] = 1.0
    x = torch.randint(-99, 99, case.shape, device=device).float()  # differences of integers are exact
    axis, first = along(direction)
    expected = x.select(axis, first).unsqueeze(axis).expand_as(x)
    assert torch.equal(case(x, gates, api=api), expected)


# ---- Linearity and the adjoint ---------------------------------------------------------------------


@given(case=cases(merges=LINEAR_MERGES), a=st.floats(-3, 3), b=st.floats(-3, 3))
def test_linear_in_x(api, device, case, a, b):
    x, gates, *source = case.inputs(torch.float64, device)
    y = torch.randn_like(x)
    combined = case(a * x + b * y, gates, *source, api=api)
    separate = a * case(x, gates, *source, api=api) + b * case(y, gates, *source, api=api)
    assert (combined - separate).abs().max() < 1e-11


@given(case=cases(merges=LINEAR_MERGES))
def test_adjoint(api, device, case):
    """<h(x), y> == <x, h*(y)>, with h* the gradient for x."""
    inputs = case.inputs(torch.float64, device)
    y = torch.randn_like(case(*inputs, api=api))
    h, (adjoint, *_) = gradients(case, inputs, y, api=api)
    left, right = (h * y).sum(), (inputs[0] * adjoint).sum()
    assert (left - right).abs() <= 1e-12 * (h.norm() * y.norm() + 1)


@given(case=cases(merges=(None,)))
def test_gradients_of_gates_and_source_obey_the_product_rule(api, device, case):
    """In source form h is linear in (x, lambda): <lambda, dL/dlambda> == <x, dL/dx> == <h, dL/dh>."""
    case = case.with_(source_groups=case.source_groups or 1)
    inputs = case.inputs(torch.float64, device)
    y = torch.randn_like(case(*inputs, api=api))
    h, (grad_x, _, grad_source) = gradients(case, inputs, y, api=api)
    scale = 1e-12 * (h.norm() * y.norm() + 1)
    assert ((inputs[0] * grad_x).sum() - (h * y).sum()).abs() <= scale
    assert ((inputs[2] * grad_source).sum() - (h * y).sum()).abs() <= scale


# ---- Spread of information -------------------------------------------------------------------------


@pytest.mark.parametrize("direction", DIRECTIONS)
@given(case=cases(forms=("source",)), data=st.data())
def test_an_impulse_spreads_in_a_cone(api, device, direction, case, data):
    """An impulse at (t, j) reaches positions j - s .. j + s of line t + s, up to the next restart."""
    case = case.with_(direction=direction)
    height, width = case.shape[2:]
    _, gates, source = case.inputs(torch.float64, device)
    row, column = data.draw(st.integers(0, height - 1)), data.draw(st.integers(0, width - 1))
    x = torch.zeros(case.shape, dtype=torch.float64, device=device)
    x[..., row, column] = 1.0
    h = case(x, gates.abs() + 0.05, source, api=api)
    rows = torch.arange(height, device=device)[:, None] - row
    columns = torch.arange(width, device=device)[None, :] - column
    steps, offset = (columns, rows) if direction in DIRECTIONS[:2] else (rows, columns)
    steps = -steps if direction in DIRECTIONS[1::2] else steps
    lines, line = (width, column) if direction in DIRECTIONS[:2] else (height, row)
    line = lines - 1 - line if direction in DIRECTIONS[1::2] else line
    every = case.restart_every or lines
    cone = (offset.abs() <= steps) & (line + steps < (line // every + 1) * every)
    assert (h[..., ~cone] == 0).all()
    assert (h[..., cone] > 0).all()


@pytest.mark.parametrize("symmetry", SYMMETRIES)
@given(case=cases())
def test_flips_and_transposes_equal_changes_of_direction(api, device, symmetry, case):
    move, becomes, swaps_taps = SYMMETRIES[symmetry]
    case = case.with_(direction="four_way", merge=None)
    x, gates, *source = case.inputs(torch.float64, device)
    h = case(x, gates, *source, api=api)
    for d, direction in enumerate(becomes):
        moved_gates = move(gates[:, d].flip(1) if swaps_taps[d] else gates[:, d])
        moved_source = [move(s[:, d]) for s in source]
        one = case.with_(direction=direction)
        assert_close(one(move(x), moved_gates, *moved_source, api=api), move(h[:, d]), what=direction)


@given(case=cases(merges=("max", "mean", "sum")))
def test_the_merged_map_does_not_depend_on_orientation(api, device, case):
    case = case.with_(direction="four_way")
    x, gates, *source = case.inputs(torch.float64, device)
    for move, becomes, swaps_taps in SYMMETRIES.values():
        order = [becomes.index(d) for d in DIRECTIONS]
        moved_gates = torch.stack([gates[:, d].flip(1) if swaps_taps[d] else gates[:, d] for d in order], 1)
        moved = case(move(x), move(moved_gates), *(move(s[:, order]) for s in source), api=api)
        assert_close(moved, move(case(x, gates, *source, api=api)))


@given(case=cases())
def test_samples_and_channels_do_not_influence_each_other(api, device, case):
    case = case.with_(merge=None)
    inputs = case.inputs(torch.float32, device)
    h = case(*inputs, api=api)
    n, c = case.shape[0] - 1, case.shape[1] - 1
    x, gates, *source = (t[n:] for t in inputs)
    alone = case(x[:, c:], gates[..., -1:, :, :], *(s[..., -1:, :, :] for s in source), api=api)
    assert_close(alone, h[n:, ..., c:, :, :])


# ---- Equivalent calls ------------------------------------------------------------------------------


@given(case=cases())
def test_shared_gates_and_source_equal_repeated_ones(api, device, case):
    channels = case.shape[1]
    inputs = case.inputs(torch.float64, device)
    repeated = [t.repeat_interleave(channels // t.shape[-3], dim=-3) for t in inputs]
    out, grads = gradients(case, inputs, api=api)
    expected, expected_grads = gradients(case, repeated, api=api)
    assert_close(out, expected)
    for grad, expected_grad in zip(grads, expected_grads, strict=True):
        groups = grad.shape[-3]
        assert_close(grad, expected_grad.unflatten(-3, (groups, channels // groups)).sum(-3))


@given(case=cases(normalizations=NORMALIZATIONS, merges=MERGES))
def test_fused_normalization_equals_normalize_gates(api, device, case):
    x, gates, *source = case.inputs(torch.float64, device)
    direction = None if case.direction == "four_way" else case.direction
    weights = api.normalize_gates(gates, case.normalize, direction)
    unfused = case.with_(normalize="none")(x, weights, *source, api=api)
    assert_close(unfused, case(x, gates, *source, api=api))


@pytest.mark.parametrize("direction", DIRECTIONS)
@given(case=cases(forms=("spn",)))
def test_spn_form_equals_source_form_with_lambda_one_minus_sum(api, device, direction, case):
    case = case.with_(direction=direction, groups=case.shape[1])
    x, gates = case.inputs(torch.float64, device)
    weights = api.normalize_gates(gates, case.normalize, direction)
    exists = spn.reference.existing_taps(*case.shape[2:], direction, gates, case.restart_every).unsqueeze(1)
    rest = 1 - (weights * exists).sum(1)
    expected = case.with_(normalize="none")(x, weights, rest, api=api)
    assert_close(case(x, gates, api=api), expected)


@given(case=cases(normalizations=("abs", "unit", "sigmoid")), data=st.data())
def test_normalized_weights_are_stable(api, device, case, data):
    _, gates, *_ = case.inputs(torch.float64, device, seed=data.draw(st.integers(0, 99)))
    gates = gates * 10.0 ** data.draw(st.integers(-6, 6))
    direction = None if case.direction == "four_way" else case.direction
    weights = api.normalize_gates(gates, case.normalize, direction)
    total = weights.abs().sum(-4)
    assert (total <= 1 + 1e-12).all()
    if case.normalize == "sigmoid":
        assert (weights >= 0).all()
        exists = torch.stack([spn.reference.existing_taps(*case.shape[2:], d, gates) for d in DIRECTIONS])
        exists = exists if direction is None else exists[DIRECTIONS.index(direction)]
        has_any = exists.any(-3).unsqueeze(-3).expand_as(total)
        torch.testing.assert_close(total, has_any.double(), rtol=0, atol=1e-12)


def test_long_sweeps_of_normalized_gates_do_not_grow(api, device):
    for normalize in ("abs", "unit", "sigmoid"):
        case = Case((1, 1, 3, 700), 1, 0, "left_to_right", normalize)
        x, gates = case.inputs(torch.float32, device)
        h = case(x, gates.abs() * 10, api=api)
        assert h.abs().max() <= x.abs().max() * (1 + 1e-5)
