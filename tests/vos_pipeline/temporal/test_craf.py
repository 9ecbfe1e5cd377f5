"""CRAF: drawn examples for each step, and properties for arbitrary scores."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from vos_pipeline.temporal import ConnectedRegionFilter, CRAFParameters, craf_step


def drawn(*rows):
    """Return scores, float32 (1, H, W): '#' is 0.9, '+' is 0.6 and '.' is 0.1."""
    values = {"#": 0.9, "+": 0.6, ".": 0.1}
    return np.array([[[values[c] for c in row] for row in rows]], np.float32)


def mask(*rows):
    return np.array([[[c == "#" for c in row] for row in rows]])


def regions_of(scores, previous, **parameters):
    return craf_step(scores, previous, CRAFParameters(**parameters))[1]


# --- step 1: the region that best continues the previous one ----------------------------------------------


def test_selects_the_region_that_overlaps_the_previous_one():
    scores = drawn("##....##", "##....##", "......##")
    previous = mask("##......", "##......", "........")
    np.testing.assert_array_equal(regions_of(scores, previous), previous)


def test_ignores_regions_not_larger_than_alpha_of_the_largest():
    scores = drawn("#...#####", "....#####")
    previous = mask("#........", ".........")
    # One pixel against ten is 0.1 of the largest region.
    np.testing.assert_array_equal(regions_of(scores, previous), mask("....#####", "....#####"))
    np.testing.assert_array_equal(regions_of(scores, previous, alpha=0.05), previous)


@pytest.mark.parametrize(
    ("small_best", "kept"),
    [("next", "...##............"), ("largest", ".......##########"), ("none", ".................")],
)
def test_small_best_if_the_best_region_is_too_small(small_best, kept):
    # Regions of 1, 2 and 10 pixels, whose Jaccard indices with the previous region are 1/2, 1/3 and 0.
    scores, previous = drawn("#..##..##########"), mask("#..#.............")
    regions = regions_of(scores, previous, small_best=small_best, alpha=0.15, delta=1)
    np.testing.assert_array_equal(regions, mask(kept))


def test_exactly_alpha_is_too_small():
    scores = drawn("##..#####", "....#####")
    previous = mask("##.......", ".........")
    np.testing.assert_array_equal(regions_of(scores, previous), mask("....#####", "....#####"))


def test_a_tie_goes_to_the_larger_region():
    nowhere = mask("........")
    np.testing.assert_array_equal(regions_of(drawn("##...###"), nowhere), mask(".....###"))
    np.testing.assert_array_equal(regions_of(drawn("###...##"), nowhere), mask("###....."))


def test_connectivity_decides_whether_diagonals_touch():
    scores, previous = drawn("##..", "##..", "..##", "..##"), mask("##..", "##..", "....", "....")
    np.testing.assert_array_equal(regions_of(scores, previous), scores > 0.5)
    np.testing.assert_array_equal(regions_of(scores, previous, connectivity=4), previous)


def test_threshold_binarises():
    scores, previous = drawn("##++"), mask("####")
    np.testing.assert_array_equal(regions_of(scores, previous), mask("####"))
    np.testing.assert_array_equal(regions_of(scores, previous, threshold=0.7), mask("##.."))
    half = np.full((1, 1, 4), 0.5, np.float32)
    assert regions_of(half, previous).all()  # a score equal to the threshold counts, as for labels


def test_scores_are_kept_inside_and_zero_outside():
    scores, previous = drawn("##+..#"), mask("###...")
    filtered, _ = craf_step(scores, previous)
    np.testing.assert_array_equal(filtered, np.array([[[0.9, 0.9, 0.6, 0, 0, 0]]], np.float32))
    assert filtered.dtype == scores.dtype


def test_no_region_gives_an_empty_result():
    scores, previous = drawn("...."), mask("##..")
    filtered, regions = craf_step(scores, previous)
    assert not filtered.any() and not regions.any()


# --- step 2: an object that covers another ----------------------------------------------------------------


def test_a_covered_region_is_removed_from_the_one_that_covers_it():
    big, small = drawn("########", "########"), drawn("......##", "......##")
    previous = np.concatenate([mask("######..", "######.."), mask("......##", "......##")])
    regions = regions_of(np.concatenate([big, small]), previous)
    np.testing.assert_array_equal(regions, previous)


def test_little_coverage_changes_nothing():
    left, right = drawn("#####...", "#####..."), drawn("...#####", "...#####")
    scores = np.concatenate([left, right])
    np.testing.assert_array_equal(regions_of(scores, scores > 0.5), scores > 0.5)


def test_mutual_cover_goes_to_the_object_with_the_better_previous_region():
    # Both networks respond to the first object, as they do for similar objects.
    scores = np.repeat(drawn("###.....", "###....."), 2, axis=0)
    previous = np.concatenate([mask("###.....", "###....."), mask("..###...", "..###...")])
    regions = regions_of(scores, previous)
    np.testing.assert_array_equal(regions[0], previous[0])
    assert not regions[1].any()
    assert not regions_of(scores, previous, mutual_cover="both").any()


# --- step 3: another region for an object that lost its region ----------------------------------------------


def second_choice():
    """The second object loses its best region to the first; another of its regions is nearly as good."""
    taken = drawn("#####.....", "#####.....")
    both = drawn("#####.####", "#####.####")
    before_first = mask("#####.....", "#####.....")
    before_second = mask("##########", "##########")
    return np.concatenate([taken, both]), np.concatenate([before_first, before_second])


def test_an_object_that_lost_its_region_gets_another():
    scores, previous = second_choice()
    # The Jaccard index of the second region with the previous one is 8 / 20, which must exceed delta.
    regions = regions_of(scores, previous, delta=0.39)
    np.testing.assert_array_equal(regions[1:], mask("......####", "......####"))
    np.testing.assert_array_equal(regions[0], previous[0])
    assert not regions_of(scores, previous, delta=0.4)[1].any()


def test_the_other_region_may_be_too_small_for_step_one():
    # The second network responds to the first object, and only to a small part of the second.
    twin = drawn("##########......", "##########......")
    both = drawn("##########...##.", "##########...##.")
    previous = np.concatenate([twin > 0.5, mask("............####", "............####")])
    regions = regions_of(np.concatenate([twin, both]), previous)
    np.testing.assert_array_equal(regions[1:], mask(".............##.", ".............##."))


def test_gamma_decides_whether_an_object_lost_its_region():
    wide = drawn("#######.######", "#######.######")
    inside = drawn("#####.........", "#####.........")
    scores = np.concatenate([inside, wide])
    previous = np.concatenate(
        [mask("#####.........", "#####........."), mask("##############", "##############")]
    )
    # Step 2 leaves 4 of 14 pixels of the second object's region. The object had 28 pixels in the previous frame.
    kept, taken = mask(".....##.......", ".....##......."), mask("........######", "........######")
    for gamma, reference, expected in (
        (0.1, "previous_area", kept),
        (0.2, "previous_area", taken),
        (0.2, "selected_area", kept),
        (0.3, "selected_area", taken),
    ):
        regions = regions_of(scores, previous, gamma=gamma, gamma_reference=reference)
        np.testing.assert_array_equal(regions[1:], expected, err_msg=f"{gamma} {reference}")


def test_step_two_is_repeated_for_the_new_region():
    # A third object lies inside the region that the second object gets instead.
    scores, previous = second_choice()
    third = drawn("........##", "........##")
    regions = regions_of(np.concatenate([scores, third]), np.concatenate([previous, third > 0.5]), delta=0.39)
    np.testing.assert_array_equal(regions[1:2], mask("......##..", "......##.."))
    np.testing.assert_array_equal(regions[2:], third > 0.5)


# --- over time ----------------------------------------------------------------------------------------------


def test_the_filter_follows_a_moving_region_past_a_false_alarm():
    first = mask("##........", "##........")
    craf = ConnectedRegionFilter(first)
    for x in range(1, 5):
        scores = np.full((1, 2, 10), 0.1, np.float32)
        scores[:, :, x : x + 2] = 0.8
        scores[:, :, 7:10] = 0.9
        filtered = craf.step(scores)
        expected = np.zeros((1, 2, 10), bool)
        expected[:, :, x : x + 2] = True
        np.testing.assert_array_equal(filtered > 0, expected)
    assert first.sum() == 4  # the caller's mask is not modified


# --- properties ---------------------------------------------------------------------------------------------

cases = st.tuples(st.integers(1, 4), st.integers(1, 8), st.integers(1, 8)).flatmap(
    lambda shape: st.tuples(
        hnp.arrays(np.float32, shape, elements=st.sampled_from([0.0, 0.2, 0.5, 0.8, 1.0])),
        hnp.arrays(bool, shape),
    )
)
any_parameters = st.builds(
    CRAFParameters,
    alpha=st.floats(0, 1),
    beta=st.floats(0, 1),
    gamma=st.floats(0, 1),
    delta=st.floats(0, 1),
    connectivity=st.sampled_from([4, 8]),
    gamma_reference=st.sampled_from(["previous_area", "selected_area"]),
    mutual_cover=st.sampled_from(["jaccard", "both"]),
)


@settings(deadline=None)
@given(cases, any_parameters)
def test_output_lies_within_the_scores(case, parameters):
    scores, previous = case
    before = scores.copy(), previous.copy()
    filtered, regions = craf_step(scores, previous, parameters)
    assert regions.dtype == bool and filtered.shape == regions.shape == scores.shape
    assert not (regions & (scores < parameters.threshold)).any()
    np.testing.assert_array_equal(filtered, np.where(regions, scores, 0))
    np.testing.assert_array_equal(scores, before[0])
    np.testing.assert_array_equal(previous, before[1])


@settings(deadline=None)
@given(cases, any_parameters, st.randoms(use_true_random=False))
def test_permuting_objects_permutes_the_output(case, parameters, random):
    scores, previous = case
    order = random.sample(range(len(scores)), len(scores))
    _, regions = craf_step(scores, previous, parameters)
    _, permuted = craf_step(scores[order], previous[order], parameters)
    np.testing.assert_array_equal(permuted, regions[order])


@pytest.mark.parametrize(("previous", "kept"), [("filtered", "#####....."), ("labelled", "......####")])
def test_the_previous_region_before_or_after_labels_are_decided(previous, kept):
    """The second object's region overlaps the first, which has the larger score, so only its right part is labelled."""
    masks = np.concatenate([mask("#######..."), mask("##########")])
    craf = ConnectedRegionFilter(masks, CRAFParameters(previous=previous, beta=1))
    craf.step(np.concatenate([drawn("#######..."), drawn("++++++++++")]))
    filtered = craf.step(np.concatenate([drawn(".........."), drawn("#####.####")]))
    np.testing.assert_array_equal(filtered[1:] > 0, mask(kept))


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(1, 3), st.integers(1, 4), st.integers(1, 4)), min_size=1, max_size=4))
def test_clean_input_is_unchanged(boxes):
    # Disjoint solid boxes, one per object, also in the previous frame.
    scores = np.zeros((len(boxes), 6, 6 * len(boxes)), np.float32)
    for k, (top, height, width) in enumerate(boxes):
        scores[k, top : top + height, 6 * k : 6 * k + width] = 0.9
    filtered, regions = craf_step(scores, scores > 0)
    np.testing.assert_array_equal(filtered, scores)
    again, _ = craf_step(filtered, regions)
    np.testing.assert_array_equal(again, filtered)


@settings(deadline=None)
@given(cases)
def test_one_object_keeps_at_most_one_region(case):
    import cv2

    scores, previous = case
    _, regions = craf_step(scores[:1], previous[:1])
    assert cv2.connectedComponents(regions[0].astype(np.uint8), connectivity=8)[0] <= 2


# --- errors -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("alpha", -0.1),
        ("beta", 1.1),
        ("connectivity", 6),
        ("gamma_reference", "image"),
        ("mutual_cover", "none"),
        ("small_best", "first"),
        ("previous", "labels"),
    ],
)
def test_bad_parameters_are_errors(name, value):
    with pytest.raises(ValueError, match=name):
        CRAFParameters(**{name: value})


def test_bad_shapes_are_errors():
    with pytest.raises(ValueError, match=r"previous must be .* like scores \(2, 3, 4\), got \(1, 3, 4\)"):
        craf_step(np.zeros((2, 3, 4)), np.zeros((1, 3, 4), bool))
    with pytest.raises(ValueError, match="first must be"):
        ConnectedRegionFilter(np.zeros((3, 4), bool))
