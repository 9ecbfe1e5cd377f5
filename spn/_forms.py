"""The two forms of the refiner, which turn features, image and coarse masks into refined masks.

``of_picture`` computes the maps that depend only on the image, once for all groups of objects.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ._refiner_inputs import is_plain, only_result_counts
from .functional import propagate_four_way

STRIP_PIXELS = 2**16  # 3 MB for a map of 12 channels


class Direct(nn.Module):
    """Propagates scores of foreground and background at full resolution, each with separate gates."""

    # Multiplies GROUP_PIXELS: with shared gates, an object needs a fraction of the embedded form's memory.
    GROUP_FACTOR = 4
    GROUPS = 2  # foreground, background
    EPS = 1 / 512  # half a grey level; keeps the log-odds of a binary mask finite

    def __init__(self, features: int, stride: int, convex: bool = False) -> None:
        super().__init__()
        self.convex = convex
        channels = 12 * self.GROUPS
        self.gates = nn.Sequential(
            nn.Conv2d(features, channels * stride**2, 3, padding=1), nn.PixelShuffle(stride)
        )
        # Detects edges that are finer than the stride of the guidance.
        self.local = nn.Conv2d(3, channels, 3, padding=1) if stride > 1 else None
        if not convex:
            for conv in (self.gates[0], self.local):
                _start_near_zero(conv)

    def of_picture(self, features: Tensor, image: Tensor) -> tuple[Tensor, ...]:
        """Return the maps that all objects of an image share."""
        return (self.raw_gates(features, image),)

    def forward(self, shared: tuple[Tensor, ...], scores: Tensor) -> Tensor:
        (gates,) = shared
        if self.convex:
            foreground, background = self._propagate(scores, 1 - scores, gates)
            share: Tensor = foreground / (foreground + background).clamp(min=1e-6)
            return share
        # In float32, because bfloat16 rounds 1 - EPS to 1, whose log-odds are infinite.
        half = (scores.float().logit(eps=self.EPS) / 2).to(scores.dtype)
        foreground, background = self._propagate(half, -half, gates)
        refined: Tensor = (foreground.float() - background.float()).sigmoid().to(scores.dtype)
        return refined

    def raw_gates(self, features: Tensor, image: Tensor) -> Tensor:
        """Compute the gates before normalisation, (N, 4, 3, 2, H, W)."""
        raw: Tensor = self.gates(features)
        if self.local is not None:
            raw = raw + self.local(image)
        gates: Tensor = (raw.sigmoid() if self.convex else raw).unflatten(1, (4, 3, self.GROUPS))
        return gates

    if TYPE_CHECKING:  # nn.Module.__call__ is annotated as Any
        __call__ = forward

    def _propagate(self, foreground: Tensor, background: Tensor, gates: Tensor) -> tuple[Tensor, Tensor]:
        """Propagate the foregrounds of all objects, then their backgrounds: the order of the gates' channel groups."""
        both = propagate_four_way(torch.cat([foreground, background], 1), gates, normalize="abs", merge="max")
        first, second = both.unflatten(1, (self.GROUPS, -1)).unbind(1)
        return first, second


