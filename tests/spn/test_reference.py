"""Results calculated by hand on 3 x 3 maps, which define the directions, taps, forms, rules and merges."""

import math

import pytest
import torch
from operator_cases import BACKENDS, DEVICES, DIRECTIONS

DTYPES = [torch.float32, torch.float64]

# x as below; taps -1, 0, +1 have weights 1, 2, 4 everywhere. Left to right in SPN form, h = x + sum_k p_k (h_k - x):
#   column 0:  1, 4, 7 unchanged, because the first line has no taps
#   column 1:  2 + 2 (1 - 2) + 4 (4 - 2)             = 8      no tap -1 at the top
#              5 + (1 - 5) + 2 (4 - 5) + 4 (7 - 5)   = 7
#              8 + (4 - 8) + 2 (7 - 8)               = 2      no tap +1 at the bottom
#   column 2:  3 + 2 (8 - 3) + 4 (7 - 3)             = 29
#              6 + (8 - 6) + 2 (7 - 6) + 4 (2 - 6)   = -6
#              9 + (7 - 9) + 2 (2 - 9)               = -7
# In source form with lambda = 10, h = 10 x + sum_k p_k h_k, so column 1 is
#              20 + 2 * 10 + 4 * 40 = 200,   50 + 10 + 2 * 40 + 4 * 70 = 420,   80 + 40 + 2 * 70 = 260
X = [[1, 2, 3], [4, 5, 6], [7, 8, 9]]
TAPS = (1, 2, 4)
LAMBDA = 10

E2, E3 = math.exp(2), math.exp(3)  # ratios of sigmoids of large negative g, where sigmoid(g) is exp(g)

SPN = {
    "left_to_right": [[1, 8, 29], [4, 7, -6], [7, 2, -7]],
    "right_to_left": [[119, 20, 3], [70, 21, 6], [23, 8, 9]],
    "top_to_bottom": [[1, 2, 3], [-10, -13, -4], [-107, -100, -39]],
    "bottom_to_top": [[163, 128, 51], [26, 29, 14], [7, 8, 9]],
}
SOURCE = {
    "left_to_right": [[10, 200, 2110], [40, 420, 2140], [70, 260, 1030]],
    "right_to_left": [[2890, 320, 30], [2760, 560, 60], [1270, 320, 90]],
    "top_to_bottom": [[10, 20, 30], [140, 220, 140], [1230, 1220, 590]],
    "bottom_to_top": [[3570, 3080, 1310], [500, 640, 320], [70, 80, 90]],
}
MERGED = {
    ("spn", "max"): [[163, 128, 51], [70, 29, 14], [23, 8, 9]],
    ("spn", "sum"): [[284, 158, 86], [90, 44, 10], [-70, -82, -28]],
    ("spn", "mean"): [[71, 39.5, 21.5], [22.5, 11, 2.5], [-17.5, -20.5, -7]],
    ("source", "max"): [[3570, 3080, 2110], [2760, 640, 2140], [1270, 1220, 1030]],
    ("source", "sum"): [[6480, 3620, 3480], [3440, 1840, 2660], [2640, 1880, 1800]],
    ("source", "mean"): [[1620, 905, 870], [860, 460, 665], [660, 470, 450]],
}


def plane(values, dtype=torch.float64, device="cpu"):
    return torch.tensor(values, dtype=dtype, device=device)[None, None]


