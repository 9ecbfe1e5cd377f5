"""Compare the runtime of `evaluate` and vos-benchmark on the same folders, each with two processes.

    python -m benchmarks.pipeline.evaluate [--data ROOT --results DIR --sequences A B] [--rounds 9] [--json FILE]

ROOT is a DAVIS root, DIR contains masks for it as <sequence>/%05d.png. Without them, the masks of synthetic clips of
854 x 480 pixels are scored against the masks of the previous frame. Both programs must agree in J and F.
The ratio of processor time depends less on the load of the machine than the ratio of elapsed time.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import resource
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from vos_benchmark.benchmark import benchmark

from vos_pipeline.data import load_davis, make_clips, read_labels, write_labels
from vos_pipeline.evaluation import evaluate

from .. import machine

PROCESSES = 2
CLIPS, FRAMES = 6, 30


def synthetic_case(folder: Path) -> None:
    """Write a DAVIS root and results to the folder; the result of each frame is the mask of the previous frame."""
    make_clips(folder, CLIPS, FRAMES, size=(480, 854))
    for sequence in load_davis(folder):
        for t, path in enumerate(sequence.mask_paths):
            write_labels(folder / "results" / sequence.name / path.name, sequence.read_mask(max(t - 1, 0)))


def real_case(folder: Path, root: Path, results: Path, names: list[str]) -> None:
    """Copy ground truth and results as palette masks, because vos-benchmark reads 0/255 masks as label 255."""
    for name in names:
        for path in sorted((root / "Annotations/480p" / name).glob("*.png")):
            write_labels(folder / "Annotations/480p" / name / path.name, read_labels(path))
            write_labels(folder / "results" / name / path.name, read_labels(results / name / path.name))
    listing = folder / "ImageSets/2017/val.txt"
    listing.parent.mkdir(parents=True)
    listing.write_text("\n".join(names) + "\n")


def seconds_of(function: Callable[[], object]) -> tuple[float, float, object]:
    """Return elapsed seconds, processor seconds and the result of the function, without its error output."""
    start, busy = time.perf_counter(), _processor_seconds()
    with contextlib.redirect_stderr(io.StringIO()):
        result = function()
    return time.perf_counter() - start, _processor_seconds() - busy, result


def _processor_seconds() -> float:
    usages = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def compare(folder: Path, rounds: int) -> dict:
    """Run both programs alternately; return medians of the times and of the ratios within each round."""
    masks, results = str(folder / "Annotations/480p"), str(folder / "results")

    def ours() -> tuple[float, float]:
        summary = evaluate(folder, results, processes=PROCESSES).summary()
        return summary["J-Mean"], summary["F-Mean"]

    def theirs() -> tuple[float, float]:
        _, (j,), (f,), _ = benchmark([masks], [results], num_processes=PROCESSES, verbose=False)
        return j / 100, f / 100

    turns = []
    for _ in range(rounds):
        their_time, their_busy, expected = seconds_of(theirs)
        our_time, our_busy, got = seconds_of(ours)
        if max(abs(a - b) for a, b in zip(got, expected, strict=True)) > 1e-9:
            raise SystemExit(f"J and F differ: evaluate gives {got}, vos-benchmark gives {expected}")
        turns.append((their_time, our_time, their_busy, our_busy))
    return {
        "J, F": got,
        "seconds, vos-benchmark": statistics.median(turn[0] for turn in turns),
        "seconds, evaluate": statistics.median(turn[1] for turn in turns),
        "times as fast": statistics.median(turn[0] / turn[1] for turn in turns),
        "processor seconds, ratio": statistics.median(turn[2] / turn[3] for turn in turns),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, metavar="ROOT", help="a DAVIS root")
    parser.add_argument("--results", type=Path, metavar="DIR", help="masks to score")
    parser.add_argument("--sequences", nargs="+", metavar="NAME", help="sequences that ROOT and DIR contain")
    parser.add_argument(
        "--rounds", type=int, default=9, help="number of runs of each program (default: %(default)s)"
    )
    parser.add_argument("--json", type=Path, help="also write the results to this file")
    args = parser.parse_args()
    if not (args.data is None) == (args.results is None) == (args.sequences is None):
        parser.error("--data, --results and --sequences must be given together")
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder:
        case = Path(folder)
        if args.data:
            real_case(case, args.data, args.results, args.sequences)
        else:
            synthetic_case(case)
        frames = sum(1 for _ in (case / "results").rglob("*.png"))
        record = compare(case, args.rounds)
    record |= {"masks": frames, "rounds": args.rounds, "load before": load, **machine.describe("cpu")}
    for name in ("seconds, vos-benchmark", "seconds, evaluate", "times as fast", "processor seconds, ratio"):
        print(f"{name:26} {record[name]:.2f}")
    if args.json:
        args.json.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
