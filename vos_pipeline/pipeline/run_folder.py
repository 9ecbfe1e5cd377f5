"""What a run leaves on disk: notes of what it is, nets, labels after every stage, seconds; and its result."""

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

# The SPN is noted by its weights; the filter chooses among stages that are made whichever it is. The flow filter's
# constants have a note of their own: nets do not depend on them, and a run of a version without them can be resumed.
NOT_NOTED = ("refiner", "filter", "flow")


@dataclass(frozen=True)
class RunResult:
    """What a run left behind.

    ``label_dirs[stage]`` holds <sequence>/<frame>.png; ``seconds[stage]`` is what that stage alone took, per
    frame and object. ``seconds[FOREGROUND]`` is the foreground net's part of the nets' time, ``seconds[TUNING]`` the
    time of tuning nets on first frames. ``final`` is the stage that the run's filter ends with.
    """

    label_dirs: dict[str, Path]
    seconds: dict[str, float]
    sequences: list[Sequence]
    final: str = FLOW
    stages: tuple[str, ...] = STAGES

    @cached_property
    def evaluations(self) -> dict[str, Evaluation | None]:
        """Scores of the sequences that have all masks after every stage, None if there are none.

        They are computed when they are first asked for, so by one rank of several.
        """
        scored = [sequence for sequence in self.sequences if sequence.has_all_masks and len(sequence) > 2]
        return {
            stage: score_sequences(scored, folder) if scored else None
            for stage, folder in self.label_dirs.items()
        }

    def table(self) -> Table:
        """One row per stage: J, F, J&F, seconds per frame and object; NaN where there is nothing to compare with."""
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
        """Note what the run in this folder, which is claimed, is.

        Raises:
            PipelineError: the folder holds a run with another preset or other data, or a file in the run's way.
        """
        folder = OutputFolder(self.path)
        folder.identify(KIND, SEGMENTATION)
        constants = {name: value for name, value in asdict(preset).items() if name not in NOT_NOTED}
        folder.identify("refiner", refiner_identity(preset.chosen_refiner))
        folder.identify("preset", constants)
        folder.identify("flow filter", asdict(preset.flow))
        folder.identify("training data", {s.name: s.fingerprint() for s in train_sequences})
        given = {sequence.name: sequence.first_fingerprint() for sequence in sequences}
        if preset.joint:  # one net is tuned on the first frames of all of them
            folder.identify("set of first frames", given)
        for sequence in sequences:
            folder.identify(f"first frame or mask of {sequence.name}", given[sequence.name])
            folder.identify(f"video {sequence.name}", sequence.frames_fingerprint())
        folder.add(self._files(preset, sequences))

    def _files(self, preset: Preset, sequences: list[Sequence]) -> Iterator[Path]:
        """All that the stages write, relative to the folder."""
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
        """Frame t after every stage."""
        for stage, folder in self.label_dirs.items():
            write_labels(folder / sequence.name / f"{sequence.frame_paths[t].stem}.png", labels[stage])

    def finish(self, sequence: Sequence, seconds: dict[str, float]) -> None:
        """Marks a sequence as done, all of whose labels are written, with the seconds of each of ``PARTS``."""
        counts = {"frames": len(sequence) - 1, "objects": len(sequence.object_ids)}
        write_json(self._seconds_file(sequence), {**counts, "seconds": seconds})

    def is_done(self, sequence: Sequence) -> bool:
        """Whether all labels of the sequence are there."""
        files = (self._seconds_file(sequence), *self._label_files(sequence))
        return all(file.is_file() for file in files)

    def result(self, sequences: list[Sequence], preset: Preset) -> RunResult:
        """Of sequences that are done."""
        return RunResult(self.label_dirs, self._mean_seconds(sequences), sequences, FINAL[preset.filter])

    def _mean_seconds(self, sequences: list[Sequence]) -> dict[str, float]:
        """Means over frames and objects."""
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
