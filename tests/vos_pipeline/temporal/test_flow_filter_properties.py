"""The flow filter: comparison with a plain implementation of its equations, and properties for any scores."""

import cv2
import numpy as np
import pytest
import torch
from drawings import known_flow, masks_of, scores_of
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from vos_pipeline.nets import labels_from_scores
from vos_pipeline.temporal import FlowFilter, FlowFilterParameters
from vos_pipeline.temporal.flow_filter import _labels

sizes = st.tuples(st.integers(1, 9), st.integers(1, 12))
flows = st.tuples(st.integers(-4, 4), st.integers(-4, 4))
shares = st.sampled_from([0, 0.1, 0.25, 0.3, 0.5, 0.7, 1])
any_parameters = st.builds(
    FlowFilterParameters,
    connectivity=st.sampled_from([4, 8]),
    reach=st.sampled_from([0, 0.1, 0.4, 1]),
    growth=st.sampled_from([0, 0.25, 1]),
    missing=st.sampled_from([0.25, 0.5, 1]),
    **dict.fromkeys(("own", "other", "complete", "found", "rate"), shares),
)


@st.composite
def videos(draw, frames=4):
    """Draw the number of objects, label maps (objects may be missing in the first), and flows between frames."""
    objects, size = draw(st.integers(1, 4)), draw(sizes)
    # Background is listed twice, so that regions are separate more often.
    drawn = hnp.arrays(np.uint8, size, elements=st.sampled_from([0, *range(objects + 1)]))
    return objects, draw(st.lists(drawn, min_size=2, max_size=frames)), draw(flows)


def filtered(case, parameters=None, order=None, dtype=np.float32):
    """Return the filtered scores of each frame, with a known flow, and the input scores."""
    objects, (first, *rest), flow = case
    order = range(objects) if order is None else order
    frame = np.zeros((*first.shape, 3), np.uint8)
    flow_filter = FlowFilter(frame, masks_of(first, objects)[list(order)], parameters)
    known_flow(flow_filter, flow)
    scores = [scores_of(drawn, objects, dtype)[list(order)] for drawn in rest]
    return [flow_filter.step(s, frame) for s in scores], scores


# --- against the equations ----------------------------------------------------------------------------------


class PlainFilter:
    """The four steps of the docstring, at full size and one region at a time."""

    def __init__(self, first, parameters):
        self.p, self.masks = parameters, list(first)
        self.areas, self.missing = [float(m.sum()) for m in first], [0.0] * len(first)

    def step(self, drawn, flow):
        objects, p = range(len(self.masks)), self.p
        carried = [self._carried(mask, flow) for mask in self.masks]
        result, far = np.zeros_like(drawn), [False] * len(objects)
        for k in objects:
            if not self.areas[k]:
                result[drawn == k + 1] = k + 1
                continue
            count, numbers = cv2.connectedComponents((drawn == k + 1).astype(np.uint8), None, p.connectivity)
            regions = [numbers == n for n in range(1, count)]
            radius = (p.reach + p.growth * self.missing[k]) * np.sqrt(self.areas[k])
            distance = cv2.distanceTransform(1 - carried[k].astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_5)
            covers = [[(r & c).sum() / r.sum() for c in carried] for r in regions]
            complete = (
                sum(r.sum() for r, c in zip(regions, covers, strict=True) if c[k] >= p.own)
                >= p.complete * self.areas[k]
            )
            owners = []
            for region, cover in zip(regions, covers, strict=True):
                near = distance[region].min() <= radius
                others = sorted(((cover[j], j) for j in objects if j != k), reverse=True)
                alone = others and others[0][0] > (others[1][0] if len(others) > 1 else 0)
                if cover[k] < p.own and (not near or complete) and alone and others[0][0] >= p.other:
                    owners.append(others[0][1])
                else:
                    owners.append(k if near else None)
            if k not in owners and None in owners:
                largest = max((i for i, o in enumerate(owners) if o is None), key=lambda i: regions[i].sum())
                if regions[largest].sum() >= p.found * self.areas[k]:
                    owners[largest], far[k] = k, True
            for region, owner in zip(regions, owners, strict=True):
                result[region] = 0 if owner is None else owner + 1
        for k in objects:
            self._remember(k, result == k + 1, carried[k], far[k])
        return result

    def _carried(self, mask, flow):
        moved = np.zeros_like(mask)
        for y, x in np.ndindex(mask.shape):
            before = y + flow[1], x + flow[0]
            if 0 <= before[0] < mask.shape[0] and 0 <= before[1] < mask.shape[1]:
                moved[y, x] = mask[before]
        return moved if moved.any() else mask

    def _remember(self, k, now, carried, far):
        p, area, usual = self.p, now.sum(), self.areas[k]
        m = (1 if far else max(0, 1 - area / (p.missing * usual))) if usual else 0
        self.missing[k] = (self.missing[k] + 1) * m
        self.masks[k] = now | carried if m >= 0.5 else now
        if m < 0.5:
            self.areas[k] = usual + p.rate * (area - usual) if usual else float(area)


