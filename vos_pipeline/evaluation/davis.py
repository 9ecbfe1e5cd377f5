"""The official evaluation of a DAVIS set: masks in a folder in, scores out."""

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
    """Score results against a DAVIS root.

    Needs ``ROOT/Annotations`` and ``ROOT/ImageSets`` only. The objects of a sequence are those of its first
    mask; 255 in the ground truth is background. See :func:`vos_pipeline.data.load_truth` for what it must hold.

    Args:
        results: folder with ``<sequence>/%05d.png`` label masks.
        sequences: names to score; None scores the whole set.
        processes: sequences scored at the same time; None takes one for each core.

    Raises:
        PipelineError: masks to score against are missing, or see :func:`score_sequence`.
    """
    names = read_set(root, year, set_name, sequences, resolution)
    if not Path(results).is_dir():
        raise PipelineError(f"{results}: no such folder of results")
    truth = [load_truth(root, name, resolution) for name in names]
    return score_sequences(truth, results, processes, progress=True)
