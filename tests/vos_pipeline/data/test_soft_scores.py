"""Scores of several objects: NPZ files of arrays, and folders of grey images."""

import io
import pickle
import tracemalloc
import zipfile

import numpy as np
import pytest
from davis_cases import one_line
from PIL import Image

from vos_pipeline.data import CoarseSequence, write_image, write_labels
from vos_pipeline.errors import PipelineError

SIZE = (6, 8)
SCORES = np.random.default_rng(0).random((2, *SIZE)).astype(np.float32)
BYTES = np.random.default_rng(1).integers(0, 256, (2, *SIZE), dtype=np.uint8)


@pytest.fixture
def frames(tmp_path):
    """Write three frames."""
    for t in range(3):
        write_image(tmp_path / f"frames/{t}.png", np.zeros((*SIZE, 3), np.uint8))
    return tmp_path / "frames"


@pytest.fixture
def masks(frames):
    """Create the folder for masks."""
    (frames.parent / "masks").mkdir()
    return frames.parent / "masks"


def arrays(masks, *files):
    """Write one NPZ file per frame."""
    for t in range(3):
        np.savez(masks / f"{t}.npz", **files[min(t, len(files) - 1)])


def grey(path, values):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(values, np.uint8)).save(path)


def pictures(masks, **scores):
    """Write one folder per object with the same scores for each frame."""
    for name, values in scores.items():
        for t in range(3):
            grey(masks / name.removeprefix("_") / f"{t}.png", values)


def refusal(frames, masks, hold="auto"):
    with pytest.raises(PipelineError) as error:
        CoarseSequence.open(frames, masks, hold)
    return one_line(error)


# --- arrays -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", ">f4"])
def test_floats_are_scores(frames, masks, dtype):
    stored = SCORES.astype(dtype)
    arrays(masks, {"scores": stored})
    coarse = CoarseSequence.open(frames, masks)
    assert coarse.ids == (1, 2) and coarse.scores
    assert [path.name for path in coarse.files] == ["0.npz", "1.npz", "2.npz"]
    assert coarse.read(1).dtype == np.float32
    np.testing.assert_array_equal(coarse.read(1), stored.astype(np.float32))


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_bytes_are_probabilities_times_255(frames, masks, save):
    for t in range(3):
        save(masks / f"{t}.npz", scores=np.asfortranarray(BYTES), note="of no interest")
    scores = CoarseSequence.open(frames, masks, "scores").read(0)
    np.testing.assert_array_equal(scores, BYTES.astype(np.float32) / 255)


def test_frames_may_list_their_objects_in_any_order(frames, masks):
    ordered = {"scores": SCORES, "ids": [3, 7]}
    arrays(masks, {"scores": SCORES[::-1], "ids": np.uint16([7, 3])}, ordered)
    coarse = CoarseSequence.open(frames, masks)
    assert coarse.ids == (3, 7)
    for t in range(3):
        np.testing.assert_array_equal(coarse.read(t), SCORES)


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        (SCORES[0], "(objects, 6, 8), with 1 to 254 objects, to match 0.png (8x6), got (6, 8)"),
        (SCORES[None], "(objects, 6, 8), with 1 to 254 objects, to match 0.png (8x6), got (1, 2, 6, 8)"),
        (SCORES[:0], "(objects, 6, 8), with 1 to 254 objects, to match 0.png (8x6), got (0, 6, 8)"),
        (
            np.zeros((255, *SIZE), np.float16),
            "(objects, 6, 8), with 1 to 254 objects, to match 0.png (8x6), got (255, 6, 8)",
        ),
        (SCORES[:, :5], "(objects, 6, 8), with 1 to 254 objects, to match 0.png (8x6), got (2, 5, 8)"),
        (
            SCORES.transpose(1, 2, 0),
            "(objects, 6, 8), with 1 to 254 objects, to match 0.png (8x6), got (6, 8, 2)",
        ),
        (SCORES > 0.5, "float16, float32 or float64 in [0, 1], or uint8 (probability * 255), got bool"),
        (SCORES.astype(np.int64), "got int64"),
        (SCORES.astype(np.complex64), "got complex64"),
        (SCORES.astype(np.longdouble), "got float128"),
        (SCORES.astype("S4"), "got |S4"),
        (np.zeros((2, *SIZE), "f4,f4"), "got [('f0', '<f4'), ('f1', '<f4')]"),
        (np.where(SCORES.max() == SCORES, np.nan, SCORES), "must lie in [0, 1], got NaN or infinity"),
        (np.where(SCORES.max() == SCORES, np.inf, SCORES), "must lie in [0, 1], got NaN or infinity"),
        (np.where(SCORES.max() == SCORES, -np.inf, SCORES), "must lie in [0, 1], got NaN or infinity"),
        (
            np.float32([[[0, 1.5] * 4] * 6]),
            "must lie in [0, 1], got values from 0.0 to 1.5; save probabilities",
        ),
        (
            np.float16([[[-1, 1] * 4] * 6]),
            "must lie in [0, 1], got values from -1.0 to 1.0; save probabilities",
        ),
    ],
)
def test_invalid_scores_are_refused(frames, masks, scores, expected):
    """All files are checked, including the last one."""
    if scores.dtype.name == "longdouble" and scores.dtype.itemsize == 8:
        pytest.skip("float128 is float64 here")
    arrays(masks, {"scores": SCORES}, {"scores": SCORES}, {"scores": scores})
    message = refusal(frames, masks)
    assert message.startswith(f"{masks / '2.npz'}: ") and expected in message


