"""Score objects over the frames of a video, and average the scores."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from vos_pipeline.data import MaskFolder, Sequence
from vos_pipeline.errors import PipelineError
from vos_pipeline.evaluation.measures import f_measure, jaccard
from vos_pipeline.evaluation.tables import Table
from vos_pipeline.files import replacing

GLOBAL_COLUMNS = ("J&F-Mean", "J-Mean", "J-Recall", "J-Decay", "F-Mean", "F-Recall", "F-Decay")
SEQUENCE_COLUMNS = ("Sequence", "J-Mean", "F-Mean")


def statistics(values: np.ndarray) -> tuple[float, float, float]:
    """Return mean, recall and decay of one object's scores over the frames.

    Recall is the fraction of frames above 0.5. Decay is the mean of the first quarter of the frames minus the mean of
    the last quarter. Neighbouring quarters share a frame: their bounds are round(linspace(1, N, 5) + 1e-10) - 1. NaN
    frames are ignored, except that recall counts them as misses.

    Args:
        values: (N,) scores, N >= 1.
    """
    values = np.asarray(values, np.float64)
    bounds = (np.round(np.linspace(1, len(values), 5) + 1e-10) - 1).astype(np.int64)
    first, last = values[: bounds[1] + 1], values[bounds[3] :]
    return _mean(values), float(np.mean(values > 0.5)), _mean(first) - _mean(last)


def _mean(values: np.ndarray) -> float:
    """Return numpy.nanmean without its warning if all values are NaN."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else math.nan


@dataclass(frozen=True)
class ObjectScores:
    """Scores of one object in every evaluated frame: all frames of the video except the first and the last."""

    j: np.ndarray  # (T - 2,)
    f: np.ndarray  # (T - 2,)


@dataclass(frozen=True)
class Evaluation:
    """Scores of many objects under the official names ``<sequence>_<object id>``."""

    objects: dict[str, ObjectScores]

    def summary(self) -> dict[str, float]:
        """Return the seven official figures as means over objects; all objects have equal weight."""
        j = np.mean([statistics(scores.j) for scores in self.objects.values()], axis=0)
        f = np.mean([statistics(scores.f) for scores in self.objects.values()], axis=0)
        return dict(zip(GLOBAL_COLUMNS, map(float, ((j[0] + f[0]) / 2, *j, *f)), strict=True))

    def per_object(self) -> list[tuple[str, float, float]]:
        """Return rows (name, J mean, F mean)."""
        return [(name, _mean(scores.j), _mean(scores.f)) for name, scores in self.objects.items()]

    def global_table(self) -> Table:
        """Return a table with one row: the seven official figures."""
        return Table("Means over objects", GLOBAL_COLUMNS, [tuple(self.summary().values())])

    def object_table(self) -> Table:
        """Return a table with one row per object: name, J mean and F mean."""
        return Table("Scores per object", SEQUENCE_COLUMNS, self.per_object())

    def write(self, folder: str | Path, set_name: str) -> tuple[Path, Path]:
        """Write the two official CSV files into a folder and return their paths."""
        global_path, sequence_path = (Path(folder) / name for name in score_files(set_name))
        for path, table in ((global_path, self.global_table()), (sequence_path, self.object_table())):
            with replacing(path) as file:
                file.write(table.csv(digits=3).encode())
        return global_path, sequence_path


def score_files(set_name: str) -> tuple[str, str]:
    """Return the official names of the two CSV files with the scores of a set."""
    return f"global_results-{set_name}.csv", f"per-sequence_results-{set_name}.csv"


def score_frame(
    truth: np.ndarray, result: np.ndarray, object_ids: Iterable[int]
) -> tuple[np.ndarray, np.ndarray]:
    """Return J (K,) and F (K,) of two label maps (H, W), one value per object."""
    pairs = [(truth == label, result == label) for label in object_ids]
    return np.array([jaccard(*pair) for pair in pairs]), np.array([f_measure(*pair) for pair in pairs])


def scores_of_objects(
    name: str, object_ids: Iterable[int], frames: list[tuple[np.ndarray, np.ndarray]]
) -> dict[str, ObjectScores]:
    """Group the results of :func:`score_frame` for each frame of a sequence by object, under official names."""
    j, f = (np.stack(values, axis=1) for values in zip(*frames, strict=True))
    return {f"{name}_{label}": ObjectScores(j[k], f[k]) for k, label in enumerate(object_ids)}


def score_sequence(sequence: Sequence, results: str | Path) -> dict[str, ObjectScores]:
    """Score the masks ``results/<sequence>/<frame>.png`` of one sequence against its own masks.

    Raises:
        PipelineError: a result is missing, has another size, is not a label mask, or contains a label that is not in
            the first mask; or the sequence has fewer than three frames or lacks masks.
    """
    if len(sequence) < 3:
        raise PipelineError(
            f"{sequence.name}: scoring skips the first and last frame and needs 3 frames or more, got {len(sequence)}"
        )
    ids = sequence.object_ids
    inner = range(1, len(sequence) - 1)
    folder = Path(results) / sequence.name
    masks = MaskFolder(folder / f"{sequence.frame_paths[t].stem}.png" for t in inner)
    frames = []
    for t, path in zip(inner, masks.paths, strict=True):
        truth = sequence.read_mask(t)
        frames.append(score_frame(truth, _read_result(masks, path, truth.shape, ids), ids))
    return scores_of_objects(sequence.name, ids, frames)


def score_sequences(
    sequences: Iterable[Sequence],
    results: str | Path,
    processes: int | None = None,
    progress: bool = False,
) -> Evaluation:
    """Score the masks of several sequences.

    Args:
        sequences: sequences to score, with a mask for every frame.
        results: folder with ``<sequence>/<frame>.png`` label masks.
        processes: number of sequences scored in parallel; default: one per core.
        progress: show a progress bar.

    Raises:
        PipelineError: see :func:`score_sequence`.
    """
    sequences = list(sequences)
    objects: dict[str, ObjectScores] = {}
    # Threads suffice, because decoding, array operations and dilations release the GIL.
    with ThreadPoolExecutor(processes or os.cpu_count()) as pool:
        try:
            scored = pool.map(lambda sequence: score_sequence(sequence, results), sequences)
            for scores in tqdm(
                scored, total=len(sequences), desc="evaluate", unit="sequence", disable=not progress
            ):
                objects.update(scores)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return Evaluation(objects)


def _read_result(
    masks: MaskFolder, path: Path, size: tuple[int, ...], object_ids: tuple[int, ...]
) -> np.ndarray:
    labels = masks.read(path)
    if labels.shape != size:
        raise PipelineError(
            f"{path}: is {labels.shape[1]}x{labels.shape[0]}, but the ground truth is {size[1]}x{size[0]}"
        )
    counts = cv2.calcHist([labels], [0], None, [256], [0, 256]).ravel()
    unknown = np.setdiff1d(np.flatnonzero(counts), (0, *object_ids))
    if unknown.size:
        raise PipelineError(
            f"{path}: contains label {unknown[0]}, but the objects of this sequence are {object_ids}"
        )
    return labels
