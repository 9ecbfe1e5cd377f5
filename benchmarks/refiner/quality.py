"""Score coarse masks of real video before and after refinement: J, F, F2 and seconds per frame.

    python -m benchmarks.refiner.quality --data ROOT [--predictions DIR] [--weights lite] [--json FILE]

ROOT is a DAVIS root. Coarse masks are the ground truth averaged over 16 x 16 and 32 x 32 pixels and interpolated
bilinearly, and the predictions of another tool (DIR/<sequence>/%05d.png, indexed) if DIR contains them. F uses the
official boundary tolerance (8 pixels at 480p), F2 uses 2 pixels. Each object is scored separately.

The refiner is compared with the installed methods of alternatives.py. The refiner has no parameters to choose. For each
kind of coarse mask, an alternative gets the values of its grid that score best (mean of J, F and F2) on every fourth of
the reported images. That favours the alternatives: few users could choose better values.

``python -m docs.figures.refiner_table`` writes the table of docs/refiner.md from the JSON file.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import torch

from spn import SPNRefiner
from vos_pipeline.data import Sequence, load_sets, read_labels
from vos_pipeline.evaluation import f_measure, jaccard
from vos_pipeline.refiner import lose_resolution

from ..machine import describe
from .alternatives import ALTERNATIVES, Alternative

SEQUENCES = {
    "2016": ("blackswan", "car-shadow", "drift-straight", "horsejump-high", "libby"),
    "2017": ("dogs-jump",),
}
MEASURES = ("J", "F", "F2")
REFINER = "SPN refiner"


@dataclass(frozen=True)
class Case:
    """One coarse mask: its kind and sequence, the image (H, W, 3), the scores and the ground truth (H, W)."""

    kind: str
    sequence: str
    image: np.ndarray
    scores: np.ndarray
    truth: np.ndarray


def cases(sequences: list[Sequence], predictions: Path | None, every: int) -> Iterator[Case]:
    """Yield the coarse masks of every object, every `every` frames; the first and last frame are not scored."""
    for sequence in sequences:
        for t in range(1, len(sequence) - 1, every):
            yield from _cases_of_frame(sequence, t, predictions)


def chosen(data: Path, year_and_set: str | None) -> list[Sequence]:
    """Return the sequences of a whole split, or the sequences that the tables show."""
    if year_and_set:
        return load_sets(data, [year_and_set], None)
    return [s for year, names in SEQUENCES.items() for s in load_sets(data, [f"{year}/val"], list(names))]


def _cases_of_frame(sequence: Sequence, t: int, predictions: Path | None) -> Iterator[Case]:
    image, truth = sequence.read_frame(t).astype(np.float32) / 255, sequence.read_mask(t)
    path = predictions / sequence.name / f"{sequence.frame_paths[t].stem}.png" if predictions else None
    predicted = None
    if path is not None and path.exists():
        size = truth.shape[::-1]
        predicted = cv2.resize(read_labels(path), size, interpolation=cv2.INTER_NEAREST)
    for k in sequence.object_ids:
        mask = truth == k
        for factor in (16, 32):
            coarse = lose_resolution(mask.astype(np.float32), factor)
            yield Case(f"1/{factor}", sequence.name, image, coarse, mask)
        if predicted is not None:
            yield Case("predictions", sequence.name, image, (predicted == k).astype(np.float32), mask)


def score(truth: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Return J, F and F2 of scores thresholded at 0.5."""
    mask = scores > 0.5
    two_pixels = 1.99 / np.hypot(*truth.shape)
    return np.array([jaccard(truth, mask), f_measure(truth, mask), f_measure(truth, mask, two_pixels)])


def refiner_of(weights: str) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    """Return a function from an image (H, W, 3) and scores (H, W) to refined scores."""
    net = SPNRefiner.from_pretrained(weights)

    @torch.inference_mode()
    def refine(image: np.ndarray, scores: np.ndarray) -> np.ndarray:
        pixels, coarse = torch.from_numpy(image).permute(2, 0, 1)[None], torch.from_numpy(scores)[None, None]
        return net(pixels, coarse)[0, 0].numpy()

    return refine


def tuned(alternative: Alternative, tests: list[Case]) -> dict[str, float]:
    """Return the setting of the grid that scores best on these cases."""
    return max(
        alternative.settings(),
        key=lambda setting: np.mean(
            [score(c.truth, alternative.refine(c.image, c.scores, **setting)) for c in tests]
        ),
    )