@pytest.mark.parametrize(
    ("ids", "expected"),
    [
        ([1, 1], "ids must be distinct and from 1 to 254, got 1, 1"),
        ([0, 1], "ids must be distinct and from 1 to 254, got 0, 1"),
        ([1, 255], "ids must be distinct and from 1 to 254, got 1, 255"),
        ([-1, 2**40], "ids must be distinct and from 1 to 254, got -1, 1099511627776"),
        ([1], "ids must be 2 integers, one per object in scores, got int64 of shape (1,)"),
        (5, "got int64 of shape ()"),
        ([[1, 2]], "got int64 of shape (1, 2)"),
        ([1.0, 2.0], "got float64 of shape (2,)"),
        ([False, True], "got bool of shape (2,)"),
        (["1", "2"], "got <U1 of shape (2,)"),
    ],
)
def test_invalid_ids_are_refused(frames, masks, ids, expected):
    arrays(masks, {"scores": SCORES}, {"scores": SCORES, "ids": ids})
    message = refusal(frames, masks)
    assert message.startswith(f"{masks / '1.npz'}: ids must be ") and expected in message


def test_other_objects_in_other_frames(frames, masks):
    arrays(masks, {"scores": SCORES, "ids": [2, 5]}, {"scores": SCORES, "ids": [2, 6]})
    assert refusal(frames, masks) == (
        f"{masks / '1.npz'}: has the ids 2, 6, but 0.npz has 2, 5; "
        "all frames of a sequence must have the same objects"
    )


def test_an_archive_without_scores(frames, masks):
    arrays(masks, {"masks": SCORES, "line\nbreak": SCORES})
    assert (
        "must contain an array 'scores' (objects, height, width), but contains 'masks, line\\nbreak'"
        in refusal(frames, masks)
    )
    arrays(masks, {})
    assert "but contains nothing" in refusal(frames, masks)


class Exploit:
    """Unpickling this object raises an exception."""

    def __reduce__(self):
        return (pytest.fail, ("unpickled",))


def test_nothing_is_unpickled(frames, masks):
    arrays(masks, {"scores": SCORES})
    np.savez(masks / "1.npz", scores=np.array([[[Exploit()]]]))
    assert "1.npz: scores must be float16, float32 or float64" in refusal(frames, masks)
    np.savez(masks / "1.npz", scores=SCORES, ids=np.array([Exploit(), Exploit()]))
    assert "1.npz: ids must be 2 integers" in refusal(frames, masks)
    (masks / "1.npz").write_bytes(pickle.dumps(Exploit()))
    assert "1.npz: cannot be read as an NPZ file" in refusal(frames, masks)


def archive(**members):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as writing:
        for name, content in members.items():
            writing.writestr(f"{name}.npy", content)
    return file.getvalue()


def npy(array):
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def vast():
    """Return an array file whose header declares a million objects."""
    return npy(np.zeros((2, *SIZE), np.float32)).replace(b"(2, 6, 8), }    ", b"(1000000, 6, 8),}")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"PK\x03\x04junk",
        npy(SCORES),
        archive(scores=b""),
        archive(scores=b"junk"),
        archive(scores=npy(SCORES)[:-4]),
        archive(scores=npy(SCORES) + b"more"),
        archive(scores=npy(SCORES).replace(b"\x93NUMPY\x01", b"\x93NUMPY\x07")),
        archive(scores=npy(SCORES).replace(b"{'descr'", b"{{'desc'")),
        archive(scores=npy(SCORES)).replace(SCORES.tobytes()[:8], b"otherval"),  # the checksum is wrong
        archive(scores=npy(SCORES), ids=b"junk"),
    ],
)
def test_damaged_archives(frames, masks, content):
    arrays(masks, {"scores": SCORES})
    (masks / "2.npz").write_bytes(content)
    message = refusal(frames, masks)
    assert message.startswith(f"{masks / '2.npz'}: cannot be read as an NPZ file (")
    assert message.endswith("write it with numpy.savez")


