"""The features of :class:`LiteGuidance` in windows of a picture, for a network that sees the mask.

They are those of the whole picture, up to rounding: each layer is computed on so much more of its map that what the
borders of a crop spoil is cut off again. Windows are in pixels of the picture, or in cells of a stage's map.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from ._windows import Overlaid, Window
from .guidance import LiteGuidance, beside_mask, doubled


def features_in_windows(
    guidance: LiteGuidance, image: Tensor, masks: Tensor, windows: Sequence[tuple[Window, Window]]
) -> Iterator[Tensor]:
    """The features of one picture (1, 3, H, W) beside each of its masks (K, 1, H, W).

    ``windows`` are, for each mask, the one outside which it is 0 and the one of the features, whose sides are even.
    """
    frame = Window.whole(image)
    picture = (image - guidance.mean) / guidance.std
    # What no mask touches is computed once, where that is less work than the whole frame for each mask.
    shares = sum(own.area for own, _ in windows) < (len(masks) - 1) * frame.area
    empty = beside_mask(picture, torch.zeros_like(image[:, :1]))
    layers = list(_layers_of(guidance, empty)) if shares else []
    for mask, (own, wanted) in zip(masks.split(1), windows, strict=True):
        stages: list[Tensor] | list[Overlaid]
        if shares:
            masked = Overlaid(empty, beside_mask(own.of(picture), own.of(mask)), own)
            stages = _changed_stages(guidance, layers, masked)
        else:
            stages = guidance.encode(beside_mask(picture, mask))
        deepest = guidance.with_context(Window.whole(stages[3]).of(stages[3]))
        yield _decoded(guidance, [*stages[:3], deepest], wanted.over(guidance.stride))


def _layers_of(guidance: LiteGuidance, x: Tensor) -> Iterator[list[Tensor]]:
    """The encoder's maps, stage by stage, one behind each convolution."""
    for stage in guidance.down:
        maps = []
        for layer in stage:
            x = layer(x)
            maps.append(x)
        yield maps


def _changed_stages(guidance: LiteGuidance, layers: list[list[Tensor]], x: Overlaid) -> list[Overlaid]:
    """The encoder's stages of an input that differs from that of ``layers`` in a window."""
    stages = []
    for stage, maps in zip(guidance.down, layers, strict=True):
        for layer, before in zip(stage, maps, strict=True):
            whole, stride = Window.whole(before), x.shape[-1] // before.shape[-1]
            changed = x.window.seen(stride) & whole
            outer = changed.grown(1, whole)  # the convolution spoils one line of a crop's border
            patch = changed.inside(outer).of(layer(outer.times(stride).of(x)))
            x = Overlaid(before, patch, changed)
        stages.append(x)
    return stages


def _decoded(guidance: LiteGuidance, stages: Sequence[Tensor | Overlaid], wanted: Window, s: int = 0) -> Tensor:
    """The decoder's map s in a window; recursively, since it needs a larger window of the one below."""
    if s == len(stages) - 1:
        return wanted.of(stages[s])
    outer = wanted.grown(1, Window.whole(stages[s]))  # for the convolution
    below = outer.over(2).grown(1, Window.whole(stages[s + 1]))  # for the interpolation
    x = doubled(guidance.lateral[s](_decoded(guidance, stages, below, s + 1)))
    x = outer.inside(below.times(2)).of(x) + outer.of(stages[s])
    return wanted.inside(outer).of(guidance.up[s](x))
