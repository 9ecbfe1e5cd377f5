"""The constants of the flow filter."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class FlowFilterParameters:
    """The constants of :class:`vos_pipeline.temporal.FlowFilter`, whose docstring gives the equations.

    Args:
        threshold: a pixel belongs to the object of the largest score if that is at least this.
        connectivity: 8 or 4 neighbors make a region.
        reach: how far from an object's carried mask its regions may lie, in square roots of its usual area.
        growth: how much the reach grows per frame in which the object is missing, in the same unit.
        missing: an object whose area is below this share of its usual area is partly missing, and wholly at area 0.
        own: a region is covered by its own object's carried mask from this share of its pixels on.
        other: a region may go to another object whose carried mask covers at least this share of its pixels.
        complete: an object needs no further region once its covered ones have this share of its usual area.
        found: an object that would lose all of its regions keeps the largest if that has this share of its usual area.
        rate: weight of the newest frame in the running mean that is the usual area.
        side: the shorter side, in pixels, at which optical flow and carried masks are computed, or the frame's own if
            that is shorter.
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
