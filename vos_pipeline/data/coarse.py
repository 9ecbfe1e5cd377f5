"""A sequence with a coarse mask of another tool for every frame: labels of objects, or scores of one."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from vos_pipeline.data.folders import list_images
from vos_pipeline.data.images import read_image
from vos_pipeline.data.sequence import Sequence
from vos_pipeline.errors import PipelineError
from vos_pipeline.settings import SMALLEST_SCORE


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
        modes = {_mode(path) for path in paths}
        if hold == "scores" and modes != {"L"}:
            raise PipelineError(
                f"{masks}: scores must be 8-bit grey PNGs, got mode {', '.join(sorted(modes))}"
            )
        values = _values(map(_read_grey, paths)) if modes == {"L"} else set()
        scores = hold == "scores" or (hold == "auto" and any(SMALLEST_SCORE <= v < 255 for v in values))
        if not scores:  # in all masks: another tool may find an object later than in the first frame
            values = _values(sequence.read_mask(t) for t in range(len(sequence)))
        ids = sorted(values - {0})
        if not ids:
            raise PipelineError(f"{masks}: these masks mark no object")
        return cls(sequence, (1,) if scores else tuple(ids), scores)

    def read(self, t: int) -> np.ndarray:
        """Scores of frame t in [0, 1], float32 (K, H, W)."""
        if self.scores:
            path = self.sequence.mask_paths[t]
            assert path is not None
            return _read_grey(path)[None].astype(np.float32) / 255
        labels = self.sequence.read_mask(t)
        return np.stack([labels == k for k in self.ids]).astype(np.float32)


def _paired(frames: Path, masks: Path) -> tuple[tuple[Path, ...], tuple[Path, ...]]:
    """The frames and the masks of their names; PipelineError if names do not match."""
    images = list_images(frames)
    names = {path.stem for path in images}
    paths = {path.stem: path for path in masks.glob("*.png") if not path.name.startswith(".")}
    missing = [path.stem for path in images if path.stem not in paths]
    if missing:
        raise PipelineError(
            f"{masks}: no mask {missing[0]}.png for frame {missing[0]} ({len(missing)} missing)"
        )
    alone = sorted(paths.keys() - names)
    if alone:
        raise PipelineError(f"{frames}: no frame for mask {paths[alone[0]].name} ({len(alone)} missing)")
    return tuple(images), tuple(paths[path.stem] for path in images)


def _mode(path: Path) -> str:
    with Image.open(path) as image:
        return image.mode or ""


def _values(masks: Iterable[np.ndarray]) -> set[int]:
    return {int(value) for mask in masks for value in np.unique(mask)}


def _read_grey(path: Path) -> np.ndarray:
    return read_image(path)[..., 0]
