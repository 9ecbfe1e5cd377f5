"""Read and write images."""

import numpy as np
import pytest
from davis_cases import labels_with, one_line
from PIL import ExifTags, Image

from vos_pipeline.data import (
    davis_palette,
    image_size,
    read_image,
    read_labels,
    upright,
    write_image,
    write_labels,
)
from vos_pipeline.errors import PipelineError


@pytest.mark.parametrize("read", [read_labels, read_image])
def test_missing_and_damaged_files_are_named(tmp_path, read):
    with pytest.raises(PipelineError, match=r"none\.png: no such file"):
        read(tmp_path / "none.png")
    (tmp_path / "junk.png").write_bytes(b"not a picture")
    with pytest.raises(PipelineError, match=r"junk\.png: cannot be read"):
        read(tmp_path / "junk.png")
    rng = np.random.default_rng(0)
    write_labels(tmp_path / "cut.png", rng.integers(0, 255, (60, 60), dtype=np.uint8))
    whole = (tmp_path / "cut.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(PipelineError, match=r"cut\.png: is damaged") as error:
        read(tmp_path / "cut.png")
    one_line(error)


# --- frames -------------------------------------------------------------------------------------------------


def test_frames_are_rgb(tmp_path):
    red = np.zeros((4, 5, 3), np.uint8)
    red[..., 0] = 200
    write_image(tmp_path / "f.png", red)
    np.testing.assert_array_equal(read_image(tmp_path / "f.png"), red)
    assert read_image(tmp_path / "f.png").flags.writeable  # torch.from_numpy warns otherwise
    Image.fromarray(red[..., 0]).save(tmp_path / "grey.png")
    assert read_image(tmp_path / "grey.png").shape == (4, 5, 3)


def test_a_truncated_jpeg_is_named(tmp_path):
    path = tmp_path / "00007.jpg"
    write_image(path, np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8))
    path.write_bytes(path.read_bytes()[:1500])
    with pytest.raises(PipelineError, match=r"00007\.jpg: is damaged or cut short"):
        read_image(path)


def test_16_bit_frames_are_refused(tmp_path):
    Image.fromarray(np.zeros((5, 6), np.uint16)).save(tmp_path / "f.png")
    with pytest.raises(PipelineError, match="8 bits per channel"):
        read_image(tmp_path / "f.png")


def noise(size=(64, 64)):
    return np.random.default_rng(0).integers(0, 255, (*size, 3), dtype=np.uint8)


# --- sizes --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["jpg", "png", "bmp"])
def test_size_is_height_and_width(tmp_path, suffix):
    path = tmp_path / f"f.{suffix}"
    Image.fromarray(noise((20, 30))).save(path)
    assert image_size(path) == (20, 30)


@pytest.mark.parametrize("suffix", ["jpg", "png"])
@pytest.mark.parametrize("left", [0.0, 0.05, 0.5, 0.99])
def test_truncation_is_detected_without_decoding_intact_files(tmp_path, suffix, left, monkeypatch):
    path = tmp_path / f"f.{suffix}"
    write_image(path, noise())
    whole = path.read_bytes()
    path.write_bytes(whole[: int(left * len(whole))])
    with pytest.raises(
        PipelineError, match=r"f\.(jpg|png): (is damaged or cut short|cannot be read)"
    ) as error:
        image_size(path)
    one_line(error)

    path.write_bytes(whole)
    monkeypatch.setattr(Image.Image, "load", None)
    assert image_size(path) == (64, 64)


def test_trailing_bytes_are_accepted(tmp_path):
    path = tmp_path / "f.jpg"
    write_image(path, noise())
    with path.open("ab") as file:
        file.write(b"a camera's notes")
    assert image_size(path) == (64, 64)


# --- orientation --------------------------------------------------------------------------------------------


def behind_the_pixels(path):
    """Move the EXIF data of a PNG to its end, where some programs write them."""
    data = path.read_bytes()
    start = data.index(b"eXIf") - 4
    length = int.from_bytes(data[start : start + 4], "big") + 12
    notes, rest = data[start : start + length], data[:start] + data[start + length :]
    end = rest.index(b"IEND") - 4
    path.write_bytes(rest[:end] + notes + rest[end:])


