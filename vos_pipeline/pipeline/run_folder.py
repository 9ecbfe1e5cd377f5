"""The folder of a run (notes that identify it, nets, labels after every stage, runtimes), and its result."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from vos_pipeline.data import Sequence, write_labels
from vos_pipeline.errors import PipelineError
from vos_pipeline.evaluation import Cell, Evaluation, Table, score_sequences
from vos_pipeline.output_folder import KIND, SEGMENTATION, OutputFolder, read_json, write_json
from vos_pipeline.pipeline.run_nets import net_files
from vos_pipeline.pipeline.stage_names import FINAL, FLOW, FOLDERS, PARTS, STAGES
from vos_pipeline.refiner import refiner_identity
from vos_pipeline.settings import Preset

# The note identifies the SPN by its weights. It omits the filter, which only selects one of the stages; all stages are
# computed with any filter. The constants of the flow filter have a separate note: nets do not depend on them, and a run
# of a version without them can be resumed.
NOT_NOTED = ("refiner", "filter", "flow")


@dataclass(frozen=True)
class RunResult:
    """The result of a run.

    ``label_dirs[stage]`` is the folder of <sequence>/<frame>.png. ``seconds[stage]`` is the runtime of that stage
    alone, per frame and object. ``seconds[FOREGROUND]`` is the foreground net's part of the runtime of the nets, and
    ``seconds[TUNING]`` is the time to tune nets on first frames. ``final`` is the last stage, which the filter of the
    run selects.
    """

    label_dirs: dict[str, Path]
    seconds: dict[str, float]
    sequences: list[Sequence]
    final: str = FLOW
    stages: tuple[str, ...] = STAGES

    @cached_property
    def evaluations(self) -> dict[str, Evaluation | None]:
        """Scores per stage of the sequences that have ground truth for every frame; None if no sequence has it.

        They are computed on first access, so that only one of several ranks computes them.
        """
        scored = [sequence for sequence in self.sequences if sequence.has_all_masks and len(sequence) > 2]
        return {
            stage: score_sequences(scored, folder) if scored else None
            for stage, folder in self.label_dirs.items()
        }

    def table(self) -> Table:
        """Return a table with one row per stage: seconds per frame and object, and J, F and J&F with ground truth."""
        if not any(self.evaluations.values()):
            return Table("Runtime", ("stage", "s/frame/object"), [(s, self.seconds[s]) for s in self.stages])
        rows: list[tuple[Cell, ...]] = []
        for stage in self.stages:
            evaluation = self.evaluations[stage]
            means = evaluation.summary() if evaluation else {}
            scores = (means.get(name, math.nan) for name in ("J-Mean", "F-Mean", "J&F-Mean"))
            rows.append((stage, *scores, self.seconds[stage]))
        return Table("Means over objects", ("stage", "J", "F", "J&F", "s/frame/object"), rows)


class RunFolder:
    """The folder of a run: ``run.json``, ``nets/``, ``labels/<stage>/<sequence>/<frame>.png``, ``seconds/``."""

    def __init__(self, path: Path) -> None:
        self.path, self.nets = path, path / "nets"
        self.label_dirs = {stage: path / "labels" / folder for stage, folder in FOLDERS.items()}

    def open(self, preset: Preset, train_sequences: list[Sequence], sequences: list[Sequence]) -> None:
        """Note in this claimed folder which run it contains.

        Raises:
            PipelineError: the folder contains a run with another preset or other data, or a file that the run would
                replace.
        """
        folder = OutputFolder(self.path)
        folder.identify(KIND, SEGMENTATION)
        constants = {name: value for name, value in asdict(preset).items() if name not in NOT_NOTED}
        folder.identify("refiner", refiner_identity(preset.chosen_refiner))
        folder.identify("preset", constants)
        folder.identify("flow filter", asdict(preset.flow))
        folder.identify("training data", {s.name: s.fingerprint() for s in train_sequences})
        given = {sequence.name: sequence.first_fingerprint() for sequence in sequences}
        if preset.joint:  # one net is tuned on all first frames together
            folder.identify("set of first frames", given)
        for sequence in sequences:
            folder.identify(f"first frame or mask of {sequence.name}", given[sequence.name])
            folder.identify(f"video {sequence.name}", sequence.frames_fingerprint())
        folder.add(self._files(preset, sequences))

    def _files(self, preset: Preset, sequences: list[Sequence]) -> Iterator[Path]:
        """Yield all files that the stages write, relative to the folder."""
        for file in net_files(preset, sequences):
            yield self.nets.relative_to(self.path) / file
        for sequence in sequences:
            yield self._seconds_file(sequence).relative_to(self.path)
            for file in self._label_files(sequence):
                yield file.relative_to(self.path)

    def _label_files(self, sequence: Sequence) -> Iterator[Path]:
        for folder in self.label_dirs.values():
            for frame in sequence.frame_paths:
                yield folder / sequence.name / f"{frame.stem}.png"

    def write_labels(self, sequence: Sequence, t: int, labels: dict[str, np.ndarray]) -> None:
        """Write the labels of frame t after every stage."""
        for stage, folder in self.label_dirs.items():
            write_labels(folder / sequence.name / f"{sequence.frame_paths[t].stem}.png", labels[stage])

    def finish(self, sequence: Sequence, seconds: dict[str, float]) -> None:
        """Mark a sequence as done after all its labels are written, with the seconds of each of ``PARTS``."""
        counts = {"frames": len(sequence) - 1, "objects": len(sequence.object_ids)}
        write_json(self._seconds_file(sequence), {**counts, "seconds": seconds})

    def is_done(self, sequence: Sequence) -> bool:
        """Return whether all labels of the sequence exist."""
        files = (self._seconds_file(sequence), *self._label_files(sequence))
        return all(file.is_file() for file in files)

    def result(self, sequences: list[Sequence], preset: Preset) -> RunResult:
        """Return the result of sequences that are done."""
        return RunResult(self.label_dirs, self._mean_seconds(sequences), sequences, FINAL[preset.filter])

    def _mean_seconds(self, sequences: list[Sequence]) -> dict[str, float]:
        """Return the mean seconds per frame and object."""
        files = [self._read_seconds(sequence) for sequence in sequences]
        count = max(1, sum(frames * objects for frames, objects, _ in files))
        return {part: sum(seconds[part] for *_, seconds in files) / count for part in PARTS}

    def _read_seconds(self, sequence: Sequence) -> tuple[int, int, dict[str, float]]:
        path = self._seconds_file(sequence)
        remedy = "delete it and run again with --resume"
        values = read_json(path, remedy)
        try:
            return (
                int(values["frames"]),
                int(values["objects"]),
                {part: float(values["seconds"][part]) for part in PARTS},
            )
        except (KeyError, TypeError, ValueError) as error:
            raise PipelineError(f"{path}: is damaged ({error!r}): {remedy}") from error

    def _seconds_file(self, sequence: Sequence) -> Path:
        return self.path / "seconds" / f"{sequence.name}.json"
