"""Sequences of frames and label masks: DAVIS roots and a user's own video."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path

import numpy as np

from vos_pipeline.errors import PipelineError
from vos_pipeline.images import VOID, image_size, read_image, read_labels
from vos_pipeline.video import DEFAULT_FRAME_RATE, decode_video, frame_rate

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")


@dataclass(frozen=True)
class Sequence:
    """Frames of one video with the label masks that are known for them (the first one always is)."""

    name: str
    frame_paths: tuple[Path, ...]
    mask_paths: tuple[Path | None, ...]
    frame_rate: float = DEFAULT_FRAME_RATE

    def __len__(self) -> int:
        return len(self.frame_paths)

    @cached_property
    def size(self) -> tuple[int, int]:
        """Height and width of the first frame; every frame and mask must have them."""
        return image_size(self.frame_paths[0])

    @cached_property
    def object_ids(self) -> tuple[int, ...]:
        """Sorted labels of the first mask without background and void."""
        ids = tuple(int(label) for label in np.unique(self.read_mask(0)) if label != 0)
        if not ids:
            raise PipelineError(
                f"{self.mask_paths[0]}: the first mask is empty; it must mark at least one object"
            )
        return ids

    @property
    def has_all_masks(self) -> bool:
        """Whether every frame has a mask, so that results can be scored."""
        return all(path is not None for path in self.mask_paths)

    def read_frame(self, t: int) -> np.ndarray:
        """Frame t as uint8 RGB (H, W, 3)."""
        return self._checked(read_image(self.frame_paths[t]), self.frame_paths[t])

    def read_mask(self, t: int) -> np.ndarray:
        """Labels of frame t, uint8 (H, W), void made background. PipelineError where no mask is known."""
        path = self.mask_paths[t]
        if path is None:
            raise PipelineError(f"{self.name}: frame {self.frame_paths[t].name} has no mask")
        labels = self._checked(read_labels(path), path)
        labels[labels == VOID] = 0
        return labels

    def _checked(self, array: np.ndarray, path: Path) -> np.ndarray:
        if array.shape[:2] != self.size:
            raise PipelineError(
                f"{path}: is {_by(array.shape)}, but {self.frame_paths[0].name} is {_by(self.size)}; "
                "all frames and masks of a sequence must have one size"
            )
        return array


def load_davis(
    root: str | Path,
    year: str = "2017",
    set_name: str = "val",
    sequences: list[str] | None = None,
    resolution: str = "480p",
) -> list[Sequence]:
    """Open the sequences of a DAVIS set.

    Layout: ``ROOT/{JPEGImages,Annotations}/480p/<sequence>/%05d.{jpg,png}``,
    ``ROOT/ImageSets/<year>/<set>.txt``. A test set may hold the first mask of a sequence only.

    Args:
        sequences: names to open, in this order; None opens the whole set.

    Raises:
        PipelineError: something is missing (the message lists what exists) or cut short, sizes differ, or a
            first mask is empty.
    """
    root = Path(root)
    names = read_set(root, year, set_name, sequences)
    return [_open_davis(root, name, resolution) for name in names]


def read_set(root: str | Path, year: str, set_name: str, sequences: list[str] | None = None) -> list[str]:
    """The sequence names of ``ROOT/ImageSets/<year>/<set>.txt``, or those asked for after checking them."""
    root = Path(root)
    sets = root / "ImageSets"
    if not sets.is_dir():
        raise PipelineError(
            f"{root}: is no DAVIS root (ImageSets, JPEGImages, Annotations); it holds {_listing(root)}"
        )
    path = sets / str(year) / f"{set_name}.txt"
    if not path.is_file():
        found = sorted(str(p.relative_to(sets).with_suffix("")) for p in sets.glob("*/*.txt"))
        raise PipelineError(f"{path}: no such set; this root has {', '.join(found) or 'none'}")
    names = path.read_text().split()
    if not names:
        raise PipelineError(f"{path}: lists no sequence")
    if sequences is None:
        return names
    unknown = [name for name in sequences if name not in names]
    if unknown:
        raise PipelineError(f"no sequence {unknown[0]!r} in set {year}/{set_name}; it has {_shorten(names)}")
    return list(sequences)


def _open_davis(root: Path, name: str, resolution: str) -> Sequence:
    frames_dir, masks_dir = (root / kind / resolution / name for kind in ("JPEGImages", "Annotations"))
    if not frames_dir.is_dir():
        raise PipelineError(
            f"{frames_dir}: no such folder; {frames_dir.parent} holds {_listing(frames_dir.parent)}"
        )
    frames = list_files(frames_dir, ".jpg")
    known = {path.stem: path for path in list_files(masks_dir, ".png")} if masks_dir.is_dir() else {}
    masks = tuple(known.get(frame.stem) for frame in frames)
    lost = sorted(known.keys() - {frame.stem for frame in frames}) or (None in masks and _gaps(frames))
    if lost:
        raise PipelineError(
            f"{frames_dir / lost[0]}.jpg: this frame is missing; copy or download the sequence again"
        )
    if masks[0] is None:
        raise PipelineError(f"{masks_dir / frames[0].stem}.png: the first mask is missing")
    return _validated(Sequence(name, tuple(frames), masks))


def load_frames(source: str | Path, first_mask: str | Path, work_dir: str | Path | None = None) -> Sequence:
    """Open a user's own video: a folder of pictures in natural order, or a file that OpenCV can decode.

    Args:
        source: the folder or the video file. first_mask: label mask of the first frame.
        work_dir: where the frames of a video file are kept as JPEG (a later call finds them there).

    Raises:
        PipelineError: no frames, an undecodable video, or a mask that does not fit the first frame.
    """
    source, first_mask = Path(source), Path(first_mask)
    if source.is_dir():
        name, rate, frames = source.resolve().name, DEFAULT_FRAME_RATE, list_images(source)
    elif source.is_file():
        if work_dir is None:
            raise ValueError("work_dir must be given to decode a video file, got None")
        name, rate = source.stem, frame_rate(source)
        frames = list_images(decode_video(source, Path(work_dir)))
    else:
        raise PipelineError(f"{source}: no such file or folder")
    if len(frames) == 1:
        raise PipelineError(f"{source}: holds one frame; its mask is given, so there is nothing to segment")
    return _validated(Sequence(name, tuple(frames), (first_mask,) + (None,) * (len(frames) - 1), rate))


def list_images(folder: str | Path) -> list[Path]:
    """The pictures of a folder in natural order (frame2 before frame10); PipelineError if there are none."""
    images = list_files(Path(folder), *IMAGE_SUFFIXES)
    images.sort(key=lambda p: [int(s) if s.isdecimal() else s for s in re.split(r"(\d+)", p.name)])
    for path, other in pairwise(images):
        if path.stem == other.stem:
            raise PipelineError(
                f"{folder}: {path.name} and {other.name} would have one result, {path.stem}.png; "
                "keep one of them"
            )
    return images


def list_files(folder: Path, *suffixes: str) -> list[Path]:
    """The visible files with one of the suffixes, sorted by name; PipelineError if there are none."""
    names = [
        n for n in _names(folder) if os.path.splitext(n)[1].lower() in suffixes and not n.startswith(".")
    ]
    if not names:
        raise PipelineError(f"{folder}: holds no {', '.join(suffixes)} files")
    return [folder / name for name in names]


# --- helpers ------------------------------------------------------------------------------------------------


def _validated(sequence: Sequence) -> Sequence:
    """Fail before hours of work, not after: the first mask must be readable, fit, and mark an object."""
    assert sequence.object_ids
    for path in (*sequence.frame_paths, *(path for path in sequence.mask_paths if path is not None)):
        size = image_size(path)
        if size != sequence.size:
            raise PipelineError(
                f"{path}: is {_by(size)}, but {sequence.frame_paths[0].name} is {_by(sequence.size)}; "
                "all frames and masks of a sequence must have one size"
            )
    return sequence


def _by(shape: tuple[int, ...]) -> str:
    return f"{shape[1]}x{shape[0]}"


def _gaps(frames: list[Path]) -> list[str]:
    """Names left out of a numbering whose steps are otherwise equal."""
    if not all(frame.stem.isdecimal() for frame in frames):
        return []
    steps = [(int(b.stem) - int(a.stem), a.stem) for a, b in pairwise(frames)]
    step = min(steps, default=(0, ""))[0]
    return [f"{int(stem) + step:0{len(stem)}d}" for length, stem in steps if length != step]


def _listing(folder: Path) -> str:
    if not folder.is_dir():
        return "nothing (it does not exist)"
    return _shorten(_names(folder)) or "nothing"


def _names(folder: Path) -> list[str]:
    try:
        return sorted(os.listdir(folder))
    except FileNotFoundError:
        raise PipelineError(f"{folder}: no such folder") from None
    except OSError as error:  # no folder, no permission
        raise PipelineError(f"{folder}: can not be read as a folder ({error.strerror})") from None


def _shorten(names: list[str], limit: int = 12) -> str:
    return ", ".join(names[:limit]) + (f" and {len(names) - limit} more" if len(names) > limit else "")
