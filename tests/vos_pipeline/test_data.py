"""Reading and writing frames, masks, DAVIS roots and a user's own video."""

import os
import pickle
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vos_pipeline import data
from vos_pipeline.errors import PipelineError

DATA = Path(os.environ.get("SPN_TEST_DATA", Path(__file__).parents[3] / "shared" / "data"))
needs_data = pytest.mark.skipif(not (DATA / "davis").is_dir(), reason="no real data: set SPN_TEST_DATA")


def labels_with(*ids, size=(20, 30)):
    labels = np.zeros(size, np.uint8)
    for k, label in enumerate(ids):
        labels[3:9, 4 + 6 * k : 9 + 6 * k] = label
    return labels


def make_root(root, masks=("00000", "00001", "00002"), ids=(1, 2), names=("alpha", "beta"), size=(20, 30)):
    rng = np.random.default_rng(0)
    for name in names:
        for t in range(3):
            picture = rng.integers(0, 255, (*size, 3), dtype=np.uint8)
            data.write_image(root / "JPEGImages/480p" / name / f"{t:05d}.jpg", picture)
        for stem in masks:
            data.write_labels(root / "Annotations/480p" / name / f"{stem}.png", labels_with(*ids, size=size))
    listing = root / "ImageSets/2017/val.txt"
    listing.parent.mkdir(parents=True)
    listing.write_text("\n".join(names) + "\n")
    return root


def one_line(error):
    message = str(error.value)
    assert "\n" not in message
    return message


# --- masks --------------------------------------------------------------------------------------------------


def test_labels_survive_writing_and_reading(tmp_path):
    labels = np.arange(256, dtype=np.uint8).reshape(16, 16)
    path = tmp_path / "new" / "folder" / "mask.png"
    data.write_labels(path, labels)
    np.testing.assert_array_equal(data.read_labels(path), labels)
    with Image.open(path) as image:
        assert image.mode == "P"
        assert image.getpalette()[:768] == data.davis_palette().ravel().tolist()
    assert os.listdir(path.parent) == ["mask.png"]  # no temporary file left


