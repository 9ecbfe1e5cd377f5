"""What every filter over time does, and the choice among them."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from vos_pipeline.settings import FILTERS
from vos_pipeline.temporal.craf import ConnectedRegionFilter
from vos_pipeline.temporal.flow_filter import FlowFilter


class TemporalFilter(Protocol):
    """Filters the score maps of a video frame by frame, with a memory of the frames before."""

    def step(self, scores: np.ndarray, frame: np.ndarray) -> np.ndarray:
        """The scores (K, H, W) of the next frame, uint8 RGB (H, W, 3), filtered: same shape and dtype."""

    def state(self) -> dict[str, np.ndarray]:
        """The memory, which :meth:`restore` takes in a filter that was made of the same first frame and masks."""

    def restore(self, state: dict[str, np.ndarray]) -> None:
        """Go on from a memory; KeyError or ValueError for that of another kind of filter or of other sizes."""


class NoFilter:
    """Leaves scores as they are."""

    def step(self, scores: np.ndarray, frame: np.ndarray) -> np.ndarray:
        return scores

    def state(self) -> dict[str, np.ndarray]:
        return {}

    def restore(self, state: dict[str, np.ndarray]) -> None:
        pass


def make_filter(name: str, first_frame: np.ndarray, first: np.ndarray) -> TemporalFilter:
    """A filter with its default constants.

    Args:
        name: one of :data:`vos_pipeline.settings.FILTERS`.
        first_frame: uint8 RGB (H, W, 3).
        first: bool (K, H, W), the objects' masks in the first frame.
    """
    if name == "craf":
        return ConnectedRegionFilter(first)
    if name == "flow":
        return FlowFilter(first_frame, first)
    if name == "none":
        return NoFilter()
    raise ValueError(f"name must be one of {FILTERS}, got {name!r}")
