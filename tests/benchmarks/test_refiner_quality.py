"""benchmarks.refiner.quality: tuning of the alternatives, and measures."""

import time

import numpy as np

from benchmarks.refiner.alternatives import Alternative
from benchmarks.refiner.quality import Case, measure, score, seconds_a_frame, tuned

TRUTH = np.zeros((480, 854), bool)
TRUTH[100:300, 200:500] = True


def case(sequence="a", scores=TRUTH):
    return Case("1/16", sequence, np.zeros((480, 854, 3), np.float32), scores.astype(np.float32), TRUTH)


def test_f2_tolerates_two_pixels_and_f_eight():
    for shift, f, f2 in ((2, 1, 1), (3, 1, 0), (8, 1, 0), (9, 0, 0)):
        moved = np.roll(TRUTH, (shift, shift), (0, 1))
        _, contour, within_two = score(TRUTH, moved.astype(np.float32))
        assert (contour > 0.9) == f and (within_two > 0.9) == f2, shift


def test_measures_are_averaged_over_frames_then_over_sequences():
    half = TRUTH.copy()
    half[:, 350:] = False
    tests = [case("a"), case("a", half), case("b", half)]
    rows = measure(tests, lambda image, scores: scores)
    assert [(row["sequence"], round(row["J"], 3)) for row in rows] == [
        ("a", 0.75),
        ("b", 0.5),
        ("mean", 0.625),
    ]


def test_time_is_the_fastest_call():
    pauses = iter((0.05, 0.001, 0.05))
    seconds = seconds_a_frame(lambda image, scores: time.sleep(next(pauses)), case(), threads=1, repeats=3)
    assert 0.001 <= seconds < 0.05


def test_an_alternative_gets_the_best_of_its_grid():
    alternative = Alternative(
        lambda image, scores, shift, gain: np.roll(scores, int(shift), 1) * gain,
        {"shift": (-5, 0, 5), "gain": (0.4, 1.0)},
        lambda: True,
    )
    assert len(alternative.settings()) == 6
    assert tuned(alternative, [case()]) == {"shift": 0, "gain": 1.0}