def test_a_header_with_a_huge_shape_is_refused(frames, masks):
    assert b"1000000" in vast()
    arrays(masks, {"scores": SCORES})
    (masks / "2.npz").write_bytes(archive(scores=vast()))
    assert "with 1 to 254 objects, to match 0.png (8x6), got (1000000, 6, 8)" in refusal(frames, masks)


def test_a_wrong_byte_is_an_error_or_changes_no_score(frames, masks):
    arrays(masks, {"scores": SCORES, "ids": [1, 2]})
    whole = (masks / "1.npz").read_bytes()
    for place in range(0, len(whole), 3):
        spoilt = bytearray(whole)
        spoilt[place] ^= 255
        (masks / "1.npz").write_bytes(spoilt)
        try:
            coarse = CoarseSequence.open(frames, masks)
        except PipelineError as error:
            assert "1.npz: " in str(error)
        else:
            np.testing.assert_array_equal(coarse.read(1), SCORES)


def test_broken_links_and_folders_are_refused(frames, masks):
    arrays(masks, {"scores": SCORES})
    (masks / "1.npz").unlink()
    (masks / "1.npz").symlink_to("gone")
    assert "1.npz: cannot be read as an NPZ file (No such file or directory)" in refusal(frames, masks)
    (masks / "1.npz").unlink()
    (masks / "1.npz").mkdir()
    assert f"{masks}: no mask 1.npz for frame 1 (1 missing)" in refusal(frames, masks)


def test_every_frame_has_its_archive(frames, masks):
    arrays(masks, {"scores": SCORES})
    (masks / "1.npz").rename(masks / "3.npz")
    assert f"{masks}: no mask 1.npz for frame 1 (1 missing)" in refusal(frames, masks)
    np.savez(masks / "1.npz", scores=SCORES)
    assert f"{frames}: no frame for mask 3.npz (1 missing)" in refusal(frames, masks)


def test_images_next_to_archives_are_refused(frames, masks):
    arrays(masks, {"scores": SCORES})
    grey(masks / "0.png", BYTES[0])
    assert refusal(frames, masks) == (
        f"{masks}: contains both images (0.png) and NPZ files; save all masks of a sequence in one of these formats"
    )


def test_archives_cannot_hold_labels(frames, masks):
    arrays(masks, {"scores": SCORES})
    assert f"{masks}: contains scores (NPZ files), not labels; omit --masks-hold" in refusal(
        frames, masks, "labels"
    )


def test_8_bit_scores_of_0_and_1_are_refused(frames, masks):
    arrays(masks, {"scores": (BYTES > 128).astype(np.uint8)})
    assert f"{masks}: 8-bit scores must be probabilities * 255, but the largest value here is 1" in refusal(
        frames, masks
    )
    assert CoarseSequence.open(frames, masks, "scores").read(0).max() == np.float32(1 / 255)


@pytest.mark.parametrize("dtype", [np.float32, np.uint8])
def test_archives_that_mark_no_object(frames, masks, dtype):
    arrays(masks, {"scores": np.zeros((2, *SIZE), dtype)})
    assert f"{masks}: these masks mark no object" in refusal(frames, masks)
    np.savez(masks / "2.npz", scores=np.ones((2, *SIZE)))
    assert CoarseSequence.open(frames, masks).ids == (1, 2)


@pytest.mark.parametrize("dtype", [np.float32, np.uint8])
def test_only_one_frame_is_in_memory(tmp_path, dtype):
    size, count = (200, 300), 20
    one = count * 200 * 300 * np.dtype(dtype).itemsize
    (tmp_path / "masks").mkdir()
    for t in range(4):
        write_image(tmp_path / f"frames/{t}.png", np.zeros((*size, 3), np.uint8))
        certain = 255 if dtype == np.uint8 else 1
        np.savez(tmp_path / f"masks/{t}.npz", scores=np.full((count, *size), certain, dtype))
    tracemalloc.start()
    coarse = CoarseSequence.open(tmp_path / "frames", tmp_path / "masks")
    checked = tracemalloc.get_traced_memory()[1]
    tracemalloc.reset_peak()
    coarse.read(0)
    read = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert checked < 1.8 * one + 1e6 and read < 1.3 * (one + count * 200 * 300 * 4) + 1e6


