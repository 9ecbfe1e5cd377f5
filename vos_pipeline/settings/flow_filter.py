"""Constants of the flow filter."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class FlowFilterParameters:
    """Constants of :class:`vos_pipeline.temporal.FlowFilter`. The docstring of that class gives the equations.

    The carried mask of an object is its last known mask, moved by optical flow. The usual area of an object is a
    running mean of its areas.

    Args:
        threshold: a pixel belongs to the object with the largest score if that score is at least this value.
        connectivity: number of neighbours of a pixel in a region, 8 or 4.
        reach: largest distance of a region from the carried mask of its object, in square roots of the usual area.
        growth: increase of the reach per frame in which the object is missing, in the same unit.
        missing: an object is partly missing if its area is below this fraction of its usual area, and wholly missing
            if its area is 0.
        own: a region is covered if the carried mask of its object contains at least this fraction of its pixels.
        other: a region may be assigned to another object if the carried mask of that object contains at least this
            fraction of its pixels.
        complete: an object needs no further region if its covered regions have this fraction of its usual area.
        found: an object that would lose all its regions keeps the largest one if it has this fraction of the usual
            area.
        rate: weight of the newest frame in the running mean.
        side: shorter side, in pixels, of the frames for optical flow and carried masks. Smaller frames keep their size.
    """

    threshold: float = 0.5
    connectivity: int = 8
    reach: float = 0.4
    growth: float = 0.25
    missing: float = 0.5
    own: float = 0.25
    other: float = 0.3
    complete: float = 0.8
    found: float = 0.1
    rate: float = 0.1
    side: int = 240

    def __post_init__(self) -> None:
        for name in ("own", "other", "complete", "found", "rate"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must be in [0, 1], got {getattr(self, name)}")
        for name in ("reach", "growth"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ValueError(f"{name} must be finite and at least 0, got {getattr(self, name)}")
        for name in ("threshold", "missing"):
            if not 0 < getattr(self, name) <= 1:
                raise ValueError(f"{name} must be in (0, 1], got {getattr(self, name)}")
        if self.connectivity not in (4, 8):
            raise ValueError(f"connectivity must be one of (4, 8), got {self.connectivity}")
        if not self.side >= 1:
            raise ValueError(f"side must be at least 1, got {self.side}")
