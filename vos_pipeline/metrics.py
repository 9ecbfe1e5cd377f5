"""Region similarity J and contour accuracy F, as the DAVIS 2017 semi-supervised evaluation defines them.

Perazzi et al., "A Benchmark Dataset and Evaluation Methodology for Video Object Segmentation", CVPR 2016,
section 5; Pont-Tuset et al., "The 2017 DAVIS Challenge on Video Object Segmentation". Two faults of the
official program are left behind: decay is right beyond 256 frames, and a missing frame is an error.
"""

from __future__ import annotations

import csv
import io
import math
import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from vos_pipeline.data import Sequence, list_files, read_set
from vos_pipeline.errors import PipelineError
from vos_pipeline.files import replacing
from vos_pipeline.images import read_labels

BOUNDARY_TOLERANCE = 0.008  # of the image diagonal
GLOBAL_COLUMNS = ("J&F-Mean", "J-Mean", "J-Recall", "J-Decay", "F-Mean", "F-Recall", "F-Decay")
SEQUENCE_COLUMNS = ("Sequence", "J-Mean", "F-Mean")


# --- one object in one frame --------------------------------------------------------------------------------


def jaccard(truth: np.ndarray, result: np.ndarray) -> float:
    """Region similarity J = |truth and result| / |truth or result|, 1 if both are empty; bool (H, W)."""
    union = np.count_nonzero(truth | result)
    return np.count_nonzero(truth & result) / union if union else 1.0


def boundary(mask: np.ndarray) -> np.ndarray:
    """One pixel wide boundary: where a pixel differs from its east, south or south-east neighbour.

    Outside the image the nearest pixel counts, so an object cut by the border has no boundary along it.

    Args:
        mask: bool (H, W).

    Returns:
        bool (H, W).
    """
    padded = np.pad(mask, ((0, 1), (0, 1)), mode="edge")
    east, south, south_east = padded[:-1, 1:], padded[1:, :-1], padded[1:, 1:]
    return (mask ^ east) | (mask ^ south) | (mask ^ south_east)


def f_measure(truth: np.ndarray, result: np.ndarray, tolerance: float = BOUNDARY_TOLERANCE) -> float:
    r"""Contour accuracy :math:`F = 2 P R / (P + R)`.

    Precision P is the share of the result's boundary inside the truth's boundary dilated by a disk x^2 + y^2
    <= r^2, recall R the reverse; r = ceil(tolerance * diagonal), in pixels.

    Args:
        truth, result: bool (H, W).

    Returns:
        F in [0, 1]; 1 if neither has a boundary, 0 if only one has.
    """
    radius = math.ceil(tolerance * math.hypot(*truth.shape))
    box = _surroundings(truth | result)
    truth_edge, result_edge = boundary(truth[box]), boundary(result[box])
    if not truth_edge.any() or not result_edge.any():
        return float(truth_edge.any() == result_edge.any())
    precision = np.mean(_dilate(truth_edge, radius)[result_edge])
    recall = np.mean(_dilate(result_edge, radius)[truth_edge])
    return float(2 * precision * recall / (precision + recall)) if precision + recall else 0.0


def _dilate(edge: np.ndarray, radius: int) -> np.ndarray:
    offsets = np.arange(-radius, radius + 1)
    disk = (offsets[:, None] ** 2 + offsets**2 <= radius**2).astype(np.uint8)
    return cv2.dilate(edge.astype(np.uint8), disk).astype(bool)


def _surroundings(mask: np.ndarray) -> tuple[slice, slice]:
    """The box of a mask and one pixel around it: holds its boundary and all that decides on it."""
    x, y, width, height = cv2.boundingRect(mask.view(np.uint8))
    return slice(max(y - 1, 0), y + height + 1), slice(max(x - 1, 0), x + width + 1)


# --- over time ----------------------------------------------------------------------------------------------


def statistics(values: np.ndarray) -> tuple[float, float, float]:
    """Mean, recall and decay of one object's scores over the frames.

    Recall is the share of frames above 0.5. Decay is the mean of the first quarter minus that of the last
    one, where neighbouring quarters share a frame: bounds round(linspace(1, N, 5) + 1e-10) - 1. NaN frames do
    not count, except that recall takes them as missed.

    Args:
        values: (N,) scores, N >= 1.
    """
    values = np.asarray(values, np.float64)
    bounds = (np.round(np.linspace(1, len(values), 5) + 1e-10) - 1).astype(np.int64)
    first, last = values[: bounds[1] + 1], values[bounds[3] :]
    return _mean(values), float(np.mean(values > 0.5)), _mean(first) - _mean(last)