# --- folders ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("hold", ["auto", "scores"])
def test_a_folder_per_object(frames, masks, hold):
    pictures(masks, _10=BYTES[1], _009=BYTES[0])
    (masks / "notes.txt").write_text("no picture")
    coarse = CoarseSequence.open(frames, masks, hold)
    assert coarse.ids == (9, 10) and coarse.scores and len(coarse.files) == 6
    np.testing.assert_array_equal(coarse.read(2), BYTES.astype(np.float32) / 255)


def test_binary_masks_of_objects(frames, masks):
    """The folder identifies the object; the palette index does not matter."""
    square = np.zeros(SIZE, np.uint8)
    square[2:4, 2:5] = 1
    pictures(masks, _1=square * 255, _2=square * 0, _3=BYTES[0])
    for t in range(3):
        write_labels(masks / f"4/{t}.png", square * (7 if t < 2 else 0))
        write_labels(masks / f"5/{t}.png", square * 255)
    write_labels(masks / "3/1.png", square)
    coarse = CoarseSequence.open(frames, masks)
    np.testing.assert_array_equal(coarse.read(1), square * np.float32([1, 0, 1, 1, 1])[:, None, None])
    assert not coarse.read(2)[3].any()


@pytest.mark.parametrize("second", [2, 255])
def test_palette_masks_of_several_objects(frames, masks, second):
    pictures(masks, _1=BYTES[0])
    write_labels(masks / "1/0.png", np.ones(SIZE, np.uint8))
    write_labels(masks / "1/2.png", np.full(SIZE, second, np.uint8))
    assert refusal(frames, masks) == (
        f"{masks / '1/2.png'}: palette masks in a folder of one object must contain 0 and one other index, "
        f"but these contain 1, {second}"
    )


def test_folder_names_that_are_not_labels(frames, masks):
    for name in ("0", "255", "00300"):
        pictures(masks, _1=BYTES[0], **{f"_{name}": BYTES[1]})
        assert f"{masks / name}: a folder of an object's scores must be named after its label, 1 to 254" in (
            refusal(frames, masks)
        )
        (masks / name).rename(masks / f"not {name}")
    pictures(masks, _01=BYTES[0])
    assert f"{masks / '1'}: contains scores of object 1, and so does {masks / '01'}" in refusal(frames, masks)


def test_every_object_has_every_frame(frames, masks):
    pictures(masks, _1=BYTES[0], _2=BYTES[1])
    (masks / "2/1.png").rename(masks / "2/3.png")
    assert f"{masks / '2'}: no mask 1.png for frame 1 (1 missing)" in refusal(frames, masks)
    grey(masks / "2/1.png", BYTES[0])
    assert f"{frames}: no frame for mask 3.png (1 missing)" in refusal(frames, masks)
    (masks / "2/3.png").unlink()
    (masks / "3").mkdir()
    assert f"{masks / '3'}: contains no .jpg, .jpeg, .png" in refusal(frames, masks)


def test_invalid_images_of_objects_are_refused(frames, masks):
    pictures(masks, _1=BYTES[0], _2=BYTES[1])
    for values, expected in (
        (np.dstack([BYTES[0], BYTES[1], BYTES[0]]), "got a colour image (RGB)"),
        (BYTES[0, :5], "is 8x5, but 0.png is 8x6"),
    ):
        grey(masks / "2/2.png", values)
        message = refusal(frames, masks)
        assert message.startswith(f"{masks / '2/2.png'}: ") and expected in message
    Image.fromarray(BYTES[0].astype(np.uint16) * 257).save(masks / "2/2.png")
    assert "2/2.png: a mask must be an indexed (palette) or 8-bit grey PNG, got a 16-bit" in refusal(
        frames, masks
    )
    grey(masks / "2/2.png", BYTES[0])
    (masks / "2/2.png").write_bytes((masks / "2/2.png").read_bytes()[:60])
    assert "2/2.png: is damaged or cut short" in refusal(frames, masks)


def test_folders_of_objects_cannot_hold_labels(frames, masks):
    pictures(masks, _1=BYTES[0])
    assert f"{masks}: contains scores (one folder per object), not labels" in refusal(frames, masks, "labels")


def test_folders_of_zeros_and_ones(frames, masks):
    pictures(masks, _1=BYTES[0] > 128, _2=BYTES[0] * 0)
    assert "probabilities * 255, but the largest value here is 1; save 255" in refusal(frames, masks)
    assert CoarseSequence.open(frames, masks, "scores").ids == (1, 2)
    pictures(masks, _1=BYTES[0] * 0)
    assert f"{masks}: these masks mark no object" in refusal(frames, masks, "scores")
