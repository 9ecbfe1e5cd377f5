"""Which files of a folder are listed, and in which order."""

import os

import numpy as np
import pytest
from davis_cases import labels_with, make_root, one_line
from PIL import Image

from vos_pipeline import data
from vos_pipeline.data import write_image, write_labels
from vos_pipeline.errors import PipelineError

BLACK = np.zeros((20, 30, 3), np.uint8)


def renamed(root, rename):
    """Rename the frames and masks of a DAVIS root."""
    for path in sorted(root.glob("*/480p/*/*")):
        path.rename(path.with_name(rename(int(path.stem), path.suffix)))
    return root


def test_numbers_are_sorted_by_value(tmp_path):
    names = ["0.png", "1.png", "2.png", "10.png", "frame 3.png", "frame 20.png"]
    for name in names:
        write_image(tmp_path / name, BLACK)
    assert [path.name for path in data.list_images(tmp_path)] == names
    assert [path.name for path in data.list_files(tmp_path, ".png")] == names


def test_davis_sequences_are_in_natural_order(tmp_path):
    root = renamed(make_root(tmp_path, names=("alpha",)), lambda t, suffix: f"{(9, 10, 11)[t]}{suffix}")
    (sequence,) = data.load_davis(root)
    assert [path.stem for path in sequence.frame_paths] == ["9", "10", "11"]
    assert [path.stem for path in sequence.mask_paths] == ["9", "10", "11"]
    assert [path.stem for path in data.load_truth(root, "alpha").mask_paths] == ["9", "10", "11"]


def test_suffixes_may_have_any_case(tmp_path):
    root = renamed(make_root(tmp_path, names=("alpha",)), lambda t, suffix: f"{t:05d}{suffix.upper()}")
    (sequence,) = data.load_davis(root)
    assert [path.name for path in sequence.frame_paths] == ["00000.JPG", "00001.JPG", "00002.JPG"]
    assert sequence.has_all_masks and len(data.load_truth(root, "alpha")) == 3


@pytest.mark.parametrize("suffix", ["png", "jpeg", "bmp", "webp", "tif"])
def test_davis_frames_may_have_any_image_format(tmp_path, suffix):
    root = make_root(tmp_path, names=("alpha",))
    for path in root.glob("JPEGImages/480p/alpha/*.jpg"):
        Image.open(path).save(path.with_suffix(f".{suffix}"))
        path.unlink()
    (sequence,) = data.load_davis(root)
    assert sequence.has_all_masks and {path.suffix for path in sequence.frame_paths} == {f".{suffix}"}


def test_system_files_are_ignored(tmp_path):
    for t in range(2):
        write_image(tmp_path / f"clip/{t:05d}.jpg", BLACK)
    for name in ("Thumbs.db", "desktop.ini", ".DS_Store", "._00000.jpg", "notes.txt"):
        (tmp_path / "clip" / name).write_bytes(b"no picture")
    (tmp_path / "clip/old.jpg").mkdir()
    write_labels(tmp_path / "first.png", labels_with(1))
    assert len(data.load_frames(tmp_path / "clip", tmp_path / "first.png")) == 2


@pytest.mark.parametrize("other", ["00000.JPG", "00000.png", "00000.k.jpg/../00000.bmp"])
def test_two_images_with_the_same_result_are_an_error(tmp_path, other):
    for name in ("00000.jpg", "00000.k.jpg", "00001.jpg", other.split("/")[-1]):
        Image.fromarray(BLACK).save(tmp_path / name)
    with pytest.raises(
        PipelineError, match=r"would have the same result file, 00000\.png; keep one of them"
    ) as error:
        data.list_images(tmp_path)
    assert "00000.jpg" in one_line(error) and other.split("/")[-1] in str(error.value)


def test_names_that_differ_in_case_have_two_results(tmp_path):
    for name in ("a.jpg", "A.jpg"):
        write_image(tmp_path / name, BLACK)
    if len(os.listdir(tmp_path)) < 2:
        pytest.skip("this file system ignores case")
    assert len(data.list_images(tmp_path)) == 2


# --- names that are not UTF-8 -------------------------------------------------------------------------------

LATIN = os.fsdecode(b"caf\xe9")


@pytest.fixture
def latin(tmp_path):
    """A folder on a file system that allows arbitrary bytes in names."""
    try:
        (tmp_path / LATIN).mkdir()
    except OSError:
        pytest.skip("names are UTF-8 on this file system")
    return tmp_path / LATIN


def test_a_file_whose_name_is_not_utf_8(tmp_path, latin):
    for name in ("0.png", f"{LATIN}.png"):
        write_image(tmp_path / "clip" / name, BLACK)
    with pytest.raises(PipelineError, match=r"clip/caf\\xe9\.png: this name is not UTF-8; rename it"):
        data.list_images(tmp_path / "clip")
    (tmp_path / "clip" / f"{LATIN}.png").rename(tmp_path / "clip" / f"{LATIN}.txt")
    assert len(data.list_images(tmp_path / "clip")) == 1  # other files may have any name


def test_a_source_whose_name_is_not_utf_8(tmp_path, latin, monkeypatch):
    write_labels(tmp_path / "first.png", labels_with(1))
    for t in range(2):
        write_image(latin / f"{t}.png", BLACK)
    (tmp_path / f"{LATIN}.mp4").write_bytes(b"no video")
    monkeypatch.chdir(latin)
    for source in (latin, tmp_path / f"{LATIN}.mp4", "."):
        with pytest.raises(PipelineError, match=r"caf\\xe9(\.mp4)?: this name is not UTF-8; rename it"):
            data.load_frames(source, tmp_path / "first.png", tmp_path / "work")
    assert not (tmp_path / "work").exists()


def test_a_listing_can_be_printed(tmp_path, latin):
    root = make_root(tmp_path, names=("alpha",))
    (root / "JPEGImages/480p" / LATIN).mkdir()
    (root / "ImageSets/2017/val.txt").write_text("café\n")
    with pytest.raises(PipelineError, match=r"café: no such folder; .* contains alpha, caf\\xe9") as error:
        data.load_davis(root)
    one_line(error).encode()
