"""The interface of filters over time, and a function to create one by name."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from vos_pipeline.settings import FILTERS
from vos_pipeline.temporal.craf import ConnectedRegionFilter
from vos_pipeline.temporal.flow_filter import FlowFilter


class TemporalFilter(Protocol):
    """A filter of score maps that processes a video frame by frame and keeps state from earlier frames."""

    def step(self, scores: np.ndarray, frame: np.ndarray) -> np.ndarray:
        """Filter the scores (K, H, W) of the next frame, uint8 RGB (H, W, 3); shape and dtype stay the same."""

    def state(self) -> dict[str, np.ndarray]:
        """Return the state, for :meth:`restore` of a filter made from the same first frame and masks."""

    def restore(self, state: dict[str, np.ndarray]) -> None:
        """Continue from a state; KeyError or ValueError if it is from another kind of filter or has other sizes."""


class NoFilter:
    """A filter that returns scores unchanged."""

    def step(self, scores: np.ndarray, frame: np.ndarray) -> np.ndarray:
        return scores

    def state(self) -> dict[str, np.ndarray]:
        return {}

    def restore(self, state: dict[str, np.ndarray]) -> None:
        pass


def make_filter(name: str, first_frame: np.ndarray, first: np.ndarray) -> TemporalFilter:
    """Create a filter with its default constants.

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
