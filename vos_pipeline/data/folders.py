"""List the visible files of a folder in natural order, and describe its contents in error messages."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

from vos_pipeline.errors import PipelineError, readable

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")


def list_images(folder: str | Path) -> list[Path]:
    """Return the image files of a folder in natural order; raise PipelineError if it has none."""
    return list_files(Path(folder), *IMAGE_SUFFIXES)


def has_images(folder: Path) -> bool:
    """Return whether the folder contains a visible image file."""
    return has_files(folder, *IMAGE_SUFFIXES)


def has_files(folder: Path, *suffixes: str) -> bool:
    """Return whether the folder contains a visible file with one of the suffixes, see :func:`list_files`."""
    return any(_is_visible(name, suffixes) and _can_be_read(folder / name) for name in _names(folder))


def files_of_frames(frames: Sequence[Path], folder: Path, *suffixes: str) -> tuple[Path, ...]:
    """Return the files of a folder that have the same names as the frames, in the order of the frames.

    Args:
        frames: images, all in one folder.
        folder: contains one file per frame.
        suffixes: suffixes of the files; default: image suffixes.

    Raises:
        PipelineError: a frame has no file, or a file has no frame.
    """
    names = {path.stem for path in frames}
    paths = {path.stem: path for path in list_files(folder, *(suffixes or IMAGE_SUFFIXES))}
    missing = [path.stem for path in frames if path.stem not in paths]
    if missing:
        suffix = suffixes[0] if suffixes else ".png"
        raise PipelineError(
            f"{folder}: no mask {missing[0]}{suffix} for frame {missing[0]} ({len(missing)} missing); "
            "every frame needs a mask of the same name"
        )
    alone = sorted(paths.keys() - names)
    if alone:
        raise PipelineError(
            f"{frames[0].parent}: no frame for mask {paths[alone[0]].name} ({len(alone)} missing); "
            "every mask needs a frame of the same name"
        )
    return tuple(paths[path.stem] for path in frames)


def list_files(folder: Path, *suffixes: str) -> list[Path]:
    """Return the visible files with one of the suffixes in natural order.

    Suffixes are given in lower case and match files in any case.

    Raises:
        PipelineError: there is no such file, two files share a stem, or a name is not UTF-8.
    """
    files = [folder / name for name in natural_order(_names(folder)) if _is_visible(name, suffixes)]
    files = [path for path in files if _can_be_read(path)]
    if not files:
        raise PipelineError(f"{readable(folder)}: contains no {', '.join(suffixes)} files")
    by_stem: dict[str, Path] = {}
    for path in files:
        check_name(path)
        other = by_stem.setdefault(path.stem, path)
        if other is not path:
            raise PipelineError(
                f"{folder}: {other.name} and {path.name} would have the same result file, {path.stem}.png; "
                "keep one of them"
            )
    return files


def natural_order(names: list[str]) -> list[str]:
    """Return the names in natural order: 2 before 10, with any zero padding."""
    return sorted(names, key=lambda name: ([int(s) if s.isdecimal() else s for s in _runs(name)], name))


def check_name(path: Path) -> None:
    """Raise PipelineError for a path that is not UTF-8, because no report or zip file can contain its name."""
    if readable(path) != str(path):
        raise PipelineError(f"{readable(path)}: this name is not UTF-8; rename it")


def listing(folder: Path) -> str:
    """Return the first names in a folder, for a message."""
    if not folder.is_dir():
        return "nothing (it does not exist)"
    return shorten([readable(name) for name in natural_order(_names(folder))]) or "nothing"


def shorten(names: list[str], limit: int = 12) -> str:
    """Return the first names, joined by commas, and the number of omitted ones."""
    return ", ".join(names[:limit]) + (f" and {len(names) - limit} more" if len(names) > limit else "")


def _runs(name: str) -> list[str]:
    """Split a name into alternating text and digits."""
    return re.split(r"(\d+)", name)


def _is_visible(name: str, suffixes: tuple[str, ...]) -> bool:
    return os.path.splitext(name)[1].lower() in suffixes and not name.startswith(".")


def _can_be_read(path: Path) -> bool:
    """Return False for folders and for pipes, which may block forever.

    A broken link counts as readable: reading it raises an error that names it.
    """
    return path.is_file() or not path.exists()


def _names(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)
    except FileNotFoundError:
        raise PipelineError(f"{readable(folder)}: no such folder") from None
    except OSError as error:  # not a folder, or no permission
        raise PipelineError(f"{readable(folder)}: cannot be read as a folder ({error.strerror})") from None