@settings(max_examples=150)
@given(videos(), any_parameters)
def test_it_agrees_with_its_equations(case, parameters):
    objects, (first, *rest), flow = case
    plain = PlainFilter(masks_of(first, objects), parameters)
    results, scores = filtered(case, parameters)
    for drawn, given_scores, result in zip(rest, scores, results, strict=True):
        expected = plain.step(drawn, flow)
        np.testing.assert_array_equal(np.where(result.max(0) >= 0.5, result.argmax(0) + 1, 0), expected)
        # Scores are unchanged, zero, or those of the region's old label at its new label.
        moved = np.where(masks_of(expected, objects), given_scores.max(0), 0)
        np.testing.assert_array_equal(result, np.where(expected == drawn, given_scores, moved))


# --- properties ---------------------------------------------------------------------------------------------


@given(videos(frames=2), any_parameters, st.sampled_from([1, 2, 5, 240]), st.randoms(use_true_random=False))
def test_clean_masks_of_a_still_video_are_unchanged(case, parameters, side, random):
    """This holds for any shapes and any size of the flow, with real optical flow."""
    objects, (first, _), _ = case
    frame = np.full((*first.shape, 3), random.randrange(256), np.uint8)
    constants = FlowFilterParameters(connectivity=parameters.connectivity, own=parameters.own, side=side)
    flow_filter = FlowFilter(frame, masks_of(first, objects), constants)
    scores = scores_of(first, objects)
    for _ in range(3):
        np.testing.assert_array_equal(flow_filter.step(scores, frame), scores)


@given(videos(), any_parameters, st.randoms(use_true_random=False))
def test_permuting_objects_permutes_the_output(case, parameters, random):
    order = random.sample(range(case[0]), case[0])
    for result, permuted in zip(
        filtered(case, parameters)[0], filtered(case, parameters, order)[0], strict=True
    ):
        np.testing.assert_array_equal(permuted, result[order])


@given(videos(), any_parameters, st.sampled_from([np.float16, np.float32, np.float64]))
def test_no_labels_are_added_and_unlabelled_scores_are_kept(case, parameters, dtype):
    results, scores = filtered(case, parameters, dtype=dtype)
    for result, given_scores, again in zip(results, scores, filtered(case, parameters)[0], strict=True):
        assert result.dtype == dtype and result.shape == given_scores.shape
        background = given_scores.max(0) < 0.5
        np.testing.assert_array_equal(result[:, background], given_scores[:, background])
        assert not np.shares_memory(result, given_scores)
        np.testing.assert_array_equal(result >= 0.5, again >= 0.5)


