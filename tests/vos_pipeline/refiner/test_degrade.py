"""Degraded masks: lost resolution, mistakes and forms of output."""

import numpy as np
import pytest
from spn_cases import square

from vos_pipeline.refiner import confuse, degrade, hardness, lose_resolution, smooth_noise, snap


@pytest.mark.parametrize("phase", [(0, 0), (3, 5)])
def test_lost_resolution_keeps_constants_and_blurs_edges(phase):
    assert np.allclose(lose_resolution(np.ones((33, 47), np.float32), 8, phase), 1)
    coarse = lose_resolution(square(), 8, phase)
    assert coarse.shape == (48, 48) and coarse.dtype == np.float32
    assert ((coarse > 0.05) & (coarse < 0.95)).mean() > 0.1


def test_lost_resolution_averages_over_cells():
    mask = np.zeros((4, 4), np.float32)
    mask[:2, :2] = 1
    assert np.array_equal(lose_resolution(mask, 4), np.full((4, 4), 0.25, np.float32))


def test_degraded_masks_stay_scores_resemble_the_mask_and_repeat():
    similarities = []
    for seed in range(60):
        coarse = degrade(square(), np.random.default_rng(seed))
        assert coarse.dtype == np.float32 and coarse.min() >= 0 and coarse.max() <= 1
        assert np.array_equal(coarse, degrade(square(), np.random.default_rng(seed)))
        cut = coarse > 0.5
        similarities.append((cut & (square() > 0)).sum() / (cut | (square() > 0)).sum())
    assert 0.5 < np.mean(similarities) < 0.95 and len(set(similarities)) > 30


def draws(count=200, image=None):
    return [degrade(square(), np.random.default_rng(seed), image) for seed in range(count)]


def test_many_masks_are_hard_and_some_of_these_are_correct():
    hard = [mask for mask in draws() if np.isin(mask, (0, 1)).all()]
    right = [mask for mask in hard if np.array_equal(mask, square())]
    assert 60 < len(hard) < 160 and 20 < len(right) < len(hard)


def test_some_masks_have_islands_far_from_the_object():
    far = np.ones((48, 48), bool)
    far[:44, :40] = False
    assert 5 < sum((mask > 0.5)[far].any() for mask in draws()) < 100


def test_boundaries_follow_edges_of_the_image():
    """The mask ends at column 24 and the image has an edge at 27, where segments end."""
    image, mask = np.zeros((48, 48, 3), np.float32), np.zeros((48, 48), np.float32)
    image[:, :27], mask[:, :24] = 1, 1
    snapped = [snap(mask, np.random.default_rng(seed), image) for seed in range(40)]
    ends = [int(row.sum()) for mask in snapped for row in mask[4:-4] if row[:4].all()]
    assert np.mean(np.isin(ends, (26, 27, 28))) > 0.5


def test_similar_colours_are_confused():
    """A red object with a green spot and a red distractor on green: spot and distractor may be confused."""
    image, mask = np.zeros((96, 96, 3), np.float32), np.zeros((96, 96), np.float32)
    image[..., 1], image[40:88, 8:56, :2], image[8:32, 64:88, :2] = 1, (1, 0), (1, 0)
    image[52:72, 22:42, :2] = 0, 1
    image += smooth_noise(np.random.default_rng(0), (96, 96), 16)[..., None] * 0.1
    mask[40:88, 8:56] = 1
    thing, spot = np.zeros((96, 96), bool), np.zeros((96, 96), bool)
    thing[4:36, 60:92], spot[48:76, 18:46] = True, True  # the range of the blurred colours
    draws = [confuse(mask, np.random.default_rng(seed), image) for seed in range(60)]
    for wrong, alike in (([d > mask for d in draws], thing), ([d < mask for d in draws], spot)):
        assert np.mean([w[alike].any() for w in wrong]) > 0.2
        assert sum(w[alike].sum() for w in wrong) > 3 * sum(w[~alike].sum() for w in wrong)


def test_some_masks_keep_only_spots_of_the_object():
    """Such masks have few pixels, all inside the object."""
    spots = [m for m in draws(600) if 0 < m.sum() < 0.35 * square().sum() and not m[square() == 0].any()]
    assert len(spots) > 6  # 3 have other causes


def test_smooth_noise_is_of_unit_deviation_and_smooth():
    noise = smooth_noise(np.random.default_rng(0), (200, 300), 20)
    assert noise.shape == (200, 300) and 0.7 < noise.std() < 1.3
    assert np.abs(np.diff(noise)).mean() < 0.1


def test_a_course_has_an_easy_and_a_hard_third():
    assert [hardness(index, 90) for index in (0, 29, 45, 60, 89, 1000)] == pytest.approx([0, 0, 0.5, 1, 1, 1])
    assert hardness(0, 0) == 1
