"""First and second derivatives: finite differences, ties, and limits of the normalisation rules."""

import pytest
import torch
from operator_cases import (
    BACKENDS,
    DEVICES,
    DIRECTIONS,
    MERGES,
    NORMALIZATIONS,
    Case,
    gradients,
    relative_rms,
)
from torch.autograd import gradcheck, gradgradcheck

import spn

pytestmark = pytest.mark.parametrize("device", DEVICES)

FOUR_WAY = [
    Case((1, 4, 2, 3), groups, source_groups, "four_way", normalize, merge)
    for source_groups in (0, 2)
    for normalize in NORMALIZATIONS
    for merge in MERGES
    for groups in (1, 2, 4)
]
ONE_DIRECTION = [
    Case((1, 4, 3, 3), groups, source_groups, DIRECTIONS[(i + groups) % 4], normalize)
    for i, normalize in enumerate(NORMALIZATIONS)
    for source_groups in (0, 2)
    for groups in (1, 2, 4)
]
# One channel and every pair of second derivatives: each direction alone, and two merges.
SECOND_ORDER = [
    Case((1, 1, 3, 3), 1, source_groups, direction, normalize)
    for source_groups in (0, 1)
    for direction in DIRECTIONS
    for normalize in NORMALIZATIONS
] + [Case((1, 1, 2, 2), 1), Case((1, 1, 2, 2), 1, 1, merge=None)]


def smooth_inputs(case, device="cpu"):
    """Return inputs away from kinks: sum|g| = 1 and g = 0 of "abs" and "unit", and ties of "max"."""
    for seed in range(200):
        x, gates, *source = case.inputs(torch.float64, device, seed=seed)
        gates = gates + 0.02 * gates.sign()
        clear_of_one = ((gates.abs().sum(-4) - 1).abs() > 1e-3).all()
        if not clear_of_one:
            gates = gates * 1.01
        if case.direction == "four_way" and case.merge == "max":
            hidden = case.with_(merge=None)(x, gates, *source)
            best, second = hidden.topk(2, dim=1).values.unbind(1)
            # In SPN form, the first lines of two sweeps both equal x. Derivatives agree at such a tie.
            if ((best - second < 1e-4) & (best != second)).any() or (
                case.source_groups and (best == second).any()
            ):
                continue
        if ((gates.abs().sum(-4) - 1).abs() > 1e-4).all():
            return [t.detach().requires_grad_() for t in (x, gates, *source)]
    raise AssertionError(f"no smooth inputs for {case}")


@pytest.mark.slow
@pytest.mark.parametrize("case", [*FOUR_WAY, *ONE_DIRECTION], ids=str)
def test_gradcheck(case, device):
    assert gradcheck(case, smooth_inputs(case, device))


@pytest.mark.slow
@pytest.mark.parametrize("case", [*FOUR_WAY, *ONE_DIRECTION], ids=str)
def test_gradgradcheck_along_random_directions(case, device):
    assert gradgradcheck(case, smooth_inputs(case, device), fast_mode=True)


@pytest.mark.slow
@pytest.mark.parametrize("case", SECOND_ORDER, ids=str)
def test_gradgradcheck(case, device):
    assert gradgradcheck(case, smooth_inputs(case, device))


@pytest.mark.parametrize("mode", NORMALIZATIONS)
@pytest.mark.parametrize("direction", [None, *DIRECTIONS])
def test_gradcheck_of_normalize_gates(mode, direction, device):
    raw = smooth_inputs(Case((1, 2, 2, 3), 2, direction="left_to_right", normalize=mode), device)[1]
    assert gradcheck(lambda g: spn.normalize_gates(g, mode, direction), raw)


