"""What a run leaves on disk: notes of what it is, nets, labels after every stage, seconds; and its result."""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vos_pipeline.data import Sequence, write_labels
from vos_pipeline.errors import PipelineError
from vos_pipeline.evaluation import Cell, Evaluation, Table, score_sequences
from vos_pipeline.files import replacing
from vos_pipeline.settings import Preset

REPEATED, INSTANCE, SPN, CRAF = STAGES = ("first mask repeated", "instance nets", "+ SPN", "+ CRAF")
FOREGROUND = "foreground net"  # the first part of INSTANCE, timed on its own as well
FOLDERS = {REPEATED: "first-mask", INSTANCE: "instance", SPN: "spn", CRAF: "craf"}


@dataclass(frozen=True)
class RunResult:
    """What a run left behind.

    ``label_dirs[stage]`` holds <sequence>/<frame>.png; ``seconds[stage]`` is what that stage alone took, a
    frame and object (``seconds[FOREGROUND]`` is the foreground net's part of the nets' time);
    ``evaluations[stage]`` scores the sequences that have all masks, None if there are none.
    """

    label_dirs: dict[str, Path]
    seconds: dict[str, float]
    evaluations: dict[str, Evaluation | None]
    stages: tuple[str, ...] = STAGES

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

    def open(
        self, preset: Preset, train_sequences: list[Sequence], sequences: list[Sequence], resume: bool
    ) -> None:
        """Note what this run is, or check that the one to resume is the same; a fresh one forgets the last."""
        shared = sorted(sequence.name for sequence in sequences) if preset.joint else []
        identity = {
            "preset": json.loads(json.dumps(asdict(preset))),
            "train": sorted(sequence.name for sequence in train_sequences),
            "first frames": shared,
        }
        note = self.path / "run.json"
        if resume and note.exists():
            if json.loads(note.read_text()) != identity:
                raise PipelineError(
                    f"{self.path} holds a run with other constants or training data: "
                    "give another --out, or leave out --resume"
                )
            return
        if not resume:
            for folder in ("nets", "seconds"):
                shutil.rmtree(self.path / folder, ignore_errors=True)
        _write_json(note, identity)

    def write_labels(self, sequence: Sequence, t: int, labels: dict[str, np.ndarray]) -> None:
        """Frame t after every stage."""
        for stage, folder in self.label_dirs.items():
            write_labels(folder / sequence.name / f"{sequence.frame_paths[t].stem}.png", labels[stage])

    def finish(self, sequence: Sequence, seconds: dict[str, float]) -> None:
        """Marks a sequence as done, all of whose labels are written."""
        counts = {"frames": len(sequence) - 1, "objects": len(sequence.object_ids)}
        _write_json(self._seconds_file(sequence), {**counts, "seconds": seconds})

    def is_done(self, sequence: Sequence) -> bool:
        return self._seconds_file(sequence).exists()

    def result(self, sequences: list[Sequence]) -> RunResult:
        """Of sequences that are done."""
        scored = [sequence for sequence in sequences if sequence.has_all_masks and len(sequence) > 2]
        evaluations = {
            stage: score_sequences(scored, folder) if scored else None
            for stage, folder in self.label_dirs.items()
        }
        return RunResult(self.label_dirs, self._mean_seconds(sequences), evaluations)

    def _mean_seconds(self, sequences: list[Sequence]) -> dict[str, float]:
        """Means over frames and objects."""
        files = [json.loads(self._seconds_file(sequence).read_text()) for sequence in sequences]
        count = max(1, sum(file["frames"] * file["objects"] for file in files))
        return {part: sum(file["seconds"][part] for file in files) / count for part in (FOREGROUND, *STAGES)}

    def _seconds_file(self, sequence: Sequence) -> Path:
        return self.path / "seconds" / f"{sequence.name}.json"


def _write_json(path: Path, value: dict[str, Any]) -> None:
    with replacing(path) as file:
        file.write(json.dumps(value, indent=2).encode() + b"\n")
