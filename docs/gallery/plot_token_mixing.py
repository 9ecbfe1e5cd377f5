"""
A token mixing layer at 1024 x 1024
===================================

This example builds a layer in the style of GSPN :cite:`wang2025parallel`, in which every pixel is a token: more than
a million tokens. Attention would weigh 10\\ :sup:`12` pairs of tokens. Four sweeps take a few operations per token,
and two layers connect all parts of the image.
"""

import time

import matplotlib.pyplot as plt
import skimage.data
import torch
import torch.nn.functional as F
from torch import nn

import spn

torch.manual_seed(0)

# %%
# The layer uses the source form. :math:`\lambda` weighs the input token, the gates propagate it from line to line,
# and :math:`u` weighs the result. The gates form a mean of the three neighbours on the previous line, so that values
# neither grow nor fade. All channels share one set of gates.


class TokenMixing(nn.Module):
    """Add to x (N, channels, H, W) what ``hidden`` channels propagate from all directions."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.local = nn.Conv2d(channels, channels, 3, padding=1, groups=channels)
        self.gates = nn.Conv2d(channels, 4 * 3, 1)
        self.let_in = nn.Conv2d(channels, 4 * hidden, 1)
        self.read_out = nn.Conv2d(channels, 4 * hidden, 1)
        self.down = nn.Conv2d(channels, hidden, 1)
        self.up = nn.Conv2d(hidden, channels, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        z = self.local(x)
        gates = self.gates(z).unflatten(1, (4, 3, 1))
        source = self.let_in(z).sigmoid().unflatten(1, (4, -1))
        h = spn.propagate_four_way(self.down(z), gates, source=source, normalize="sigmoid", merge=None)
        u = self.read_out(z).unflatten(1, (4, -1))
        return x + self.up((u * h).sum(1))


# %%
# Which pixels of the image does one pixel of the result depend on? The gradient of this pixel shows it. The weights are
# random, as at the start of a training. With one layer, the pixel depends on four beams, one per direction, which widen
# like random walks. With two layers, it depends on the whole image.

SIZE, ROW, COLUMN = 1024, 640, 300
photo = torch.from_numpy(skimage.data.astronaut().copy()).permute(2, 0, 1)[None] / 255
photo = F.interpolate(photo, (SIZE, SIZE), mode="bilinear").requires_grad_()
embed = nn.Conv2d(3, 16, 5, padding=2)
layers = [TokenMixing(16, hidden=4) for _ in range(2)]


def influence(depth: int) -> torch.Tensor:
    """Return the gradient of one result pixel for all image pixels, as powers of ten below its maximum."""
    x = embed(photo)
    for layer in layers[:depth]:
        x = layer(x)
    (gradient,) = torch.autograd.grad(x[0, :, ROW, COLUMN].sum(), photo)
    gradient = gradient[0].norm(dim=0)
    return (gradient / gradient.max()).clamp(min=1e-12).log10()


maps = {"one layer": influence(1), "two layers": influence(2)}

figure, axes = plt.subplots(1, 2, figsize=(9.5, 4.4), layout="constrained")
for axis, (title, powers) in zip(axes, maps.items(), strict=True):
    axis.imshow(photo.detach()[0].mean(0), cmap="gray", vmax=1.6)
    shown = axis.imshow(powers, cmap="inferno", vmin=-9, vmax=0, alpha=((powers + 9) / 4).clamp(0, 0.8))
    axis.set_title(f"dependence of one pixel: {title}")
    axis.axis("off")
figure.colorbar(shown, ax=axes, shrink=0.8, label="influence, powers of ten")
plt.show()

# %%
# The last figure compares the runtime with that of attention over the same tokens. Both were measured without gradients
# on the machine that built this page. Attention is measured for up to 128 x 128 tokens only.


def seconds(function) -> float:
    """Return the shortest time of several calls, which other processes disturbed least."""
    times = []
    while len(times) < 2 or sum(times) < 0.3:
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return min(times)


def mixing_seconds(side: int) -> float:
    x = torch.randn(1, 16, side, side)
    return seconds(lambda: layers[0](x))


def attention_seconds(side: int) -> float:
    x = torch.randn(1, 1, side * side, 16)
    return seconds(lambda: F.scaled_dot_product_attention(x, x, x))


with torch.no_grad():
    mixing = {side: mixing_seconds(side) for side in (32, 64, 128, 256, 512, 1024)}
    attention = {side: attention_seconds(side) for side in (32, 64, 128)}

figure, axis = plt.subplots(figsize=(6, 3.6), layout="constrained")
for name, marker, measured in (("this layer", "o-", mixing), ("attention, one head of 16", "s-", attention)):
    axis.loglog([side**2 for side in measured], list(measured.values()), marker, label=name)
axis.set(xlabel="tokens", ylabel="seconds")
axis.grid(alpha=0.3)
axis.legend()
plt.show()