@pytest.mark.parametrize("shape", [(1, 1, 2, 40), (1, 2, 35, 2)])
@pytest.mark.parametrize("source_groups", [0, 1])
def test_gradcheck_over_several_blocks_of_lines(shape, source_groups, device):
    case = Case(shape, 1, source_groups, "four_way", "abs", "mean")
    assert gradcheck(case, smooth_inputs(case, device), fast_mode=True)
    assert gradgradcheck(case, smooth_inputs(case, device), fast_mode=True)


@pytest.mark.parametrize("subset", ["x", "gates", "source"])
def test_gradients_of_one_input_alone_equal_those_of_all(subset, device):
    case = Case((1, 4, 5, 6), 2, 2)
    inputs = case.inputs(torch.float64, device)
    grad = torch.randn_like(inputs[0])
    _, expected = gradients(case, inputs, grad)
    i = ("x", "gates", "source").index(subset)
    inputs[i].requires_grad_()
    case(*inputs).backward(grad)
    assert torch.equal(inputs[i].grad, expected[i])
    assert [t.grad is None for t in inputs] == [j != i for j in range(3)]


def test_third_derivatives_exist_and_equal_those_of_the_specification(device):
    case = Case((1, 2, 3, 3), 1, 1, "four_way", "abs", "sum")

    def third(api):
        leaves = case.inputs(torch.float64, device, requires_grad=True)
        value = case(*leaves, api=api).pow(3).sum()
        for _ in range(2):
            value = sum(g.pow(2).sum() for g in torch.autograd.grad(value, leaves, create_graph=True))
        return torch.autograd.grad(value, leaves)

    for actual, expected in zip(third(spn), third(spn.reference), strict=True):
        assert relative_rms(actual, expected) < 1e-10


