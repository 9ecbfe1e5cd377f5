"""Composites: synthetic images with exact masks."""

import numpy as np
import pytest
from spn_cases import photographs

from vos_pipeline.refiner import Composites
from vos_pipeline.refiner.shapes import SHAPES


@pytest.mark.parametrize("shape", SHAPES)
def test_shapes_have_about_unit_extent(shape):
    for seed in range(10):
        parts = shape(np.random.default_rng(seed))
        assert parts[0][1], "the first part is filled"
        for outline, _ in parts:
            assert outline.ndim == 2 and outline.shape[1] == 2 and np.abs(outline).max() < 4


def test_composites_depend_only_on_seed_and_index():
    first, again = (Composites(photographs(), size=48, seed=1) for _ in range(2))
    other = Composites(photographs(), size=48, seed=2)
    for index in range(6):
        image, coarse, mask = first[index]
        assert image.shape == (48, 48, 3) and coarse.shape == mask.shape == (48, 48)
        for array in (image, coarse, mask):
            assert array.dtype == np.float32 and array.min() >= 0 and array.max() <= 1
        assert all(np.array_equal(a, b) for a, b in zip(first[index], again[index], strict=True))
        assert not np.array_equal(image, other[index][0])


def test_an_object_differs_from_its_surroundings_along_the_mask():
    """The mask is the drawn coverage, so the image changes more across its boundary than elsewhere."""
    inside, across = [], []
    composites = Composites(photographs(), size=64, seed=0)
    for index in range(20):
        image, _, mask = composites[index]
        change = np.abs(np.diff(image, axis=1)).sum(2)
        outline = np.abs(np.diff(mask, axis=1)) > 0.3
        if outline.any():
            across.append(change[outline].mean())
            inside.append(change[~outline].mean())
    assert np.mean(across) > 2 * np.mean(inside)


def test_the_mask_is_the_visible_part_of_the_object(monkeypatch):
    def planes(self, rng, extent, centre, decorated):
        """The object is the left half; everything else, behind or in front, is the upper half."""
        cover = np.zeros((32, 32), np.float32)
        cover[(slice(None), slice(16)) if decorated else slice(16)] = 1
        return np.ones((32, 32, 3), np.float32), cover

    monkeypatch.setattr(Composites, "_object", planes)
    masks = [Composites(photographs(), 32, seed=3)[i][2] for i in range(24)]
    for mask in masks:
        assert mask[20:, :10].min() > 0.9 and mask[:, 28:].max() < 0.1
    in_front = [mask[4:12, 4:12].mean() for mask in masks]
    assert min(in_front) < 0.1 and max(in_front) > 0.9


def test_a_course_starts_easy_and_ends_like_no_course():
    course, none = Composites(photographs(), 48, course=300), Composites(photographs(), 48)
    for index in (200, 250, 299, 1000):
        assert all(np.array_equal(a, b) for a, b in zip(course[index], none[index], strict=True))

    def right(composites):
        samples = [composites[index] for index in range(100)]
        return np.mean([((c > 0.5) != (m > 0.5)).mean() < 0.005 for _, c, m in samples])

    assert right(course) < 0.5 * right(none)
