"""The meaning of the values in the masks of a folder."""

import pickle

import cv2
import numpy as np
import pytest
from davis_cases import labels_with, make_root, one_line
from PIL import Image

from vos_pipeline.data import MaskFolder, Sequence, load_davis, masks, read_labels, write_labels
from vos_pipeline.errors import PipelineError


def folder_of(root, *arrays, palette=False, suffix="png", **options):
    """Write masks as grey or palette files, in the given order."""
    paths = []
    root.mkdir(exist_ok=True)
    for t, array in enumerate(arrays):
        paths.append(root / f"{t:05d}.{suffix}")
        if palette:
            write_labels(paths[-1], array)
        else:
            Image.fromarray(array).save(paths[-1], **options)
    return MaskFolder(paths)


def read_all(folder):
    return [folder.read(path) for path in folder.paths]


def check(folder, *expected):
    # The result does not depend on which mask is read first.
    for order in (folder.paths, folder.paths[::-1]):
        fresh = MaskFolder(folder.paths)
        got = {path: fresh.read(path) for path in order}
        for path, labels in zip(folder.paths, expected, strict=True):
            np.testing.assert_array_equal(got[path], labels)
            assert got[path].dtype == np.uint8 and got[path].flags.writeable
    assert folder.labels() == {int(v) for labels in expected for v in np.unique(labels)} - {0, 255}


EMPTY = labels_with()