@pytest.mark.parametrize(
    "case", [Case(), Case(source_groups=2, merge=None), Case(direction="top_to_bottom")], ids=str
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_second_derivatives_of_narrow_dtypes(case, dtype, device):
    leaves = case.inputs(dtype, device, requires_grad=True)
    first = torch.autograd.grad(case(*leaves).square().sum(), leaves, create_graph=True)
    second = torch.autograd.grad(sum(g.square().sum() for g in first), leaves)
    wide = [t.detach().double().requires_grad_() for t in leaves]
    first = torch.autograd.grad(case(*wide).square().sum(), wide, create_graph=True)
    expected = torch.autograd.grad(sum(g.square().sum() for g in first), wide)
    for actual, exact in zip(second, expected, strict=True):
        assert actual.dtype == dtype
        assert relative_rms(actual, exact) < (1e-5 if dtype == torch.float32 else 5e-2)


# ---- Ties ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("api", BACKENDS)
@pytest.mark.parametrize(
    ("lambdas", "winner"),
    [
        ((1, 1, 1, 1), 0),
        ((1, 2, 2, 2), 1),
        ((1, 1, 2, 2), 2),
        ((1, 1, 1, 2), 3),
        ((2, 1, 2, 1), 0),
        ((0, 2, 1, 2), 1),
    ],
)
@pytest.mark.parametrize("size", [1, 5, 17])
def test_a_tie_sends_the_whole_gradient_to_the_first_direction(api, lambdas, winner, size, device):
    x = torch.full((1, 1, size, size), 3.0, device=device)
    gates = torch.zeros(1, 4, 3, 1, size, size, device=device)
    source = torch.tensor(lambdas, dtype=torch.float32, device=device).reshape(1, 4, 1, 1, 1)
    grad = torch.rand_like(x)
    case = Case(x.shape, 1, 1, "four_way", "none", "max")
    h, (grad_x, grad_gates, grad_source) = gradients(
        case, [x, gates, source.repeat(1, 1, 1, size, size)], grad, api
    )
    assert (h == 3.0 * max(lambdas)).all()
    assert torch.equal(grad_x, grad * max(lambdas))
    for d in range(4):
        assert torch.equal(grad_source[:, d], 3.0 * grad if d == winner else torch.zeros_like(grad))
        assert (grad_gates[:, d] == 0).all() == (d != winner or size == 1)


@pytest.mark.parametrize("api", BACKENDS)
def test_the_gradient_of_the_maximum_reaches_exactly_the_winning_direction(api, device):
    case = Case((2, 2, 6, 20), 2, 2)
    x, gates, source = case.inputs(torch.float64, device)
    hidden = case.with_(merge=None)(x, gates, source, api=api)
    grad = torch.randn_like(x)
    only_winner = torch.zeros_like(hidden).scatter(1, hidden.argmax(1, keepdim=True), grad.unsqueeze(1))
    _, merged = gradients(case, [x, gates, source], grad, api=api)
    _, expected = gradients(case.with_(merge=None), [x, gates, source], only_winner, api=api)
    for actual, reference in zip(merged, expected, strict=True):
        assert relative_rms(actual, reference) < 1e-13


# ---- Limits of the normalisation rules -------------------------------------------------------------


EXTREMES = {
    "all zero": (0.0, 0.0, 0.0),
    "hugely negative": (-1e4, -1e4, -1e4),
    "hugely positive": (1e4, 1e4, 1e4),
    "one of each": (-1e4, 0.0, 1e4),
    "just representable": (1e-7, -1e-7, 1e-7),
}


@pytest.mark.parametrize("api", BACKENDS)
@pytest.mark.parametrize("normalize", ["abs", "unit", "sigmoid"])
@pytest.mark.parametrize("source_groups", [0, 1])
@pytest.mark.parametrize("taps", EXTREMES)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_extreme_gates_never_give_nan(api, normalize, source_groups, taps, dtype, device):
    case = Case((1, 2, 5, 18), 1, source_groups, "four_way", normalize, "max")
    inputs = case.inputs(dtype, device)
    raw = torch.tensor(EXTREMES[taps], dtype=dtype, device=device).reshape(1, 1, 3, 1, 1, 1)
    inputs[1] = raw.expand_as(inputs[1]).contiguous()
    out, grads = gradients(case, inputs, api=api)
    # "unit" multiplies by up to 1e4, so float16 gradients may overflow; only then they are not finite.
    fine = (lambda t: ~t.isnan()) if dtype == torch.float16 and normalize == "unit" else torch.isfinite
    assert out.isfinite().all() and all(fine(g).all() for g in grads)
    exact = case(*(t.double() for t in inputs), api=spn.reference)
    assert relative_rms(out, exact) < 8e-3
    if api is spn:
        leaves = [t.detach().requires_grad_() for t in inputs]
        first = torch.autograd.grad(case(*leaves).sum(), leaves, create_graph=True)
        second = torch.autograd.grad(sum(g.float().sum() for g in first), leaves, allow_unused=True)
        assert all(fine(g).all() for g in second if g is not None)


@pytest.mark.parametrize("normalize", ["abs", "unit", "sigmoid"])
def test_extreme_gates_give_no_nan_in_normalize_gates(normalize, device):
    for taps in EXTREMES.values():
        raw = (
            torch.tensor(taps, device=device)
            .reshape(1, 1, 3, 1, 1, 1)
            .repeat(1, 4, 1, 1, 3, 3)
            .requires_grad_()
        )
        weights = spn.normalize_gates(raw, normalize)
        (grad,) = torch.autograd.grad(weights.square().sum(), raw)
        assert weights.isfinite().all() and grad.isfinite().all()


@pytest.mark.parametrize("api", BACKENDS)
@pytest.mark.parametrize("merge", ["max", "mean", "sum"])
def test_a_nan_in_the_map_is_not_hidden_by_the_merge(api, merge, device):
    case = Case((1, 1, 4, 4), 1, 0, "four_way", "none", merge)
    x, gates = case.inputs(torch.float32, device)
    x[0, 0, 2, 1] = float("nan")
    h = case(x, torch.zeros_like(gates), api=api)
    assert h[0, 0, 2, 1].isnan()
