"""The first frame of a video and its labels, in memory: all that nets are tuned on."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np

from vos_pipeline.data.masks import VOID


class MaskedVideo(Protocol):
    """What nets are tuned on: a :class:`vos_pipeline.data.Sequence` of files, or a :class:`FirstFrame` in memory."""

    @property
    def name(self) -> str: ...

    @property
    def object_ids(self) -> tuple[int, ...]: ...

    def read_frame(self, t: int) -> np.ndarray: ...

    def read_mask(self, t: int) -> np.ndarray: ...


@dataclass(frozen=True)
class FirstFrame:
    """The first frame of a video and its labels.

    Args:
        frame: uint8 RGB (H, W, 3).
        mask: integer or bool (H, W); 0 is background, 1 to 254 are objects, 255 is void, which is made background.

    Raises:
        TypeError, ValueError: an array of another dtype or shape, labels out of range, no object.
    """

    frame: np.ndarray
    mask: np.ndarray
    name: str = "video"

    def __post_init__(self) -> None:
        check_frame("first_frame", self.frame)
        if not isinstance(self.mask, np.ndarray) or self.mask.dtype.kind not in "iub":
            what = getattr(self.mask, "dtype", type(self.mask).__name__)
            raise TypeError(f"first_mask must be a numpy array of integers or bool, got {what}")
        if self.mask.shape != self.frame.shape[:2]:
            raise ValueError(f"first_mask must be (H, W) = {self.frame.shape[:2]}, got {self.mask.shape}")
        if self.mask.min() < 0 or self.mask.max() > VOID:
            raise ValueError(
                f"first_mask must hold labels from 0 to {VOID}, got {self.mask.min()} to {self.mask.max()}"
            )
        if not self.object_ids:
            raise ValueError("first_mask must mark at least one object with a label from 1 to 254, got none")

    @cached_property
    def object_ids(self) -> tuple[int, ...]:
        """Sorted labels without background and void."""
        return tuple(int(label) for label in np.unique(self.mask) if label not in (0, VOID))

    def read_frame(self, t: int) -> np.ndarray:
        """The frame, whatever t is."""
        return self.frame

    def read_mask(self, t: int) -> np.ndarray:
        """The labels, uint8 (H, W), void made background."""
        return np.where(self.mask == VOID, 0, self.mask).astype(np.uint8)


def check_frame(name: str, frame: np.ndarray, size: tuple[int, ...] | None = None) -> None:
    """TypeError or ValueError that names the argument unless it is uint8 RGB (H, W, 3), of a size if one is given."""
    shape = "(H, W, 3)" if size is None else f"(H, W, 3) = {(*size, 3)}"
    if not isinstance(frame, np.ndarray) or frame.dtype != np.uint8:
        what = getattr(frame, "dtype", type(frame).__name__)
        raise TypeError(f"{name} must be a numpy array, uint8 RGB {shape}, got {what}")
    wrong_size = size is not None and frame.shape[:2] != tuple(size)
    if frame.ndim != 3 or frame.shape[2] != 3 or not frame.size or wrong_size:
        raise ValueError(f"{name} must be uint8 RGB {shape}, got {frame.shape}")
