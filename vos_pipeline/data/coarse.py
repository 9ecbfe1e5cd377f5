"""A sequence with a coarse mask of another tool for every frame: labels of objects, or scores of one or several."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar, Protocol

import numpy as np

from vos_pipeline.data.folders import files_of_frames, has_images, list_images
from vos_pipeline.data.labels import MaskFolder
from vos_pipeline.data.sequence import Sequence
from vos_pipeline.data.soft_scores import ScoreArrays, ScoreFolders, has_score_arrays, object_folders
from vos_pipeline.errors import PipelineError


class CoarseMasks(Protocol):
    """Masks of one kind for every frame of a sequence, checked when they were opened."""

    hold_scores: ClassVar[bool]

    @property
    def ids(self) -> tuple[int, ...]:
        """Labels of the objects, sorted."""

    @property
    def files(self) -> tuple[Path, ...]:
        """All that they are read from."""

    def read(self, t: int) -> np.ndarray:
        """Scores of frame t in [0, 1], float32 (K, H, W)."""


@dataclass(frozen=True)
class CoarseSequence:
    """A sequence with a coarse mask for every frame.

    Args:
        sequence: the frames, all of one size.
        masks: of the same size.
    """

    sequence: Sequence
    masks: CoarseMasks

    @classmethod
    def open(cls, frames: Path, masks: Path, hold: str = "auto") -> CoarseSequence:
        """Checks names, sizes and masks of two folders before any work is done.

        ``masks`` holds ``<frame>.png`` of labels or of one object's scores, ``<frame>.npz`` of several objects' scores,
        or ``<object>/<frame>.png`` of their scores.

        Raises:
            PipelineError: a frame without its mask or the other way round, sizes that differ, masks that mark
                nothing, are of different kinds, or hold neither labels nor scores.
        """
        images = tuple(list_images(frames))
        sequence = Sequence(frames.resolve().name, images, (None,) * len(images))
        return cls(sequence, _opened(sequence, masks, hold))

    @property
    def ids(self) -> tuple[int, ...]:
        """Labels of the objects, sorted; (1,) for binary masks and for scores of one object."""
        return self.masks.ids

    @property
    def scores(self) -> bool:
        """Whether the masks hold scores instead of labels."""
        return self.masks.hold_scores

    @property
    def files(self) -> tuple[Path, ...]:
        """All that the masks are read from."""
        return self.masks.files

    def read(self, t: int) -> np.ndarray:
        """Scores of frame t in [0, 1], float32 (K, H, W)."""
        return self.masks.read(t)


def mask_folders(masks: Path) -> list[Path]:
    """The folders that hold the masks of one sequence: ``masks``, or one per object in it; [] without masks."""
    return [masks] if has_images(masks) or has_score_arrays(masks) else object_folders(masks)


def _opened(sequence: Sequence, masks: Path, hold: str) -> CoarseMasks:
    if has_score_arrays(masks):
        if has_images(masks):
            raise PipelineError(
                f"{masks}: holds pictures ({list_images(masks)[0].name}) beside NPZ files; "
                "save all masks of a sequence as one or the other"
            )
        return ScoreArrays.open(sequence, masks, hold)
    if not has_images(masks) and object_folders(masks):
        return ScoreFolders.open(sequence, masks, hold)
    return _open_pictures(sequence, masks, hold)


# --- one picture per frame ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class LabelPictures:
    """Labels of objects, in one picture per frame."""

    sequence: Sequence  # with the masks
    ids: tuple[int, ...]
    hold_scores: ClassVar[bool] = False

    @property
    def files(self) -> tuple[Path, ...]:
        return self.sequence.masks.paths

    def read(self, t: int) -> np.ndarray:
        labels = self.sequence.read_mask(t)
        return np.stack([labels == k for k in self.ids]).astype(np.float32)


@dataclass(frozen=True)
class ScorePictures:
    """Scores of one object, in one grey picture per frame: 0 to 255."""

    folder: MaskFolder
    ids: ClassVar[tuple[int, ...]] = (1,)
    hold_scores: ClassVar[bool] = True

    @property
    def files(self) -> tuple[Path, ...]:
        return self.folder.paths

    def read(self, t: int) -> np.ndarray:
        return self.folder.read_scores(self.files[t])[None].astype(np.float32) / 255


def _open_pictures(sequence: Sequence, masks: Path, hold: str) -> CoarseMasks:
    sequence = replace(sequence, mask_paths=files_of_frames(sequence.frame_paths, masks))
    sequence.check_sizes()
    folder = sequence.masks
    if _hold_scores(folder, hold):
        if set(folder.survey().grey.first_with) != {0}:
            return ScorePictures(folder)
    # Of all masks: another tool may find an object later than in the first frame.
    elif ids := folder.labels():
        return LabelPictures(sequence, tuple(sorted(ids)))
    raise PipelineError(f"{masks}: these masks mark no object")


def _hold_scores(masks: MaskFolder, hold: str) -> bool:
    """Whether masks hold scores, as asked or by their values; PipelineError if they can not."""
    survey = masks.survey(progress=True)
    if hold == "labels" or (hold == "auto" and not survey.grey.hold_scores):
        return False
    if not survey.palette.paths:
        return True
    indexed = next(iter(survey.palette.paths))
    if hold == "scores":
        raise PipelineError(f"{indexed}: scores must be 8-bit grey PNGs, got an indexed (palette) image")
    value = survey.grey.inner[-1]
    raise PipelineError(
        f"{survey.grey.first_with[value]}: holds scores (such as {value}), but {indexed.name} is an indexed (palette) "
        "mask; save all masks of a sequence as labels, or all as grey scores"
    )
