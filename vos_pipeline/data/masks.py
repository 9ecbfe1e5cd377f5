"""Read and write the stored values of one mask file.

Their meaning depends on the other masks of the folder, see :mod:`vos_pipeline.data.labels`.
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
LOSSY_TOLERANCE = 2  # the channels of a grey image stored in colour may differ by rounding


@dataclass(frozen=True)
class StoredMask:
    """The values of one mask file.

    Args:
        values: uint8 (H, W); indices of a palette, or grey from 0 to 255.
        palette: whether the values are palette indices.
        lossy: whether the file format changes values, as JPEG does.
        black: a black index that occurs, if index 0 is not black: then 0 may not be the background.
    """

    values: np.ndarray
    palette: bool
    lossy: bool
    black: int | None = None


class NoMask(PipelineError):
    """An image that cannot be a mask: it has colours, varying transparency, 16 bits or several pages."""


def read_stored(path: str | Path) -> StoredMask:
    """Read the values of a mask file and apply its EXIF orientation.

    A palette image returns its indices, whatever its colours or transparency. A grey image has 8 bits or 1 bit (values
    0 and 255). An image with colour or alpha channels also counts as grey if its three channels are equal and all
    pixels have the same alpha.

    Raises:
        NoMask: the image has colours, varying transparency or 16 bits, or the file contains several images.
        PipelineError: the file is missing or damaged.
    """
    with open_image(path) as image:
        pages = count_pages(image, path)
        if pages > 1:
            raise _refusal(path, f"a file of {pages} images")
        if _has_16_bits(image):
            raise _refusal(path, "a 16-bit image")
        lossy = image.format in LOSSY_FORMATS or image.info.get("compression") == "jpeg"
        turned = decoded(lambda: upright(image), path)
        if turned.mode == "P":
            values = np.array(turned)
            return StoredMask(values, palette=True, lossy=lossy, black=_black_beside_0(turned, values))
        return StoredMask(_grey_values(turned, path, lossy), palette=False, lossy=lossy)


def is_mask(path: str | Path) -> bool:
    """Return whether an image file can store a mask; raise PipelineError if it cannot be read."""
    try:
        read_stored(path)
    except NoMask:
        return False
    return True


def write_labels(path: str | Path, labels: np.ndarray) -> None:
    """Write labels (H, W) as an indexed PNG with the DAVIS palette; readers never see a partial file."""
    labels = np.asarray(labels)
    if labels.ndim != 2 or labels.dtype != np.uint8:
        raise ValueError(f"labels must be uint8 (H, W), got {labels.dtype} {labels.shape}")
    image = Image.fromarray(labels)
    image.putpalette(davis_palette().tobytes())
    with replacing(path) as file:
        image.save(file, "PNG")


def davis_palette() -> np.ndarray:
    """Return the palette of PASCAL VOC and DAVIS, uint8 (256, 3).

    Bits 0, 1 and 2 of the index are the highest bits of red, green and blue; bits 3, 4 and 5 are the next highest bits,
    and so on.
    """
    index = np.arange(256, dtype=np.uint8)
    palette = np.zeros((256, 3), np.uint8)
    for bit in range(8):
        palette[:, bit % 3] |= ((index >> bit) & 1) << (7 - bit // 3)
    return palette


# --- image formats ------------------------------------------------------------------------------------------


def _has_16_bits(image: Image.Image) -> bool:
    """Also detect 16-bit colour and grey with alpha, of which Pillow keeps only the high bytes."""
    tiles = getattr(image, "tile", [])
    return image.mode.startswith(("I", "F")) or any(";16" in str(tile[3]) for tile in tiles)


def _black_beside_0(image: Image.Image, values: np.ndarray) -> int | None:
    """Return the index of black if it occurs in the mask and index 0 has another colour."""
    colours = np.array(image.getpalette() or [0, 0, 0]).reshape(-1, 3)
    if not colours[0].any():
        return None
    black = np.flatnonzero(~colours[:VOID].any(axis=1))  # void may have any colour
    return next((int(index) for index in black if np.any(values == index)), None)


def _grey_values(image: Image.Image, path: str | Path, lossy: bool) -> np.ndarray:
    """Return the grey channel of an image whose other channels add no information."""
    if image.mode == "1":
        return np.array(image, np.uint8) * 255
    if image.mode == "L":
        return np.array(image)
    if image.mode not in ("LA", "RGB", "RGBA"):
        raise _refusal(path, f"a colour image ({image.mode})")
    channels = np.array(image)
    if image.mode.endswith("A"):
        if np.ptp(channels[..., -1]):
            raise _refusal(path, f"an image of varying transparency ({image.mode})")
        channels = channels[..., :-1]
    if np.ptp(channels.astype(np.int16), axis=2).max() > (LOSSY_TOLERANCE if lossy else 0):
        raise _refusal(path, f"a colour image ({image.mode})")
    return np.ascontiguousarray(channels[..., channels.shape[2] // 2])


def _refusal(path: str | Path, got: str) -> NoMask:
    return NoMask(
        f"{path}: a mask must be an indexed (palette) or 8-bit grey PNG, got {got}; "
        "save it with one index per object"
    )
