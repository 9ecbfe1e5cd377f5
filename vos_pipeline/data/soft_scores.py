"""Scores of several objects: one NPZ file per frame, or one folder of grey images per object."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from tokenize import TokenError
from typing import ClassVar
from zipfile import BadZipFile, ZipFile

import numpy as np
from tqdm import tqdm

from vos_pipeline.data.folders import files_of_frames, has_files, has_images, list_files, shorten
from vos_pipeline.data.labels import MaskFolder
from vos_pipeline.data.masks import VOID, read_stored
from vos_pipeline.data.sequence import Sequence
from vos_pipeline.errors import PipelineError
from vos_pipeline.settings import SMALLEST_SCORE

ARRAYS = ".npz"
SCORES, IDS = "scores.npy", "ids.npy"  # members of an NPZ file
HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
FLOAT_BYTES = (2, 4, 8)
# What zipfile and NumPy raise for damaged files.
DAMAGE = (
    *(OSError, ValueError, SyntaxError, TypeError, LookupError, EOFError, RuntimeError, ArithmeticError),
    *(BadZipFile, TokenError, zlib.error, struct.error),
)


def has_score_arrays(folder: Path) -> bool:
    """Return whether the folder contains NPZ files."""
    return has_files(folder, ARRAYS)


def all_hold_scores(folder: Path) -> bool:
    """Return whether all NPZ files of the folder can be opened and contain an array of scores."""
    try:
        for path in list_files(folder, ARRAYS):
            with ZipFile(path) as archive:
                if SCORES not in archive.namelist():
                    return False
    except DAMAGE:
        return False
    return True


def object_folders(folder: Path) -> list[Path]:
    """Return the subfolders named by integers, in numerical order; [] unless one of them contains images."""
    folders = [path for path in folder.iterdir() if is_object_name(path.name) and path.is_dir()]
    folders.sort(key=lambda path: (int(path.name), path.name))
    return folders if any(map(has_images, folders)) else []


def is_object_name(name: str) -> bool:
    """Return whether a folder of this name is read as the folder of an object."""
    return name.isascii() and name.isdecimal()


# --- one NPZ file per frame ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class ScoreArrays:
    """Scores in one NPZ file per frame: ``scores`` (K, H, W) and ``ids`` (K,), by default 1 to K.

    Files may list the same objects in different orders.
    """

    sequence: Sequence
    files: tuple[Path, ...]
    ids: tuple[int, ...]  # sorted
    hold_scores: ClassVar[bool] = True

    @classmethod
    def open(cls, sequence: Sequence, folder: Path, hold: str) -> ScoreArrays:
        """Open the files and check all of them, with the scores of only one frame in memory at a time."""
        _refuse_labels(folder, hold, "NPZ files")
        files = files_of_frames(sequence.frame_paths, folder, ARRAYS)
        sequence.check_sizes()
        arrays = cls(sequence, files, tuple(sorted(_read_arrays(files[0], sequence)[0])))
        progress = tqdm(files, "check masks", unit="mask", delay=2, leave=False)
        largest, largest_byte = np.max([arrays._largest(path) for path in progress], axis=0)
        _check_scale(folder, largest, int(largest_byte), hold)
        return arrays

    def read(self, t: int) -> np.ndarray:
        """Return the scores of frame t in [0, 1], float32 (K, H, W)."""
        ids, stored = self._read(self.files[t])
        scores = np.empty(stored.shape, np.float32)
        for channel, place in enumerate(np.argsort(ids)):
            scores[channel] = stored[place]
        if stored.dtype == np.uint8:
            scores /= 255
        return scores

    def _largest(self, path: Path) -> tuple[float, int]:
        """Return the largest stored score of a file, and the same value if it has 8 bits (else 0)."""
        scores = self._read(path)[1]
        largest = scores.max()
        return float(largest), int(largest) if scores.dtype == np.uint8 else 0

    def _read(self, path: Path) -> tuple[tuple[int, ...], np.ndarray]:
        ids, scores = _read_arrays(path, self.sequence)
        if tuple(sorted(ids)) != self.ids:
            raise PipelineError(
                f"{path}: has the ids {_listed(ids)}, but {self.files[0].name} has {_listed(self.ids)}; "
                "all frames of a sequence must have the same objects"
            )
        return ids, scores


def _read_arrays(path: Path, sequence: Sequence) -> tuple[tuple[int, ...], np.ndarray]:
    """Return the ids and the scores of a file, as stored."""
    try:
        with ZipFile(path) as archive:
            _check_names(archive, path)
            shape, dtype = _header(archive, SCORES)
            # Checked before reading the values, because a header may declare any size.
            _check_scores(path, shape, dtype, sequence)
            ids = _read_ids(archive, path, shape[0])
            scores = _values(archive, SCORES)
    except DAMAGE as error:
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise PipelineError(
            f"{path}: cannot be read as an NPZ file ({reason}); write it with numpy.savez"
        ) from None
    except MemoryError:
        raise PipelineError(
            f"{path}: is too large for the memory of this machine; save uint8 scores or use smaller frames"
        ) from None
    low, high = scores.min(), scores.max()
    if not (np.isfinite(low) and np.isfinite(high)):
        raise PipelineError(f"{path}: scores must lie in [0, 1], got NaN or infinity")
    if scores.dtype != np.uint8 and (low < 0 or high > 1):
        raise PipelineError(
            f"{path}: scores must lie in [0, 1], got values from {low} to {high}; "
            "save probabilities, or probabilities * 255 as uint8"
        )
    return ids, scores


def _check_names(archive: ZipFile, path: Path) -> None:
    if SCORES not in archive.namelist():
        names = [name.removesuffix(".npy") for name in archive.namelist()]
        held = ascii(shorten(names)) if names else "nothing"
        raise PipelineError(
            f"{path}: must contain an array 'scores' (objects, height, width), but contains {held}"
        )


def _check_scores(path: Path, shape: tuple[int, ...], dtype: np.dtype, sequence: Sequence) -> None:
    if dtype != np.uint8 and not (dtype.kind == "f" and dtype.itemsize in FLOAT_BYTES):
        raise PipelineError(
            f"{path}: scores must be float16, float32 or float64 in [0, 1], or uint8 (probability * 255), got {dtype}"
        )
    height, width = sequence.size
    if len(shape) != 3 or not 1 <= shape[0] < VOID or shape[1:] != (height, width):
        raise PipelineError(
            f"{path}: scores must have the shape (objects, {height}, {width}), with 1 to {VOID - 1} objects, "
            f"to match {sequence.frame_paths[0].name} ({width}x{height}), got {shape}"
        )


def _read_ids(archive: ZipFile, path: Path, count: int) -> tuple[int, ...]:
    if IDS not in archive.namelist():
        return tuple(range(1, count + 1))
    shape, dtype = _header(archive, IDS)
    if shape != (count,) or dtype.kind not in "iu":
        raise PipelineError(
            f"{path}: ids must be {count} integers, one per object in scores, got {dtype} of shape {shape}"
        )
    ids = tuple(int(k) for k in _values(archive, IDS))
    if len(set(ids)) < count or not all(0 < k < VOID for k in ids):
        raise PipelineError(f"{path}: ids must be distinct and from 1 to {VOID - 1}, got {_listed(ids)}")
    return ids


def _header(archive: ZipFile, name: str) -> tuple[tuple[int, ...], np.dtype]:
    """Return the shape and dtype of an array without reading its values."""
    with archive.open(name) as file:
        version = np.lib.format.read_magic(file)
        if version not in HEADERS:
            raise ValueError(f"{name} has an unknown format")
        shape, _, dtype = HEADERS[version](file)
    return shape, dtype


def _values(archive: ZipFile, name: str) -> np.ndarray:
    with archive.open(name) as file:
        values = np.lib.format.read_array(file, allow_pickle=False)
        if file.read(1):  # zipfile verifies the checksum only at the end of the file
            raise ValueError(f"{name} has more values than its shape says")
    return np.asarray(values)


# --- one folder of grey images per object -------------------------------------------------------------------


@dataclass(frozen=True)
class ScoreFolders:
    """Scores in one folder per object, named after its label: grey images of probability * 255, or binary masks."""

    folders: tuple[MaskFolder, ...]
    size: tuple[int, int]  # height, width
    ids: tuple[int, ...]  # sorted
    hold_scores: ClassVar[bool] = True

    @classmethod
    def open(cls, sequence: Sequence, folder: Path, hold: str) -> ScoreFolders:
        """Open the folders and check every file."""
        _refuse_labels(folder, hold, "one folder per object")
        paths = object_folders(folder)
        ids = _ids_of_folders(paths)
        folders = tuple(MaskFolder(files_of_frames(sequence.frame_paths, path)) for path in paths)
        sequence.check_sizes()
        for masks in folders:
            for path, size in masks.survey(progress=True).sizes.items():
                sequence.check_size(path, size)
            _check_binary(masks)
        grey = max(max(masks.survey().grey.first_with, default=0) for masks in folders)
        marked = any(masks.survey().palette.first_with.keys() - {0} for masks in folders)
        _check_scale(folder, max(grey, marked), grey, hold)
        return cls(folders, sequence.size, ids)

    @property
    def files(self) -> tuple[Path, ...]:
        """All mask files, one object after another."""
        return tuple(path for masks in self.folders for path in masks.paths)

    def read(self, t: int) -> np.ndarray:
        """Return the scores of frame t in [0, 1], float32 (K, H, W)."""
        scores = np.empty((len(self.folders), *self.size), np.float32)
        for channel, masks in enumerate(self.folders):
            scores[channel] = _read_picture(masks.paths[t])
        return scores


def _ids_of_folders(folders: list[Path]) -> tuple[int, ...]:
    by_id: dict[int, Path] = {}
    for path in folders:
        k = int(path.name)
        if not 0 < k < VOID:
            raise PipelineError(
                f"{path}: a folder of an object's scores must be named after its label, 1 to {VOID - 1}; "
                "the background needs no scores"
            )
        if k in by_id:
            raise PipelineError(
                f"{path}: contains scores of object {k}, and so does {by_id[k]}; keep one of them"
            )
        by_id[k] = path
    return tuple(by_id)


def _check_binary(masks: MaskFolder) -> None:
    """Raise PipelineError for palette masks of several objects, or of one object and void."""
    first_with = masks.survey().palette.first_with
    indices = sorted(first_with.keys() - {0})
    if len(indices) > 1:
        raise PipelineError(
            f"{first_with[indices[1]]}: palette masks in a folder of one object must contain 0 and one other index, "
            f"but these contain {_listed(indices)}"
        )


def _read_picture(path: Path) -> np.ndarray:
    """Return the scores of one object, float or bool (H, W)."""
    mask = read_stored(path)
    return mask.values > 0 if mask.palette else mask.values / np.float32(255)


# --- checks of both formats ---------------------------------------------------------------------------------


def _refuse_labels(folder: Path, hold: str, what: str) -> None:
    if hold == "labels":
        raise PipelineError(f"{folder}: contains scores ({what}), not labels; omit --masks-hold")


def _check_scale(folder: Path, largest: float, largest_byte: int, hold: str) -> None:
    """Raise PipelineError if all scores are 0, or if 8-bit scores use 1 instead of 255."""
    if largest == 0:
        raise PipelineError(f"{folder}: these masks mark no object")
    if hold == "auto" and 0 < largest_byte < SMALLEST_SCORE:
        raise PipelineError(
            f"{folder}: 8-bit scores must be probabilities * 255, but the largest value here is {largest_byte}; "
            "save 255 where an object is certain, or pass --masks-hold scores if the scores really are this low"
        )


def _listed(ids: Iterable[int]) -> str:
    return shorten([str(k) for k in ids])
