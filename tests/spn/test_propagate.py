"""The operator equals its specification for all shapes, dtypes, options and memory layouts."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from operator_cases import DEVICES, DIRECTIONS, DTYPES, NORMALIZATIONS, Case, assert_close, cases, gradients

import spn


def assert_equals_reference(case, dtype, device="cpu", seed=0):
    """Compare values and gradients with the specification in float64 on the same numbers."""
    inputs = case.inputs(dtype, device, seed=seed)
    grad = torch.randn_like(case(*inputs))
    out, grads = gradients(case, inputs, grad)
    exact = [t.double() for t in inputs]
    expected, expected_grads = gradients(case, exact, grad.double(), api=spn.reference)
    assert out.dtype == dtype and out.device == inputs[0].device and out.is_contiguous()
    assert_close(out, expected, what=f"{case} output")
    for name, value, reference in zip(("x", "gates", "source"), grads, expected_grads, strict=False):
        assert value.dtype == dtype
        assert_close(value, reference, what=f"{case} gradient of {name}")


# ---- Smoke and cardinality -----------------------------------------------------------------------


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (2, 4, 5, 7), (1, 6, 16, 33)])
class TestCardinality:
    @pytest.mark.parametrize("direction", DIRECTIONS)
    def test_one_direction(self, shape, direction, dtype, device):
        x = torch.rand(shape, dtype=dtype, device=device)
        gates = torch.rand(shape[0], 3, 1, *shape[2:], dtype=dtype, device=device)
        h = spn.propagate(x, gates, direction, normalize="sigmoid")
        assert h.shape == x.shape and h.dtype == dtype and h.device == x.device and h.isfinite().all()

    @pytest.mark.parametrize("merge", ["max", "mean", "sum", None])
    def test_four_way(self, shape, merge, dtype, device):
        x = torch.rand(shape, dtype=dtype, device=device)
        gates = torch.rand(shape[0], 4, 3, shape[1], *shape[2:], dtype=dtype, device=device)
        h = spn.propagate_four_way(x, gates, normalize="sigmoid", merge=merge)
        assert h.shape == (shape if merge else (shape[0], 4, *shape[1:]))
        assert h.dtype == dtype and h.device == x.device and h.isfinite().all()


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(
    "case",
    [Case((0, 4, 3, 5)), Case((0, 4, 3, 5), 2, 2, merge=None), Case((0, 2, 1, 1), 1, 1, "left_to_right")],
)
def test_an_empty_batch_gives_empty_results_and_gradients(case, device):
    inputs = case.inputs(torch.float32, device)
    out, grads = gradients(case, inputs)
    assert out.shape == case(*inputs, api=spn.reference).shape and out.numel() == 0
    assert [g.shape for g in grads] == [t.shape for t in inputs]


def test_a_guidance_convolution_unflattens_into_gates():
    conv_out = torch.randn(2, 12 * 3, 6, 5)
    gates = conv_out.unflatten(1, (4, 3, 3))
    # Channel (d * 3 + tap) * G + g of the convolution holds the gates of direction d, tap `tap` and group g.
    assert torch.equal(gates[:, 2, 1, 2], conv_out[:, (2 * 3 + 1) * 3 + 2])
    x = torch.randn(2, 6, 6, 5)
    expected = spn.reference.propagate_four_way(x, gates, normalize="abs")
    assert_close(spn.propagate_four_way(x, gates, normalize="abs"), expected)


# ---- Equality with the specification -------------------------------------------------------------


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", DTYPES)
@given(case=cases(), seed=st.integers(0, 9))
def test_equals_the_reference(device, dtype, case, seed):
    assert_equals_reference(case, dtype, device, seed)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("normalize", NORMALIZATIONS)
@pytest.mark.parametrize("source_groups", [0, 1])
@pytest.mark.parametrize("merge", ["max", "mean", "sum", None])
def test_every_combination_of_options_equals_the_reference(normalize, source_groups, merge, device):
    assert_equals_reference(
        Case((2, 4, 18, 35), 2, source_groups, "four_way", normalize, merge), torch.float32, device
    )


@pytest.mark.slow
@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("direction", ["four_way", *DIRECTIONS])
@pytest.mark.parametrize("shape", [(1, 1, 2, 1500), (1, 2, 1100, 3), (1, 1, 1, 2049), (1, 1, 1025, 1)])
def test_lines_over_1024_equal_the_reference(shape, direction, device):
    assert_equals_reference(Case(shape, 1, 0, direction, "abs", "max"), torch.float32, device)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("lines", [15, 16, 17, 31, 32, 33, 48, 49, 65])
@pytest.mark.parametrize("direction", DIRECTIONS)
def test_lines_around_block_boundaries_equal_the_reference(lines, direction, device):
    plane = (5, lines) if direction in DIRECTIONS[:2] else (lines, 5)
    assert_equals_reference(Case((1, 2, *plane), 1, 1, direction, "sigmoid"), torch.float64, device)


# Long columns are processed in strips of several cache lines, each with several checkpoints.
@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("columns", [31, 64, 65, 129])
@pytest.mark.parametrize("direction", ["left_to_right", "right_to_left", "four_way"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_long_columns_equal_the_reference(columns, direction, dtype, device):
    assert_equals_reference(Case((1, 3, 137, columns), 1, 3, direction, "abs"), dtype, device)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(
    ("groups", "source_groups"), [(1, 0), (1, 1), (3, 2), (2, 9), (18, 1), (18, 0), (6, 18)]
)
def test_many_channels_in_any_groups_equal_the_reference(groups, source_groups, device):
    assert_equals_reference(
        Case((2, 18, 6, 19), groups, source_groups, "four_way", "abs", "sum"), torch.float32, device
    )


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_four_way_merges_the_four_single_directions(dtype, device):
    case = Case((2, 4, 19, 21), 2, 2, merge=None)
    x, gates, source = case.inputs(dtype, device)
    single = [
        spn.propagate(x, gates[:, d], direction, source=source[:, d], normalize="abs")
        for d, direction in enumerate(DIRECTIONS)
    ]
    assert torch.equal(case(x, gates, source), torch.stack(single, 1))
    assert torch.equal(case.with_(merge="max")(x, gates, source), torch.stack(single, 1).amax(1))
    assert_close(
        case.with_(merge="sum")(x, gates, source), torch.stack(single, 1).double().sum(1), what="sum"
    )
    assert_close(
        case.with_(merge="mean")(x, gates, source), torch.stack(single, 1).double().mean(1), what="mean"
    )


# ---- Memory layouts ------------------------------------------------------------------------------


def transposed(t):
    return t.transpose(-1, -2).contiguous().transpose(-1, -2)


def sliced(t):
    wide = t.new_full((*t.shape[:-2], t.shape[-2] + 3, 2 * t.shape[-1]), float("nan"))
    wide[..., 2:-1, ::2] = t
    return wide[..., 2:-1, ::2]


def channels_last(t):
    """Make channels innermost: torch.channels_last for x, and the equivalent for gates and source."""
    return t.movedim(-3, -1).contiguous().movedim(-1, -3)


def batch_last(t):
    return t.movedim(0, -1).contiguous().movedim(-1, 0)


def negated_view(t):
    return torch.view_as_complex(torch.stack([torch.zeros_like(t), -t], -1)).conj().imag


LAYOUTS = {f.__name__: f for f in (transposed, sliced, channels_last, batch_last, negated_view)}


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(
    "case",
    [Case(), Case(source_groups=2, merge=None), Case(source_groups=4, direction="right_to_left")],
    ids=str,
)
class TestNonContiguous:
    def test_inputs(self, case, layout, device):
        inputs = case.inputs(torch.float32, device)
        strided = [LAYOUTS[layout](t) for t in inputs]
        assert all(torch.equal(t, s) for t, s in zip(inputs, strided, strict=True))
        assert any(not s.is_contiguous() or s.is_neg() for s in strided)
        out, grads = gradients(case, inputs)
        strided_out, strided_grads = gradients(case, strided)
        assert torch.equal(out, strided_out)
        assert all(torch.equal(g, s) for g, s in zip(grads, strided_grads, strict=True))

    def test_incoming_gradient(self, case, layout, device):
        inputs = case.inputs(torch.float32, device)
        grad = torch.randn_like(case(*inputs))
        _, expected = gradients(case, inputs, grad)
        _, grads = gradients(case, inputs, LAYOUTS[layout](grad))
        assert all(torch.equal(g, e) for g, e in zip(grads, expected, strict=True))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(
    "case", [Case(source_groups=2), Case(merge=None), Case(direction="bottom_to_top")], ids=str
)
def test_expanded_inputs_and_gradients(case, device):
    # Strides of zero: one sample for the whole batch, one gate for every pixel, the gradient of sum().
    inputs = [t[:1, ..., :1, :1].expand_as(t) for t in case.inputs(torch.float32, device)]
    inputs[0] = case.inputs(torch.float32, device)[0][:1].expand(case.shape)
    grad = torch.ones((), device=device).expand(case(*inputs).shape)
    out, grads = gradients(case, inputs, grad)
    expected, expected_grads = gradients(case, [t.contiguous() for t in inputs], grad.contiguous())
    assert torch.equal(out, expected)
    assert all(torch.equal(g, e) for g, e in zip(grads, expected_grads, strict=True))


@pytest.mark.parametrize("device", DEVICES)
def test_gradient_of_an_expanded_leaf_is_summed_over_its_copies(device):
    case = Case((3, 2, 4, 5), 1, merge="mean")
    x, gates = case.inputs(torch.float64, device)
    one = gates[:1].clone().requires_grad_()
    case(x, one.expand_as(gates)).square().sum().backward()
    many = gates[:1].repeat(3, 1, 1, 1, 1, 1).requires_grad_()
    case(x, many).square().sum().backward()
    assert_close(one.grad, many.grad.sum(0, keepdim=True))
