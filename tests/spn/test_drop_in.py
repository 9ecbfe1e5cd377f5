"""The public names inside other networks: a GSPN layer, and a head for a torchvision segmentation network."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import spn


class GSPNLayer(nn.Module):
    """Generalised spatial propagation: y = sum_d u_d * h_d, h_d(t) = w_d(t) h_d(t-1) + lambda_d(t) * x(t).

    The rows of the tridiagonal w are sigmoids divided by their sum; w, lambda and u are 1x1 convolutions of the input.
    """

    def __init__(self, channels, groups):
        super().__init__()
        self.groups = groups
        self.gates = nn.Conv2d(channels, 12 * groups, 1)
        self.source = nn.Conv2d(channels, 4 * channels, 1)
        self.weight = nn.Conv2d(channels, 4 * channels, 1)
        self.propagate = spn.FourWayPropagate(normalize="sigmoid", merge=None)

    def forward(self, x):
        gates = self.gates(x).unflatten(1, (4, 3, self.groups))
        source = self.source(x).unflatten(1, (4, -1))
        return (self.weight(x).unflatten(1, (4, -1)) * self.propagate(x, gates, source)).sum(1)


def gspn_by_hand(layer, x):
    """Compute the equation pixel by pixel, in Python floats."""
    n, channels, height, width = x.shape
    gates = layer.gates(x).unflatten(1, (4, 3, layer.groups)).tolist()
    lambdas = layer.source(x).unflatten(1, (4, -1)).tolist()
    weights = layer.weight(x).unflatten(1, (4, -1)).tolist()
    y = torch.zeros(x.shape, dtype=torch.float64).tolist()
    x = x.tolist()
    # Per direction: the pixels in the order of the sweep, and the three predecessors of a pixel.
    rows, columns = range(height), range(width)
    sweeps = [
        ([(r, c) for c in columns for r in rows], lambda r, c: [(r - 1, c - 1), (r, c - 1), (r + 1, c - 1)]),
        (
            [(r, c) for c in columns[::-1] for r in rows],
            lambda r, c: [(r - 1, c + 1), (r, c + 1), (r + 1, c + 1)],
        ),
        ([(r, c) for r in rows for c in columns], lambda r, c: [(r - 1, c - 1), (r - 1, c), (r - 1, c + 1)]),
        (
            [(r, c) for r in rows[::-1] for c in columns],
            lambda r, c: [(r + 1, c - 1), (r + 1, c), (r + 1, c + 1)],
        ),
    ]
    for b in range(n):
        for k in range(channels):
            group = k // (channels // layer.groups)
            for d, (order, before) in enumerate(sweeps):
                h = {}
                for r, c in order:
                    taps = [(i, p) for i, p in enumerate(before(r, c)) if p in h]
                    s = {p: 1 / (1 + math.exp(-gates[b][d][i][group][r][c])) for i, p in taps}
                    mixed = sum(s[p] * h[p] for p in s) / sum(s.values()) if s else 0.0
                    h[r, c] = mixed + lambdas[b][d][k][r][c] * x[b][k][r][c]
                    y[b][k][r][c] += weights[b][d][k][r][c] * h[r, c]
    return torch.tensor(y, dtype=torch.float64)


@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize("size", [(5, 7), (1, 6), (17, 3)])
def test_a_gspn_layer_equals_its_equation(groups, size):
    layer = GSPNLayer(4, groups).double()
    x = torch.randn(2, 4, *size, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(layer(x), gspn_by_hand(layer, x), rtol=1e-12, atol=1e-12)


def test_a_gspn_layer_trains():
    layer = GSPNLayer(3, 1)
    x, target = torch.randn(2, 3, 9, 8), torch.randn(2, 3, 9, 8)
    optimizer = torch.optim.Adam(layer.parameters(), lr=0.02)
    losses = []
    for _ in range(20):
        optimizer.zero_grad()
        loss = (layer(x) - target).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]


class PropagationHead(nn.Module):
    """Propagates scores, after bilinear upsampling, with gates that a small network computes from the image."""

    def __init__(self, net):
        super().__init__()
        self.net = net
        self.guide = nn.Sequential(
            nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(inplace=True), nn.Conv2d(16, 12, 3, padding=1)
        )
        self.spread = spn.FourWayPropagate(normalize="abs", merge="mean")

    def forward(self, image):
        scores = self.net.classifier(self.net.backbone(image))
        scores = F.interpolate(scores, size=image.shape[-2:], mode="bilinear", align_corners=False)
        return self.spread(scores, self.guide(image).unflatten(1, (4, 3, 1)))


def test_a_torchvision_segmentation_net_trains_with_a_propagation_head():
    models = pytest.importorskip("torchvision.models.segmentation", reason="torchvision is not installed")
    net = models.lraspp_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=3)
    model = PropagationHead(net).train()
    image = torch.rand(2, 3, 64, 64)
    labels = (image[:, 0] > 0.5).long() + (image[:, 1] > 0.8).long()
    assert model(image).shape == net(image)["out"].shape == (2, 3, 64, 64)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    losses = []
    for _ in range(10):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(image), labels)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert all(math.isfinite(loss) for loss in losses)
    assert losses[-1] < losses[0] and sum(losses[5:]) < sum(losses[:5])
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.guide.parameters())
