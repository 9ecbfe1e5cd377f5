"""Evaluate a folder of masks on a DAVIS set, as the official program does."""

from __future__ import annotations

from pathlib import Path

from vos_pipeline.data import load_truth, read_set
from vos_pipeline.errors import PipelineError
from vos_pipeline.evaluation.scores import Evaluation, score_sequences


def evaluate(
    root: str | Path,
    results: str | Path,
    year: str = "2017",
    set_name: str = "val",
    sequences: list[str] | None = None,
    processes: int | None = None,
    resolution: str = "480p",
) -> Evaluation:
    """Score results against the ground truth in a DAVIS root.

    Only ``ROOT/Annotations`` and ``ROOT/ImageSets`` are needed. The objects of a sequence are the labels in its first
    mask; 255 in the ground truth is background. :func:`vos_pipeline.data.load_truth` describes the required masks.

    Args:
        root: DAVIS root.
        results: folder with ``<sequence>/%05d.png`` label masks.
        year: year of the set.
        set_name: name of the set.
        sequences: names to score; None scores the whole set.
        processes: number of sequences scored in parallel; default: one per core.
        resolution: subfolder of ``Annotations``.

    Raises:
        PipelineError: ground-truth masks are missing, or a result cannot be scored (see :func:`score_sequence`).
    """
    names = read_set(root, year, set_name, sequences, resolution)
    if not Path(results).is_dir():
        raise PipelineError(
            f"{results}: no such folder of results; it must contain <sequence>/<frame>.png masks"
        )
    truth = [load_truth(root, name, resolution) for name in names]
    return score_sequences(truth, results, processes, progress=True)
