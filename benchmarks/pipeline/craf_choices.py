"""CRAF's open choices on real video: what J and F become if one of them is made otherwise.

    python -m benchmarks.pipeline.craf_choices --data ROOT --run OUT/full --preset small --sets 2017/val --json FILE

OUT/full is a run that ``python -m vos_pipeline tables ablation`` left behind: its nets are used once more. Scores of
the SPN are filtered with each set of parameters; J and F are means over objects.
``python -m docs.figures.craf_choices`` makes the table of docs/pipeline.md from the JSON file.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict, replace
from pathlib import Path

import cv2
import numpy as np
import torch

from vos_pipeline.data import Sequence, load_sets
from vos_pipeline.evaluation import Evaluation, ObjectScores, score_frame, scores_of_objects
from vos_pipeline.nets import labels_from_scores
from vos_pipeline.pipeline import refined_scores
from vos_pipeline.settings import CRAFParameters, Preset, get_preset
from vos_pipeline.temporal import ConnectedRegionFilter

from ..machine import describe, write_results
from ..tables import print_table

DEFAULT = CRAFParameters()
MEANS = ("J&F", "J", "F")
CHOICES = {
    "presets small and demo": DEFAULT,
    **{f"threshold = {t}": replace(DEFAULT, threshold=t) for t in (0.3, 0.4, 0.6, 0.7)},
    "connectivity = 4": replace(DEFAULT, connectivity=4),
    'gamma_reference = "selected_area"': replace(DEFAULT, gamma_reference="selected_area"),
    'mutual_cover = "both"': replace(DEFAULT, mutual_cover="both"),
    'previous = "labelled"': replace(DEFAULT, previous="labelled"),
    'small_best = "largest"': replace(DEFAULT, small_best="largest"),
    'small_best = "none"': replace(DEFAULT, small_best="none"),
    "preset paper": get_preset("paper").craf,
}


class Trial:
    """One set of parameters going through all videos."""

    def __init__(self, parameters: CRAFParameters) -> None:
        self.parameters = parameters
        self.objects: dict[str, ObjectScores] = {}

    def start(self, first: np.ndarray) -> None:
        self.filter = ConnectedRegionFilter(first, self.parameters)
        self.frames: list[tuple[np.ndarray, np.ndarray]] = []

    def step(self, scores: np.ndarray, truth: np.ndarray | None, ids: list[int], threshold: float) -> None:
        """One frame; where truth is None it is not scored."""
        filtered = self.filter.step(scores)
        if truth is not None:
            labels = labels_from_scores(torch.from_numpy(filtered), ids, threshold).numpy()
            self.frames.append(score_frame(truth, labels, ids))

    def finish(self, name: str, ids: list[int]) -> None:
        self.objects |= scores_of_objects(name, ids, self.frames)

    def row(self, choice: str) -> dict:
        evaluation = Evaluation(self.objects)
        means = evaluation.summary()
        return {
            "choice": choice,
            "parameters": asdict(self.parameters),
            **{name: means[f"{name}-Mean"] for name in MEANS},
            "J of objects": {name: j for name, j, _ in evaluation.per_object()},
        }


def go_through(sequence: Sequence, trials: list[Trial], run: Path, preset: Preset) -> None:
    """The scores of a video are made once and filtered by each trial."""
    ids = list(sequence.object_ids)
    first = sequence.read_mask(0)
    for trial in trials:
        trial.start(np.stack([first == k for k in ids]))
    for t, scores in refined_scores(run, sequence, preset):
        truth = sequence.read_mask(t) if t < len(sequence) - 1 else None
        for trial in trials:
            trial.step(scores, truth, ids, preset.score_threshold)
    for trial in trials:
        trial.finish(sequence.name, ids)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, metavar="ROOT", help="a DAVIS root")
    parser.add_argument("--run", type=Path, required=True, metavar="DIR", help="a run that is done")
    parser.add_argument("--sets", nargs="+", default=["2017/val"], metavar="YEAR/SET")
    parser.add_argument("--sequences", nargs="+", metavar="NAME", help="only these of the sets")
    parser.add_argument("--preset", default="small", help="that of the run")
    parser.add_argument("--precision", default="float32", help="that of the run")
    parser.add_argument("--json", type=Path, required=True)
    args = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)

    preset = replace(get_preset(args.preset), precision=args.precision)
    trials = {choice: Trial(parameters) for choice, parameters in CHOICES.items()}
    for sequence in load_sets(args.data, args.sets, args.sequences):
        go_through(sequence, list(trials.values()), args.run, preset)
    rows = [trial.row(choice) for choice, trial in trials.items()]
    write_results(args.json, describe("cpu"), rows)
    shown = [{"choice": row["choice"], **{name: f"{row[name]:.3f}" for name in MEANS}} for row in rows]
    print_table(shown, as_markdown=False)


if __name__ == "__main__":
    main()
