"""Sequences from DAVIS roots and from a user's video."""

import os
import pickle
import re

import numpy as np
import pytest
from davis_cases import REAL_ROOT, labels_with, make_root, needs_root, one_line

from vos_pipeline import data
from vos_pipeline.data import read_image, write_image, write_labels
from vos_pipeline.errors import PipelineError

# --- DAVIS --------------------------------------------------------------------------------------------------


def test_load_davis(tmp_path):
    sequences = data.load_davis(make_root(tmp_path))
    assert [s.name for s in sequences] == ["alpha", "beta"]
    sequence = sequences[0]
    assert len(sequence) == 3 and sequence.size == (20, 30)
    assert sequence.object_ids == (1, 2) and sequence.has_all_masks
    assert sequence.read_frame(1).shape == (20, 30, 3)
    np.testing.assert_array_equal(sequence.read_mask(2), labels_with(1, 2))
    assert pickle.loads(pickle.dumps(sequence)) == sequence


def test_sequences_keep_the_requested_order(tmp_path):
    root = make_root(tmp_path)
    assert [s.name for s in data.load_davis(root, sequences=["beta", "alpha"])] == ["beta", "alpha"]
    with pytest.raises(PipelineError, match="no sequence 'gamma' in set 2017/val; it has alpha, beta"):
        data.load_davis(root, sequences=["alpha", "gamma"])


def test_a_test_set_has_the_first_mask_only(tmp_path):
    sequence = data.load_davis(make_root(tmp_path, masks=("00000",)))[0]
    assert not sequence.has_all_masks and sequence.object_ids == (1, 2)
    with pytest.raises(PipelineError, match=r"00001\.jpg has no mask"):
        sequence.read_mask(1)


def test_a_missing_mask_among_others_is_a_warning(tmp_path, capsys):
    root = make_root(tmp_path, masks=("00000", "00002"))
    assert not data.load_davis(root)[0].has_all_masks
    told = capsys.readouterr().err
    assert "warning: " in told and "alpha: 1 of 3 frames have no mask (00001)" in told
    data.load_davis(make_root(tmp_path / "test-set", masks=("00000",)))
    assert capsys.readouterr().err == ""


def test_layout_errors_list_what_exists(tmp_path):
    with pytest.raises(PipelineError, match="is not a DAVIS root"):
        data.load_davis(tmp_path)
    with pytest.raises(PipelineError, match="does not exist"):
        data.load_davis(tmp_path / "nowhere")
    root = make_root(tmp_path)
    with pytest.raises(PipelineError, match=r"test-dev\.txt: no such set; this root has 2017/val"):
        data.load_davis(root, set_name="test-dev")
    (root / "ImageSets/2017/val.txt").write_text("alpha\nghost\n")
    with pytest.raises(PipelineError, match=r"ghost: no such folder; .* contains alpha, beta"):
        data.load_davis(root)
    (root / "ImageSets/2017/val.txt").write_text("\n")
    with pytest.raises(PipelineError, match="lists no sequence"):
        data.load_davis(root)


def test_a_missing_or_empty_first_mask_is_named(tmp_path):
    root = make_root(tmp_path)
    first = root / "Annotations/480p/alpha/00000.png"
    write_labels(first, np.zeros((20, 30), np.uint8))
    with pytest.raises(PipelineError, match=r"alpha/00000\.png: the first mask is empty"):
        data.load_davis(root)
    first.unlink()
    with pytest.raises(PipelineError, match=r"alpha/00000\.png: the first mask is missing"):
        data.load_davis(root)


@pytest.mark.parametrize("which", ["JPEGImages/480p/beta/00002.jpg", "Annotations/480p/beta/00001.png"])
def test_sizes_are_checked_at_once(tmp_path, which):
    root = make_root(tmp_path)
    if which.endswith("png"):
        write_labels(root / which, labels_with(1, size=(10, 30)))
    else:
        write_image(root / which, np.zeros((10, 30, 3), np.uint8))
    with pytest.raises(
        PipelineError, match=re.escape(which) + r": is 30x10, but 00000.jpg is 30x20"
    ) as error:
        data.load_davis(root)
    one_line(error)


