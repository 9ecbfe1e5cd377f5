"""Invalid calls: the exact type and message of every error."""

import numpy as np
import pytest
import torch

import spn

N, C, H, W = 2, 6, 4, 5
X = torch.zeros(N, C, H, W)
ONE = torch.zeros(N, 3, 3, H, W)
FOUR = torch.zeros(N, 4, 3, 3, H, W)
DIRECTIONS = "'left_to_right', 'right_to_left', 'top_to_bottom', 'bottom_to_top'"
RULES = "'none', 'abs', 'unit', 'sigmoid'"
DTYPES = "float32, float64, float16 or bfloat16"

# Values that are not options, and their names in messages.
NOT_OPTIONS = [
    ("diagonal", "'diagonal'"),
    ("", "''"),
    ("ABS", "'ABS'"),
    (3, "int"),
    (1.0, "float"),
    (True, "bool"),
    (["abs"], "list"),
    ({"abs": 1}, "dict"),
    (("abs", "max"), "tuple"),
    (torch.ones(2), "Tensor"),
    (np.ones(2), "ndarray"),
    (str, "type"),
]
NOT_TENSORS = [
    (None, "NoneType"),
    (1.0, "float"),
    ([[1.0]], "list"),
    (np.zeros((2, 6, 4, 5)), "ndarray"),
    ("x", "str"),
]
WRONG_DTYPES = ["int64", "int32", "uint8", "bool", "complex64"]


def four(**changes):
    return lambda: spn.propagate_four_way(**{"x": X, "gates": FOUR, **changes})


def one(**changes):
    return lambda: spn.propagate(**{"x": X, "gates": ONE, "direction": "left_to_right", **changes})


def raises(error, message, call):
    with pytest.raises(error) as caught:
        call()
    assert type(caught.value) is error and str(caught.value) == message


def zeros(*shape, **options):
    return torch.zeros(shape, **options)


def test_the_message_that_a_flat_guidance_convolution_gets():
    raises(
        ValueError,
        "gates must be (N, 4, 3, G, H, W) = (2, 4, 3, G, 32, 32), got (2, 12, 32, 32)",
        lambda: spn.propagate_four_way(zeros(2, 1, 32, 32), zeros(2, 12, 32, 32)),
    )


# ---- Types -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("call", [one, four])
class TestTypes:
    @pytest.mark.parametrize(("value", "name"), NOT_TENSORS)
    def test_x_is_no_tensor(self, call, value, name):
        raises(TypeError, f"x must be a torch.Tensor, got {name}", call(x=value))

    @pytest.mark.parametrize(("value", "name"), NOT_TENSORS)
    def test_gates_are_no_tensor(self, call, value, name):
        raises(TypeError, f"gates must be a torch.Tensor, got {name}", call(gates=value))

    @pytest.mark.parametrize(("value", "name"), NOT_TENSORS[1:])
    def test_source_is_no_tensor(self, call, value, name):
        raises(TypeError, f"source must be a torch.Tensor, got {name}", call(source=value))

    @pytest.mark.parametrize("dtype", WRONG_DTYPES)
    def test_dtype_of_x(self, call, dtype):
        raises(TypeError, f"x must be {DTYPES}, got {dtype}", call(x=X.to(getattr(torch, dtype))))

    @pytest.mark.parametrize("dtype", WRONG_DTYPES)
    def test_dtype_of_gates(self, call, dtype):
        gates = (ONE if call is one else FOUR).to(getattr(torch, dtype))
        raises(TypeError, f"gates must be {DTYPES}, got {dtype}", call(gates=gates))

    @pytest.mark.parametrize("dtype", ["float64", "float16", "bfloat16"])
    def test_dtypes_differ(self, call, dtype):
        gates = (ONE if call is one else FOUR).to(getattr(torch, dtype))
        source = zeros(N, 4, 1, H, W) if call is four else zeros(N, 1, H, W)
        raises(TypeError, f"gates must have x's dtype float32, got {dtype}", call(gates=gates))
        raises(
            TypeError,
            f"source must have x's dtype float32, got {dtype}",
            call(source=source.to(getattr(torch, dtype))),
        )

    def test_devices_differ(self, call):
        gates = ONE if call is one else FOUR
        source = zeros(N, 4, 1, H, W) if call is four else zeros(N, 1, H, W)
        raises(ValueError, "gates must be on x's device cpu, got meta", call(gates=gates.to("meta")))
        raises(ValueError, "gates must be on x's device meta, got cpu", call(x=X.to("meta")))
        raises(ValueError, "source must be on x's device cpu, got meta", call(source=source.to("meta")))

    def test_sparse(self, call):
        raises(TypeError, "x must be a dense tensor, got layout sparse_coo", call(x=X.to_sparse()))


