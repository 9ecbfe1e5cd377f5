"""The output of a run: a table, the official score files, a submission, overlay videos and a report."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from tqdm import tqdm

from vos_pipeline.data import Sequence
from vos_pipeline.errors import PipelineError
from vos_pipeline.evaluation import Table, score_files
from vos_pipeline.files import replacing
from vos_pipeline.pipeline.run_folder import RunResult
from vos_pipeline.pipeline.stage_names import FINAL, FOLDERS
from vos_pipeline.report import ReportData, SequenceReport, write_overlay_video, write_report


def write_outputs(
    out: Path, sequences: list[Sequence], result: RunResult, title: str, davis_set: str | None = None
) -> None:
    """Write score files, submission, overlay videos and report to ``out``, and print the table and all paths.

    Args:
        out: folder of the run.
        sequences: the segmented sequences.
        result: result of :func:`run`.
        title: title of the report.
        davis_set: name of the DAVIS set. None for other videos, for which no official score files and no submission
            are written.
    """
    final = result.final
    masks, scores = result.label_dirs[final], result.evaluations[final]
    print(result.table().text())
    print(f"masks       {masks}")
    if davis_set is not None:
        if scores is not None:
            for path in scores.write(masks, davis_set):
                print(f"scores      {path}")
        print(f"submission  {write_submission(out / _submission(davis_set), sequences, masks)}")
    for sequence in tqdm(sequences, desc="overlays", unit="sequence"):
        write_overlay_video(out / "overlays" / f"{sequence.name}.mp4", sequence, masks / sequence.name)
    print(f"overlays    {out / 'overlays'}")
    print(f"report      {write_report(out / 'report.html', report_data(sequences, result, title))}")


def output_files(sequences: list[Sequence], davis_set: str | None = None) -> Iterator[str]:
    """Yield the files that :func:`write_outputs` writes with any filter, relative to the folder of the run."""
    yield "report.html"
    for sequence in sequences:
        yield f"overlays/{sequence.name}.mp4"
    if davis_set is not None:
        yield _submission(davis_set)
        for final in FINAL.values():  # `evaluate` may write them before a run with that filter
            for name in score_files(davis_set):
                yield f"labels/{FOLDERS[final]}/{name}"


def write_submission(path: Path, sequences: list[Sequence], labels: Path) -> Path:
    """Write the zip file for the DAVIS challenge: ``<sequence>/<frame>.png`` with the palette, and nothing else.

    The same masks always produce the same bytes.

    Raises:
        PipelineError: ``labels/<sequence>/<frame>.png`` is missing.
    """
    with replacing(path) as file, zipfile.ZipFile(file, "w") as archive:
        for sequence in sequences:
            for frame in sequence.frame_paths:
                mask = labels / sequence.name / f"{frame.stem}.png"
                if not mask.is_file():
                    raise PipelineError(f"{mask}: no such file; a submission needs a mask for every frame")
                entry = zipfile.ZipInfo(f"{sequence.name}/{mask.name}")  # a fixed date, 1980
                entry.external_attr = 0o644 << 16
                archive.writestr(entry, mask.read_bytes())
    return path


def _submission(davis_set: str) -> str:
    return f"submission-{davis_set}.zip"


# --- report -------------------------------------------------------------------------------------------------


def report_data(sequences: list[Sequence], result: RunResult, title: str) -> ReportData:
    """Return the data of a run that :func:`vos_pipeline.report.write_report` shows."""
    final = result.final
    tables = [result.table()]
    if (scores := result.evaluations[final]) is not None:
        tables.append(Table(f"{final}, each object", ("object", "J", "F"), scores.per_object()))
    return ReportData(title, tables, [_sequence_report(sequence, result) for sequence in sequences])


def _sequence_report(sequence: Sequence, result: RunResult) -> SequenceReport:
    names = [f"{path.stem}.png" for path in sequence.frame_paths]
    return SequenceReport(
        sequence.name,
        {
            stage: [result.label_dirs[stage] / sequence.name / name for name in names]
            for stage in result.stages
        },
        list(sequence.frame_paths),
        list(sequence.mask_paths) if sequence.has_all_masks else [],
        _curves(sequence, result),
    )


def _curves(sequence: Sequence, result: RunResult) -> dict[str, dict[str, list[float | None]]]:
    """Return J and F per stage and frame, means over objects. The first and the last frame are not scored."""
    curves: dict[str, dict[str, list[float | None]]] = {}
    for stage in result.stages:
        evaluation = result.evaluations[stage]
        names = [f"{sequence.name}_{label}" for label in sequence.object_ids]
        scores = [evaluation.objects[name] for name in names if evaluation and name in evaluation.objects]
        if scores:
            j, f = (np.mean(values, axis=0) for values in ([s.j for s in scores], [s.f for s in scores]))
            curves[stage] = {"J": [None, *j.tolist(), None], "F": [None, *f.tolist(), None]}
    return curves
