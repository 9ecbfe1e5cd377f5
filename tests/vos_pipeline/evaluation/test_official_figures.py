"""Every official figure that evaluate writes equals an independent implementation of its definition.

The definitions are in Perazzi et al., CVPR 2016, section 5, with the changes of the DAVIS 2017 evaluation. The slow
program below reads the same PNG files through Pillow and uses only sets of pixels and lists of numbers.
"""

import csv
import math

import numpy as np
import pytest
from davis_cases import REAL_RESULTS, REAL_ROOT, needs_results
from PIL import Image
from vos_benchmark.benchmark import benchmark

from vos_pipeline.data import load_davis, make_clips, read_labels, write_labels
from vos_pipeline.evaluation import evaluate

# --- the slow program ---------------------------------------------------------------------------------------


def object_pixels(path, label):
    labels = np.array(Image.open(path))
    return {(int(y), int(x)) for y, x in zip(*np.where(labels == label), strict=True)}, labels.shape


def region_similarity(truth, result):
    return len(truth & result) / len(truth | result) if truth | result else 1.0


def contour(pixels, shape):
    """Return pixels that differ from their east, south or south-east neighbour, clamped at the image border."""
    height, width = shape

    def inside(y, x):
        return (min(y, height - 1), min(x, width - 1)) in pixels

    around = {(y + dy, x + dx) for y, x in pixels for dy in (-1, 0) for dx in (-1, 0)}
    return {
        (y, x)
        for y, x in around
        if 0 <= y < height
        and 0 <= x < width
        and any(inside(y + dy, x + dx) != inside(y, x) for dy, dx in ((0, 1), (1, 0), (1, 1)))
    }


def contour_accuracy(truth, result, shape):
    radius = math.ceil(0.008 * math.sqrt(shape[0] ** 2 + shape[1] ** 2))
    near = [
        (dy, dx)
        for dy in range(-radius, radius + 1)
        for dx in range(-radius, radius + 1)
        if dy * dy + dx * dx <= radius * radius
    ]
    truth, result = contour(truth, shape), contour(result, shape)
    if not truth or not result:
        return 1.0 if truth == result else 0.0

    def share(pixels, others):
        return sum(any((y + dy, x + dx) in others for dy, dx in near) for y, x in pixels) / len(pixels)

    precision, recall = share(result, truth), share(truth, result)
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def mean(values):
    return sum(values) / len(values)


def mean_recall_decay(values):
    def bound(k):  # linspace(1, N, 5), halves rounded up, counted from zero
        return math.floor(1 + (len(values) - 1) * k / 4 + 0.5 + 1e-9) - 1

    first, last = values[: bound(1) + 1], values[bound(3) :]
    return mean(values), mean([v > 0.5 for v in values]), mean(first) - mean(last)


def slow_figures(root, results, names):
    """Return the seven global figures, and (name, J, F) of each object."""
    j_rows, f_rows, objects = [], [], []
    for name in names:
        truth = sorted((root / "Annotations/480p" / name).glob("*.png"))
        for label in sorted(set(np.unique(np.array(Image.open(truth[0])))) - {0, 255}):
            j, f = [], []
            for path in truth[1:-1]:
                expected, shape = object_pixels(path, label)
                got, _ = object_pixels(results / name / path.name, label)
                j.append(region_similarity(expected, got))
                f.append(contour_accuracy(expected, got, shape))
            j_rows.append(mean_recall_decay(j))
            f_rows.append(mean_recall_decay(f))
            objects.append((f"{name}_{label}", mean(j), mean(f)))
    j, f = ([mean(column) for column in zip(*rows, strict=True)] for rows in (j_rows, f_rows))
    return [(j[0] + f[0]) / 2, *j, *f], objects


# --- the same from the package ------------------------------------------------------------------------------


def assert_figures(root, results, names):
    evaluate(root, results).write(results, "val")
    with (results / "global_results-val.csv").open() as file:
        header, row = csv.reader(file)
    figures, objects = slow_figures(root, results, names)
    assert header == ["J&F-Mean", "J-Mean", "J-Recall", "J-Decay", "F-Mean", "F-Recall", "F-Decay"]
    assert [float(value) for value in row] == pytest.approx(figures, abs=5.1e-4)  # three decimals are written
    with (results / "per-sequence_results-val.csv").open() as file:
        header, *rows = csv.reader(file)
    assert header == ["Sequence", "J-Mean", "F-Mean"]
    assert [name for name, _, _ in rows] == [name for name, _, _ in objects]
    for (_, *values), (_, *expected) in zip(rows, objects, strict=True):
        assert [float(value) for value in values] == pytest.approx(expected, abs=5.1e-4)
    assert [f"{value:.3f}" for value in evaluate(root, results).summary().values()] == row


