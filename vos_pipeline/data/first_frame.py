"""The first frame of a video and its labels in memory: the input for fine-tuning the networks."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np

from vos_pipeline.data.masks import VOID


class MaskedVideo(Protocol):
    """Input for fine-tuning: a :class:`vos_pipeline.data.Sequence` of files, or a :class:`FirstFrame` in memory."""

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
        mask: integer or bool (H, W); 0 is background, 1 to 254 are objects, 255 is void and read as background.

    Raises:
        ValueError: an array has a wrong dtype or shape, a label is out of range, or there is no object.
    """

    frame: np.ndarray
    mask: np.ndarray
    name: str = "video"

    def __post_init__(self) -> None:
        check_frame("first_frame", self.frame)
        size = self.frame.shape[:2]
        if (
            not isinstance(self.mask, np.ndarray)
            or self.mask.dtype.kind not in "iub"
            or self.mask.shape != size
        ):
            raise ValueError(
                f"first_mask must be integers or bool (H, W) = {size}, got {described(self.mask)}"
            )
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
        """Return the first frame for every t."""
        return self.frame

    def read_mask(self, t: int) -> np.ndarray:
        """Return the labels, uint8 (H, W), with void as background."""
        return np.where(self.mask == VOID, 0, self.mask).astype(np.uint8)


def check_frame(name: str, frame: np.ndarray, size: tuple[int, ...] | None = None) -> None:
    """Raise ValueError with the argument's name unless the frame is uint8 RGB (H, W, 3) of the given size, if any."""
    shape = f"(H, W, 3) = ({size[0]}, {size[1]}, 3)" if size else "(H, W, 3)"
    if (
        not isinstance(frame, np.ndarray)
        or frame.dtype != np.uint8
        or frame.ndim != 3
        or frame.shape[2] != 3
        or frame.shape[:2] != (size or frame.shape[:2])
        or not frame.size
    ):
        raise ValueError(f"{name} must be uint8 RGB {shape}, got {described(frame)}")


def described(value: object) -> str:
    """Describe an argument for a message: dtype and shape of an array, otherwise the type."""
    return f"{value.dtype} {value.shape}" if isinstance(value, np.ndarray) else type(value).__name__
