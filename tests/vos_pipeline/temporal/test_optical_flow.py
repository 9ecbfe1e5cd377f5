"""Optical flow of textured frames with known motion."""

import numpy as np
import pytest
from textured import texture, translated

from vos_pipeline.temporal.optical_flow import OpticalFlow


def interior(flow, margin=12):
    return flow[margin:-margin, margin:-margin]


@pytest.mark.parametrize("motion", [(0, 0), (1, 0), (0, 2), (-3, 1), (4, -5), (-5, -3)])
@pytest.mark.parametrize("size", [(64, 96), (97, 61)])
def test_translations_are_recovered_to_half_a_pixel(size, motion):
    # The pixel at x was at x - motion before.
    before, now = translated(size, motion)
    flow = OpticalFlow(before, 240).step(now)
    assert flow.shape == (*size, 2) and flow.dtype == np.float32
    error = np.linalg.norm(interior(flow) + np.array(motion), axis=-1)
    assert np.quantile(error, 0.95) < 0.5


def test_the_flow_leads_to_where_a_pixel_was_before():
    before, now = translated((64, 96), (5, -3))
    flow = np.rint(OpticalFlow(before, 240).step(now)).astype(int)
    y, x = np.mgrid[12:52, 12:84]
    there = before[y + flow[12:52, 12:84, 1], x + flow[12:52, 12:84, 0]]
    assert np.mean(there == now[12:52, 12:84]) > 0.95


def test_each_step_starts_from_the_previous_frame():
    scene = texture(64, 120, seed=0)
    flow = OpticalFlow(scene[:, 20:100], 240)
    for corner, motion in ((18, 2), (14, 4), (14, 0), (19, -5)):
        found = interior(flow.step(scene[:, corner : corner + 80]))
        assert np.median(found[..., 0]) == pytest.approx(-motion, abs=0.5)
        assert np.median(found[..., 1]) == pytest.approx(0, abs=0.5)


@pytest.mark.parametrize(
    ("size", "side", "expected"),
    [
        ((120, 160), 60, (60, 80)),
        ((160, 120), 60, (80, 60)),
        ((120, 160), 120, (120, 160)),
        ((120, 160), 240, (120, 160)),
        ((101, 204), 50, (50, 101)),
        ((500, 3), 1, (167, 1)),
        ((3, 32767), 240, (3, 32766)),
        ((40000, 2), 240, (32766, 2)),
        ((1, 70000), 240, (1, 32766)),
    ],
)
def test_the_size_of_the_flow(size, side, expected):
    flow = OpticalFlow(texture(*size, seed=0), side)
    assert flow.size == expected
    assert flow.step(texture(*size, seed=1)).shape == (*expected, 2)


def test_the_flow_is_in_pixels_of_the_resized_frame():
    before, now = translated((120, 160), (8, -4))
    flow = interior(OpticalFlow(before, 60).step(now), 8)
    assert np.median(flow[..., 0]) == pytest.approx(-4, abs=0.5)
    assert np.median(flow[..., 1]) == pytest.approx(2, abs=0.5)


@pytest.mark.parametrize("size", [(1, 1), (1, 60), (60, 1), (3, 40), (12, 12), (12, 200), (31, 31), (33, 32)])
def test_tiny_frames(size):
    flow = OpticalFlow(texture(*size, seed=0), 240).step(texture(*size, seed=1))
    assert flow.shape == (*size, 2) and np.isfinite(flow).all()


@pytest.mark.parametrize("motion", [(2, 0), (0, 3), (3, 3)])
def test_a_tiny_frame_still_shows_its_motion(motion):
    # DIS needs larger frames, so the last row is repeated, and the motion must reach this row.
    before, now = translated((20, 80), motion)
    error = np.linalg.norm(OpticalFlow(before, 240).step(now) + np.array(motion), axis=-1)[:, 12:-12]
    assert np.median(error) < 0.3 and np.median(error[-3:]) < 0.3


def test_fine_texture_does_not_alias_at_a_smaller_size():
    before, now = translated((240, 320), (6, -2), sigma=0.7)
    error = np.linalg.norm(interior(OpticalFlow(before, 60).step(now)) + np.array((1.5, -0.5)), axis=-1)
    assert np.quantile(error, 0.9) < 0.25


def test_the_result_repeats_and_frames_are_not_modified():
    before, now = translated((64, 96), (3, 2))
    copies = before.copy(), now.copy()
    for frame in (before, now):
        frame.setflags(write=False)
    np.testing.assert_array_equal(OpticalFlow(before, 48).step(now), OpticalFlow(before, 48).step(now))
    np.testing.assert_array_equal((before, now), copies)


def test_any_memory_layout():
    before, now = (frame[:, ::-1, ::-1] for frame in translated((64, 96), (3, 2)))
    plain = [np.ascontiguousarray(frame) for frame in (before, now)]
    np.testing.assert_array_equal(OpticalFlow(before, 48).step(now), OpticalFlow(plain[0], 48).step(plain[1]))
