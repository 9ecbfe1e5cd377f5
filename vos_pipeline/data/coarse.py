"""A sequence with a coarse mask from another tool for every frame: labels, or scores of one or several objects."""

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
    """Masks of one kind for every frame of a sequence, checked when they are opened."""

    hold_scores: ClassVar[bool]

    @property
    def ids(self) -> tuple[int, ...]:
        """Labels of the objects, sorted."""

    @property
    def files(self) -> tuple[Path, ...]:
        """All files of the masks."""

    def read(self, t: int) -> np.ndarray:
        """Return the scores of frame t in [0, 1], float32 (K, H, W)."""


@dataclass(frozen=True)
class CoarseSequence:
    """A sequence with a coarse mask for every frame.

    Args:
        sequence: frames, all of the same size.
        masks: coarse masks of that size.
    """

    sequence: Sequence
    masks: CoarseMasks

    @classmethod
    def open(cls, frames: Path, masks: Path, hold: str = "auto") -> CoarseSequence:
        """Open a folder of frames and a folder of masks, and check names, sizes and values before any work starts.

        Args:
            frames: folder of frames.
            masks: folder with ``<frame>.png`` (labels, or scores of one object), ``<frame>.npz`` (scores of several
                objects) or ``<object>/<frame>.png`` (scores of several objects).
            hold: "labels", "scores", or "auto" to decide by the values.

        Raises:
            PipelineError: a frame has no mask, a mask has no frame, sizes differ, or the masks mark no object, are of
                different kinds, or contain neither labels nor scores.
        """
        images = tuple(list_images(frames))
        sequence = Sequence(frames.resolve().name, images, (None,) * len(images))
        return cls(sequence, _opened(sequence, masks, hold))

    @property
    def ids(self) -> tuple[int, ...]:
        """Labels of the objects, sorted; (1,) for binary masks and for grey score images of one object."""
        return self.masks.ids

    @property
    def scores(self) -> bool:
        """Whether the masks contain scores instead of labels."""
        return self.masks.hold_scores

    @property
    def files(self) -> tuple[Path, ...]:
        """All files of the masks."""
        return self.masks.files

    def read(self, t: int) -> np.ndarray:
        """Return the scores of frame t in [0, 1], float32 (K, H, W)."""
        return self.masks.read(t)


def mask_folders(masks: Path) -> list[Path]:
    """Return the folders with the masks of one sequence: ``masks``, or one per object in it; [] without masks."""
    return [masks] if has_images(masks) or has_score_arrays(masks) else object_folders(masks)


def _opened(sequence: Sequence, masks: Path, hold: str) -> CoarseMasks:
    if has_score_arrays(masks):
        if has_images(masks):
            raise PipelineError(
                f"{masks}: contains both images ({list_images(masks)[0].name}) and NPZ files; "
                "save all masks of a sequence in one of these formats"
            )
        return ScoreArrays.open(sequence, masks, hold)
    if not has_images(masks) and object_folders(masks):
        return ScoreFolders.open(sequence, masks, hold)
    return _open_pictures(sequence, masks, hold)


# --- one image per frame ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class LabelPictures:
    """Labels of objects, in one image per frame."""

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
    """Scores of one object, in one grey image per frame: 0 to 255."""

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
    # Labels of all masks, because another tool may find an object only in a later frame.
    elif ids := folder.labels():
        return LabelPictures(sequence, tuple(sorted(ids)))
    raise PipelineError(f"{masks}: these masks mark no object")


def _hold_scores(masks: MaskFolder, hold: str) -> bool:
    """Return whether masks contain scores, as requested or by their values; raise PipelineError if they cannot."""
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
        f"{survey.grey.first_with[value]}: contains scores (such as {value}), but {indexed.name} is an indexed "
        "(palette) mask; save all masks of a sequence as labels, or all as grey scores"
    )
