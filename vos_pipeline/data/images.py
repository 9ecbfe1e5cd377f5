"""RGB pictures as files, in and out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from vos_pipeline.errors import PipelineError
from vos_pipeline.files import replacing


def read_image(path: str | Path) -> np.ndarray:
    """Read a picture of any common format as RGB.

    Returns:
        uint8 (H, W, 3).

    Raises:
        PipelineError: the file is missing, truncated, of 16 bits a channel, or no picture.
    """
    with open_image(path) as image:
        if image.mode.startswith(("I", "F")):
            raise PipelineError(
                f"{path}: frames must have 8 bits a channel, got mode {image.mode}; convert it"
            )
        return np.array(decoded(image.convert, path, "RGB"))


def write_image(path: str | Path, image: np.ndarray, quality: int = 92) -> None:
    """Write uint8 RGB (H, W, 3) as PNG or JPEG, by suffix; readers never see half a file."""
    jpeg = Path(path).suffix.lower() in (".jpg", ".jpeg")
    with replacing(path) as file:
        Image.fromarray(image).save(file, "JPEG" if jpeg else "PNG", quality=quality)


def image_size(path: str | Path) -> tuple[int, int]:
    """Height and width from the header, at the price of a few bytes; a file that is cut short is an error."""
    with open_image(path) as image:
        if not _ends_as_it_should(path):
            decoded(image.load, path)
        return image.height, image.width


# --- helpers ------------------------------------------------------------------------------------------------


def open_image(path: str | Path) -> Image.Image:
    try:
        return Image.open(path)
    except FileNotFoundError:
        raise PipelineError(f"{path}: no such file") from None
    except PermissionError:
        raise PipelineError(f"{path}: may not be read (permission denied)") from None
    except (UnidentifiedImageError, Image.DecompressionBombError, OSError, ValueError, SyntaxError) as error:
        raise PipelineError(f"{path}: can not be read as a picture ({type(error).__name__})") from None


def decoded(decode: Callable[..., Any], path: str | Path, *args: str) -> Any:
    try:
        return decode(*args)
    except (OSError, ValueError, SyntaxError, EOFError) as error:
        raise PipelineError(f"{path}: is damaged or cut short ({error}); copy or download it again") from None


def _ends_as_it_should(path: str | Path) -> bool:
    """Whether a JPEG or PNG has its end mark; a few whole files have more bytes behind it."""
    with open(path, "rb") as file:
        file.seek(0, 2)
        file.seek(max(0, file.tell() - 12))
        end = file.read()
    return end.endswith(b"\xff\xd9") or end[4:8] == b"IEND"
