"""Windows of maps, in which an object is refined and layers are evaluated."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

# Largest score that counts as background: half a grey level.
NOTHING = 1 / 512


@dataclass(frozen=True)
class Window:
    """Rows ``top`` to ``bottom`` - 1 and columns ``left`` to ``right`` - 1 of a map."""

    top: int
    bottom: int
    left: int
    right: int

    @classmethod
    def whole(cls, maps: Tensor | Overlaid) -> Window:
        return cls(0, maps.shape[-2], 0, maps.shape[-1])

    @property
    def area(self) -> int:
        return (self.bottom - self.top) * (self.right - self.left)

    def of(self, maps: Tensor | Overlaid) -> Tensor:
        """Return the part of the maps inside this window."""
        if isinstance(maps, Overlaid):
            return maps.of(self)
        return maps[..., self.top : self.bottom, self.left : self.right]

    def __and__(self, other: Window) -> Window:
        return Window(
            max(self.top, other.top),
            min(self.bottom, other.bottom),
            max(self.left, other.left),
            min(self.right, other.right),
        )

    def inside(self, outer: Window) -> Window:
        """Return this window in the coordinates of a window that contains it."""
        return Window(
            self.top - outer.top, self.bottom - outer.top, self.left - outer.left, self.right - outer.left
        )

    def grown(self, by: int, limit: Window) -> Window:
        """Return the window grown on each side, but not beyond the limit."""
        return Window(self.top - by, self.bottom + by, self.left - by, self.right + by) & limit

    def seen(self, stride: int) -> Window:
        """Return the outputs of a padded 3x3 convolution that depend on this window; may extend beyond the map."""
        return Window(
            (self.top + stride - 2) // stride,
            self.bottom // stride + 1,
            (self.left + stride - 2) // stride,
            self.right // stride + 1,
        )

    def times(self, scale: int) -> Window:
        """Return the same window for a finer map."""
        return Window(self.top * scale, self.bottom * scale, self.left * scale, self.right * scale)

    def over(self, stride: int) -> Window:
        """Return the cells of a coarser map that overlap this window."""
        return Window(
            self.top // stride, -(-self.bottom // stride), self.left // stride, -(-self.right // stride)
        )


@dataclass(frozen=True)
class Overlaid:
    """Maps that are replaced by a patch inside a window."""

    maps: Tensor
    patch: Tensor
    window: Window

    @property
    def shape(self) -> torch.Size:
        return self.maps.shape

    def of(self, wanted: Window) -> Tensor:
        """Return a copy of the part inside a window, which must overlap the patch."""
        result = wanted.of(self.maps).clone()
        both = wanted & self.window
        both.inside(wanted).of(result).copy_(both.inside(self.window).of(self.patch))
        return result


def windows_of_objects(scores: Tensor) -> list[Window | None]:
    """Return the bounding box of each mask (M, H, W), or None for an empty mask."""
    # Negated, so that NaN does not count as background.
    objects = (scores <= NOTHING).logical_not_()
    bounds = []
    for lines in (objects.any(2), objects.any(1)):
        first, last = lines.int().argmax(1), lines.shape[1] - lines.flip(1).int().argmax(1)
        bounds += [first, last * lines.any(1)]
    found = zip(*(bound.tolist() for bound in bounds), strict=True)
    return [Window(*sides) if sides[1] else None for sides in found]