def _mean(values: np.ndarray) -> float:
    """numpy.nanmean without its warning where nothing is left."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else math.nan


@dataclass(frozen=True)
class ObjectScores:
    """Scores of one object in every evaluated frame: all but the first and the last of the video."""

    j: np.ndarray  # (T - 2,)
    f: np.ndarray  # (T - 2,)


@dataclass(frozen=True)
class Evaluation:
    """Scores of many objects under the official names ``<sequence>_<object id>``."""

    objects: dict[str, ObjectScores]

    def summary(self) -> dict[str, float]:
        """The seven official figures, means over objects: each weighs the same, whatever its video."""
        j = np.mean([statistics(scores.j) for scores in self.objects.values()], axis=0)
        f = np.mean([statistics(scores.f) for scores in self.objects.values()], axis=0)
        return dict(zip(GLOBAL_COLUMNS, map(float, ((j[0] + f[0]) / 2, *j, *f)), strict=True))

    def per_object(self) -> list[tuple[str, float, float]]:
        """Rows (name, J mean, F mean)."""
        return [(name, _mean(scores.j), _mean(scores.f)) for name, scores in self.objects.items()]

    def write(self, folder: str | Path, set_name: str) -> tuple[Path, Path]:
        """Write the official pair of CSV files into a folder; returns their paths."""
        global_path = Path(folder) / f"global_results-{set_name}.csv"
        sequence_path = Path(folder) / f"per-sequence_results-{set_name}.csv"
        _write_csv(global_path, GLOBAL_COLUMNS, [tuple(self.summary().values())])
        _write_csv(sequence_path, SEQUENCE_COLUMNS, self.per_object())
        return global_path, sequence_path


def score_frame(
    truth: np.ndarray, result: np.ndarray, object_ids: Iterable[int]
) -> tuple[np.ndarray, np.ndarray]:
    """J (K,) and F (K,) of two label maps (H, W), one value an object."""
    pairs = [(truth == label, result == label) for label in object_ids]
    return np.array([jaccard(*pair) for pair in pairs]), np.array([f_measure(*pair) for pair in pairs])


def scores_of_objects(
    name: str, object_ids: Iterable[int], frames: list[tuple[np.ndarray, np.ndarray]]
) -> dict[str, ObjectScores]:
    """What :func:`score_frame` gave for each frame of a sequence, by object under its official name."""
    j, f = (np.stack(values, axis=1) for values in zip(*frames, strict=True))
    return {f"{name}_{label}": ObjectScores(j[k], f[k]) for k, label in enumerate(object_ids)}


def score_sequence(sequence: Sequence, results: str | Path) -> dict[str, ObjectScores]:
    """Score the masks ``results/<sequence>/<frame>.png`` of one sequence against its own masks.

    Raises:
        PipelineError: a result is missing, of another size, no label mask, or holds a label that the first
            mask lacks; the sequence has fewer than three frames or lacks masks.
    """
    if len(sequence) < 3:
        raise PipelineError(
            f"{sequence.name}: the ends do not count, so scoring needs 3 frames or more, got {len(sequence)}"
        )
    ids = sequence.object_ids
    frames = []
    for t in range(1, len(sequence) - 1):
        truth = sequence.read_mask(t)
        path = Path(results) / sequence.name / f"{sequence.frame_paths[t].stem}.png"
        frames.append(score_frame(truth, _read_result(path, truth.shape, ids), ids))
    return scores_of_objects(sequence.name, ids, frames)


def _read_result(path: Path, size: tuple[int, ...], object_ids: tuple[int, ...]) -> np.ndarray:
    labels = read_labels(path)
    if labels.shape != size:
        raise PipelineError(
            f"{path}: is {labels.shape[1]}x{labels.shape[0]}, but the ground truth is {size[1]}x{size[0]}"
        )
    counts = cv2.calcHist([labels], [0], None, [256], [0, 256]).ravel()
    unknown = np.setdiff1d(np.flatnonzero(counts), (0, *object_ids))
    if unknown.size:
        raise PipelineError(
            f"{path}: holds label {unknown[0]}, but the objects of this sequence are {object_ids}"
        )
    return labels


# --- a whole set --------------------------------------------------------------------------------------------


def evaluate(
    root: str | Path,
    results: str | Path,
    year: str = "2017",
    set_name: str = "val",
    sequences: list[str] | None = None,
    processes: int | None = None,
    resolution: str = "480p",
) -> Evaluation:
    """Score results against a DAVIS root and write the official CSV files into the results folder.

    Needs ``ROOT/Annotations`` and ``ROOT/ImageSets`` only. The objects of a sequence are those of its first
    mask; 255 in the ground truth is background.

    Args:
        results: folder with ``<sequence>/%05d.png`` label masks.
        sequences: names to score; None scores the whole set.
        processes: sequences scored at the same time; None takes one for each core.

    Raises:
        PipelineError: see :func:`score_sequence`; nothing is written then.
    """
    names = read_set(root, year, set_name, sequences)
    if not Path(results).is_dir():
        raise PipelineError(f"{results}: no such folder of results")
    truth = [_annotations(Path(root) / "Annotations" / resolution / name) for name in names]
    objects: dict[str, ObjectScores] = {}
    # Threads suffice: decoding, array operations and dilations all release the interpreter lock.
    with ThreadPoolExecutor(processes or os.cpu_count()) as pool:
        try:
            scored = pool.map(lambda sequence: score_sequence(sequence, results), truth)
            for scores in tqdm(scored, total=len(truth), desc="evaluate", unit="sequence"):
                objects.update(scores)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    evaluation = Evaluation(objects)
    evaluation.write(results, set_name)
    return evaluation


def _annotations(folder: Path) -> Sequence:
    masks = tuple(list_files(folder, ".png"))
    return Sequence(folder.name, masks, masks)


def _write_csv(path: Path, header: tuple[str, ...], rows: list[tuple]) -> None:
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows([f"{v:.3f}" if isinstance(v, float) else v for v in row] for row in rows)
    with replacing(path) as file:
        file.write(text.getvalue().encode())