# ---- Shapes ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("call", [one, four])
@pytest.mark.parametrize("shape", [(), (5,), (4, 5), (6, 4, 5), (1, 2, 6, 4, 5)])
def test_number_of_dimensions_of_x(call, shape):
    raises(ValueError, f"x must be (N, C, H, W), got {shape}", call(x=zeros(*shape)))


@pytest.mark.parametrize("call", [one, four])
@pytest.mark.parametrize("shape", [(2, 0, 4, 5), (2, 6, 0, 5), (2, 6, 4, 0), (0, 0, 0, 0)])
def test_x_without_channels_or_pixels(call, shape):
    raises(ValueError, f"x must be (N, C, H, W) with C, H, W >= 1, got {shape}", call(x=zeros(*shape)))


@pytest.mark.parametrize(
    "shape",
    [
        (),
        (2, 3),
        (2, 3, 4, 5),  # groups missing
        (3, 3, 4, 5),
        (2, 9, 4, 5),  # flat
        (1, 3, 3, 4, 5),  # N
        (2, 2, 3, 4, 5),  # taps
        (2, 3, 3, 5, 4),  # H and W exchanged
        (2, 3, 3, 4, 6),
        (2, 3, 3, 3, 5),
        (2, 4, 3, 3, 4, 5),  # of four directions
    ],
)
def test_shape_of_gates_of_one_direction(shape):
    raises(
        ValueError, f"gates must be (N, 3, G, H, W) = (2, 3, G, 4, 5), got {shape}", one(gates=zeros(*shape))
    )


@pytest.mark.parametrize(
    "shape",
    [
        (),
        (2, 36, 4, 5),  # flat
        (2, 12, 3, 4, 5),  # directions and taps in one dimension
        (2, 3, 3, 4, 5),  # of one direction
        (2, 4, 3, 4, 5),  # groups missing
        (3, 4, 3, 3, 4, 5),  # N
        (2, 3, 3, 3, 4, 5),  # directions
        (2, 4, 4, 3, 4, 5),  # taps
        (2, 3, 4, 3, 4, 5),  # taps before directions
        (2, 4, 3, 3, 5, 4),  # H and W exchanged
        (2, 4, 3, 3, 4, 6),
        (1, 2, 4, 3, 3, 4, 5),
    ],
)
def test_shape_of_gates_of_four_directions(shape):
    message = f"gates must be (N, 4, 3, G, H, W) = (2, 4, 3, G, 4, 5), got {shape}"
    raises(ValueError, message, four(gates=zeros(*shape)))


@pytest.mark.parametrize("shape", [(), (2, 4, 5), (1, 1, 4, 5), (2, 1, 5, 4), (2, 1, 4, 6), (2, 4, 1, 4, 5)])
def test_shape_of_source_of_one_direction(shape):
    message = f"source must be (N, G_s, H, W) = (2, G_s, 4, 5), got {shape}"
    raises(ValueError, message, one(source=zeros(*shape)))


@pytest.mark.parametrize(
    "shape", [(), (2, 6, 4, 5), (2, 3, 1, 4, 5), (1, 4, 1, 4, 5), (2, 4, 1, 5, 4), (2, 4, 3, 1, 4, 5)]
)
def test_shape_of_source_of_four_directions(shape):
    message = f"source must be (N, 4, G_s, H, W) = (2, 4, G_s, 4, 5), got {shape}"
    raises(ValueError, message, four(source=zeros(*shape)))


@pytest.mark.parametrize("groups", [0, 4, 5, 7, 12])
def test_groups_that_do_not_divide_the_channels(groups):
    gates = f"gates must have a number of groups G that divides C = 6, got {groups}"
    source = f"source must have a number of groups G_s that divides C = 6, got {groups}"
    raises(ValueError, gates, one(gates=zeros(N, 3, groups, H, W)))
    raises(ValueError, gates, four(gates=zeros(N, 4, 3, groups, H, W)))
    raises(ValueError, source, one(source=zeros(N, groups, H, W)))
    raises(ValueError, source, four(source=zeros(N, 4, groups, H, W)))


