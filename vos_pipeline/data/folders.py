"""What a folder holds: its visible files in natural order, and errors that list it."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

from vos_pipeline.errors import PipelineError, readable

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")


def list_images(folder: str | Path) -> list[Path]:
    """The pictures of a folder in natural order; PipelineError if there are none."""
    return list_files(Path(folder), *IMAGE_SUFFIXES)


def has_images(folder: Path) -> bool:
    """Whether the folder holds a visible picture."""
    return has_files(folder, *IMAGE_SUFFIXES)


def has_files(folder: Path, *suffixes: str) -> bool:
    """Whether the folder holds a visible file with one of the suffixes, see :func:`list_files`."""
    return any(_is_visible(name, suffixes) and _can_be_read(folder / name) for name in _names(folder))


def files_of_frames(frames: Sequence[Path], folder: Path, *suffixes: str) -> tuple[Path, ...]:
    """The files of a folder that have the names of the frames, in their order.

    Args:
        frames: pictures, of one folder.
        folder: holds as many files.
        suffixes: of the files; those of pictures by default.

    Raises:
        PipelineError: a frame without its file, or a file without its frame.
    """
    names = {path.stem for path in frames}
    paths = {path.stem: path for path in list_files(folder, *(suffixes or IMAGE_SUFFIXES))}
    missing = [path.stem for path in frames if path.stem not in paths]
    if missing:
        suffix = suffixes[0] if suffixes else ".png"
        raise PipelineError(
            f"{folder}: no mask {missing[0]}{suffix} for frame {missing[0]} ({len(missing)} missing)"
        )
    alone = sorted(paths.keys() - names)
    if alone:
        raise PipelineError(
            f"{frames[0].parent}: no frame for mask {paths[alone[0]].name} ({len(alone)} missing)"
        )
    return tuple(paths[path.stem] for path in frames)


def list_files(folder: Path, *suffixes: str) -> list[Path]:
    """The visible files with one of the suffixes (lower case; those of the files in any case), in natural order.

    Raises:
        PipelineError: there are none, two share a stem, or a name is not UTF-8.
    """
    files = [folder / name for name in natural_order(_names(folder)) if _is_visible(name, suffixes)]
    files = [path for path in files if _can_be_read(path)]
    if not files:
        raise PipelineError(f"{readable(folder)}: holds no {', '.join(suffixes)} files")
    by_stem: dict[str, Path] = {}
    for path in files:
        check_name(path)
        other = by_stem.setdefault(path.stem, path)
        if other is not path:
            raise PipelineError(
                f"{folder}: {other.name} and {path.name} would have one result, {path.stem}.png; "
                "keep one of them"
            )
    return files


def natural_order(names: list[str]) -> list[str]:
    """Names as people count: 2 before 10, whatever the padding."""
    return sorted(names, key=lambda name: ([int(s) if s.isdecimal() else s for s in _runs(name)], name))


def check_name(path: Path) -> None:
    """PipelineError for a path that is not UTF-8, which no report and no zip can name."""
    if readable(path) != str(path):
        raise PipelineError(f"{readable(path)}: this name is not UTF-8; rename it")


def listing(folder: Path) -> str:
    """The first names in a folder, for a message."""
    if not folder.is_dir():
        return "nothing (it does not exist)"
    return shorten([readable(name) for name in natural_order(_names(folder))]) or "nothing"


def shorten(names: list[str], limit: int = 12) -> str:
    """The first names in a row, and how many more there are."""
    return ", ".join(names[:limit]) + (f" and {len(names) - limit} more" if len(names) > limit else "")


def _runs(name: str) -> list[str]:
    """Texts and numbers in turn."""
    return re.split(r"(\d+)", name)


def _is_visible(name: str, suffixes: tuple[str, ...]) -> bool:
    return os.path.splitext(name)[1].lower() in suffixes and not name.startswith(".")


def _can_be_read(path: Path) -> bool:
    """Not for folders, and not for pipes, which may wait for ever; what a link has lost is noticed on reading."""
    return path.is_file() or not path.exists()


def _names(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)
    except FileNotFoundError:
        raise PipelineError(f"{readable(folder)}: no such folder") from None
    except OSError as error:  # no folder, no permission
        raise PipelineError(f"{readable(folder)}: can not be read as a folder ({error.strerror})") from None
