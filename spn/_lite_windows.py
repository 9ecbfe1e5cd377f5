"""Features of a :class:`LiteGuidance` that sees the mask, computed in windows of an image.

They equal the features of the whole image up to rounding. Each layer is evaluated on a larger crop, and the values that
the border of the crop affects are cut off.
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
    """Yield the features of one image (1, 3, H, W) for each of its masks (K, 1, H, W).

    ``windows`` holds two windows per mask: the window outside which the mask counts as 0, and the window of the
    features, whose bounds are even. The layers of the guidance must be unchanged (``is_as_built``).
    """
    layers = _Layers(guidance)
    picture, frame = (image - guidance.mean) / guidance.std, Window.whole(image)
    empty = beside_mask(picture, torch.zeros_like(image[:, :1]))
    # Compute the encoder without a mask once, if that is less work than the whole frame for each mask.
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
    """Evaluates the layers of a guidance network, with folded normalisation, in windows of their maps."""

    def __init__(self, guidance: LiteGuidance) -> None:
        self.down = [[_folded(layer) for layer in stage.children()] for stage in guidance.down]
        self.up = [_folded(layer) for layer in guidance.up]
        self.lateral = guidance.lateral

    def encoded(self, x: Tensor) -> Iterator[list[Tensor]]:
        """Yield the encoder's maps per stage, one after each convolution."""
        for stage in self.down:
            maps = []
            for layer in stage:
                x = layer(x)
                maps.append(x)
            yield maps

    def encoded_beside(self, known: list[list[Tensor]], x: Overlaid) -> list[Overlaid]:
        """Compute the encoder's stages for an input that differs, inside a window, from the input of the known maps."""
        stages = []
        for stage, known_maps in zip(self.down, known, strict=True):
            for layer, before in zip(stage, known_maps, strict=True):
                whole, stride = Window.whole(before), x.shape[-1] // before.shape[-1]
                changed = x.window.seen(stride) & whole
                outer = changed.grown(1, whole)  # the convolution affects one line along the border of a crop
                patch = changed.inside(outer).of(layer(outer.times(stride).of(x)))
                x = Overlaid(before, patch, changed)
            stages.append(x)
        return stages

    def decoded(self, stages: Sequence[Tensor | Overlaid], wanted: Window, s: int = 0) -> Tensor:
        """Compute the decoder's map s in a window, recursively: it needs a larger window of the map below."""
        if s == len(self.up):
            return wanted.of(stages[s])
        outer = wanted.grown(1, Window.whole(stages[s]))  # for the convolution
        below = outer.over(2).grown(1, Window.whole(stages[s + 1]))  # for the interpolation
        x = doubled(self.lateral[s](self.decoded(stages, below, s + 1)))
        x = outer.inside(below.times(2)).of(x) + outer.of(stages[s])
        return wanted.inside(outer).of(self.up[s](x))


def _folded(layer: nn.Module) -> Callable[[Tensor], Tensor]:
    return cast(ConvNormReLU, layer).folded()