some_scores = st.sampled_from([0.0, 0.25, 0.4, 0.5, 0.75, 1.0, np.nan])  # for frequent ties


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@given(
    hnp.arrays(
        np.float64, st.tuples(st.integers(1, 4), st.integers(1, 3), st.integers(1, 9)), elements=some_scores
    ),
    st.sampled_from([0.25, 0.5]),
)
def test_labels_agree_with_the_pipeline(dtype, scores, threshold):
    """On ties, the first object gets a pixel; where a score is NaN, no object gets it."""
    scores = scores.astype(dtype)
    expected = labels_from_scores(torch.from_numpy(scores), range(1, len(scores) + 1), threshold).numpy()
    np.testing.assert_array_equal(_labels(scores, threshold), expected)
    mirrored = scores[:, ::-1, ::-1]  # a view
    np.testing.assert_array_equal(_labels(mirrored, threshold), expected[::-1, ::-1])


def test_inputs_are_not_modified():
    drawn = np.zeros((20, 30), np.uint8)
    drawn[2:8, 2:8], drawn[2:4, 25:28], drawn[12:18, 4:9] = 1, 1, 2
    first, scores = masks_of(drawn, 2), scores_of(drawn, 2)
    first[0, :, 20:] = False
    frame = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
    inputs = first, scores, frame
    copies = [array.copy() for array in inputs]
    for array in inputs:
        array.setflags(write=False)
    result = FlowFilter(frame, first).step(scores, frame)
    assert (result != scores).any()
    for array, copy in zip(inputs, copies, strict=True):
        np.testing.assert_array_equal(array, copy)


# --- sizes --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "size", [(1, 1), (3, 2), (1, 50), (50, 1), (3, 40), (12, 12), (31, 33), (47, 90), (90, 47)]
)
@pytest.mark.parametrize("side", [7, 40])
def test_any_size_of_frame(size, side):
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 256, (3, *size, 3), np.uint8)
    drawn = rng.integers(0, 4, size)
    flow_filter = FlowFilter(frames[0], masks_of(drawn, 3), FlowFilterParameters(side=side))
    for frame in frames:
        result = flow_filter.step(scores_of(drawn, 3), frame)
        assert result.shape == (3, *size)
        assert np.isin(result.argmax(0) + 1, [1, 2, 3]).all()


@pytest.mark.parametrize("objects", [1, 3, 254, 255])
def test_any_number_of_objects(objects):
    drawn = np.zeros((16, 48), np.uint8)
    for k in range(objects):  # single pixels, in every other column
        drawn[k // 24, 2 * (k % 24)] = k + 1
    frame = np.zeros((16, 48, 3), np.uint8)
    flow_filter = FlowFilter(frame, masks_of(drawn, objects))
    scores = scores_of(drawn, objects)
    np.testing.assert_array_equal(flow_filter.step(scores, frame), scores)
    moved = drawn.copy()
    moved[15, 47] = objects  # a second region of the last object, which is complete
    result = flow_filter.step(scores_of(moved, objects), frame)
    assert not result[:, 15, 47].any()
    result[:, 15, 47] = scores[:, 15, 47]
    np.testing.assert_array_equal(result, scores)


@pytest.mark.parametrize(("size", "side"), [((23, 27), 11), ((91, 91), 45), ((59, 61), 1), ((61, 59), 2)])
def test_thin_objects_survive_at_the_size_of_the_flow(size, side):
    """Single pixels near the edge of a flow pixel, or much smaller than a flow pixel, are kept."""
    drawn = np.zeros(size, np.uint8)
    drawn[2:20:2, 2:20:2] = 1
    drawn[-1, 0] = drawn[-1, -1] = 2
    frame = np.zeros((*size, 3), np.uint8)
    constants = FlowFilterParameters(side=side, reach=0, growth=0, found=1)
    flow_filter = FlowFilter(frame, masks_of(drawn, 2), constants)
    scores = scores_of(drawn, 2)
    for _ in range(2):
        np.testing.assert_array_equal(flow_filter.step(scores, frame), scores)
