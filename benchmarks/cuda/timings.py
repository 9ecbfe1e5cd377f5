"""Time the CUDA kernels, compared with a copy of the same number of bytes and with one launch per column.

    python -m benchmarks.cuda.timings [--per-column libper_column.so] [--part headline] [--json FILE]

Every result is a median over pairs of events. For a short call, a pair encloses 20 replays of its graph (cache: warm),
or one replay after the L2 cache was overwritten (cache: flushed). For other calls, a pair encloses one call, which
finds the cache as the previous call left it (also warm). Each row reports:

    bandwidth   scheduled bytes per second, relative to the bytes per second of the copy
    schedule    minimum bytes / scheduled bytes (benchmarks/cuda/schedule.py)
    predicted   milliseconds predicted by benchmarks/cuda/model.py

Rows are written as soon as they are measured. With --stand-in the CPU replaces the GPU, on tiny shapes, as a rehearsal.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

import spn

from .. import machine
from ..operator.cases import parse_shape
from .bench import Bench, Rows, can_plan
from .cases import SHAPES, STAND_IN_SHAPES, Shape, headline, others
from .timers import Gpu, StandIn, Timer

Job = Callable[[], bool]

GO_ON = 75  # exit status: a new process with --resume can time the rest


def check(device: str) -> None:
    """Exit unless the kernels are available and agree with the reference."""
    print(spn.show_config(), flush=True)
    if reason := spn._ops.why_reference(torch.device(device)):
        raise SystemExit(f"no kernels: {reason}")
    x, gates = torch.randn(2, 3, 40, 50, device=device), torch.randn(2, 4, 3, 3, 40, 50, device=device)
    got = spn.propagate_four_way(x, gates, normalize="abs")
    wanted = spn.reference.propagate_four_way(x.double(), gates.double(), normalize="abs")
    error = ((got - wanted).norm() / wanted.norm()).item()
    print(f"relative error {error:.1e}")
    if not error < 1e-5:
        raise SystemExit("the kernels and the reference disagree")


def facts_of(timer: Timer) -> dict:
    facts = machine.describe(timer.device)
    facts["commit"] = os.environ.get("SPN_COMMIT", facts["commit"])
    if timer.stands_in:
        return {"stand_in": "a rehearsal: the CPU at tiny shapes, nothing is measured", **facts}
    names = ("total_memory", "L2_cache_size", "multi_processor_count", "shared_memory_per_multiprocessor")
    names += ("shared_memory_per_block_optin", "clock_rate", "memory_clock_rate", "memory_bus_width")
    facts["properties"] = {name: getattr(timer.properties, name, None) for name in names}
    return facts


def jobs_of(part: str, library: Path | None, bench: Bench, shapes: tuple[Shape, ...]) -> list[Job]:
    """Return the timings to run, the most informative first; each returns whether another can follow."""
    jobs: list[Job] = []
    if part != "rest":
        jobs += [lambda w=work: bench.time_pass(w, "headline") for work in headline(shapes)]
    if part != "headline":
        if library:
            columns = [(shape, sweeps) for sweeps in (4, 1) for shape in shapes[:3]]
            jobs += [lambda c=c: bench.time_per_column(library, *c) for c in columns]
        jobs += [lambda w=work: bench.time_pass(w, "rest") for work in others(shapes)]
    return jobs


def work_off(jobs: list[Job], bench: Bench, end: float) -> None:
    """Run the jobs until the time is over; exit if the GPU no longer responds."""
    for number, job in enumerate(jobs):
        if time.monotonic() > end:
            bench.say(f"time is over: {number} of {len(jobs)} rows were timed")
            break
        if not job():
            bench.say("the GPU no longer responds")
            sys.exit(GO_ON)


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--per-column", type=Path, help="library built from benchmarks/cuda/per_column.cu")
    parser.add_argument(
        "--part",
        choices=("all", "headline", "rest", "check", "planner"),
        default="all",
        help="check: only check the kernels; planner: only compile the planner",
    )
    parser.add_argument(
        "--shapes", nargs="+", type=parse_shape, help="shapes to time, instead of the default ones"
    )
    parser.add_argument(
        "--seconds", type=float, default=1.0, help="measuring time per result (default: %(default)s)"
    )
    parser.add_argument(
        "--budget", type=float, default=float("inf"), help="start no timing after this many seconds"
    )
    parser.add_argument("--json", type=Path, help="also write the results to this file")
    parser.add_argument(
        "--resume", action="store_true", help="keep the rows in the file and time only the others"
    )
    parser.add_argument("--stand-in", action="store_true", help="rehearse on the CPU, on tiny shapes")
    return parser.parse_args()


def main() -> None:
    arguments = options()
    # Python keeps ignoring SIGINT if it was ignored at startup.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    end = time.monotonic() + arguments.budget

    if arguments.part == "planner":
        sys.exit(not can_plan())
    timer = StandIn() if arguments.stand_in else Gpu()
    rows = Rows(arguments.json, facts_of(timer), arguments.resume)
    if arguments.part == "check":
        check(timer.device)
        return
    if reason := spn._ops.why_reference(torch.device(timer.device)):
        raise SystemExit(f"no kernels: {reason}")

    shapes = tuple(arguments.shapes or (STAND_IN_SHAPES if arguments.stand_in else SHAPES))
    bench = Bench(timer, rows, arguments.seconds)
    work_off(jobs_of(arguments.part, arguments.per_column, bench, shapes), bench, end)
    rows.facts["clocks"]["after"] = timer.clocks()
    rows.save()
    # Errors of this part count, including those of an earlier process.
    sys.exit(any("error" in row and arguments.part in ("all", row["part"]) for row in rows.rows))


if __name__ == "__main__":
    main()