# --- 0 and 255 ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("palette", [False, True], ids=["grey", "palette"])
class TestBinary:
    def test_0_and_255_are_one_object(self, tmp_path, palette):
        folder = folder_of(tmp_path, labels_with(255), EMPTY, labels_with(0, 255), palette=palette)
        check(folder, labels_with(1), EMPTY, labels_with(0, 1))
        np.testing.assert_array_equal(read_labels(folder.paths[0]), labels_with(1))

    def test_a_mask_of_only_255_is_one_object(self, tmp_path, palette):
        full = np.full((20, 30), 255, np.uint8)
        check(folder_of(tmp_path, full, palette=palette), full // 255)

    def test_255_is_void_if_other_labels_occur(self, tmp_path, palette):
        arrays = labels_with(1, 2), labels_with(1, 255), EMPTY
        check(folder_of(tmp_path, *arrays, palette=palette), *arrays)
        np.testing.assert_array_equal(read_labels(tmp_path / "00001.png"), labels_with(1, 255))

    def test_void_stays_void_where_a_frame_lacks_the_object(self, tmp_path, palette):
        arrays = labels_with(1, 255), labels_with(0, 255), EMPTY
        check(folder_of(tmp_path, *arrays, palette=palette), *arrays)


def test_one_bit_masks_are_one_object(tmp_path):
    check(folder_of(tmp_path, labels_with(1) > 0, EMPTY > 0), labels_with(1), EMPTY)


def test_one_bit_masks_among_grey_ones(tmp_path):
    check(folder_of(tmp_path, labels_with(255), labels_with(1) > 0), labels_with(1), labels_with(1))
    # If other masks have labels, 255 is void, as in grey masks of 0 and 255.
    check(folder_of(tmp_path, labels_with(1, 2), labels_with(1) > 0), labels_with(1, 2), labels_with(255))


def test_palette_and_grey_masks_are_treated_separately(tmp_path):
    write_labels(tmp_path / "first.png", labels_with(1))
    Image.fromarray(labels_with(0, 255)).save(tmp_path / "second.png")
    check(MaskFolder([tmp_path / "first.png", tmp_path / "second.png"]), labels_with(1), labels_with(0, 1))


# --- labels -------------------------------------------------------------------------------------------------


def test_grey_labels(tmp_path):
    for arrays in (
        [labels_with(1, 2), EMPTY],
        [labels_with(50, 100, 150)],
        [labels_with(3, 254)],
        [labels_with(63)],
    ):
        check(folder_of(tmp_path, *arrays), *arrays)


def test_forty_grey_objects(tmp_path):
    many = np.kron(np.arange(1, 41, dtype=np.uint8).reshape(5, 8), np.ones((9, 9), np.uint8))
    check(folder_of(tmp_path, many), many)
    many[:3] = 255
    check(folder_of(tmp_path, many, EMPTY), many, EMPTY)


def test_255_with_high_grey_values_is_ambiguous(tmp_path):
    folder = folder_of(tmp_path, labels_with(0, 255), labels_with(100), labels_with(1))
    for path in folder.paths:
        with pytest.raises(PipelineError, match="ambiguous") as error:
            folder.read(path)
        assert one_line(error) == (
            f"{folder.paths[1]}: grey masks with the values 1, 100 and 255 are ambiguous, because 255 means void "
            "if other labels occur; save one index per object (1, 2, ...) in indexed PNGs, or only 0 and 255"
        )


def test_small_objects_of_two_grey_values_are_labels(tmp_path):
    small = np.zeros((20, 30), np.uint8)
    small[4:7, 4:7], small[4:7, 10:13] = 100, 200
    check(folder_of(tmp_path, small), small)
    ends = np.where(small == 200, 240, small // 100).astype(np.uint8)
    check(folder_of(tmp_path, ends), ends)
    small[10:18] = 255
    with pytest.raises(PipelineError, match="ambiguous"):
        read_all(folder_of(tmp_path, small))


def test_dozens_of_grey_values_are_an_error(tmp_path):
    scores = np.tile(np.arange(0, 250, 5, dtype=np.uint8), (20, 1)).repeat(4, axis=1)
    with pytest.raises(PipelineError, match=r"00001\.png: grey masks with 49 values") as error:
        folder_of(tmp_path, EMPTY, scores).read(tmp_path / "00000.png")
    one_line(error)


# --- soft boundaries ----------------------------------------------------------------------------------------


def disc(radius=60, **options):
    mask = np.zeros((240, 320), np.uint8)
    return cv2.circle(mask, (150, 120), radius, 255, -1, **options)


def lines(kind=cv2.LINE_8):
    mask = np.zeros((240, 320), np.uint8)
    for k in range(8):
        cv2.line(mask, (10, 10 + 30 * k), (300, 40 + 22 * k), 255, 1 + k // 2, kind)
    return mask


def upscaled(mask, factor, kind=cv2.INTER_LINEAR):
    return cv2.resize(mask, None, fx=factor, fy=factor, interpolation=kind)


def agrees(labels, mask):
    """Return whether the labels are one object that differs from the original mask only along its boundary."""
    assert set(np.unique(labels)) <= {0, 1}
    differs = (labels == 1) != (mask >= 128)
    return not cv2.erode(differs.astype(np.uint8), np.ones((3, 3), np.uint8), borderValue=0).any()


SHAPES = {"disc": disc(), "small disc": disc(12), "lines": lines()}


@pytest.mark.parametrize("quality", [50, 75, 85, 90, 95, 100])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("suffix", ["jpg", "webp"])
def test_masks_that_a_lossy_format_softened(tmp_path, shape, quality, suffix):
    folder = folder_of(tmp_path, SHAPES[shape], np.zeros_like(SHAPES[shape]), suffix=suffix, quality=quality)
    labels, empty = read_all(folder)
    assert agrees(labels, SHAPES[shape]) and not empty.any() and folder.labels() == {1}


@pytest.mark.parametrize("quality", [50, 75, 90, 95, 100])
@pytest.mark.parametrize("shape", ["disc", "small disc"])
def test_a_jpeg_saved_as_png_later(tmp_path, shape, quality):
    folder = folder_of(tmp_path, SHAPES[shape], suffix="jpg", quality=quality)
    with Image.open(folder.paths[0]) as image:
        image.save(tmp_path / "m.png")
    assert agrees(read_labels(tmp_path / "m.png"), SHAPES[shape])


def test_a_jpeg_of_three_channels(tmp_path):
    Image.fromarray(np.dstack([disc()] * 3)).save(tmp_path / "m.jpg", quality=80)
    assert agrees(read_labels(tmp_path / "m.jpg"), disc())


@pytest.mark.parametrize("soft", [disc(lineType=cv2.LINE_AA), lines(cv2.LINE_AA)], ids=["disc", "lines"])
def test_antialiased_masks(tmp_path, soft):
    np.testing.assert_array_equal(read_all(folder_of(tmp_path, soft, 0 * soft))[0], soft >= 128)


@pytest.mark.parametrize("factor", [0.5, 0.25])
def test_reduced_masks(tmp_path, factor):
    soft = upscaled(disc(), factor, cv2.INTER_AREA)
    np.testing.assert_array_equal(read_all(folder_of(tmp_path, soft))[0], soft >= 128)


@pytest.mark.parametrize("factor", [2, 3, 4, 8])
@pytest.mark.parametrize("kind", [cv2.INTER_LINEAR, cv2.INTER_CUBIC])
@pytest.mark.parametrize("shape", ["disc", "small disc"])
def test_upscaled_masks(tmp_path, factor, kind, shape):
    soft = upscaled(SHAPES[shape], factor, kind)
    np.testing.assert_array_equal(read_all(folder_of(tmp_path, soft))[0], soft >= 128)


def test_an_outline_along_the_border_of_the_picture(tmp_path):
    soft = np.zeros((40, 60), np.uint8)
    soft[:20] = 255
    soft[0], soft[20] = np.linspace(40, 220, 60), np.linspace(40, 220, 60)
    np.testing.assert_array_equal(read_all(folder_of(tmp_path, soft))[0], soft >= 128)


def test_one_soft_frame_makes_all_frames_soft(tmp_path):
    folder = folder_of(tmp_path, disc(), disc(lineType=cv2.LINE_AA), np.zeros((240, 320), np.uint8))
    assert [labels.max() for labels in read_all(folder)] == [1, 1, 0]


@pytest.mark.parametrize("quality", [50, 75, 90, 95])
@pytest.mark.parametrize(
    ("values", "radius"), [((100, 200), 50), ((255, 100), 12), ((255, 100), 50), ((1, 2), 50)]
)
def test_several_objects_in_a_jpeg_are_refused(tmp_path, values, radius, quality):
    mask = np.zeros((240, 320), np.uint8)
    cv2.circle(mask, (90, 120), 50, values[0], -1)
    cv2.circle(mask, (230, 120), radius, values[1], -1)
    folder = folder_of(tmp_path, mask, suffix="jpg", quality=quality)
    with pytest.raises(
        PipelineError, match=r"00000\.jpg: this lossy format .* changes labels, .* \d+ values"
    ) as error:
        folder.read(folder.paths[0])
    one_line(error)


def resized(*values, kind=cv2.INTER_LINEAR):
    """Return squares of these values with interpolated edges."""
    labels = labels_with(*range(1, len(values) + 1), size=(20, 30))
    return cv2.resize(np.uint8([0, *values])[labels], (60, 40), interpolation=kind)


def test_labels_that_were_resized_with_interpolation(tmp_path, capsys):
    low = folder_of(tmp_path / "low", resized(20, 40, 60))
    low.read(low.paths[0])
    assert (
        f"{low.paths[0]}: " in (told := capsys.readouterr().err)
        and "occur only along boundaries, but each value is read as an object; if these masks" in told
    )
    high = folder_of(tmp_path / "high", resized(100, 200))
    with pytest.raises(
        PipelineError, match=r"of the \d+ grey values occur only along boundaries, so they are not labels"
    ) as error:
        high.read(high.paths[0])
    one_line(error)


def test_labels_that_were_resized_without_interpolation(tmp_path, capsys):
    for values in ((20, 40, 60), (100, 200)):
        folder = folder_of(tmp_path / str(values[0]), resized(*values, kind=cv2.INTER_NEAREST))
        assert folder.labels() == set(values)
    specks = labels_with(1, 2)
    specks[15, 3], specks[15, 13], specks[15, 23] = 3, 4, 5  # single pixels, but the later frame has regions
    later = labels_with(1, 2, 3, 4)
    folder = folder_of(tmp_path / "specks", specks, later)
    assert folder.read(folder.paths[0]).max() == 5
    assert not capsys.readouterr().err


def test_blurred_masks_are_an_error(tmp_path):
    blurred = cv2.GaussianBlur(disc(), (0, 0), 6)
    folder = folder_of(tmp_path, disc(lineType=cv2.LINE_AA), blurred, blurred)
    with pytest.raises(PipelineError, match=r"00001\.png: grey masks with \d+ values"):
        read_all(folder)


# --- how often files are read -------------------------------------------------------------------------------


@pytest.fixture
def decoded(monkeypatch):
    """Collect the names of the mask files that are read, in order."""
    names, read = [], masks.read_stored

    def counting(path):
        names.append(path.name)
        return read(path)

    monkeypatch.setattr("vos_pipeline.data.labels.read_stored", counting)
    return names


def test_palette_masks_are_read_once(tmp_path, decoded):
    (sequence, _) = load_davis(make_root(tmp_path))
    for t in range(3):
        sequence.read_mask(t)
    # The first mask of each of two sequences, then all masks of one sequence.
    assert decoded == ["00000.png"] * 3 + ["00001.png", "00002.png"]


def test_grey_masks_are_read_twice_at_most(tmp_path, decoded):
    folder = folder_of(tmp_path, labels_with(1), labels_with(0, 255), EMPTY)
    read_all(folder)
    read_all(pickle.loads(pickle.dumps(folder)))
    assert sorted(decoded) == ["00000.png"] * 2 + ["00001.png"] * 3 + ["00002.png"] * 3


def test_a_single_mask_is_read_once(tmp_path, decoded):
    folder_of(tmp_path, disc(lineType=cv2.LINE_AA))
    read_labels(tmp_path / "00000.png")
    assert decoded == ["00000.png"]


def test_a_damaged_mask_of_the_folder_is_named(tmp_path):
    folder = folder_of(tmp_path, labels_with(255), disc())
    folder.paths[1].write_bytes(folder.paths[1].read_bytes()[:-40])
    with pytest.raises(PipelineError, match=r"00001\.png: is damaged or cut short"):
        folder.read(folder.paths[0])


# --- sequences ----------------------------------------------------------------------------------------------


def test_void_is_background_for_a_sequence(tmp_path):
    write_labels(tmp_path / "m.png", labels_with(2, 255))
    sequence = Sequence("x", (tmp_path / "m.png",), (tmp_path / "m.png",))
    np.testing.assert_array_equal(sequence.read_mask(0), labels_with(2))
    assert sequence.object_ids == (2,)


@pytest.mark.parametrize("palette", [False, True])
def test_all_masks_of_a_sequence_decide_what_255_means(tmp_path, palette):
    paths = folder_of(tmp_path, labels_with(1, 255), labels_with(0, 255), palette=palette).paths
    sequence = Sequence("x", paths, paths)
    assert not sequence.read_mask(1).any() and sequence.object_ids == (1,)


def test_a_first_mask_of_only_void_is_an_error(tmp_path):
    paths = folder_of(tmp_path, labels_with(0, 255), labels_with(1, 255), palette=True).paths
    with pytest.raises(PipelineError, match=r"00000\.png: the first mask contains only void \(255, "):
        _ = Sequence("x", paths, paths).object_ids


# --- palettes sorted by tools -------------------------------------------------------------------------------


def write_palette_mask(path, *colours):
    """Write labels 0, 1 and 2 in these colours."""
    image = Image.fromarray(labels_with(1, 2))
    image.putpalette(np.array(colours, np.uint8).tobytes())
    image.save(path)
    return path


BLACK, WHITE, RED = (0, 0, 0), (255, 255, 255), (255, 0, 0)


@pytest.mark.parametrize("colours", [(WHITE, BLACK, RED), (RED, WHITE, BLACK)])
def test_a_background_moved_by_a_sorted_palette_is_one_warning(tmp_path, capsys, colours):
    paths = [write_palette_mask(tmp_path / f"{t}.png", *colours) for t in range(2)]
    folder = MaskFolder(paths)
    for path in paths:
        assert np.array_equal(folder.read(path), labels_with(1, 2))  # an index stays a label
    told = capsys.readouterr().err
    assert told.count("warning: ") == 1 and f"{paths[0]}: index 0 is read as background" in told
    assert f"index {colours.index(BLACK)} is" in told


@pytest.mark.parametrize("colours", [(BLACK, WHITE, RED), (BLACK, BLACK, BLACK), (WHITE, RED, RED, BLACK)])
def test_other_palettes_cause_no_warning(tmp_path, capsys, colours):
    read_labels(write_palette_mask(tmp_path / "0.png", *colours))
    assert capsys.readouterr().err == ""


def test_void_may_be_black(tmp_path, capsys):
    image = Image.fromarray(labels_with(1, 255))
    image.putpalette(bytes(WHITE) * 255 + bytes(BLACK))
    image.save(tmp_path / "0.png")
    read_labels(tmp_path / "0.png")
    assert capsys.readouterr().err == ""


def test_a_first_mask_without_background_is_a_warning(tmp_path, capsys):
    root = make_root(tmp_path, names=("alpha",))
    load_davis(root)
    assert capsys.readouterr().err == ""
    first = root / "Annotations/480p/alpha/00000.png"
    write_labels(first, np.maximum(labels_with(2), 1))
    (sequence,) = load_davis(root)
    told = capsys.readouterr().err
    assert sequence.object_ids == (1, 2) and told.count("warning: ") == 1
    assert f"{first}: marks every pixel as an object (1, 2), because no pixel is 0" in told
