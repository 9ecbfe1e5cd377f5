"""Score temporal filters on real video: J and F without a filter, with CRAF and the flow filter, and other parameters.

    python -m benchmarks.pipeline.temporal_filters --data ROOT --run OUT/full --coarse MASKS [--json FILE]

OUT/full is a finished run of ``python -m vos_pipeline tables ablation``, whose networks are reused. MASKS contains
<sequence>/<frame>.png of another tool; sequences without masks are skipped. The SPN refines the scores of both sources,
and each filter receives the refined scores. J and F are means over objects.
``python -m docs.figures.temporal_filters`` writes the tables of docs/pipeline_results.md from the JSON file.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import nn

from vos_pipeline.data import Sequence, load_sets, read_labels
from vos_pipeline.evaluation import Evaluation, ObjectScores, score_frame, scores_of_objects
from vos_pipeline.nets import labels_from_scores, working_image
from vos_pipeline.pipeline import refined_scores
from vos_pipeline.refiner import load_refiner
from vos_pipeline.settings import CRAFParameters, FlowFilterParameters, Preset, get_preset
from vos_pipeline.temporal import ConnectedRegionFilter, FlowFilter, NoFilter, TemporalFilter

from ..machine import describe, write_results
from ..tables import print_table

CRAF, FLOW = CRAFParameters(), FlowFilterParameters()
MEANS = ("J&F", "J", "F")
NETS, COARSE = "nets", "masks of another tool"
Parameters = CRAFParameters | FlowFilterParameters | None
CHOICES: dict[str, Parameters] = {
    "no filter": None,
    "CRAF": CRAF,
    **{f"CRAF, threshold = {t}": replace(CRAF, threshold=t) for t in (0.3, 0.4, 0.6, 0.7)},
    "CRAF, connectivity = 4": replace(CRAF, connectivity=4),
    'CRAF, gamma_reference = "selected_area"': replace(CRAF, gamma_reference="selected_area"),
    'CRAF, mutual_cover = "both"': replace(CRAF, mutual_cover="both"),
    'CRAF, previous = "labelled"': replace(CRAF, previous="labelled"),
    'CRAF, small_best = "largest"': replace(CRAF, small_best="largest"),
    'CRAF, small_best = "none"': replace(CRAF, small_best="none"),
    "CRAF, preset paper": get_preset("paper").craf,
    "flow filter": FLOW,
    **{f"flow filter, reach = {r}": replace(FLOW, reach=r) for r in (0.2, 0.3, 0.5, 0.8)},
    **{f"flow filter, growth = {g}": replace(FLOW, growth=g) for g in (0.0, 0.5)},
    **{f"flow filter, other = {o}": replace(FLOW, other=o) for o in (0.1, 0.5, 1.0)},
    **{f"flow filter, own = {o}": replace(FLOW, own=o) for o in (0.1, 0.4)},
    **{f"flow filter, complete = {c}": replace(FLOW, complete=c) for c in (0.5, 0.9)},
    **{f"flow filter, missing = {m}": replace(FLOW, missing=m) for m in (0.3, 0.7)},
    **{f"flow filter, found = {f}": replace(FLOW, found=f) for f in (0.02, 0.3)},
    "flow filter, side = 120": replace(FLOW, side=120),
}
Scores = Iterable[tuple[int, np.ndarray]]  # frame numbers, starting at 1, and their scores (K, H, W)


@dataclass
class Trial:
    """One filter and its results on all videos."""

    parameters: Parameters
    objects: dict[str, ObjectScores] = field(default_factory=dict)
    sequences: dict[str, float] = field(default_factory=dict)  # J&F
    seconds: list[float] = field(default_factory=list)

    def start(self, frame: np.ndarray, first: np.ndarray) -> None:
        self.filter: TemporalFilter = NoFilter()
        if isinstance(self.parameters, CRAFParameters):
            self.filter = ConnectedRegionFilter(first, self.parameters)
        elif self.parameters:
            self.filter = FlowFilter(frame, first, self.parameters)
        self.frames: list[tuple[np.ndarray, np.ndarray]] = []

    def step(
        self,
        scores: np.ndarray,
        frame: np.ndarray,
        truth: np.ndarray | None,
        labels: Callable[[np.ndarray], np.ndarray],
        ids: list[int],
    ) -> None:
        """Filter one frame, and score it unless truth is None."""
        start = time.perf_counter()
        filtered = self.filter.step(scores, frame)
        self.seconds.append(time.perf_counter() - start)
        if truth is not None:
            self.frames.append(score_frame(truth, labels(filtered), ids))

    def finish(self, name: str, ids: list[int]) -> None:
        self.objects |= scores_of_objects(name, ids, self.frames)
        self.sequences[name] = float(np.mean(self.frames))

    def row(self, source: str, choice: str) -> dict:
        evaluation = Evaluation(self.objects)
        means = evaluation.summary()
        return {
            "scores": source,
            "choice": choice,
            "parameters": asdict(self.parameters) if self.parameters else None,
            **{name: means[f"{name}-Mean"] for name in MEANS},
            "ms per frame": 1e3 * float(np.median(self.seconds)),
            "J&F of sequences": self.sequences,
            "J of objects": {name: j for name, j, _ in evaluation.per_object()},
        }


def go_through(sequence: Sequence, scores: Scores, trials: list[Trial], threshold: float) -> None:
    """Filter the scores of a video in every trial; the scores are computed once."""
    ids = list(sequence.object_ids)

    def labels(maps: np.ndarray) -> np.ndarray:
        return labels_from_scores(torch.from_numpy(maps), ids, threshold).numpy()

    first = sequence.read_mask(0)
    for trial in trials:
        trial.start(sequence.read_frame(0), np.stack([first == k for k in ids]))
    for t, maps in scores:
        truth = sequence.read_mask(t) if t < len(sequence) - 1 else None
        for trial in trials:
            trial.step(maps, sequence.read_frame(t), truth, labels, ids)
    for trial in trials:
        trial.finish(sequence.name, ids)


@torch.inference_mode()
def refined_masks(sequence: Sequence, masks: Path, refiner: nn.Module) -> Iterator[tuple[int, np.ndarray]]:
    """Yield another tool's masks of a sequence, resized to the frame if necessary and refined by the SPN."""
    ids = np.array(sequence.object_ids)[:, None, None]
    for t in range(1, len(sequence)):
        labels = read_labels(masks / f"{sequence.frame_paths[t].stem}.png")
        labels = cv2.resize(labels, sequence.size[::-1], interpolation=cv2.INTER_NEAREST)
        image = working_image(sequence.read_frame(t), None)
        coarse = torch.from_numpy((labels == ids).astype(np.float32))
        yield t, refiner(image[None], coarse[None])[0].numpy()


