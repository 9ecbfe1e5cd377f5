"""What a folder holds: its visible files in order, and errors that list it."""

from __future__ import annotations

import os
import re
from itertools import pairwise
from pathlib import Path

from vos_pipeline.errors import PipelineError

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")


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


def has_images(folder: Path) -> bool:
    """Whether the folder holds a visible picture."""
    return any(_is_visible(name, IMAGE_SUFFIXES) for name in _names(folder))


def list_files(folder: Path, *suffixes: str) -> list[Path]:
    """The visible files with one of the suffixes, sorted by name; PipelineError if there are none."""
    names = [name for name in _names(folder) if _is_visible(name, suffixes)]
    if not names:
        raise PipelineError(f"{folder}: holds no {', '.join(suffixes)} files")
    return [folder / name for name in names]


def listing(folder: Path) -> str:
    """What a folder holds, for an error's line."""
    if not folder.is_dir():
        return "nothing (it does not exist)"
    return shorten(_names(folder)) or "nothing"


def _is_visible(name: str, suffixes: tuple[str, ...]) -> bool:
    return os.path.splitext(name)[1].lower() in suffixes and not name.startswith(".")


def _names(folder: Path) -> list[str]:
    try:
        return sorted(os.listdir(folder))
    except FileNotFoundError:
        raise PipelineError(f"{folder}: no such folder") from None
    except OSError as error:  # no folder, no permission
        raise PipelineError(f"{folder}: can not be read as a folder ({error.strerror})") from None


def shorten(names: list[str], limit: int = 12) -> str:
    return ", ".join(names[:limit]) + (f" and {len(names) - limit} more" if len(names) > limit else "")