def test_palette_is_that_of_pascal_voc():
    palette = data.davis_palette()
    known = {0: (0, 0, 0), 1: (128, 0, 0), 2: (0, 128, 0), 3: (128, 128, 0), 4: (0, 0, 128), 5: (128, 0, 128)}
    known |= {8: (64, 0, 0), 9: (192, 0, 0), 16: (0, 64, 0), 22: (0, 192, 128), 255: (224, 224, 192)}
    for index, colour in known.items():
        assert tuple(palette[index]) == colour
    assert len({tuple(colour) for colour in palette}) == 256


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "mask.png"
    data.write_labels(path, labels_with(1))

    def fail(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(Image.Image, "save", fail)
    with pytest.raises(KeyboardInterrupt):
        data.write_labels(path, labels_with(1, 2))
    monkeypatch.undo()
    np.testing.assert_array_equal(data.read_labels(path), labels_with(1))
    assert os.listdir(tmp_path) == ["mask.png"]


@pytest.mark.parametrize("bad", [np.zeros((2, 3), np.int64), np.zeros((2, 3, 3), np.uint8)])
def test_only_label_maps_can_be_written(tmp_path, bad):
    with pytest.raises(ValueError, match="labels must be uint8"):
        data.write_labels(tmp_path / "x.png", bad)


def test_a_2016_mask_is_one_object(tmp_path):
    Image.fromarray(labels_with(255)).save(tmp_path / "m.png")
    np.testing.assert_array_equal(data.read_labels(tmp_path / "m.png"), labels_with(1))


def test_grey_labels_are_labels(tmp_path):
    Image.fromarray(labels_with(1, 2)).save(tmp_path / "m.png")
    np.testing.assert_array_equal(data.read_labels(tmp_path / "m.png"), labels_with(1, 2))
    Image.fromarray(labels_with(1, 255)).save(tmp_path / "v.png")
    np.testing.assert_array_equal(data.read_labels(tmp_path / "v.png"), labels_with(1, 255))


def test_one_bit_masks_are_one_object(tmp_path):
    Image.fromarray(labels_with(1) > 0).save(tmp_path / "m.png")
    np.testing.assert_array_equal(data.read_labels(tmp_path / "m.png"), labels_with(1))


def test_small_palettes_are_read(tmp_path):
    image = Image.fromarray(labels_with(1, 2, 3))
    image.putpalette(data.davis_palette()[:4].tobytes())
    image.save(tmp_path / "m.png", bits=2)
    np.testing.assert_array_equal(data.read_labels(tmp_path / "m.png"), labels_with(1, 2, 3))


def test_void_in_a_palette_mask_is_background_for_a_sequence(tmp_path):
    data.write_labels(tmp_path / "m.png", labels_with(2, 255))
    sequence = data.Sequence("x", (tmp_path / "m.png",), (tmp_path / "m.png",))
    assert data.read_labels(tmp_path / "m.png").max() == 255
    np.testing.assert_array_equal(sequence.read_mask(0), labels_with(2))
    assert sequence.object_ids == (2,)


@pytest.mark.parametrize(
    ("array", "kind"),
    [
        (np.zeros((5, 6, 3), np.uint8), "RGB"),
        (np.zeros((5, 6, 4), np.uint8), "RGBA"),
        (np.zeros((5, 6), np.uint16), "16-bit"),
    ],
)
def test_masks_of_the_wrong_kind_are_refused(tmp_path, array, kind):
    path = tmp_path / "mask.png"
    Image.fromarray(array).save(path)
    with pytest.raises(PipelineError, match=kind) as error:
        data.read_labels(path)
    assert "mask.png" in one_line(error)


@pytest.mark.parametrize("read", [data.read_labels, data.read_image])
def test_missing_and_damaged_files_are_named(tmp_path, read):
    with pytest.raises(PipelineError, match=r"none\.png: no such file"):
        read(tmp_path / "none.png")
    (tmp_path / "junk.png").write_bytes(b"not a picture")
    with pytest.raises(PipelineError, match=r"junk\.png: can not be read"):
        read(tmp_path / "junk.png")
    rng = np.random.default_rng(0)
    data.write_labels(tmp_path / "cut.png", rng.integers(0, 255, (60, 60), dtype=np.uint8))
    whole = (tmp_path / "cut.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(PipelineError, match=r"cut\.png: is damaged") as error:
        read(tmp_path / "cut.png")
    one_line(error)


# --- frames -------------------------------------------------------------------------------------------------


def test_frames_are_rgb(tmp_path):
    red = np.zeros((4, 5, 3), np.uint8)
    red[..., 0] = 200
    data.write_image(tmp_path / "f.png", red)
    np.testing.assert_array_equal(data.read_image(tmp_path / "f.png"), red)
    assert data.read_image(tmp_path / "f.png").flags.writeable  # torch.from_numpy warns otherwise
    Image.fromarray(red[..., 0]).save(tmp_path / "grey.png")
    assert data.read_image(tmp_path / "grey.png").shape == (4, 5, 3)


def test_a_truncated_jpeg_is_named(tmp_path):
    path = tmp_path / "00007.jpg"
    data.write_image(path, np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8))
    path.write_bytes(path.read_bytes()[:1500])
    with pytest.raises(PipelineError, match=r"00007\.jpg: is damaged or cut short"):
        data.read_image(path)


def test_16_bit_frames_are_refused(tmp_path):
    Image.fromarray(np.zeros((5, 6), np.uint16)).save(tmp_path / "f.png")
    with pytest.raises(PipelineError, match="8 bits a channel"):
        data.read_image(tmp_path / "f.png")


# --- overlay ------------------------------------------------------------------------------------------------


def test_overlay_tints_objects_and_draws_contours():
    frame = np.full((20, 30, 3), 100, np.uint8)
    labels = labels_with(1, 255)
    picture = data.overlay(frame, labels, alpha=0.5)
    np.testing.assert_array_equal(picture[labels == 0], 100)
    np.testing.assert_array_equal(picture[labels == 255], 100)
    np.testing.assert_array_equal(picture[3, 4], (128, 0, 0))  # contour
    np.testing.assert_array_equal(picture[5, 6], (114, 50, 50))  # half the palette's colour
    assert picture.dtype == np.uint8 and frame.min() == 100
    with pytest.raises(ValueError, match="labels must be"):
        data.overlay(frame, labels[:-1])


def test_contours_separate_touching_objects():
    labels = np.zeros((6, 8), np.uint8)
    labels[:, :4], labels[:, 4:] = 1, 2
    contours = data.label_contours(labels)
    assert contours[:, 3:5].all() and not contours[:, :3].any() and not contours[:, 5:].any()


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


def test_sequences_come_in_the_order_asked_for(tmp_path):
    root = make_root(tmp_path)
    assert [s.name for s in data.load_davis(root, sequences=["beta", "alpha"])] == ["beta", "alpha"]
    with pytest.raises(PipelineError, match="no sequence 'gamma' in set 2017/val; it has alpha, beta"):
        data.load_davis(root, sequences=["alpha", "gamma"])


def test_a_test_set_has_the_first_mask_only(tmp_path):
    sequence = data.load_davis(make_root(tmp_path, masks=("00000",)))[0]
    assert not sequence.has_all_masks and sequence.object_ids == (1, 2)
    with pytest.raises(PipelineError, match=r"00001\.jpg has no mask"):
        sequence.read_mask(1)


def test_layout_errors_list_what_exists(tmp_path):
    with pytest.raises(PipelineError, match="is no DAVIS root"):
        data.load_davis(tmp_path)
    with pytest.raises(PipelineError, match="does not exist"):
        data.load_davis(tmp_path / "nowhere")
    root = make_root(tmp_path)
    with pytest.raises(PipelineError, match=r"test-dev\.txt: no such set; this root has 2017/val"):
        data.load_davis(root, set_name="test-dev")
    (root / "ImageSets/2017/val.txt").write_text("alpha\nghost\n")
    with pytest.raises(PipelineError, match=r"ghost: no such folder; .* holds alpha, beta"):
        data.load_davis(root)
    (root / "ImageSets/2017/val.txt").write_text("\n")
    with pytest.raises(PipelineError, match="lists no sequence"):
        data.load_davis(root)


def test_a_missing_or_empty_first_mask_is_named(tmp_path):
    root = make_root(tmp_path)
    first = root / "Annotations/480p/alpha/00000.png"
    data.write_labels(first, np.zeros((20, 30), np.uint8))
    with pytest.raises(PipelineError, match=r"alpha/00000\.png: the first mask is empty"):
        data.load_davis(root)
    first.unlink()
    with pytest.raises(PipelineError, match=r"alpha/00000\.png: the first mask is missing"):
        data.load_davis(root)


@pytest.mark.parametrize("which", ["JPEGImages/480p/beta/00002.jpg", "Annotations/480p/beta/00001.png"])
def test_sizes_are_checked_at_once(tmp_path, which):
    root = make_root(tmp_path)
    if which.endswith("png"):
        data.write_labels(root / which, labels_with(1, size=(10, 30)))
    else:
        data.write_image(root / which, np.zeros((10, 30, 3), np.uint8))
    with pytest.raises(
        PipelineError, match=re.escape(which) + r": is 30x10, but 00000.jpg is 30x20"
    ) as error:
        data.load_davis(root)
    one_line(error)


@needs_data
def test_real_sequences():
    (dogs,) = data.load_davis(DATA / "davis")
    assert (dogs.name, len(dogs), dogs.size, dogs.object_ids) == ("dogs-jump", 66, (240, 432), (1, 2, 3))
    swan = data.load_davis(DATA / "davis", "2016", "val", ["blackswan"])[0]
    assert len(swan) == 50 and swan.size == (480, 854) and swan.object_ids == (1,) and swan.has_all_masks
    train = data.load_davis(DATA / "davis", "2016", "train")
    assert len(train) == 30 and train[0].frame_paths[1].stem == "00005"
    with Image.open(dogs.mask_paths[0]) as image:
        stored = image.getpalette()
    assert stored[: 3 * 22] == data.davis_palette().ravel().tolist()[: 3 * 22]


# --- a user's own video -------------------------------------------------------------------------------------


def test_a_folder_is_read_in_natural_order(tmp_path):
    folder = tmp_path / "clip"
    for k in (10, 2, 1):
        data.write_image(folder / f"frame{k}.png", np.full((20, 30, 3), k, np.uint8))
    (folder / "notes.txt").write_text("no picture")
    (folder / "._frame1.png").write_text("no picture either")
    data.write_labels(tmp_path / "first.png", labels_with(1))
    sequence = data.load_frames(folder, tmp_path / "first.png")
    assert sequence.name == "clip" and len(sequence) == 3
    assert [int(sequence.read_frame(t)[0, 0, 0]) for t in range(3)] == [1, 2, 10]
    assert sequence.object_ids == (1,) and not sequence.has_all_masks


def test_wrong_folders_and_masks(tmp_path):
    data.write_labels(tmp_path / "first.png", labels_with(1, size=(10, 30)))
    with pytest.raises(PipelineError, match="no such file or folder"):
        data.load_frames(tmp_path / "none", tmp_path / "first.png")
    (tmp_path / "empty").mkdir()
    with pytest.raises(PipelineError, match="holds no pictures"):
        data.load_frames(tmp_path / "empty", tmp_path / "first.png")
    data.write_image(tmp_path / "clip/0.png", np.zeros((20, 30, 3), np.uint8))
    with pytest.raises(PipelineError, match=r"first\.png: is 30x10"):
        data.load_frames(tmp_path / "clip", tmp_path / "first.png")
    with pytest.raises(PipelineError, match=r"gone\.png: no such file"):
        data.load_frames(tmp_path / "clip", tmp_path / "gone.png")


@pytest.fixture
def video(tmp_path):
    import cv2

    path = tmp_path / "clip.mp4"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), 25, (64, 48))
    if not writer.isOpened():
        pytest.skip("this OpenCV can not write mp4")
    for t in range(5):
        frame = np.zeros((48, 64, 3), np.uint8)
        frame[..., 2] = 40 * t + 40  # OpenCV's order: this is red
        writer.write(frame)
    writer.release()
    return path


def test_a_video_is_decoded_once(tmp_path, video, monkeypatch):
    import cv2

    data.write_labels(tmp_path / "first.png", labels_with(1, size=(48, 64)))
    sequence = data.load_frames(video, tmp_path / "first.png", tmp_path / "work")
    assert sequence.name == "clip" and len(sequence) == 5 and sequence.size == (48, 64)
    red, green, _ = sequence.read_frame(4).reshape(-1, 3).mean(0)
    assert red > 150 and green < 40

    monkeypatch.setattr(cv2, "VideoCapture", None)  # the second time must not need it
    assert data.load_frames(video, tmp_path / "first.png", tmp_path / "work") == sequence


def test_a_file_that_is_no_video_is_named(tmp_path):
    (tmp_path / "notes.mp4").write_text("no video")
    data.write_labels(tmp_path / "first.png", labels_with(1))
    with pytest.raises(PipelineError, match=r"notes\.mp4: OpenCV can not decode"):
        data.load_frames(tmp_path / "notes.mp4", tmp_path / "first.png", tmp_path / "work")
    assert not list((tmp_path / "work").iterdir())
    with pytest.raises(ValueError, match="work_dir"):
        data.load_frames(tmp_path / "notes.mp4", tmp_path / "first.png")
