"""A sequence with a coarse mask of another tool for every frame: labels of objects, or scores of one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vos_pipeline.data.folders import list_images
from vos_pipeline.data.labels import MaskFolder
from vos_pipeline.data.sequence import Sequence
from vos_pipeline.errors import PipelineError


@dataclass(frozen=True)
class CoarseSequence:
    """A sequence with a coarse mask for every frame.

    Args:
        sequence: frames and masks, all of one size.
        ids: labels of the objects; (1,) for binary masks and for scores.
        scores: whether the masks hold scores, 0 to 255, instead of labels.
    """

    sequence: Sequence
    ids: tuple[int, ...]
    scores: bool

    @classmethod
    def open(cls, frames: Path, masks: Path, hold: str = "auto") -> CoarseSequence:
        """Checks names, sizes and masks of two folders before any work is done.

        Raises:
            PipelineError: a frame without its mask or the other way round, sizes that differ, masks that mark
                nothing or are neither indexed nor 8-bit grey.
        """
        images, paths = _paired(frames, masks)
        sequence = Sequence(frames.resolve().name, images, paths)
        sequence.check_sizes()
        scores = _hold_scores(sequence.masks, hold)
        # Of all masks: another tool may find an object later than in the first frame.
        ids = _scored(sequence.masks) if scores else sequence.masks.labels()
        if not ids:
            raise PipelineError(f"{masks}: these masks mark no object")
        return cls(sequence, tuple(sorted(ids)), scores)

    def read(self, t: int) -> np.ndarray:
        """Scores of frame t in [0, 1], float32 (K, H, W)."""
        if self.scores:
            path = self.sequence.mask_paths[t]
            assert path is not None
            return self.sequence.masks.read_scores(path)[None].astype(np.float32) / 255
        labels = self.sequence.read_mask(t)
        return np.stack([labels == k for k in self.ids]).astype(np.float32)


def _paired(frames: Path, masks: Path) -> tuple[tuple[Path, ...], tuple[Path, ...]]:
    """The frames and the masks of their names; PipelineError if names do not match."""
    images = list_images(frames)
    names = {path.stem for path in images}
    paths = {path.stem: path for path in list_images(masks)}
    missing = [path.stem for path in images if path.stem not in paths]
    if missing:
        raise PipelineError(
            f"{masks}: no mask {missing[0]}.png for frame {missing[0]} ({len(missing)} missing)"
        )
    alone = sorted(paths.keys() - names)
    if alone:
        raise PipelineError(f"{frames}: no frame for mask {paths[alone[0]].name} ({len(alone)} missing)")
    return tuple(images), tuple(paths[path.stem] for path in images)


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


def _scored(masks: MaskFolder) -> set[int]:
    """The one object of masks that hold scores, unless all scores are 0."""
    return {1} if set(masks.survey().grey.first_with) != {0} else set()
