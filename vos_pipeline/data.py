"""Sequences of frames and label masks: DAVIS roots, a user's own video, and palette PNGs in and out.

Labels are uint8 maps (H, W): 0 is background, 1..254 are objects, 255 in a palette mask is void.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from vos_pipeline.errors import PipelineError

VOID = 255
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")
VIDEO_SUFFIXES = (".mp4", ".mov", ".avi", ".mkv", ".m4v", ".webm", ".mpg", ".mpeg")


# --- one file -----------------------------------------------------------------------------------------------


def read_image(path: str | Path) -> np.ndarray:
    """Read a picture of any common format as RGB.

    Returns:
        uint8 (H, W, 3).

    Raises:
        PipelineError: the file is missing, truncated, of 16 bits a channel, or no picture.
    """
    with _open(path) as image:
        if image.mode.startswith(("I", "F")):
            raise PipelineError(
                f"{path}: frames must have 8 bits a channel, got mode {image.mode}; convert it"
            )
        return np.array(_decoded(image.convert, path, "RGB"))


def read_labels(path: str | Path) -> np.ndarray:
    """Read a label mask as it is stored.

    A grey mask that holds only 0 and 255 is a DAVIS 2016 mask: one object, returned as label 1. In a palette
    mask 255 means void and stays 255.

    Returns:
        uint8 (H, W) labels.

    Raises:
        PipelineError: the file is missing or damaged, has 16 bits, or holds colours instead of labels.
    """
    with _open(path) as image:
        if image.mode == "1":
            return np.asarray(_decoded(image.convert, path, "L")) // 255
        if image.mode not in ("P", "L"):
            kind = "16-bit" if image.mode.startswith("I") else f"{image.mode} colour"
            raise PipelineError(
                f"{path}: a mask must be an indexed (palette) or 8-bit grey PNG, got a {kind} image; "
                "save it with one index per object"
            )
        labels = np.array(_decoded(image.copy, path))
        if image.mode == "L" and labels.any() and not np.any((labels != 0) & (labels != VOID)):
            labels //= 255
    return labels


def write_labels(path: str | Path, labels: np.ndarray) -> None:
    """Write labels (H, W) as an indexed PNG with the DAVIS palette; readers never see half a file."""
    labels = np.asarray(labels)
    if labels.ndim != 2 or labels.dtype != np.uint8:
        raise ValueError(f"labels must be uint8 (H, W), got {labels.dtype} {labels.shape}")
    image = Image.fromarray(labels)
    image.putpalette(davis_palette().tobytes())
    _save_atomic(image, Path(path), format="PNG")


def write_image(path: str | Path, image: np.ndarray, quality: int = 92) -> None:
    """Write uint8 RGB (H, W, 3) as PNG or JPEG, by suffix; readers never see half a file."""
    path = Path(path)
    if path.suffix.lower() in (".jpg", ".jpeg"):
        _save_atomic(Image.fromarray(image), path, format="JPEG", quality=quality)
    else:
        _save_atomic(Image.fromarray(image), path, format="PNG")


def davis_palette() -> np.ndarray:
    """The PASCAL VOC and DAVIS palette, uint8 (256, 3).

    Bits 0, 1, 2 of the index are the highest bits of red, green, blue; bits 3, 4, 5 the next highest, and so
    on.
    """
    index = np.arange(256, dtype=np.uint8)
    palette = np.zeros((256, 3), np.uint8)
    for bit in range(8):
        palette[:, bit % 3] |= ((index >> bit) & 1) << (7 - bit // 3)
    return palette


def overlay(frame: np.ndarray, labels: np.ndarray, alpha: float = 0.5) -> np.ndarray:
    """Tint a frame with the palette colour of each object and draw the objects' contours in full colour.

    Args:
        frame: uint8 (H, W, 3). labels: uint8 (H, W); void is drawn as background. alpha: weight of the tint.

    Returns:
        uint8 (H, W, 3).
    """
    if frame.shape[:2] != labels.shape:
        raise ValueError(f"labels must be {frame.shape[:2]} like the frame, got {labels.shape}")
    labels = np.where(labels == VOID, 0, labels)
    tint = davis_palette()[labels].astype(np.float32)
    weight = np.where(labels > 0, np.float32(alpha), np.float32(0))
    weight[label_contours(labels)] = 1
    return (frame + weight[..., None] * (tint - frame) + 0.5).astype(np.uint8)


def label_contours(labels: np.ndarray) -> np.ndarray:
    """The pixels of objects that touch another label in one of four directions: bool (H, W)."""
    padded = np.pad(labels, 1, mode="edge")
    differs = np.zeros(labels.shape, bool)
    for rows, columns in ((0, 1), (2, 1), (1, 0), (1, 2)):
        height, width = labels.shape
        differs |= labels != padded[rows : rows + height, columns : columns + width]
    return differs & (labels > 0)


# --- one sequence -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Sequence:
    """Frames of one video with the label masks that are known for them (the first one always is)."""

    name: str
    frame_paths: tuple[Path, ...]
    mask_paths: tuple[Path | None, ...]

    def __len__(self) -> int:
        return len(self.frame_paths)

    @cached_property
    def size(self) -> tuple[int, int]:
        """Height and width of the first frame; every frame and mask must have them."""
        return _header_size(self.frame_paths[0])

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
        PipelineError: something is missing (the message lists what exists), or a first mask does not fit its
            frame.
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
    frames_dir = root / "JPEGImages" / resolution / name
    masks_dir = root / "Annotations" / resolution / name
    if not frames_dir.is_dir():
        raise PipelineError(
            f"{frames_dir}: no such folder; {frames_dir.parent} holds {_listing(frames_dir.parent)}"
        )
    frames = sorted(frames_dir.glob("*.jpg"))
    if not frames:
        raise PipelineError(f"{frames_dir}: holds no .jpg frame")
    masks = tuple(path if path.is_file() else None for path in (masks_dir / f"{f.stem}.png" for f in frames))
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
        frames = list_images(source)
    elif source.is_file():
        if work_dir is None:
            raise ValueError("work_dir must be given to decode a video file, got None")
        frames = list_images(_decode_video(source, Path(work_dir)))
    else:
        raise PipelineError(f"{source}: no such file or folder")
    name = source.resolve().name if source.is_dir() else source.stem
    return _validated(Sequence(name, tuple(frames), (first_mask,) + (None,) * (len(frames) - 1)))


def list_images(folder: str | Path) -> list[Path]:
    """The pictures of a folder in natural order (frame2 before frame10); PipelineError if there are none."""
    folder = Path(folder)
    if not folder.is_dir():
        raise PipelineError(f"{folder}: no such folder")
    images = [
        p for p in folder.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES and not p.name.startswith(".")
    ]
    if not images:
        raise PipelineError(f"{folder}: holds no pictures ({', '.join(IMAGE_SUFFIXES)})")
    return sorted(images, key=lambda p: [int(s) if s.isdecimal() else s for s in re.split(r"(\d+)", p.name)])


def _decode_video(video: Path, work_dir: Path) -> Path:
    """Decode to ``work_dir/<name>/%05d.jpg`` once; renamed last, a folder of that name is complete."""
    import cv2

    stat = video.stat()
    folder = work_dir / f"{video.stem}-{stat.st_size}-{stat.st_mtime_ns}"
    if folder.is_dir():
        return folder
    work_dir.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=".decoding-", dir=work_dir))
    capture = cv2.VideoCapture(str(video))
    try:
        count = 0
        while True:
            decoded, frame = capture.read()
            if not decoded:
                break
            write_image(partial / f"{count:05d}.jpg", np.ascontiguousarray(frame[..., ::-1]), quality=95)
            count += 1
        if count == 0:
            raise PipelineError(
                f"{video}: OpenCV can not decode this as a video; give an .mp4 or a folder of frames"
            )
        os.replace(partial, folder)
    finally:
        capture.release()
        shutil.rmtree(partial, ignore_errors=True)
    return folder


# --- helpers ------------------------------------------------------------------------------------------------


def _validated(sequence: Sequence) -> Sequence:
    """Fail before hours of work, not after: the first mask must be readable, fit, and mark an object."""
    assert sequence.object_ids
    for path in (*sequence.frame_paths, *(path for path in sequence.mask_paths if path is not None)):
        size = _header_size(path)
        if size != sequence.size:
            raise PipelineError(
                f"{path}: is {_by(size)}, but {sequence.frame_paths[0].name} is {_by(sequence.size)}; "
                "all frames and masks of a sequence must have one size"
            )
    return sequence


def _header_size(path: Path) -> tuple[int, int]:
    with _open(path) as image:
        return image.height, image.width


def _open(path: str | Path) -> Image.Image:
    try:
        return Image.open(path)
    except FileNotFoundError:
        raise PipelineError(f"{path}: no such file") from None
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError) as error:
        raise PipelineError(f"{path}: can not be read as a picture ({type(error).__name__})") from None


def _decoded(decode, path: str | Path, *args) -> Image.Image:
    try:
        return decode(*args)
    except (OSError, ValueError, SyntaxError, EOFError) as error:
        raise PipelineError(f"{path}: is damaged or cut short ({error}); copy or download it again") from None


def _save_atomic(image: Image.Image, path: Path, **options) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, partial = tempfile.mkstemp(prefix=f".{path.stem}-", suffix=path.suffix, dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            image.save(file, **options)
        os.chmod(partial, 0o644)  # mkstemp makes it private
        os.replace(partial, path)
    except BaseException:
        Path(partial).unlink(missing_ok=True)
        raise


def _by(shape: tuple[int, ...]) -> str:
    return f"{shape[1]}x{shape[0]}"


def _listing(folder: Path) -> str:
    if not folder.is_dir():
        return "nothing (it does not exist)"
    return _shorten(sorted(p.name for p in folder.iterdir())) or "nothing"


def _shorten(names: list[str], limit: int = 12) -> str:
    return ", ".join(names[:limit]) + (f" and {len(names) - limit} more" if len(names) > limit else "")