def sources(args: argparse.Namespace, preset: Preset) -> Iterator[tuple[str, list[tuple[Sequence, Scores]]]]:
    """Yield each source of scores and its sequences."""
    sequences = load_sets(args.data, args.sets, args.sequences)
    if args.run:
        yield NETS, [(s, refined_scores(args.run, s, preset)) for s in sequences]
    if args.coarse:
        refiner = load_refiner(preset.chosen_refiner)
        found = [(s, args.coarse / s.name) for s in sequences if (args.coarse / s.name).is_dir()]
        yield args.name, [(s, refined_masks(s, masks, refiner)) for s, masks in found]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, metavar="ROOT", help="a DAVIS root")
    parser.add_argument("--run", type=Path, metavar="DIR", help="a finished run")
    parser.add_argument("--coarse", type=Path, metavar="MASKS", help="masks of another tool")
    parser.add_argument(
        "--name", default=COARSE, help="name of these masks in the tables (default: %(default)s)"
    )
    parser.add_argument("--sets", nargs="+", default=["2017/val"], metavar="YEAR/SET", help="DAVIS splits")
    parser.add_argument("--sequences", nargs="+", metavar="NAME", help="only these sequences of the splits")
    parser.add_argument("--preset", default="small", help="preset of the run")
    parser.add_argument("--precision", default="float32", help="precision of the run")
    parser.add_argument("--json", type=Path, help="also write the results to this file")
    args = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)

    preset, rows = replace(get_preset(args.preset), precision=args.precision), []
    for source, videos in sources(args, preset):
        trials = {choice: Trial(parameters) for choice, parameters in CHOICES.items()}
        for sequence, scores in videos:
            go_through(sequence, scores, list(trials.values()), preset.score_threshold)
        rows += [trial.row(source, choice) for choice, trial in trials.items()]
    if args.json:
        write_results(args.json, describe("cpu"), rows)
    shown = [
        {"scores": row["scores"], "choice": row["choice"], **{name: f"{row[name]:.3f}" for name in MEANS}}
        for row in rows
    ]
    print_table(shown, as_markdown=False)


if __name__ == "__main__":
    main()
