"""Samples from folders of pictures and masks, and the bundled photographs."""

import numpy as np
import pytest
from spn_cases import masked_folder

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


def test_masked_pictures_of_a_course_become_as_hard_as_those_without_one(tmp_path):
    folders = PictureFolders(*masked_folder(tmp_path))
    course, none = MaskedPictures(folders, size=32, course=30), MaskedPictures(folders, size=32)
    same = [all(map(np.array_equal, course[index], none[index])) for index in range(40)]
    assert all(same[20:]) and not all(same[:10])


def test_masked_pictures_without_pairs_say_so(tmp_path):
    images, masks = masked_folder(tmp_path)
    for path in masks.iterdir():
        path.rename(path.with_name(f"other-{path.name}"))
    with pytest.raises(PipelineError, match="mask of the same name"):
        PictureFolders(images, masks)


def test_every_tenth_picture_is_for_validation(tmp_path):
    folders = PictureFolders(*masked_folder(tmp_path, count=21))
    parts = [MaskedPictures(folders, part=part) for part in ("train", "validation")]
    names = [{path.stem for path, _ in part.pairs} for part in parts]
    assert names[1] == {"9", "19"} and names[0] == {str(i) for i in range(21)} - names[1]


def test_few_pictures_are_all_for_training(tmp_path):
    folders = PictureFolders(*masked_folder(tmp_path, count=9))
    assert len(MaskedPictures(folders).pairs) == 9
    assert not MaskedPictures(folders, part="validation")
