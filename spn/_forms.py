"""The two forms of the refiner: features, image and masks in, refined masks out.

What depends on the picture alone, ``of_picture``, is computed once for all groups of objects.
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
    """Scores of foreground and background propagated at full resolution, each with gates of its own."""

    # Times GROUP_PIXELS: an object beside shared gates takes a fraction of the embedded form's memory.
    GROUP_FACTOR = 4
    GROUPS = 2  # foreground, background
    EPS = 1 / 512  # half a grey level: keeps the log-odds of a hard mask finite

    def __init__(self, features: int, stride: int, convex: bool = False) -> None:
        super().__init__()
        self.convex = convex
        channels = 12 * self.GROUPS
        self.gates = nn.Sequential(
            nn.Conv2d(features, channels * stride**2, 3, padding=1), nn.PixelShuffle(stride)
        )
        # Edges that are finer than the stride of the guidance.
        self.local = nn.Conv2d(3, channels, 3, padding=1) if stride > 1 else None
        if not convex:
            for conv in (self.gates[0], self.local):
                _start_near_zero(conv)

    def of_picture(self, features: Tensor, image: Tensor) -> tuple[Tensor, ...]:
        """What all objects of a picture share."""
        return (self.raw_gates(features, image),)

    def forward(self, shared: tuple[Tensor, ...], scores: Tensor) -> Tensor:
        (gates,) = shared
        if self.convex:
            foreground, background = self._propagate(scores, 1 - scores, gates)
            share: Tensor = foreground / (foreground + background).clamp(min=1e-6)
            return share
        # In float32: bfloat16 rounds 1 - EPS to 1, whose log-odds are infinite.
        half = (scores.float().logit(eps=self.EPS) / 2).to(scores.dtype)
        foreground, background = self._propagate(half, -half, gates)
        refined: Tensor = (foreground.float() - background.float()).sigmoid().to(scores.dtype)
        return refined

    def raw_gates(self, features: Tensor, image: Tensor) -> Tensor:
        """Before normalisation, (N, 4, 3, 2, H, W)."""
        raw: Tensor = self.gates(features)
        if self.local is not None:
            raw = raw + self.local(image)
        gates: Tensor = (raw.sigmoid() if self.convex else raw).unflatten(1, (4, 3, self.GROUPS))
        return gates

    if TYPE_CHECKING:  # nn.Module.__call__ is annotated as Any
        __call__ = forward

    def _propagate(self, foreground: Tensor, background: Tensor, gates: Tensor) -> tuple[Tensor, Tensor]:
        """All objects' foregrounds, then all their backgrounds: the order of the groups of gates."""
        both = propagate_four_way(torch.cat([foreground, background], 1), gates, normalize="abs", merge="max")
        first, second = both.unflatten(1, (self.GROUPS, -1)).unbind(1)
        return first, second


class Embedded(nn.Module):
    """The mask as ``hidden`` channels beside the image's features, propagated at the guidance's resolution."""

    GROUP_FACTOR = 1
    FINE = 12  # channels at full resolution, where each is dear

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
        """What all objects of a picture share."""
        # One copy to the operator's layout here instead of one in every round.
        gates = self.raw_gates(features, image).contiguous()
        return gates, self.from_image(features), image

    def forward(self, shared: tuple[Tensor, ...], scores: Tensor) -> Tensor:
        n, k = scores.shape[:2]
        gates, coarse_image, image = shared
        centred = scores.flatten(0, 1).unsqueeze(1) - 0.5
        # In place wherever autograd allows: fresh memory is the larger part of the time on a CPU.
        # In the operator's layout once instead of in every round.
        x = self.from_mask(centred).contiguous().add_(each(coarse_image, k)).relu_()
        for mix in self.mixes:
            x = mix(self._propagate(x, gates, k)).add_(x).relu_()
        x, pixels = self.coarse_out(x), torch.cat([each(image, k), centred], 1)
        strips = only_result_counts(x, pixels, *self.parameters())
        logits = self._decode_in_strips(x, pixels) if strips else self._decode(x, pixels)
        refined: Tensor = logits.float().sigmoid().to(scores.dtype).squeeze(1).unflatten(0, (n, k))
        return refined

    def _decode(self, x: Tensor, pixels: Tensor) -> Tensor:
        """Log-odds, from what was propagated, and from image and mask at full resolution."""
        x = F.interpolate(x, pixels.shape[2:], mode="bilinear", align_corners=False)
        x = x.add_(self._fine_inputs(pixels)).relu_()
        logits: Tensor = self.out(self.fine(x).relu_()) + self.slope * pixels[:, 3:]
        return logits

    def _decode_in_strips(self, x: Tensor, pixels: Tensor) -> Tensor:
        """The same a few rows at a time, whose maps take little memory, which the processor's cache holds."""
        cells, stride = x.shape[2], self.stride
        # The interpolation spoils half a cell of a strip's border, two convolutions one pixel each.
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
        """Of both convolutions at full resolution; where only that counts as one, which writes a map less."""
        image, mask = self.fine_image, self.fine_mask
        plain = is_plain(image, nn.Conv2d) and is_plain(mask, nn.Conv2d)
        if not plain or not only_result_counts(image_and_mask, *self.parameters()):
            return cast(Tensor, image(image_and_mask[:, :3]).add_(mask(image_and_mask[:, 3:])))
        weight = torch.cat([self.fine_image.weight, self.fine_mask.weight], 1)
        return F.conv2d(image_and_mask, weight, self.fine_image.bias, padding=1)

    def raw_gates(self, features: Tensor, image: Tensor) -> Tensor:
        """Before normalisation, (N, 4, 3, G, h, w)."""
        gates: Tensor = self.gates(features).unflatten(1, (4, 3, self.groups))
        return gates

    if TYPE_CHECKING:  # nn.Module.__call__ is annotated as Any
        __call__ = forward

    def _propagate(self, x: Tensor, gates: Tensor, k: int) -> Tensor:
        """All objects of a picture as one set of channels, group by group: they share its gates uncopied."""
        _, c, h, w = x.shape
        n, g = gates.shape[0], self.groups
        x = x.reshape(n, k, g, c // g, h, w).transpose(1, 2).reshape(n, k * c, h, w)
        x = propagate_four_way(x, gates, normalize="abs", merge="max")
        return x.reshape(n, g, k, c // g, h, w).transpose(1, 2).reshape(n * k, c, h, w)


class _Pointwise(nn.Conv2d):
    """A 1x1 convolution; on a CPU a matrix product, whose result has the operator's layout without a copy."""

    def forward(self, x: Tensor) -> Tensor:
        if self.bias is None or not only_result_counts(x, self.weight, self.bias):
            return super().forward(x)
        weight = self.weight.flatten(1).expand(len(x), -1, -1)
        product = torch.baddbmm(self.bias[:, None], weight, x.flatten(2))
        return product.view(*product.shape[:2], *x.shape[2:])


def _start_near_zero(conv: nn.Module | None) -> None:
    """Weights so small that signed gates start as no propagation, yet differ: of equal directions the maximum
    teaches the first alone."""
    if isinstance(conv, nn.Conv2d):
        nn.init.normal_(conv.weight, std=1e-3)
        if conv.bias is not None:
            nn.init.zeros_(conv.bias)


def each(maps: Tensor, k: int) -> Tensor:
    """Repeats a picture's maps for each of its k objects."""
    if k == 1:
        return maps
    if torch.compiler.is_exporting():  # ONNX's repeat_interleave is of the example's number of objects alone
        return maps.unsqueeze(1).expand(-1, k, -1, -1, -1).flatten(0, 1)
    return maps.repeat_interleave(k, 0)
