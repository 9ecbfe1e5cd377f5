"""J, F and their statistics equal a slow implementation of the definitions, and vos-benchmark."""

import math

import numpy as np
import pytest
from davis_cases import REAL_RESULTS, REAL_ROOT, needs_results
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from vos_pipeline import evaluation
from vos_pipeline.data import load_davis, make_clips, read_labels

masks = hnp.arrays(bool, hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=12))
mask_pairs = hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=12).flatmap(
    lambda shape: st.tuples(hnp.arrays(bool, shape), hnp.arrays(bool, shape))
)


# --- the definitions, pixel by pixel ------------------------------------------------------------------------


def slow_boundary(mask):
    height, width = mask.shape
    edge = np.zeros_like(mask)
    for y in range(height):
        for x in range(width):
            for dy, dx in ((0, 1), (1, 0), (1, 1)):
                # A neighbour outside the image is the nearest pixel inside.
                edge[y, x] |= mask[y, x] != mask[min(y + dy, height - 1), min(x + dx, width - 1)]
    return edge


def slow_f(truth, result, tolerance=0.008):
    radius = math.ceil(tolerance * math.sqrt(truth.shape[0] ** 2 + truth.shape[1] ** 2))
    truth_points, result_points = (np.argwhere(slow_boundary(m)) for m in (truth, result))

    def share_near(points, others):
        near = [any((p[0] - q[0]) ** 2 + (p[1] - q[1]) ** 2 <= radius**2 for q in others) for p in points]
        return sum(near) / len(near)

    if len(truth_points) == 0 and len(result_points) == 0:
        return 1.0
    if len(truth_points) == 0 or len(result_points) == 0:
        return 0.0
    precision, recall = share_near(result_points, truth_points), share_near(truth_points, result_points)
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


@settings(deadline=None)
@given(mask_pairs)
def test_jaccard_equals_counting(pair):
    truth, result = ({tuple(p) for p in np.argwhere(m)} for m in pair)
    expected = len(truth & result) / len(truth | result) if truth | result else 1.0
    assert evaluation.jaccard(*pair) == expected


@settings(deadline=None)
@given(masks)
def test_boundary_equals_definition(mask):
    np.testing.assert_array_equal(evaluation.boundary(mask), slow_boundary(mask))


@settings(max_examples=200, deadline=None)
@given(mask_pairs, st.sampled_from([0.008, 0.1, 0.25]))
def test_f_measure_equals_definition(pair, tolerance):
    assert evaluation.f_measure(*pair, tolerance) == pytest.approx(slow_f(*pair, tolerance), abs=1e-12)


@settings(deadline=None)
@given(mask_pairs)
def test_f_measure_is_symmetric_and_bounded(pair):
    truth, result = pair
    score = evaluation.f_measure(truth, result)
    assert 0 <= score <= 1
    assert score == pytest.approx(evaluation.f_measure(result, truth))
    assert evaluation.f_measure(truth, truth) == 1 and evaluation.jaccard(truth, truth) == 1


# --- edge cases of the official program ---------------------------------------------------------------------


def test_both_empty_is_perfect():
    empty = np.zeros((20, 30), bool)
    assert evaluation.jaccard(empty, empty) == 1
    assert evaluation.f_measure(empty, empty) == 1


def test_one_empty_is_zero():
    empty, full = np.zeros((20, 30), bool), np.zeros((20, 30), bool)
    full[5:10, 5:10] = True
    for pair in ((empty, full), (full, empty)):
        assert evaluation.jaccard(*pair) == 0
        assert evaluation.f_measure(*pair) == 0


def test_far_apart_boundaries_score_zero():
    truth, result = np.zeros((100, 100), bool), np.zeros((100, 100), bool)
    truth[5:15, 5:15] = True
    result[70:90, 70:90] = True
    assert evaluation.f_measure(truth, result) == 0


def test_radius_is_a_fraction_of_the_diagonal_rounded_up():
    # 480 x 854: the diagonal is 979.65 and 0.8 % of it is 7.84, so a shift of 8 pixels is tolerated, of 9 is not.
    truth, near, far = (np.zeros((480, 854), bool) for _ in range(3))
    truth[:, 400:] = near[:, 408:] = far[:, 409:] = True
    assert evaluation.f_measure(truth, near) == 1
    assert evaluation.f_measure(truth, far) == 0