def corners(size=(20, 30)):
    picture = np.zeros((*size, 3), np.uint8)
    picture[:8, :16], picture[:8, 16:], picture[10:, :12] = (250, 20, 20), (20, 250, 20), (20, 20, 250)
    return picture


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["jpg", "png", "png with its notes at the end", "webp", "tif"])
def test_the_exif_orientation_is_applied(tmp_path, orientation, kind):
    path = tmp_path / f"f.{kind[:4].strip()}"
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    Image.fromarray(corners()).save(path, exif=exif, lossless=True, quality=98)
    if "end" in kind:
        behind_the_pixels(path)
    turned = {
        1: lambda a: a,
        2: np.fliplr,
        3: lambda a: np.rot90(a, 2),
        4: np.flipud,
        5: lambda a: a.swapaxes(0, 1),
        6: lambda a: np.rot90(a, 3),
        7: lambda a: np.rot90(a, 2).swapaxes(0, 1),
        8: lambda a: np.rot90(a, 1),
    }[orientation](corners())
    assert image_size(path) == turned.shape[:2]
    picture = read_image(path)
    assert picture.shape == turned.shape and np.abs(picture.astype(int) - turned).mean() < 6
    assert picture.flags.writeable


def test_rotated_masks_keep_their_values(tmp_path):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    image = Image.fromarray(labels_with(1, 2))
    image.putpalette(davis_palette().tobytes())
    image.save(tmp_path / "m.png", exif=exif)
    with Image.open(tmp_path / "m.png") as image:
        turned = upright(image)
        assert turned.mode == "P" and image_size(tmp_path / "m.png") == (30, 20)
        np.testing.assert_array_equal(np.array(turned), np.rot90(labels_with(1, 2), 3))


@pytest.mark.parametrize("notes", [b"Exif\0\0XX", b"Exif\0\0MM\0*\0\0\0\x08\0\x05garbage", b"Exif\0\0"])
@pytest.mark.filterwarnings("ignore:.*:UserWarning")
def test_damaged_exif_data_are_ignored(tmp_path, notes):
    Image.fromarray(corners()).save(tmp_path / "f.jpg", exif=notes)
    assert read_image(tmp_path / "f.jpg").shape == (20, 30, 3) and image_size(tmp_path / "f.jpg") == (20, 30)


# --- files of several images --------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["tif", "webp", "png", "gif"])
@pytest.mark.parametrize("read", [read_image, image_size])
def test_pages_and_animations_are_refused(tmp_path, suffix, read):
    path = tmp_path / f"f.{suffix}"
    pages = [Image.fromarray(np.roll(corners(), 5 * k, 1)) for k in range(3)]
    pages[0].save(path, save_all=True, append_images=pages[1:])
    with pytest.raises(PipelineError, match=rf"f\.{suffix}: contains 3 images") as error:
        read(path)
    one_line(error)
    pages[0].save(path, save_all=True)
    assert read(path) is not None


def test_the_first_image_of_a_phone_photograph_is_read(tmp_path):
    pictures = [Image.fromarray(corners()), Image.fromarray(corners()[::2, ::2])]
    pictures[0].save(tmp_path / "f.jpg", "MPO", save_all=True, append_images=pictures[1:])
    assert read_image(tmp_path / "f.jpg").shape == (20, 30, 3) and image_size(tmp_path / "f.jpg") == (20, 30)


@pytest.mark.parametrize("suffix", ["tif", "webp", "jpg", "png"])
@pytest.mark.filterwarnings("ignore:.*:UserWarning")
def test_errors_of_truncated_files_have_one_line(tmp_path, suffix):
    path = tmp_path / f"f.{suffix}"
    Image.fromarray(corners()).save(path)
    whole = path.read_bytes()
    for length in range(0, len(whole), max(1, len(whole) // 50)):
        path.write_bytes(whole[:length])
        for read in (read_image, image_size):
            try:
                read(path)
            except PipelineError as error:
                assert "\n" not in str(error)
