"""The features of :class:`LiteGuidance` in windows of a picture, for a network that sees the mask.

They are those of the whole picture, up to rounding: each layer is computed on so much more of its map that what the
border of a crop spoils is cut off again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import cast

import torch
from torch import Tensor, nn

from ._windows import Overlaid, Window
from .guidance import ConvNormReLU, LiteGuidance, beside_mask, doubled


def features_in_windows(
    guidance: LiteGuidance, image: Tensor, masks: Tensor, windows: Sequence[tuple[Window, Window]]
) -> Iterator[Tensor]:
    """The features of one picture (1, 3, H, W) beside each of its masks (K, 1, H, W).

    ``windows`` are, for each mask, the one outside which it is taken as 0 and the one of the features, whose sides are
    even. The guidance's layers are those it was built with.
    """
    layers = _Layers(guidance)
    picture, frame = (image - guidance.mean) / guidance.std, Window.whole(image)
    empty = beside_mask(picture, torch.zeros_like(image[:, :1]))
    # What no mask touches is computed once, where that is less work than the whole frame for each mask.
    shares = sum(own.area for own, _ in windows) < (len(masks) - 1) * frame.area
    without_mask = list(layers.encoded(empty)) if shares else []
    for mask, (own, wanted) in zip(masks.split(1), windows, strict=True):
        masked = Overlaid(empty, beside_mask(own.of(picture), own.of(mask)), own)
        stages: Sequence[Tensor | Overlaid]
        if shares:
            stages = layers.encoded_beside(without_mask, masked)
        else:
            stages = [maps[-1] for maps in layers.encoded(masked.of(frame))]
        deepest = Window.whole(stages[3]).of(stages[3])
        yield layers.decoded([*stages[:3], guidance.with_context(deepest)], wanted.over(guidance.stride))


class _Layers:
    """The layers of a guidance network as they evaluate now, in windows of their maps."""

    def __init__(self, guidance: LiteGuidance) -> None:
        self.down = [[_folded(layer) for layer in stage.children()] for stage in guidance.down]
        self.up = [_folded(layer) for layer in guidance.up]
        self.lateral = guidance.lateral

    def encoded(self, x: Tensor) -> Iterator[list[Tensor]]:
        """The encoder's maps, stage by stage, one behind each convolution."""
        for stage in self.down:
            maps = []
            for layer in stage:
                x = layer(x)
                maps.append(x)
            yield maps

    def encoded_beside(self, known: list[list[Tensor]], x: Overlaid) -> list[Overlaid]:
        """The encoder's stages of an input that differs in a window from the one whose maps are known."""
        stages = []
        for stage, known_maps in zip(self.down, known, strict=True):
            for layer, before in zip(stage, known_maps, strict=True):
                whole, stride = Window.whole(before), x.shape[-1] // before.shape[-1]
                changed = x.window.seen(stride) & whole
                outer = changed.grown(1, whole)  # the convolution spoils one line of a crop's border
                patch = changed.inside(outer).of(layer(outer.times(stride).of(x)))
                x = Overlaid(before, patch, changed)
            stages.append(x)
        return stages

    def decoded(self, stages: Sequence[Tensor | Overlaid], wanted: Window, s: int = 0) -> Tensor:
        """The decoder's map s in a window; recursively, since it needs a larger window of the one below."""
        if s == len(self.up):
            return wanted.of(stages[s])
        outer = wanted.grown(1, Window.whole(stages[s]))  # for the convolution
        below = outer.over(2).grown(1, Window.whole(stages[s + 1]))  # for the interpolation
        x = doubled(self.lateral[s](self.decoded(stages, below, s + 1)))
        x = outer.inside(below.times(2)).of(x) + outer.of(stages[s])
        return wanted.inside(outer).of(self.up[s](x))


def _folded(layer: nn.Module) -> Callable[[Tensor], Tensor]:
    return cast(ConvNormReLU, layer).folded()