def test_an_object_cut_by_the_border_has_no_boundary_there():
    mask = np.zeros((10, 10), bool)
    mask[:, 5:] = True
    assert evaluation.boundary(mask).sum() == 10  # one column, no boundary along the image border
    assert not evaluation.boundary(np.ones((10, 10), bool)).any()


# --- statistics ---------------------------------------------------------------------------------------------


def test_statistics_by_hand():
    values = np.array([0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2])
    # linspace(1, 8, 5) = 1, 2.75, 4.5, 6.25, 8 rounds to 1, 3, 5, 6, 8: quarters [0..2] and [5..7].
    mean, recall, decay = evaluation.statistics(values)
    assert mean == pytest.approx(0.55)
    assert recall == pytest.approx(4 / 8)  # 0.5 itself is not above 0.5
    assert decay == pytest.approx(0.8 - 0.3)


def test_half_way_bounds_round_up():
    # linspace(1, 3, 5) = 1, 1.5, 2, 2.5, 3 rounds to 1, 2, 2, 3, 3 because of the 1e-10: halves go up.
    # Without it, NumPy would round 2.5 down to 2, and the last quarter would have two frames.
    assert evaluation.statistics(np.array([1.0, 0.5, 0.0]))[2] == pytest.approx(0.75 - 0.0)


@pytest.mark.parametrize("count", [1, 2, 3, 4, 255, 256, 257, 300, 1000])
def test_decay_of_long_and_short_sequences(count):
    values = np.linspace(1, 0, count)
    bounds = [math.floor(1 + (count - 1) * k / 4 + 0.5 + 1e-10) - 1 for k in range(5)]
    expected = values[: bounds[1] + 1].mean() - values[bounds[3] :].mean()
    assert evaluation.statistics(values)[2] == pytest.approx(expected)


def test_decay_beyond_256_frames_is_a_number():
    assert evaluation.statistics(np.linspace(1, 0, 400))[2] == pytest.approx(0.75, abs=0.01)


def test_nan_frames_are_ignored():
    mean, recall, decay = evaluation.statistics(np.array([1.0, np.nan, 0.6, np.nan, 0.2, 0.2]))
    assert mean == pytest.approx(0.5)
    assert recall == pytest.approx(2 / 6)
    assert decay == pytest.approx(1.0 - 0.2)
    assert math.isnan(evaluation.statistics(np.array([np.nan]))[0])


# --- another program ----------------------------------------------------------------------------------------


def assert_same_as_vos_benchmark(truths, results, ids):
    evaluator = pytest.importorskip("vos_benchmark.evaluator").Evaluator()
    for truth, result in zip(truths, results, strict=True):
        evaluator.feed_frame(result, truth)
    scores = [
        evaluation.score_frame(truth, result, ids) for truth, result in zip(truths, results, strict=True)
    ]
    for k, label in enumerate(ids):
        assert [j[k] for j, _ in scores] == pytest.approx(evaluator.object_iou[label], abs=1e-12)
        assert [f[k] for _, f in scores] == pytest.approx(evaluator.boundary_f[label], abs=1e-12)


def test_equals_vos_benchmark_on_synthetic_clips(tmp_path):
    make_clips(tmp_path, clips=2, frames=6)
    for sequence in load_davis(tmp_path):
        truths = [sequence.read_mask(t) for t in range(1, 6)]
        results = [sequence.read_mask(t) for t in range(5)]
        assert_same_as_vos_benchmark(truths, results, sequence.object_ids)


@needs_results
@pytest.mark.parametrize(
    ("year", "name"), [("2017", "dogs-jump"), ("2016", "libby"), ("2016", "drift-straight")]
)
def test_equals_vos_benchmark_on_real_masks(year, name):
    (sequence,) = load_davis(REAL_ROOT, year, "val", [name])
    times = range(1, len(sequence) - 1, 4)
    results = [
        Image.fromarray(read_labels(REAL_RESULTS / name / f"{sequence.frame_paths[t].stem}.png"))
        for t in times
    ]
    results = [np.array(image.resize(sequence.size[::-1], Image.Resampling.NEAREST)) for image in results]
    assert_same_as_vos_benchmark([sequence.read_mask(t) for t in times], results, sequence.object_ids)
