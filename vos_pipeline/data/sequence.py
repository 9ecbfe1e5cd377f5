"""A sequence: the frames of one video and their known label masks."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from vos_pipeline.data.decoding import DEFAULT_FRAME_RATE
from vos_pipeline.data.images import image_size, read_image
from vos_pipeline.data.labels import MaskFolder
from vos_pipeline.data.masks import VOID
from vos_pipeline.errors import PipelineError, warn
from vos_pipeline.files import digest, fingerprint


@dataclass(frozen=True)
class Sequence:
    """Frames of one video with their known label masks; the first mask is always known."""

    name: str
    frame_paths: tuple[Path, ...]
    mask_paths: tuple[Path | None, ...]
    frame_rate: float = DEFAULT_FRAME_RATE
    times: tuple[float, ...] | None = None  # seconds from the first frame; None for a constant frame rate

    def __len__(self) -> int:
        return len(self.frame_paths)

    @cached_property
    def size(self) -> tuple[int, int]:
        """Height and width of the first frame; all frames and masks must have this size."""
        return image_size(self.frame_paths[0])

    @cached_property
    def masks(self) -> MaskFolder:
        """The known masks; the meaning of their values is decided over all of them."""
        return MaskFolder(path for path in self.mask_paths if path is not None)

    @cached_property
    def object_ids(self) -> tuple[int, ...]:
        """Sorted labels of the first mask, without background and void."""
        labels = {int(label) for label in np.unique(self._read_labels(0))}
        ids = tuple(sorted(labels - {0, VOID}))
        if not ids:
            kind = (
                "contains only void (255, because other masks have labels)" if VOID in labels else "is empty"
            )
            raise PipelineError(
                f"{self.mask_paths[0]}: the first mask {kind}; it must mark at least one object"
            )
        if not labels & {0, VOID}:
            warn(
                f"{self.mask_paths[0]}: marks every pixel as an object ({', '.join(map(str, ids))}), because no pixel "
                "is 0; if one of these labels is the background, save it as 0"
            )
        return ids

    @property
    def files(self) -> tuple[Path, ...]:
        """All frames and all known masks."""
        return (*self.frame_paths, *self.masks.paths)

    @property
    def has_all_masks(self) -> bool:
        """Whether every frame has a mask, so that results can be scored."""
        return all(path is not None for path in self.mask_paths)

    def read_frame(self, t: int) -> np.ndarray:
        """Return frame t as uint8 RGB (H, W, 3)."""
        return self._checked(read_image(self.frame_paths[t]), self.frame_paths[t])

    def read_mask(self, t: int) -> np.ndarray:
        """Return the labels of frame t, uint8 (H, W), with void as background; raise PipelineError without a mask."""
        labels = self._read_labels(t)
        labels[labels == VOID] = 0
        return labels

    def check_sizes(self) -> None:
        """Raise PipelineError for a file that is damaged or has another size, before hours of work."""
        for path in self.files:
            self.check_size(path, image_size(path))

    def check_size(self, path: Path, shape: tuple[int, ...]) -> None:
        """Raise PipelineError if the contents of a file, (H, W, ...), differ in size from the first frame."""
        if shape[:2] != self.size:
            raise PipelineError(
                f"{path}: is {_by(shape)}, but {self.frame_paths[0].name} is {_by(self.size)}; "
                "all frames and masks of a sequence must have the same size"
            )

    # --- identity -----------------------------------------------------------------------------------------------

    def frames_fingerprint(self) -> str:
        """Return a digest of the names and contents of the frames."""
        return fingerprint(self.frame_paths)

    def first_fingerprint(self) -> str:
        """Return a digest of the first frame and of its labels, independent of the format of the mask."""
        return f"{fingerprint(self.frame_paths[:1])}-{digest(self.read_mask(0).tobytes())}"

    def fingerprint(self) -> str:
        """Return a digest of all frames and all known masks."""
        return fingerprint(self.files)

    # --- helpers ------------------------------------------------------------------------------------------------

    def _read_labels(self, t: int) -> np.ndarray:
        path = self.mask_paths[t]
        if path is None:
            raise PipelineError(f"{self.name}: frame {self.frame_paths[t].name} has no mask")
        return self._checked(self.masks.read(path), path)

    def _checked(self, array: np.ndarray, path: Path) -> np.ndarray:
        self.check_size(path, array.shape)
        return array


def without(sequences: Iterable[Sequence], others: Iterable[Sequence]) -> list[Sequence]:
    """Return the sequences whose names differ from all others: training on them is fair if the others are tested."""
    names = {sequence.name for sequence in others}
    return [sequence for sequence in sequences if sequence.name not in names]


def validated(sequence: Sequence) -> Sequence:
    """Return the sequence after checking that its first mask marks an object and all files have the same size."""
    _ = sequence.object_ids
    sequence.check_sizes()
    return sequence


def _by(shape: tuple[int, ...]) -> str:
    return f"{shape[1]}x{shape[0]}"
