"""Read and write RGB image files."""

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

# The transposition for each EXIF orientation. PIL's exif_transpose also rewrites the other EXIF data and fails if they
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
# What PIL raises for damaged files.
DAMAGE = (OSError, ValueError, SyntaxError, TypeError, LookupError, EOFError, struct.error)
SIDEWAYS = (5, 6, 7, 8)  # orientations that swap height and width
NOTES = (b"Raw profile type exif", b"XML:com.adobe.xmp\0")  # PNG text chunks that may contain an orientation


def read_image(path: str | Path) -> np.ndarray:
    """Read an image of any common format as RGB and apply its EXIF orientation.

    Returns:
        uint8 (H, W, 3).

    Raises:
        PipelineError: the file is missing, truncated or not an image, has 16 bits per channel, or has several pages.
    """
    with open_image(path) as image:
        _check_single(image, path)
        if image.mode.startswith(("I", "F")):
            raise PipelineError(
                f"{path}: frames must have 8 bits per channel, got mode {image.mode}; convert the image"
            )
        decoded(image.load, path)
        return np.array(decoded(upright(image).convert, path, "RGB"))


def upright(image: Image.Image) -> Image.Image:
    """Apply the EXIF orientation of an open image; the mode and the pixel values stay unchanged.

    For a mask, call it before reading the pixels: ``np.array(upright(image))``. :func:`image_size` returns the size
    after this rotation.
    """
    image.load()  # in a PNG, the orientation may be stored after the pixels
    turn = TURNS.get(_orientation(image))
    return image if turn is None else image.transpose(turn)


def write_image(path: str | Path, image: np.ndarray, quality: int = 92) -> None:
    """Write uint8 RGB (H, W, 3) as PNG or JPEG, by suffix; readers never see a partial file."""
    jpeg = Path(path).suffix.lower() in (".jpg", ".jpeg")
    with replacing(path) as file:
        Image.fromarray(image).save(file, "JPEG" if jpeg else "PNG", quality=quality)


def image_size(path: str | Path) -> tuple[int, int]:
    """Return height and width of the image after its EXIF orientation, reading only a few bytes.

    Raises:
        PipelineError: the file is missing, cut short or not an image, or contains several pages.
    """
    with open_image(path) as image:
        _check_single(image, path)
        if not _ends_as_it_should(path) or (image.format == "PNG" and _notes_follow_pixels(path)):
            decoded(image.load, path)
        sideways = _orientation(image) in SIDEWAYS
        return (image.width, image.height) if sideways else (image.height, image.width)


# --- helpers ------------------------------------------------------------------------------------------------


def open_image(path: str | Path) -> Image.Image:
    if os.path.exists(path) and not os.path.isfile(path):  # opening a pipe may block forever
        raise PipelineError(f"{path}: is not a regular file; use an image file")
    try:
        return Image.open(path)
    except FileNotFoundError:
        raise PipelineError(f"{path}: no such file") from None
    except PermissionError:
        raise PipelineError(f"{path}: cannot be read (permission denied)") from None
    except Image.DecompressionBombError as error:
        raise PipelineError(f"{path}: is too large ({error}); reduce the image size") from None
    except DAMAGE as error:
        reason = getattr(error, "strerror", None) or "not an image, or an unknown format"
        raise PipelineError(f"{path}: cannot be read as an image ({reason})") from None


def decoded(decode: Callable[..., Any], path: str | Path, *args: str) -> Any:
    try:
        return decode(*args)
    except DAMAGE as error:
        raise PipelineError(f"{path}: is damaged or cut short ({error}); copy or download it again") from None


def count_pages(image: Image.Image, path: str | Path) -> int:
    """Return the number of images in an open file, not counting previews and depth maps that phones add."""
    return 1 if image.format == "MPO" else decoded(lambda: getattr(image, "n_frames", 1), path)


def _check_single(image: Image.Image, path: str | Path) -> None:
    pages = count_pages(image, path)
    if pages > 1:
        raise PipelineError(
            f"{path}: contains {pages} images (pages or an animation), but every frame must be a separate file; "
            "split it, or convert an animation to a video file"
        )


def _orientation(image: Image.Image) -> int:
    """Return the EXIF orientation, 1 to 8; 1 if none can be read."""
    if image.format == "TIFF":
        return 1  # PIL has already applied it
    try:
        exif = Image.Image.getexif(image)  # the PNG override would decode the image
        return int(exif.get(ExifTags.Base.Orientation, 1))
    except DAMAGE:
        return 1  # the image is usable even if its EXIF data are damaged


def _notes_follow_pixels(path: str | Path) -> bool:
    """Return whether a PNG has EXIF or XMP data after its pixels, where PIL finds them only by decoding."""
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
    """Return whether a file ends with the end mark of JPEG or PNG; a few intact files have bytes after the mark."""
    with open(path, "rb") as file:
        file.seek(0, 2)
        file.seek(max(0, file.tell() - 12))
        end = file.read()
    return end.endswith(b"\xff\xd9") or end[4:8] == b"IEND"