class Embedded(nn.Module):
    """Propagates ``hidden`` channels of mask and image features at the resolution of the guidance."""

    GROUP_FACTOR = 1
    FINE = 12  # channels at full resolution, where each one is expensive

    def __init__(self, features: int, stride: int, hidden: int, groups: int, rounds: int) -> None:
        super().__init__()
        self.groups, self.stride = groups, stride
        self.gates = _Pointwise(features, 12 * groups, 1)
        self.from_image = _Pointwise(features, hidden, 1)
        self.from_mask = nn.Conv2d(1, hidden, 2 * stride + 1, stride=stride, padding=stride, bias=False)
        self.mixes = nn.ModuleList(_Pointwise(hidden, hidden, 1) for _ in range(rounds))
        self.coarse_out = nn.Conv2d(hidden, self.FINE, 3, padding=1)
        self.fine_image = nn.Conv2d(3, self.FINE, 3, padding=1)
        self.fine_mask = nn.Conv2d(1, self.FINE, 3, padding=1, bias=False)
        self.fine = nn.Conv2d(self.FINE, self.FINE, 3, padding=1)
        self.out = nn.Conv2d(self.FINE, 1, 3, padding=1)
        self.slope = nn.Parameter(torch.tensor(6.0))
        if self.out.bias is not None:
            nn.init.zeros_(self.out.bias)

    def of_picture(self, features: Tensor, image: Tensor) -> tuple[Tensor, ...]:
        """Return the maps that all objects of an image share."""
        # Copy to the operator's layout once, instead of in every round.
        gates = self.raw_gates(features, image).contiguous()
        return gates, self.from_image(features), image

    def forward(self, shared: tuple[Tensor, ...], scores: Tensor) -> Tensor:
        n, k = scores.shape[:2]
        gates, coarse_image, image = shared
        centred = scores.flatten(0, 1).unsqueeze(1) - 0.5
        # Operate in place wherever autograd allows: on a CPU, most of the time goes into newly allocated memory.
        # Copy to the operator's layout once, instead of in every round.
        x = self.from_mask(centred).contiguous().add_(each(coarse_image, k)).relu_()
        for mix in self.mixes:
            x = mix(self._propagate(x, gates, k)).add_(x).relu_()
        x, pixels = self.coarse_out(x), torch.cat([each(image, k), centred], 1)
        strips = only_result_counts(x, pixels, *self.parameters())
        logits = self._decode_in_strips(x, pixels) if strips else self._decode(x, pixels)
        refined: Tensor = logits.float().sigmoid().to(scores.dtype).squeeze(1).unflatten(0, (n, k))
        return refined

    def _decode(self, x: Tensor, pixels: Tensor) -> Tensor:
        """Compute log-odds from the propagated channels, and from image and mask at full resolution."""
        x = F.interpolate(x, pixels.shape[2:], mode="bilinear", align_corners=False)
        x = x.add_(self._fine_inputs(pixels)).relu_()
        logits: Tensor = self.out(self.fine(x).relu_()) + self.slope * pixels[:, 3:]
        return logits

    def _decode_in_strips(self, x: Tensor, pixels: Tensor) -> Tensor:
        """Decode a few rows at a time, so that their maps fit into the processor's cache."""
        cells, stride = x.shape[2], self.stride
        # Along a strip's border, the interpolation affects half a cell, and two convolutions one pixel each.
        halo = -(-((stride + 1) // 2 + 2) // stride)
        step = max(halo, STRIP_PIXELS // (len(x) * pixels.shape[3] * stride))
        strips = []
        for top in range(0, cells, step):
            first, bottom = max(0, top - halo), min(top + step, cells)
            last = min(bottom + halo, cells)
            strip = self._decode(x[:, :, first:last], pixels[:, :, first * stride : last * stride])
            strips.append(strip[:, :, (top - first) * stride : (bottom - first) * stride])
        return torch.cat(strips, 2)

    def _fine_inputs(self, image_and_mask: Tensor) -> Tensor:
        """Sum both convolutions at full resolution; as one convolution where possible, which writes one map less."""
        image, mask = self.fine_image, self.fine_mask
        plain = is_plain(image, nn.Conv2d) and is_plain(mask, nn.Conv2d)
        if not plain or not only_result_counts(image_and_mask, *self.parameters()):
            return cast(Tensor, image(image_and_mask[:, :3]).add_(mask(image_and_mask[:, 3:])))
        weight = torch.cat([self.fine_image.weight, self.fine_mask.weight], 1)
        return F.conv2d(image_and_mask, weight, self.fine_image.bias, padding=1)

    def raw_gates(self, features: Tensor, image: Tensor) -> Tensor:
        """Compute the gates before normalisation, (N, 4, 3, G, h, w)."""
        gates: Tensor = self.gates(features).unflatten(1, (4, 3, self.groups))
        return gates

    if TYPE_CHECKING:  # nn.Module.__call__ is annotated as Any
        __call__ = forward

    def _propagate(self, x: Tensor, gates: Tensor, k: int) -> Tensor:
        """Propagate all objects of an image as channels, ordered by group, which share its gates without copies."""
        _, c, h, w = x.shape
        n, g = gates.shape[0], self.groups
        x = x.reshape(n, k, g, c // g, h, w).transpose(1, 2).reshape(n, k * c, h, w)
        x = propagate_four_way(x, gates, normalize="abs", merge="max")
        return x.reshape(n, g, k, c // g, h, w).transpose(1, 2).reshape(n * k, c, h, w)


class _Pointwise(nn.Conv2d):
    """1x1 convolution; on a CPU, a matrix product whose result has the operator's layout without a copy."""

    def forward(self, x: Tensor) -> Tensor:
        if self.bias is None or not only_result_counts(x, self.weight, self.bias):
            return super().forward(x)
        weight = self.weight.flatten(1).expand(len(x), -1, -1)
        product = torch.baddbmm(self.bias[:, None], weight, x.flatten(2))
        return product.view(*product.shape[:2], *x.shape[2:])


def _start_near_zero(conv: nn.Module | None) -> None:
    """Initialise with weights so small that a new refiner hardly propagates.

    They differ from zero because the maximum of equal directions passes gradients only to the first.
    """
    if isinstance(conv, nn.Conv2d):
        nn.init.normal_(conv.weight, std=1e-3)
        if conv.bias is not None:
            nn.init.zeros_(conv.bias)


def each(maps: Tensor, k: int) -> Tensor:
    """Repeat the maps of an image for each of its k objects."""
    if k == 1:
        return maps
    if torch.compiler.is_exporting():  # repeat_interleave in ONNX is fixed to the example's number of objects
        return maps.unsqueeze(1).expand(-1, k, -1, -1, -1).flatten(0, 1)
    return maps.repeat_interleave(k, 0)
