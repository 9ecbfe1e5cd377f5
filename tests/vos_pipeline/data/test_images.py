"""Pictures, in and out."""

import numpy as np
import pytest
from davis_cases import one_line
from PIL import Image

from vos_pipeline.data import image_size, read_image, read_labels, write_image, write_labels
from vos_pipeline.errors import PipelineError


@pytest.mark.parametrize("read", [read_labels, read_image])
def test_missing_and_damaged_files_are_named(tmp_path, read):
    with pytest.raises(PipelineError, match=r"none\.png: no such file"):
        read(tmp_path / "none.png")
    (tmp_path / "junk.png").write_bytes(b"not a picture")
    with pytest.raises(PipelineError, match=r"junk\.png: can not be read"):
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
    with pytest.raises(PipelineError, match="8 bits a channel"):
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
def test_whatever_was_cut_off_is_noticed_without_decoding_whole_files(tmp_path, suffix, left, monkeypatch):
    path = tmp_path / f"f.{suffix}"
    write_image(path, noise())
    whole = path.read_bytes()
    path.write_bytes(whole[: int(left * len(whole))])
    with pytest.raises(
        PipelineError, match=r"f\.(jpg|png): (is damaged or cut short|can not be read)"
    ) as error:
        image_size(path)
    one_line(error)

    path.write_bytes(whole)
    monkeypatch.setattr(Image.Image, "load", None)
    assert image_size(path) == (64, 64)


def test_bytes_behind_the_end_of_a_picture_do_no_harm(tmp_path):
    path = tmp_path / "f.jpg"
    write_image(path, noise())
    with path.open("ab") as file:
        file.write(b"a camera's notes")
    assert image_size(path) == (64, 64)