# ---- Options ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("value", "name"), [*NOT_OPTIONS, (None, "None"), ("max", "'max'")])
class TestOptions:
    def test_direction(self, value, name):
        message = f"direction must be one of {DIRECTIONS}, got {name}"
        raises(ValueError, message, one(direction=value))
        raises(ValueError, message, lambda: spn.Propagate(value))

    def test_normalize(self, value, name):
        message = f"normalize must be one of {RULES}, got {name}"
        raises(ValueError, message, one(normalize=value))
        raises(ValueError, message, four(normalize=value))
        raises(ValueError, message, lambda: spn.Propagate("left_to_right", normalize=value))
        raises(ValueError, message, lambda: spn.FourWayPropagate(normalize=value))

    def test_mode(self, value, name):
        raises(
            ValueError, f"mode must be one of {RULES}, got {name}", lambda: spn.normalize_gates(ONE, value)
        )


@pytest.mark.parametrize(("value", "name"), [*NOT_OPTIONS, ("none", "'none'"), ("abs", "'abs'")])
def test_merge(value, name):
    message = f"merge must be one of 'max', 'mean', 'sum' or None, got {name}"
    raises(ValueError, message, four(merge=value))
    raises(ValueError, message, lambda: spn.FourWayPropagate(merge=value))


def test_four_way_is_no_direction_of_propagate():
    raises(ValueError, f"direction must be one of {DIRECTIONS}, got 'four_way'", one(direction="four_way"))


def test_options_are_keywords():
    with pytest.raises(TypeError):
        spn.propagate_four_way(X, FOUR, None)
    with pytest.raises(TypeError):
        spn.propagate(X, ONE, "left_to_right", None)
    with pytest.raises(TypeError):
        spn.FourWayPropagate("abs")


# ---- normalize_gates -------------------------------------------------------------------------------


class TestNormalizeGates:
    @pytest.mark.parametrize(("value", "name"), NOT_TENSORS)
    def test_no_tensor(self, value, name):
        message = f"raw must be a torch.Tensor, got {name}"
        raises(TypeError, message, lambda: spn.normalize_gates(value, "abs"))

    @pytest.mark.parametrize("dtype", WRONG_DTYPES)
    def test_dtype(self, dtype):
        raw = ONE.to(getattr(torch, dtype))
        raises(TypeError, f"raw must be {DTYPES}, got {dtype}", lambda: spn.normalize_gates(raw, "abs"))

    @pytest.mark.parametrize("shape", [(), (2, 3, 4, 5), (2, 4, 1, 4, 5), (2, 3, 4, 1, 4, 5), (2, 12, 4, 5)])
    def test_shape(self, shape):
        message = f"raw must be (N, 3, G, H, W) or (N, 4, 3, G, H, W), got {shape}"
        raises(ValueError, message, lambda: spn.normalize_gates(zeros(*shape), "abs"))

    @pytest.mark.parametrize(("value", "name"), NOT_OPTIONS)
    def test_direction(self, value, name):
        message = f"direction must be one of {DIRECTIONS} or None, got {name}"
        raises(ValueError, message, lambda: spn.normalize_gates(ONE, "abs", value))

    def test_direction_of_four_way_gates(self):
        message = "direction must be None for gates (N, 4, 3, G, H, W), got 'left_to_right'"
        raises(ValueError, message, lambda: spn.normalize_gates(FOUR, "abs", "left_to_right"))


# ---- Modules and autocast --------------------------------------------------------------------------


def test_modules_name_the_same_mistakes():
    message = "gates must be (N, 4, 3, G, H, W) = (2, 4, 3, G, 4, 5), got (2, 36, 4, 5)"
    raises(ValueError, message, lambda: spn.FourWayPropagate()(X, zeros(2, 36, 4, 5)))
    raises(
        TypeError,
        "gates must be a torch.Tensor, got NoneType",
        lambda: spn.Propagate("left_to_right")(X, None),
    )


def test_autocast_does_not_hide_wrong_dtypes():
    with torch.autocast("cpu", torch.bfloat16):
        raises(TypeError, f"x must be {DTYPES}, got int64", four(x=X.long()))
        raises(TypeError, "gates must have x's dtype bfloat16, got float64", four(gates=FOUR.double()))
        raises(TypeError, "x must be a torch.Tensor, got NoneType", four(x=None))


def test_validation_does_not_use_assert():
    import ast
    import inspect

    for module in (
        spn.functional,
        spn.modules,
        spn.reference,
        spn._ops,
        spn._fallback,
        spn._adjoint,
        spn._native,
    ):
        tree = ast.parse(inspect.getsource(module))
        assert not any(isinstance(node, ast.Assert) for node in ast.walk(tree)), module.__name__
