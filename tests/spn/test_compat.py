"""GateRecurrent2dnoind: both signatures equal their equations pixel by pixel, and the layer has no state."""

import copy
import pickle

import pytest
import torch
from operator_cases import DEVICES, assert_close

from spn.compat import GateRecurrent2dnoind

# By (horizontal, reverse): transforms a map so that its sweep runs from left to right, and back.
TURNS = {
    (True, False): (lambda v: v, lambda v: v),
    (True, True): (lambda v: v.flip(-1), lambda v: v.flip(-1)),
    (False, False): (lambda v: v.transpose(-1, -2), lambda v: v.transpose(-1, -2)),
    (False, True): (lambda v: v.flip(-2).transpose(-1, -2), lambda v: v.transpose(-1, -2).flip(-2)),
}
SHAPE = (2, 3, 5, 7)
LAYERS = [
    (GateRecurrent2dnoind(False, True), "X G1 G2 G3"),
    (GateRecurrent2dnoind(3), "X B G1 G2 G3"),
]
each_layer = pytest.mark.parametrize(("layer", "names"), LAYERS, ids=["spn", "gspn"])


def maps(names: str, dtype=torch.float64, device="cpu") -> dict[str, torch.Tensor]:
    """Return random maps with these names; the three gates of a pixel sum to at most 1 in magnitude."""
    generator = torch.Generator().manual_seed(0)
    drawn = {name: torch.rand(SHAPE, generator=generator, dtype=torch.float64) for name in names.split()}
    scaled = {name: (2 * v - 1) / (3 if name.startswith("G") else 1) for name, v in drawn.items()}
    return {name: v.to(device, dtype) for name, v in scaled.items()}


def loop(X, G1, G2, G3, B=None, chunk=None):
    """Sweep from left to right with a restart every `chunk` columns, in operations that autograd differentiates."""
    height, width = X.shape[-2:]
    chunk = chunk or width
    h = {}
    for t in range(width):
        for j in range(height):
            before = [
                (G, j + k) for G, k in ((G1, -1), (G2, 0), (G3, 1)) if t % chunk and 0 <= j + k < height
            ]
            let_in = B[..., j, t] if B is not None else 1 - sum(G[..., j, t] for G, _ in before)
            h[j, t] = let_in * X[..., j, t] + sum(G[..., j, t] * h[i, t - 1] for G, i in before)
    return torch.stack([torch.stack([h[j, t] for t in range(width)], -1) for j in range(height)], -2)


def with_gradients(call, given):
    leaves = [v.detach().requires_grad_() for v in given.values()]
    out = call(**dict(zip(given, leaves, strict=True)))
    weight = torch.arange(out.numel(), dtype=out.dtype, device=out.device).reshape(out.shape).sin()
    return out, *torch.autograd.grad(out, leaves, weight, materialize_grads=True)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("horizontal, reverse", TURNS)
def test_pytorch_spn_equals_its_loop(horizontal, reverse, device):
    turn, back = TURNS[horizontal, reverse]

    def expected(**given):
        return back(loop(**{name: turn(v) for name, v in given.items()}))

    given = maps("X G1 G2 G3", device=device)
    found = with_gradients(GateRecurrent2dnoind(horizontal, reverse), given)
    for actual, wanted in zip(found, with_gradients(expected, given), strict=True):
        assert_close(actual, wanted)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("chunk", [1, 3, 7, 100])
def test_gspn_equals_its_loop(chunk, device):
    given = maps("X B G1 G2 G3", device=device)
    found = with_gradients(GateRecurrent2dnoind(chunk), given)
    for actual, wanted in zip(found, with_gradients(lambda **v: loop(**v, chunk=chunk), given), strict=True):
        assert_close(actual, wanted)


@pytest.mark.parametrize("chunk", [2, 4])
def test_pieces_are_counted_from_the_left_and_the_last_may_be_short(chunk):
    given = maps("X B G1 G2 G3")
    pieces = zip(*(v.split(chunk, -1) for v in given.values()), strict=True)
    alone = torch.cat([GateRecurrent2dnoind(100)(*piece) for piece in pieces], -1)
    assert_close(GateRecurrent2dnoind(chunk)(**given), alone)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@each_layer