def installed() -> dict[str, Alternative]:
    return {name: alternative for name, alternative in ALTERNATIVES.items() if alternative.installed()}


def methods_with(settings: dict[str, dict[str, float]], weights: str) -> dict[str, Callable]:
    """Return every method as (image, scores) -> refined scores, the alternatives with their settings."""
    alternatives = {name: partial(ALTERNATIVES[name].refine, **values) for name, values in settings.items()}
    return {"coarse": lambda image, scores: scores, **alternatives, REFINER: refiner_of(weights)}


def score_all(kind: str, tests: list[Case], methods: dict[str, Callable]) -> list[dict]:
    table = []
    for name, refine in methods.items():
        rows = measure(tests, refine)
        table += [{"kind": kind, "method": name, **row} for row in rows]
        print(f"{kind:12} {name:16}", *(f"{rows[-1][m]:.3f}" for m in MEASURES), flush=True)
    return table


def measure(tests: list[Case], refine: Callable) -> list[dict]:
    """Return one row of means per sequence, and one row for the mean over sequences."""
    scores: dict[str, list[np.ndarray]] = {}
    for c in tests:
        scores.setdefault(c.sequence, []).append(score(c.truth, refine(c.image, c.scores)))
    means = {name: np.mean(rows, 0) for name, rows in scores.items()}
    means["mean"] = np.mean(list(means.values()), 0)
    return [
        {"sequence": name, **dict(zip(MEASURES, map(float, row), strict=True))} for name, row in means.items()
    ]


def seconds_a_frame(refine: Callable, test: Case, threads: int, repeats: int = 10) -> float:
    """Return the fastest of several calls, because other load on the machine can only slow them down."""
    torch.set_num_threads(threads)
    cv2.setNumThreads(threads)
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        refine(test.image, test.scores)
        times.append(time.perf_counter() - start)
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    return min(times)


def _without(table: list[dict], kind: str, methods: Collection[str] | None) -> list[dict]:
    """Return the rows of other kinds and, if ``methods`` is given, the rows of other methods."""
    return [
        row for row in table if row["kind"] != kind or (methods is not None and row["method"] not in methods)
    ]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="a DAVIS root")
    parser.add_argument(
        "--set", metavar="YEAR/SET", help="a DAVIS split, instead of the six sequences of the tables"
    )
    parser.add_argument("--predictions", type=Path, help="masks of another tool, to refine as well")
    parser.add_argument("--weights", default="lite", help="'lite' or a .safetensors file")
    parser.add_argument("--every", type=int, default=5, help="use every n-th frame (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=2, help="threads during timing (default: %(default)s)")
    parser.add_argument(
        "--kinds", nargs="+", default=["1/16", "1/32", "predictions"], help="kinds of coarse mask"
    )
    parser.add_argument(
        "--json", type=Path, help="write the results to this file; other kinds in it are kept"
    )
    parser.add_argument(
        "--only",
        choices=("refiner", "time"),
        help="update the refiner's results, or only the times (on an idle machine), in the file of --json",
    )
    args = parser.parse_args()
    if args.only and not args.json:
        parser.error("--only needs --json with the results of an earlier run")
    torch.set_num_threads(1)
    cv2.setNumThreads(1)

    record = json.loads(args.json.read_text()) if args.json and args.json.exists() else {}
    everything = list(cases(chosen(args.data, args.set), args.predictions, args.every))
    for kind in args.kinds:
        tests = [c for c in everything if c.kind == kind]
        if args.only:
            facts = record["kinds"][kind]
        else:
            facts = {
                "settings": {name: tuned(a, tests[::4]) for name, a in installed().items()},
                "seconds": {},
            }
        methods = methods_with(facts["settings"], args.weights)
        if args.only == "refiner":
            methods = {REFINER: methods[REFINER]}
        if args.only != "time":
            record["table"] = _without(record.get("table", []), kind, methods if args.only else None)
            record["table"] += score_all(kind, tests, methods)
        facts["load"] = os.getloadavg()[0]
        facts["seconds"] |= {
            name: seconds_a_frame(refine, tests[0], args.threads) for name, refine in methods.items()
        }
        for name in methods:
            print(f"{kind:12} {name:16} {facts['seconds'][name]:.3f} s per frame", flush=True)
        record.setdefault("kinds", {})[kind] = facts
        record |= {"machine": describe("cpu"), "threads": args.threads, "every": args.every}
        if args.json:
            args.json.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
