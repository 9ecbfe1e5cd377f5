"""RGB pictures as files, in and out."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import ExifTags, Image

from vos_pipeline.errors import PipelineError
from vos_pipeline.files import replacing

# What an EXIF orientation asks for. PIL's exif_transpose also writes the other EXIF data anew, and fails where they
# are damaged.
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
DAMAGE = (
    OSError,
    ValueError,
    SyntaxError,
    TypeError,
    LookupError,
    EOFError,
    struct.error,
)  # as PIL raises it
SIDEWAYS = (5, 6, 7, 8)  # the orientations that exchange height and width
NOTES = (b"Raw profile type exif", b"XML:com.adobe.xmp\0")  # texts of a PNG that hold an orientation


def read_image(path: str | Path) -> np.ndarray:
    """Read a picture of any common format as RGB, turned as its EXIF orientation says.

    Returns:
        uint8 (H, W, 3).

    Raises:
        PipelineError: the file is missing, truncated, of 16 bits a channel, no picture, or holds several pages.
    """
    with open_image(path) as image:
        _check_single(image, path)
        if image.mode.startswith(("I", "F")):
            raise PipelineError(
                f"{path}: frames must have 8 bits a channel, got mode {image.mode}; convert it"
            )
        decoded(image.load, path)
        return np.array(decoded(upright(image).convert, path, "RGB"))


def upright(image: Image.Image) -> Image.Image:
    """An open picture as its EXIF orientation says that it is seen; the mode and its values stay.

    For a mask, call it before the pixels are read: ``np.array(upright(image))``. :func:`image_size` agrees with it.
    """
    image.load()  # a PNG's orientation may follow its pixels
    turn = TURNS.get(_orientation(image))
    return image if turn is None else image.transpose(turn)


def write_image(path: str | Path, image: np.ndarray, quality: int = 92) -> None:
    """Write uint8 RGB (H, W, 3) as PNG or JPEG, by suffix; readers never see half a file."""
    jpeg = Path(path).suffix.lower() in (".jpg", ".jpeg")
    with replacing(path) as file:
        Image.fromarray(image).save(file, "JPEG" if jpeg else "PNG", quality=quality)


def image_size(path: str | Path) -> tuple[int, int]:
    """Height and width of the picture as it is seen, from the header, at the price of a few bytes.

    Raises:
        PipelineError: the file is missing, cut short, no picture, or holds several pages.
    """
    with open_image(path) as image:
        _check_single(image, path)
        if not _ends_as_it_should(path) or (image.format == "PNG" and _notes_follow_pixels(path)):
            decoded(image.load, path)
        sideways = _orientation(image) in SIDEWAYS
        return (image.width, image.height) if sideways else (image.height, image.width)


# --- helpers ------------------------------------------------------------------------------------------------


def open_image(path: str | Path) -> Image.Image:
    if os.path.exists(path) and not os.path.isfile(path):  # a pipe might wait for ever
        raise PipelineError(f"{path}: is no file; give a picture")
    try:
        return Image.open(path)
    except FileNotFoundError:
        raise PipelineError(f"{path}: no such file") from None
    except PermissionError:
        raise PipelineError(f"{path}: may not be read (permission denied)") from None
    except Image.DecompressionBombError as error:
        raise PipelineError(f"{path}: is too large ({error})") from None
    except DAMAGE as error:
        reason = getattr(error, "strerror", None) or "it is none, or of an unknown format"
        raise PipelineError(f"{path}: can not be read as a picture ({reason})") from None


def decoded(decode: Callable[..., Any], path: str | Path, *args: str) -> Any:
    try:
        return decode(*args)
    except DAMAGE as error:
        raise PipelineError(f"{path}: is damaged or cut short ({error}); copy or download it again") from None


def count_pages(image: Image.Image, path: str | Path) -> int:
    """The pictures of an open file; those that a phone puts beside a photograph, previews or depth, do not count."""
    return 1 if image.format == "MPO" else decoded(lambda: getattr(image, "n_frames", 1), path)


def _check_single(image: Image.Image, path: str | Path) -> None:
    pages = count_pages(image, path)
    if pages > 1:
        raise PipelineError(
            f"{path}: holds {pages} pictures (pages or an animation), but a frame must be a file of its own; "
            "split it, or give an animation as a video file"
        )


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation, 1 to 8; 1 where there is none that can be read."""
    if image.format == "TIFF":
        return 1  # PIL has turned it
    try:
        exif = Image.Image.getexif(image)  # that of a PNG would decode it
        return int(exif.get(ExifTags.Base.Orientation, 1))
    except DAMAGE:
        return 1  # notes that are damaged do no harm to the picture


def _notes_follow_pixels(path: str | Path) -> bool:
    """Whether a PNG has EXIF or XMP data behind its pixels, where PIL finds them by decoding only."""
    pixels = False
    with open(path, "rb") as file:
        file.seek(8)
        while len(head := file.read(8)) == 8:
            length, kind = struct.unpack(">I4s", head)
            start = file.tell()
            pixels = pixels or kind == b"IDAT"
            if pixels and (kind == b"eXIf" or file.read(21).startswith(NOTES)):
                return True
            file.seek(start + length + 4)
    return False


def _ends_as_it_should(path: str | Path) -> bool:
    """Whether a JPEG or PNG has its end mark; a few whole files have more bytes behind it."""
    with open(path, "rb") as file:
        file.seek(0, 2)
        file.seek(max(0, file.tell() - 12))
        end = file.read()
    return end.endswith(b"\xff\xd9") or end[4:8] == b"IEND"