def constant_gates(like, *lead):
    taps = torch.tensor(TAPS, dtype=like.dtype, device=like.device)
    return taps.reshape(3, 1, 1, 1).expand(1, *lead, 3, 1, 3, 3)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("api", BACKENDS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("direction", DIRECTIONS)
class TestOneDirection:
    def test_spn_form(self, api, direction, dtype, device):
        x = plane(X, dtype, device)
        h = api.propagate(x, constant_gates(x), direction)
        assert torch.equal(h, plane(SPN[direction], dtype, device))

    def test_source_form(self, api, direction, dtype, device):
        x = plane(X, dtype, device)
        source = torch.full((1, 1, 3, 3), LAMBDA, dtype=dtype, device=device)
        h = api.propagate(x, constant_gates(x), direction, source=source)
        assert torch.equal(h, plane(SOURCE[direction], dtype, device))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("api", BACKENDS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("form", ["spn", "source"])
class TestFourWay:
    def run(self, api, form, dtype, device, merge):
        x = plane(X, dtype, device)
        source = torch.full((1, 4, 1, 3, 3), LAMBDA, dtype=dtype, device=device) if form == "source" else None
        return api.propagate_four_way(x, constant_gates(x, 4), source=source, merge=merge)

    @pytest.mark.parametrize("merge", ["max", "mean", "sum"])
    def test_merges(self, api, form, dtype, device, merge):
        h = self.run(api, form, dtype, device, merge)
        assert torch.equal(h, plane(MERGED[form, merge], dtype, device))

    def test_without_a_merge_dim_1_holds_the_directions_in_order(self, api, form, dtype, device):
        table = SPN if form == "spn" else SOURCE
        expected = torch.stack([plane(table[d], dtype, device) for d in DIRECTIONS], dim=1)
        assert torch.equal(self.run(api, form, dtype, device, None), expected)


@pytest.mark.parametrize("api", BACKENDS)
@pytest.mark.parametrize(
    ("direction", "tap", "reads"),
    [
        # The centre (row 1, column 1) reads its neighbour (row, column) on the previous line.
        ("left_to_right", -1, (0, 0)),
        ("left_to_right", 0, (1, 0)),
        ("left_to_right", 1, (2, 0)),
        ("right_to_left", -1, (0, 2)),
        ("right_to_left", 0, (1, 2)),
        ("right_to_left", 1, (2, 2)),
        ("top_to_bottom", -1, (0, 0)),
        ("top_to_bottom", 0, (0, 1)),
        ("top_to_bottom", 1, (0, 2)),
        ("bottom_to_top", -1, (2, 0)),
        ("bottom_to_top", 0, (2, 1)),
        ("bottom_to_top", 1, (2, 2)),
    ],
)
def test_a_single_gate_reads_the_pixel_that_its_tap_points_at(api, direction, tap, reads):
    x = plane(X)
    gates = torch.zeros(1, 3, 1, 3, 3, dtype=x.dtype)
    gates[0, tap + 1, 0, 1, 1] = 1.0
    expected = x.clone()
    expected[0, 0, 1, 1] = X[reads[0]][reads[1]]
    assert torch.equal(api.propagate(x, gates, direction), expected)


@pytest.mark.parametrize("api", BACKENDS)
def test_channels_use_the_gates_and_the_source_of_their_group(api):
    # Six channels, two groups of gates (0 0 0 1 1 1), three groups of the source (0 0 1 1 2 2), two lines of one pixel:
    # h(1) = lambda * 1 + p * h(0) with h(0) = lambda, lambda = 1, 2, 3 and p = 10, 20 by group.
    x = torch.ones(1, 6, 1, 2)
    gates = torch.zeros(1, 3, 2, 1, 2)
    gates[0, 1] = torch.tensor([10.0, 20.0]).reshape(2, 1, 1)
    source = torch.tensor([1.0, 2.0, 3.0]).reshape(1, 3, 1, 1).expand(1, 3, 1, 2)
    h = api.propagate(x, gates, "left_to_right", source=source)
    assert h[0, :, 0, 0].tolist() == [1, 1, 2, 2, 3, 3]
    assert h[0, :, 0, 1].tolist() == [11, 11, 22, 42, 63, 63]


@pytest.mark.parametrize("api", BACKENDS)
@pytest.mark.parametrize(
    ("mode", "raw", "weights"),
    [
        ("none", (2, -1, 1), (2, -1, 1)),
        ("abs", (2, -1, 1), (0.5, -0.25, 0.25)),
        ("abs", (0.25, -0.5, 0.125), (0.25, -0.5, 0.125)),  # a sum below 1 is unchanged
        ("unit", (2, -1, 1), (0.5, -0.25, 0.25)),
        ("unit", (0.125, -0.25, 0.125), (0.25, -0.5, 0.25)),  # a sum below 1 is scaled up
        ("unit", (0, 0, 0), (0, 0, 0)),
        ("unit", (5e-5, 0, 0), (0.5, 0, 0)),  # by at most 1e4
        ("abs", (0, 0, 0), (0, 0, 0)),
        ("sigmoid", (0, 0, 0), (1 / 3, 1 / 3, 1 / 3)),
        ("sigmoid", (-1e4, -1e4, -1e4), (1 / 3, 1 / 3, 1 / 3)),
        ("sigmoid", (-1e4, 0, -1e4), (0, 1, 0)),
        ("sigmoid", (-999, -1000, -1002), (E3 / (1 + E2 + E3), E2 / (1 + E2 + E3), 1 / (1 + E2 + E3))),
        ("sigmoid", (-99, -100, -102), (E3 / (1 + E2 + E3), E2 / (1 + E2 + E3), 1 / (1 + E2 + E3))),
        ("sigmoid", (1e4, 0, -1e4), (2 / 3, 1 / 3, 0)),  # sigmoids 1, 1/2, 0
    ],
)
def test_normalize_rules(api, mode, raw, weights):
    # To read off the fused rule, use the source form with lambda = 1, 0: h(1, 1) is the weighted sum of line 0.
    raw = torch.tensor(raw, dtype=torch.float64).reshape(1, 3, 1, 1, 1)
    weights = torch.tensor(weights, dtype=torch.float64)
    torch.testing.assert_close(api.normalize_gates(raw, mode).flatten(), weights, rtol=1e-12, atol=1e-12)
    x = torch.tensor([[1.0, 10.0, 100.0], [7.0, 7.0, 7.0]], dtype=torch.float64)[None, None]
    source = torch.tensor([1.0, 0.0], dtype=torch.float64).reshape(1, 1, 2, 1).expand(1, 1, 2, 3)
    h = api.propagate(x, raw.expand(1, 3, 1, 2, 3), "top_to_bottom", source=source, normalize=mode)
    fused = weights[0] * 1 + weights[1] * 10 + weights[2] * 100
    torch.testing.assert_close(h[0, 0, 1, 1], fused, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("api", BACKENDS)
def test_at_a_border_only_sigmoid_ignores_missing_taps(api):
    # Raw gates 3 at tap -1 and 1 at taps 0 and +1; position 0 of line 1 has no tap -1, and lambda is 1, 0.
    raw = torch.tensor([3.0, 1.0, 1.0], dtype=torch.float64).reshape(1, 3, 1, 1, 1).expand(1, 3, 1, 2, 2)
    x = torch.tensor([[10.0, 20.0], [5.0, 5.0]], dtype=torch.float64)[None, None]
    source = torch.tensor([1.0, 0.0], dtype=torch.float64).reshape(1, 1, 2, 1).expand(1, 1, 2, 2)
    expected = {"none": 30.0, "abs": 6.0, "unit": 6.0, "sigmoid": 15.0}  # (10 + 20) times 1, 1/5, 1/5, 1/2
    for mode, value in expected.items():
        h = api.propagate(x, raw, "top_to_bottom", source=source, normalize=mode)
        torch.testing.assert_close(h[0, 0, 1, 0].item(), value, rtol=1e-12, atol=0)


@pytest.mark.parametrize("api", BACKENDS)
def test_gradients_of_a_line_of_two(api):
    # SPN form h1 = (1 - p) x1 + p x0 with p = 1/4, x = (3, 7), upstream gradients (0, 2):
    # dx0 = 2 p, dx1 = 2 (1 - p), dp = 2 (x0 - x1).
    x = torch.tensor([3.0, 7.0], dtype=torch.float64).reshape(1, 1, 1, 2).requires_grad_()
    gates = torch.full((1, 3, 1, 1, 2), 0.25, dtype=torch.float64, requires_grad=True)
    h = api.propagate(x, gates, "left_to_right")
    h.backward(torch.tensor([0.0, 2.0], dtype=torch.float64).reshape(1, 1, 1, 2))
    assert h.flatten().tolist() == [3.0, 6.0]
    assert x.grad.flatten().tolist() == [0.5, 1.5]
    assert gates.grad.flatten().tolist() == [0, 0, 0, -8.0, 0, 0]


@pytest.mark.parametrize("api", BACKENDS)
def test_gradients_of_a_source_form_line_of_two(api):
    # h0 = l0 x0, h1 = l1 x1 + p h0 with l = (2, 5), p = 1/4, x = (3, 7), upstream gradients (1, 2):
    # a1 = 2, a0 = 1 + p a1 = 1.5; dx = (l0 a0, l1 a1), dl = (x0 a0, x1 a1), dp = a1 h0.
    x = torch.tensor([3.0, 7.0], dtype=torch.float64).reshape(1, 1, 1, 2).requires_grad_()
    source = torch.tensor([2.0, 5.0], dtype=torch.float64).reshape(1, 1, 1, 2).requires_grad_()
    gates = torch.full((1, 3, 1, 1, 2), 0.25, dtype=torch.float64, requires_grad=True)
    h = api.propagate(x, gates, "left_to_right", source=source)
    h.backward(torch.tensor([1.0, 2.0], dtype=torch.float64).reshape(1, 1, 1, 2))
    assert h.flatten().tolist() == [6.0, 36.5]
    assert x.grad.flatten().tolist() == [3.0, 10.0]
    assert source.grad.flatten().tolist() == [4.5, 14.0]
    assert gates.grad.flatten().tolist() == [0, 0, 0, 12.0, 0, 0]