def spoiled(labels, t, rng):
    """Return a result like a network's: late, with holes and false alarms, sometimes without an object."""
    labels = np.roll(labels, (int(rng.integers(-3, 4)), t % 7), axis=(0, 1))
    labels[rng.random(labels.shape) < 0.02] = 0
    y, x = rng.integers(0, 40, 2)
    labels[y : y + 6, x : x + 9] = rng.integers(0, 3)
    if t % 6 == 5:
        labels[labels == 1] = 0
    return labels


def test_on_synthetic_clips_of_unequal_length(tmp_path):
    rng = np.random.default_rng(0)
    root, results = tmp_path / "davis", tmp_path / "results"
    make_clips(root, clips=3, frames=13, size=(60, 90))
    for sequence, length in zip(load_davis(root), (13, 5, 3), strict=True):
        for t, path in enumerate(sequence.mask_paths):
            if t < length:
                write_labels(results / sequence.name / path.name, spoiled(sequence.read_mask(t), t, rng))
            else:
                path.unlink()
                sequence.frame_paths[t].unlink()
    assert_figures(root, results, ["val-00", "val-01", "val-02"])


def test_objects_that_come_go_and_touch_the_border(tmp_path):
    root, results = tmp_path / "davis", tmp_path / "results"
    for t in range(11):
        truth, result = np.zeros((2, 48, 64), np.uint8)
        truth[:, : 6 * t] = 1  # grows along the image border until it fills almost the whole frame
        result[:, : 5 * t + 2] = 1
        # Label 3 disappears; the result keeps it longer. Label 2 never occurs.
        truth[20:30, 40:50] = 3 if t < 4 else 0
        result[21:31, 40:50] = 3 if t < 8 else 0
        truth[0:4, 0:4] = 255  # void
        if t == 0:
            truth[40:, 50:] = 1
        write_labels(root / f"Annotations/480p/s/{t:05d}.png", truth)
        write_labels(results / f"s/{t:05d}.png", result)
    (root / "ImageSets/2017").mkdir(parents=True)
    (root / "ImageSets/2017/val.txt").write_text("s\n")
    assert_figures(root, results, ["s"])


@needs_results
def test_on_real_masks(tmp_path):
    """Compare J and F of every object with vos-benchmark, and one sequence with the slow program."""
    names = [path.name for path in sorted(REAL_RESULTS.iterdir()) if path.name != "dogs-jump"]
    for name in names:  # vos-benchmark reads 0/255 as label 255 in one folder and fails in the other
        for path in (REAL_ROOT / "Annotations/480p" / name).glob("*.png"):
            write_labels(tmp_path / "davis/Annotations/480p" / name / path.name, read_labels(path))
            write_labels(
                tmp_path / "results" / name / path.name, read_labels(REAL_RESULTS / name / path.name)
            )
    listing = tmp_path / "davis/ImageSets/2017/val.txt"
    listing.parent.mkdir(parents=True)
    listing.write_text("\n".join(names))
    ours = evaluate(tmp_path / "davis", tmp_path / "results")
    masks = str(tmp_path / "davis/Annotations/480p")
    _, (j,), (f,), (theirs,) = benchmark([masks], [str(tmp_path / "results")], num_processes=2, verbose=False)
    assert 100 * ours.summary()["J-Mean"] == pytest.approx(j, abs=1e-6)
    assert 100 * ours.summary()["F-Mean"] == pytest.approx(f, abs=1e-6)
    for name, *scores in ours.per_object():
        of_objects = theirs[name.removesuffix("_1")]
        assert [100 * s for s in scores] == pytest.approx(
            [of_object[1] for of_object in of_objects], abs=1e-6
        )

    listing.write_text("libby\n")
    assert_figures(tmp_path / "davis", tmp_path / "results", ["libby"])
