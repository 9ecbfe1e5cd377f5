"""Samples from folders of images and masks, and the bundled photographs."""

import numpy as np
import pytest
from davis_cases import one_line
from PIL import Image
from spn_cases import masked_folder

from vos_pipeline.data import labels
from vos_pipeline.errors import PipelineError
from vos_pipeline.refiner import MaskedPictures, PictureFolders, bundled_photographs


def test_the_bundled_photographs_are_rgb_pictures():
    pictures = bundled_photographs()
    assert len(pictures) > 10
    assert all(p.ndim == 3 and p.shape[2] == 3 and p.dtype == np.uint8 for p in pictures)


def test_masked_pictures_give_crops_with_one_object(tmp_path):
    samples = MaskedPictures(PictureFolders(*masked_folder(tmp_path)), size=32)
    for index in range(8):
        image, coarse, mask = samples[index]
        assert image.shape == (32, 32, 3) and coarse.shape == mask.shape == (32, 32)
        assert image.dtype == coarse.dtype == mask.dtype == np.float32 and mask.any()
        assert all(np.array_equal(a, b) for a, b in zip(samples[index], samples[index], strict=True))


def test_masked_pictures_of_a_course_end_like_no_course(tmp_path):
    folders = PictureFolders(*masked_folder(tmp_path))
    course, none = MaskedPictures(folders, size=32, course=30), MaskedPictures(folders, size=32)
    same = [all(map(np.array_equal, course[index], none[index])) for index in range(40)]
    assert all(same[20:]) and not all(same[:10])


def test_masked_pictures_without_pairs_are_an_error(tmp_path):
    images, masks = masked_folder(tmp_path)
    for path in masks.iterdir():
        path.rename(path.with_name(f"other-{path.name}"))
    with pytest.raises(PipelineError, match="mask of the same name"):
        PictureFolders(images, masks)


def test_a_single_mask_with_an_object_is_enough(tmp_path):
    images, masks = masked_folder(tmp_path, count=60)
    for i in range(1, 60):
        Image.fromarray(np.zeros((40, 60), np.uint8)).save(masks / f"{i}.png")
    samples = MaskedPictures(PictureFolders(images, masks), size=32)
    assert all(samples[index][2].any() for index in range(5))


def test_the_meaning_of_255_is_decided_for_the_whole_folder(tmp_path):
    """In such a folder, a mask of only 0 and 255 contains void, not an object."""
    images, masks = masked_folder(tmp_path, count=3)
    Image.fromarray(np.uint8([[0, 255]]).repeat(40, 0).repeat(30, 1)).save(masks / "1.png")
    folders = PictureFolders(images, masks)
    assert [mask.stem for _, mask in MaskedPictures(folders).pairs] == ["0", "2"]


def save(array):
    return lambda path: Image.fromarray(array).save(path)


ONE = np.ones((40, 60), np.uint8)


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (save(ONE.T), "is 40x60, but its image .*images/4.png is 60x40"),
        (save(np.dstack([ONE, ONE, 0 * ONE])), r"a mask must be .* got a colour image \(RGB\)"),
        (save(ONE * np.arange(60, 180, 2, dtype=np.uint8)), r"grey masks with \d+ values"),
        (lambda path: path.write_bytes(path.read_bytes()[:-30]), "is damaged or cut short"),
    ],
    ids=["size", "kind", "values", "damage"],
)
def test_masks_are_checked_before_training(tmp_path, spoil, why):
    images, masks = masked_folder(tmp_path, count=5)
    spoil(masks / "4.png")
    with pytest.raises(PipelineError, match=rf"masks/4\.png: {why}") as error:
        PictureFolders(images, masks)
    one_line(error)


def test_masks_without_an_object(tmp_path):
    images, masks = masked_folder(tmp_path, count=10)
    for i in range(9):
        save(0 * ONE)(masks / f"{i}.png")
    with pytest.raises(
        PipelineError, match=r"only masks kept for validation \(every 10th\) contain an object"
    ):
        MaskedPictures(PictureFolders(images, masks))
    save(0 * ONE)(masks / "9.png")
    with pytest.raises(PipelineError, match=r"masks: no mask of an image in .*images contains an object"):
        PictureFolders(images, masks)


def test_training_and_validation_parts_check_masks_only_once(tmp_path, monkeypatch):
    read, decoded = labels.read_stored, []
    monkeypatch.setattr(labels, "read_stored", lambda path: decoded.append(path) or read(path))
    folders = PictureFolders(*masked_folder(tmp_path, count=10))
    for part in ("train", "validation"):
        MaskedPictures(folders, part=part)
    assert len(decoded) == 10


def test_every_tenth_picture_is_for_validation(tmp_path):
    folders = PictureFolders(*masked_folder(tmp_path, count=21))
    parts = [MaskedPictures(folders, part=part) for part in ("train", "validation")]
    names = [{path.stem for path, _ in part.pairs} for part in parts]
    assert names[1] == {"9", "19"} and names[0] == {str(i) for i in range(21)} - names[1]


def test_few_pictures_are_all_for_training(tmp_path):
    folders = PictureFolders(*masked_folder(tmp_path, count=9))
    assert len(MaskedPictures(folders).pairs) == 9
    assert not MaskedPictures(folders, part="validation")
