"""One mask file: the values that it stores, in and out.

What the values mean depends on the other masks of the folder: see :mod:`vos_pipeline.data.labels`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from vos_pipeline.data.images import count_pages, decoded, open_image, upright
from vos_pipeline.errors import PipelineError
from vos_pipeline.files import replacing

VOID = 255
LOSSY_FORMATS = ("JPEG", "MPO", "JPEG2000", "WEBP", "AVIF")
LOSSY_TOLERANCE = 2  # grey that was stored as colours comes back with channels that differ by rounding


@dataclass(frozen=True)
class StoredMask:
    """The values of one mask file.

    Args:
        values: uint8 (H, W); indices of a palette, or grey from 0 to 255.
        palette: whether the values are indices.
        lossy: whether the file's format changes values, as JPEG does.
        black: an index but 0 that occurs and is shown in black, where 0 is not: then 0 may not be the background.
    """

    values: np.ndarray
    palette: bool
    lossy: bool
    black: int | None = None


class NoMask(PipelineError):
    """A picture that can not be a mask: it has colours, varying transparency, or 16 bits."""


def read_stored(path: str | Path) -> StoredMask:
    """Read the values of a mask file, turned as its EXIF orientation says.

    Palette images give their indices, whatever colours or transparency these have. Grey images are those of 8 bits or
    of 1 bit (0 and 255), and those with colour or alpha channels that add nothing: three equal channels, one alpha
    value for all pixels.

    Raises:
        NoMask: the picture has colours, varying transparency, 16 bits, or the file holds several pictures.
        PipelineError: the file is missing or damaged.
    """
    with open_image(path) as image:
        pages = count_pages(image, path)
        if pages > 1:
            raise _refusal(path, f"a file of {pages} pictures")
        if _has_16_bits(image):
            raise _refusal(path, "a 16-bit image")
        lossy = image.format in LOSSY_FORMATS or image.info.get("compression") == "jpeg"
        turned = decoded(lambda: upright(image), path)
        if turned.mode == "P":
            values = np.array(turned)
            return StoredMask(values, palette=True, lossy=lossy, black=_black_beside_0(turned, values))
        return StoredMask(_grey_values(turned, path, lossy), palette=False, lossy=lossy)


def is_mask(path: str | Path) -> bool:
    """Whether a picture is of a kind that masks are stored in; PipelineError if it can not be read."""
    try:
        read_stored(path)
    except NoMask:
        return False
    return True


def write_labels(path: str | Path, labels: np.ndarray) -> None:
    """Write labels (H, W) as an indexed PNG with the DAVIS palette; readers never see half a file."""
    labels = np.asarray(labels)
    if labels.ndim != 2 or labels.dtype != np.uint8:
        raise ValueError(f"labels must be uint8 (H, W), got {labels.dtype} {labels.shape}")
    image = Image.fromarray(labels)
    image.putpalette(davis_palette().tobytes())
    with replacing(path) as file:
        image.save(file, "PNG")


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


# --- kinds of pictures --------------------------------------------------------------------------------------


def _has_16_bits(image: Image.Image) -> bool:
    """Also of colours and of grey with alpha, which Pillow cuts to their high bytes."""
    tiles = getattr(image, "tile", [])
    return image.mode.startswith(("I", "F")) or any(";16" in str(tile[3]) for tile in tiles)


def _black_beside_0(image: Image.Image, values: np.ndarray) -> int | None:
    """The index of black, if it occurs and 0 has another colour."""
    colours = np.array(image.getpalette() or [0, 0, 0]).reshape(-1, 3)
    if not colours[0].any():
        return None
    black = np.flatnonzero(~colours[:VOID].any(axis=1))  # void may have any colour
    return next((int(index) for index in black if np.any(values == index)), None)


def _grey_values(image: Image.Image, path: str | Path, lossy: bool) -> np.ndarray:
    """The one channel of a picture whose other channels say nothing more."""
    if image.mode == "1":
        return np.array(image, np.uint8) * 255
    if image.mode == "L":
        return np.array(image)
    if image.mode not in ("LA", "RGB", "RGBA"):
        raise _refusal(path, f"a {image.mode} colour image")
    channels = np.array(image)
    if image.mode.endswith("A"):
        if np.ptp(channels[..., -1]):
            raise _refusal(path, f"a {image.mode} image of varying transparency")
        channels = channels[..., :-1]
    if np.ptp(channels.astype(np.int16), axis=2).max() > (LOSSY_TOLERANCE if lossy else 0):
        raise _refusal(path, f"a {image.mode} colour image")
    return np.ascontiguousarray(channels[..., channels.shape[2] // 2])


def _refusal(path: str | Path, got: str) -> NoMask:
    return NoMask(
        f"{path}: a mask must be an indexed (palette) or 8-bit grey PNG, got {got}; "
        "save it with one index per object"
    )