@pytest.mark.parametrize("which", ["JPEGImages/480p/beta/00002.jpg", "Annotations/480p/beta/00001.png"])
def test_files_cut_short_are_named_at_once(tmp_path, which):
    path = make_root(tmp_path) / which
    path.write_bytes(path.read_bytes()[: -path.stat().st_size // 5])
    with pytest.raises(PipelineError, match=re.escape(which) + ": (is damaged or cut|cannot be read)"):
        data.load_davis(tmp_path)


def test_a_missing_frame_is_named(tmp_path):
    frame = make_root(tmp_path) / "JPEGImages/480p/alpha/00001.jpg"
    frame.unlink()
    with pytest.raises(PipelineError, match=r"alpha/00001\.jpg: this frame is missing"):
        data.load_davis(tmp_path)
    # Without masks, the gap in the numbering shows it.
    for mask in (tmp_path / "Annotations/480p/alpha").glob("0000[12].png"):
        mask.unlink()
    write_image(frame.with_name("00003.jpg"), read_image(frame.with_name("00002.jpg")))
    with pytest.raises(PipelineError, match=r"alpha/00001\.jpg: this frame is missing"):
        data.load_davis(tmp_path)


def test_every_fifth_frame_is_a_sequence_too(tmp_path):
    root = make_root(tmp_path, masks=("00000",), names=("alpha",))
    for t in (2, 1):
        for path in root.glob(f"JPEGImages/480p/alpha/0000{t}.jpg"):
            path.rename(path.with_name(f"{5 * t:05d}.jpg"))
    (sequence,) = data.load_davis(root)
    assert [path.stem for path in sequence.frame_paths] == ["00000", "00005", "00010"]


def test_hidden_files_are_no_frames(tmp_path):
    root = make_root(tmp_path)
    for folder, suffix in (("JPEGImages", "jpg"), ("Annotations", "png")):
        (root / folder / f"480p/alpha/._00001.{suffix}").write_text("left behind by an archive")
    assert len(data.load_davis(root)[0]) == 3


def test_a_folder_that_may_not_be_read_is_named(tmp_path, monkeypatch):
    root, listdir = make_root(tmp_path), os.listdir

    def refuse(folder):  # file permissions do not stop root, who runs many tests
        if str(folder).endswith("JPEGImages/480p/alpha"):
            raise PermissionError(13, "Permission denied", str(folder))
        return listdir(folder)

    monkeypatch.setattr(os, "listdir", refuse)
    with pytest.raises(PipelineError, match=r"480p/alpha: cannot be read as a folder \(Permission denied\)"):
        data.load_davis(root)


@needs_root
def test_real_sequences():
    (dogs,) = data.load_davis(REAL_ROOT, sequences=["dogs-jump"])
    assert (len(dogs), dogs.object_ids) == (66, (1, 2, 3)) and dogs.has_all_masks
    (swan,) = data.load_davis(REAL_ROOT, "2016", "val", ["blackswan"])
    assert len(swan) == 50 and swan.size == (480, 854) and swan.object_ids == (1,) and swan.has_all_masks


# --- a user's video -----------------------------------------------------------------------------------------


def test_a_folder_is_read_in_natural_order(tmp_path):
    folder = tmp_path / "clip"
    for k in (10, 2, 1):
        write_image(folder / f"frame{k}.png", np.full((20, 30, 3), k, np.uint8))
    (folder / "notes.txt").write_text("no image")
    (folder / "._frame1.png").write_text("no image either")
    write_labels(tmp_path / "first.png", labels_with(1))
    sequence = data.load_frames(folder, tmp_path / "first.png")
    assert sequence.name == "clip" and len(sequence) == 3
    assert [int(sequence.read_frame(t)[0, 0, 0]) for t in range(3)] == [1, 2, 10]
    assert sequence.object_ids == (1,) and not sequence.has_all_masks


@pytest.fixture
def clip(tmp_path):
    """Write frames 00003.png to 00006.png, and create a folder for masks."""
    for k in range(3, 7):
        write_image(tmp_path / f"clip/{k:05d}.png", np.full((20, 30, 3), k, np.uint8))
    (tmp_path / "masks").mkdir()
    return tmp_path / "clip"


def mask_of(clip, name):
    path = clip.parent / "masks" / name
    write_labels(path, labels_with(1))
    return path


@pytest.mark.parametrize("name", ["5", "00005", "00005.png", "000005"])
def test_a_video_begins_where_the_mask_is(clip, name):
    sequence = data.load_frames(clip, mask_of(clip, "m.png"), first_frame=name)
    assert [path.stem for path in sequence.frame_paths] == ["00005", "00006"]
    assert sequence.mask_paths[1:] == (None,) and sequence.object_ids == (1,)


def test_names_take_precedence_over_numbers(tmp_path):
    for name in ("a1", "a2", "a3", "2"):
        write_image(tmp_path / f"clip/{name}.png", np.zeros((20, 30, 3), np.uint8))
    write_labels(tmp_path / "m.png", labels_with(1))
    begins = {
        name: data.load_frames(tmp_path / "clip", tmp_path / "m.png", first_frame=name).frame_paths[0].stem
        for name in ("2", "a2", "1")
    }
    assert begins == {"2": "2", "a2": "a2", "1": "a1"}
    (tmp_path / "clip/b1.png").write_bytes((tmp_path / "clip/a1.png").read_bytes())
    with pytest.raises(
        PipelineError, match="clip: 2 frames have the number 1; --first-frame must select one frame"
    ):
        data.load_frames(tmp_path / "clip", tmp_path / "m.png", first_frame="1")


@pytest.mark.parametrize("name", ["7", "00007.png", "00004.jpg", "five"])
def test_an_unknown_first_frame_is_an_error(clip, name):
    with pytest.raises(PipelineError, match="clip: no frame has the name or number") as error:
        data.load_frames(clip, mask_of(clip, "m.png"), first_frame=name)
    assert one_line(error).endswith(
        f"{name}; --first-frame must select one frame, and the frames are 00003 to 00006"
    )


def test_a_video_that_begins_at_its_last_frame(clip):
    with pytest.raises(
        PipelineError, match="clip: --first-frame 6 is the last frame; there is nothing to segment"
    ):
        data.load_frames(clip, mask_of(clip, "m.png"), first_frame="6")


@pytest.mark.parametrize("name", ["00005.png", "5.png"])
def test_a_mask_named_as_another_frame_is_an_error(clip, name):
    mask = mask_of(clip, name)
    with pytest.raises(
        PipelineError, match="has the name of frame 00005, but the video begins at 00003"
    ) as error:
        data.load_frames(clip, mask)
    assert "pass --first-frame 00005 to begin there, or --first-frame 00003 if the mask" in one_line(error)
    for first, length in (("5", 2), ("00003", 4)):  # an explicit first frame overrides the name
        assert len(data.load_frames(clip, mask, first_frame=first)) == length


@pytest.mark.parametrize("name", ["00003.png", "3.png", "mask5.png", "7.png", "first.png"])
def test_other_mask_names_are_accepted(clip, name):
    assert len(data.load_frames(clip, mask_of(clip, name))) == 4


@pytest.mark.parametrize("name", ["00003.png", "mask.png", "00003.bmp"])
def test_a_mask_among_the_frames_is_an_error(clip, name):
    mask = clip / name
    write_labels(mask, labels_with(1))
    for first in (None, "00004"):
        with pytest.raises(PipelineError, match="this mask is in the folder of the frames") as error:
            data.load_frames(clip.parent / "masks/../clip", mask, first_frame=first)
        assert "--first-frame" in one_line(error)


def test_wrong_folders_and_masks(tmp_path):
    write_labels(tmp_path / "first.png", labels_with(1, size=(10, 30)))
    with pytest.raises(PipelineError, match="no such file or folder"):
        data.load_frames(tmp_path / "none", tmp_path / "first.png")
    (tmp_path / "empty").mkdir()
    with pytest.raises(PipelineError, match=r"empty: contains no \.jpg, .* files"):
        data.load_frames(tmp_path / "empty", tmp_path / "first.png")
    write_image(tmp_path / "clip/0.png", np.zeros((20, 30, 3), np.uint8))
    with pytest.raises(PipelineError, match=r"clip: contains only one frame, .* there is nothing to segment"):
        data.load_frames(tmp_path / "clip", tmp_path / "first.png")
    write_image(tmp_path / "clip/1.png", np.zeros((20, 30, 3), np.uint8))
    with pytest.raises(PipelineError, match=r"first\.png: is 30x10"):
        data.load_frames(tmp_path / "clip", tmp_path / "first.png")
    with pytest.raises(PipelineError, match=r"gone\.png: no such file"):
        data.load_frames(tmp_path / "clip", tmp_path / "gone.png")


def test_two_frames_with_one_stem_are_an_error(tmp_path):
    for name in ("0.png", "1.png", "1.jpg"):
        write_image(tmp_path / name, np.zeros((20, 30, 3), np.uint8))
    with pytest.raises(PipelineError, match=r"1\.jpg and 1\.png would have the same result file, 1\.png"):
        data.list_images(tmp_path)
