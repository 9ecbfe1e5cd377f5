"""One mask file: the image formats that can store masks."""

import os

import cv2
import numpy as np
import pytest
from davis_cases import labels_with, one_line
from PIL import Image

from vos_pipeline.data import davis_palette, is_mask, read_labels, write_labels
from vos_pipeline.errors import PipelineError

# --- writing and reading ------------------------------------------------------------------------------------


def test_labels_survive_writing_and_reading(tmp_path):
    labels = np.arange(256, dtype=np.uint8).reshape(16, 16)
    path = tmp_path / "new" / "folder" / "mask.png"
    write_labels(path, labels)
    np.testing.assert_array_equal(read_labels(path), labels)
    with Image.open(path) as image:
        assert image.mode == "P"
        assert image.getpalette()[:768] == davis_palette().ravel().tolist()
    assert os.listdir(path.parent) == ["mask.png"]  # no temporary file remains


def test_palette_is_that_of_pascal_voc():
    palette = davis_palette()
    known = {0: (0, 0, 0), 1: (128, 0, 0), 2: (0, 128, 0), 3: (128, 128, 0), 4: (0, 0, 128), 5: (128, 0, 128)}
    known |= {8: (64, 0, 0), 9: (192, 0, 0), 16: (0, 64, 0), 22: (0, 192, 128), 255: (224, 224, 192)}
    for index, colour in known.items():
        assert tuple(palette[index]) == colour
    assert len({tuple(colour) for colour in palette}) == 256


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "mask.png"
    write_labels(path, labels_with(1))

    def fail(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(Image.Image, "save", fail)
    with pytest.raises(KeyboardInterrupt):
        write_labels(path, labels_with(1, 2))
    monkeypatch.undo()
    np.testing.assert_array_equal(read_labels(path), labels_with(1))
    assert os.listdir(tmp_path) == ["mask.png"]


@pytest.mark.parametrize("bad", [np.zeros((2, 3), np.int64), np.zeros((2, 3, 3), np.uint8)])
def test_only_label_maps_can_be_written(tmp_path, bad):
    with pytest.raises(ValueError, match="labels must be uint8"):
        write_labels(tmp_path / "x.png", bad)


# --- image formats ------------------------------------------------------------------------------------------

LABELS = labels_with(1, 2)


def alpha(values=200):
    return np.broadcast_to(np.uint8(values), LABELS.shape)


def stacked(*channels):
    return Image.fromarray(np.stack(channels, axis=2))


def indexed(labels=LABELS):
    image = Image.fromarray(labels)
    image.putpalette(davis_palette().tobytes())
    return image


def test_small_palettes_are_read(tmp_path):
    image = Image.fromarray(labels_with(1, 2, 3))
    image.putpalette(davis_palette()[:4].tobytes())
    image.save(tmp_path / "m.png", bits=2)
    np.testing.assert_array_equal(read_labels(tmp_path / "m.png"), labels_with(1, 2, 3))


@pytest.mark.parametrize(
    "image",
    [
        Image.fromarray(LABELS),
        stacked(LABELS, alpha()),
        stacked(LABELS, alpha(0)),
        stacked(LABELS, LABELS, LABELS),
        stacked(LABELS, LABELS, LABELS, alpha()),
    ],
    ids=["L", "LA", "LA, transparent", "RGB", "RGBA"],
)
@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_channels_that_add_nothing_are_grey(tmp_path, image, suffix):
    path = tmp_path / f"m.{suffix}"
    image.save(path)
    np.testing.assert_array_equal(read_labels(path), LABELS)
    assert read_labels(path).dtype == np.uint8 and is_mask(path)


@pytest.mark.parametrize("suffix", ["png", "gif", "bmp", "tif"])
def test_indexed_masks_of_any_format(tmp_path, suffix):
    indexed().save(tmp_path / f"m.{suffix}", **({"optimize": False} if suffix == "gif" else {}))
    np.testing.assert_array_equal(read_labels(tmp_path / f"m.{suffix}"), LABELS)


@pytest.mark.parametrize("transparency", [0, b"\x00\xff\x80"])
def test_a_transparent_palette_changes_no_index(tmp_path, transparency):
    indexed().save(tmp_path / "m.png", transparency=transparency)
    np.testing.assert_array_equal(read_labels(tmp_path / "m.png"), LABELS)


@pytest.mark.parametrize(
    ("image", "kind"),
    [
        (stacked(LABELS, LABELS, alpha(0)), "a colour image (RGB)"),
        (stacked(LABELS, 2 * LABELS, LABELS, alpha()), "a colour image (RGBA)"),
        (stacked(LABELS, LABELS, LABELS, LABELS), "an image of varying transparency (RGBA)"),
        (stacked(LABELS, LABELS), "an image of varying transparency (LA)"),
        (Image.fromarray(LABELS.astype(np.uint16)), "a 16-bit image"),
        (Image.fromarray(LABELS.astype(np.float32)), "a 16-bit image"),
        (Image.new("CMYK", (30, 20)), "a colour image (CMYK)"),
    ],
    ids=lambda value: value if isinstance(value, str) else value.mode,
)
def test_other_pictures_are_refused(tmp_path, image, kind):
    path = tmp_path / ("mask.tif" if image.mode in ("F", "CMYK") else "mask.png")
    image.save(path)
    assert not is_mask(path)
    with pytest.raises(PipelineError, match="indexed") as error:
        read_labels(path)
    assert one_line(error) == (
        f"{path}: a mask must be an indexed (palette) or 8-bit grey PNG, got {kind}; save it with one index per object"
    )


def test_equal_channels_of_16_bits_are_refused(tmp_path):
    """Pillow keeps only the high bytes, which are 0 for small labels."""
    cv2.imwrite(str(tmp_path / "m.png"), np.dstack([LABELS] * 3).astype(np.uint16))
    with pytest.raises(PipelineError, match="got a 16-bit image"):
        read_labels(tmp_path / "m.png")


@pytest.mark.parametrize("suffix", ["tif", "gif"])
def test_files_of_several_pictures_are_refused(tmp_path, suffix):
    path = tmp_path / f"m.{suffix}"
    indexed().save(path, save_all=True, append_images=[indexed(labels_with(3))])
    with pytest.raises(PipelineError, match=r"m\.\w+: .* got a file of 2 images"):
        read_labels(path)


@pytest.mark.parametrize("suffix", ["png", "tif"])
@pytest.mark.parametrize(
    ("orientation", "turned"), [(1, LABELS), (3, LABELS[::-1, ::-1]), (6, np.rot90(LABELS, -1))]
)
def test_the_orientation_of_masks_is_applied(tmp_path, suffix, orientation, turned):
    exif = Image.Exif()
    exif[0x0112] = orientation
    # Pillow rotates uncompressed TIFF files wrongly.
    options = {"compression": "tiff_lzw"} if suffix == "tif" else {}
    indexed().save(tmp_path / f"m.{suffix}", exif=exif, **options)
    np.testing.assert_array_equal(read_labels(tmp_path / f"m.{suffix}"), turned)