def test_other_dtypes(layer, names, dtype):
    given = maps(names, dtype)
    out = layer(**given)
    assert out.dtype == dtype
    assert_close(out, layer(**{name: v.double() for name, v in given.items()}), dtype)


@each_layer
def test_autocast_casts_maps_of_unlike_dtypes(layer, names):
    given = maps(names, torch.float32)
    given["X"] = given["X"].bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        out = layer(**given)
    assert torch.equal(out, layer(**{name: v.bfloat16() for name, v in given.items()}))


@each_layer
def test_is_a_layer_without_state(layer, names):
    given = maps(names)
    assert isinstance(layer, GateRecurrent2dnoind) and layer.state_dict() == {}
    for other in (copy.copy(layer), copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert repr(other) == repr(layer)
        assert torch.equal(other(**given), layer(**given))


@each_layer
def test_a_subclass_computes_the_same(layer, names):
    class Own(GateRecurrent2dnoind):
        pass

    class Fixed(GateRecurrent2dnoind):
        def __init__(self):
            super().__init__(*arguments)

    arguments = [
        getattr(layer, name) for name in ("horizontal", "reverse", "items_each_chunk") if hasattr(layer, name)
    ]
    given = maps(names)
    for own in (Own(*arguments), Fixed()):
        assert isinstance(own, GateRecurrent2dnoind) and own.state_dict() == {}
        assert torch.equal(own(**given), layer(**given))


def test_repr_reads_like_the_call():
    assert repr(GateRecurrent2dnoind(True, False)) == "GateRecurrent2dnoind(horizontal=True, reverse=False)"
    assert repr(GateRecurrent2dnoind(horizontal=False, reverse=True)) == repr(LAYERS[0][0])
    assert repr(GateRecurrent2dnoind(2)) == "GateRecurrent2dnoind(items_each_chunk=2)"
    assert repr(GateRecurrent2dnoind(items_each_chunk=3)) == repr(LAYERS[1][0])


@each_layer
def test_compiles_in_one_graph(layer, names):
    torch._dynamo.reset()
    given = maps(names)
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    for actual, wanted in zip(with_gradients(compiled, given), with_gradients(layer, given), strict=True):
        assert torch.equal(actual, wanted)


class TestErrors:
    @pytest.mark.parametrize(
        ("arguments", "error", "message"),
        [
            ((), TypeError, r"takes \(horizontal, reverse\) or \(items_each_chunk\), got 0 arguments"),
            ((True, False, 3), TypeError, "got 3 arguments"),
            ((True,), TypeError, "missing 1 required positional argument: 'reverse'"),
            ((1, False), TypeError, "horizontal must be a bool, got int"),
            ((True, None), TypeError, "reverse must be a bool, got NoneType"),
            ((2.0,), TypeError, "items_each_chunk must be an int, got float"),
            ((0,), ValueError, "items_each_chunk must be at least 1 line, got 0"),
        ],
    )
    def test_of_the_layer(self, arguments, error, message):
        with pytest.raises(error, match=message):
            GateRecurrent2dnoind(*arguments)

    @each_layer
    def test_of_the_call(self, layer, names):
        def assert_raises(error, message, **changed):
            with pytest.raises(error, match=message):
                layer(**{**maps(names), **changed})

        x = maps("X")["X"]
        assert_raises(ValueError, r"^X must be \(N, C, H, W\), got \(3, 5, 7\)$", X=x[0])
        assert_raises(TypeError, "^X must be float32, float64, float16 or bfloat16, got int64$", X=x.long())
        for name in names.split()[1:]:
            assert_raises(TypeError, f"^{name} must be a torch.Tensor, got float$", **{name: 1.0})
            assert_raises(
                TypeError, f"^{name} must have X's dtype float64, got float32$", **{name: x.float()}
            )
            assert_raises(ValueError, f"^{name} must be on X's device cpu, got meta$", **{name: x.to("meta")})
            shapes = r"\(N, C, H, W\) = \(2, 3, 5, 7\) as X is, got \(2, 1, 5, 7\)"
            assert_raises(ValueError, f"^{name} must be {shapes}$", **{name: x[:, :1]})
