"""Times the CUDA kernels against the copy of as many bytes and against one launch a column.

    python -m benchmarks.gpu [--per-column libper_column.so] [--part headline] [--json FILE]

Every figure is a median of pairs of events. Where a call is short, a pair stands around 20 replays of its graph (cache:
warm), and around one replay after the L2 cache was overwritten (cache: flushed); else around one call, which finds the
cache as the call before left it (warm too). Two ratios say how good a kernel is, and a third how good the model:

    bandwidth   scheduled bytes / time, over the copy's bytes / time
    schedule    minimum bytes / scheduled bytes (benchmarks/schedule.py)
    predicted   milliseconds by benchmarks/cuda_model.py

Rows are written as they are found. With --stand-in the CPU takes the GPU's place, on tiny shapes: a rehearsal.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch

import spn

from . import machine
from .devices import H200
from .propagate import parse_shape
from .providers import column_launcher
from .schedule import DIRECTIONS, Machine, Pass, bytes_of, plan_of, plan_text
from .traffic import TARGETS

Call = Callable[[], object]
Shape = tuple[int, int, int, int]

SHAPES: tuple[Shape, ...] = (*TARGETS, (1, 32, 512, 512))
STAND_IN_SHAPES: tuple[Shape, ...] = ((2, 2, 24, 24), (2, 4, 16, 16), (1, 1, 20, 36), (1, 4, 16, 20))
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
COPY_BYTES = 4 << 30
SHORT_MS = 2.0  # from graphs below: launches and the resolution of events would count
REPLAYS = 20
FEWEST, MOST = 10, 200  # pairs of events
GO_ON = 75  # exit status: a new process with --resume can time the rest


class Gpu:
    device = "cuda"
    copy_bytes = COPY_BYTES

    def __init__(self) -> None:
        self.properties = torch.cuda.get_device_properties(0)
        self._flushed: torch.Tensor | None = None

    def times(self, call: Call, seconds: float, calls: int = 1, before: Call | None = None) -> list[float]:
        """Milliseconds of a call, by pairs of events around `calls` of them; `before` is not timed."""
        warm = time.perf_counter() + min(0.1, seconds)
        while True:
            call()
            torch.cuda.synchronize()
            if time.perf_counter() > warm:
                break
        found: list[float] = []
        end = time.perf_counter() + seconds
        while len(found) < FEWEST or (time.perf_counter() < end and len(found) < MOST):
            # Several pairs are queued at once: so the GPU never waits for the next launch.
            pairs = [[torch.cuda.Event(enable_timing=True) for _ in range(2)] for _ in range(5)]
            for start, stop in pairs:
                if before:
                    before()
                start.record()
                for _ in range(calls):
                    call()
                stop.record()
            torch.cuda.synchronize()
            found += [start.elapsed_time(stop) / calls for start, stop in pairs]
        return found

    def graph(self, call: Call) -> Call:
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            call()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            call()
        return graph.replay

    def flush(self) -> None:
        if self._flushed is None:
            cache = getattr(self.properties, "L2_cache_size", 0) or 64 << 20
            self._flushed = torch.empty(2 * cache, dtype=torch.uint8, device="cuda")
        self._flushed.zero_()

    def empty_cache(self) -> None:
        torch.cuda.empty_cache()

    def is_lost(self) -> bool:
        """After some errors every later call fails as well."""
        try:
            torch.cuda.synchronize()
        except RuntimeError:
            return True
        return False

    def clocks(self) -> str | None:
        return machine_clocks()

    def limits(self) -> tuple[Machine, float]:
        """What the kernels' plans are told, and the clock in gigahertz."""
        return limits_of(torch.ops.spn.cuda_limits(torch.cuda.current_device()))


class StandIn:
    """The CPU in a GPU's place: what it times says nothing."""

    device = "cpu"
    copy_bytes = 1 << 20

    def __init__(self) -> None:
        torch.set_num_threads(1)  # of tiny work, several only wait for each other

    def times(self, call: Call, seconds: float, calls: int = 1, before: Call | None = None) -> list[float]:
        found: list[float] = []
        end = time.perf_counter() + seconds
        while len(found) < FEWEST or (time.perf_counter() < end and len(found) < MOST):
            if before:
                before()
            start = time.perf_counter()
            for _ in range(calls):
                call()
            found.append((time.perf_counter() - start) * 1e3 / calls)
        return found

    def graph(self, call: Call) -> Call:
        return call

    def flush(self) -> None:
        pass

    def empty_cache(self) -> None:
        pass

    def is_lost(self) -> bool:
        return False

    def clocks(self) -> str | None:
        return None

    def limits(self) -> tuple[Machine, float]:
        return H200.machine(), H200.gigahertz


def machine_clocks() -> str | None:
    """Clocks of the multiprocessors and the memory, temperature, power and what holds the clocks back."""
    for reasons in (",clocks_event_reasons.active", ""):
        query = f"--query-gpu=clocks.sm,clocks.mem,temperature.gpu,power.draw{reasons}"
        try:
            run = subprocess.run(
                ["nvidia-smi", query, "--format=csv,noheader"], capture_output=True, text=True, timeout=10
            )
        except (OSError, subprocess.TimeoutExpired):
            return None
        if run.returncode == 0:
            return run.stdout.strip().split("\n")[0]
    return None


def limits_of(text: str) -> tuple[Machine, float]:
    """From what the operator spn::cuda_limits says: what plans look at, and the clock in gigahertz."""
    values = {name: float(value) for name, value in (pair.split("=") for pair in text.split())}
    gigahertz = values.pop("kilohertz") / 1e6
    exact = {name: value for name, value in values.items() if name in ("bytes_per_clock", "launch_cycles")}
    return Machine(**{name: int(value) for name, value in values.items()} | exact), gigahertz


def copy_bandwidth(timer: Gpu | StandIn) -> float:
    """Bytes a second of a large copy, read and written counted together."""
    source = torch.ones(timer.copy_bytes // 2, dtype=torch.uint8, device=timer.device)
    target = torch.empty_like(source)
    times = timer.times(lambda: target.copy_(source), 1.0)
    return timer.copy_bytes / (statistics.median(times) / 1e3)


def clocks_while_busy(timer: Gpu | StandIn) -> str | None:
    if isinstance(timer, StandIn):
        return None
    values = torch.ones(1 << 28, device=timer.device)
    for _ in range(1000):  # about a second, queued
        values.mul_(1.0)
    clocks = timer.clocks()
    torch.cuda.synchronize()
    return clocks


def schedule_of(work: Pass, timer: Gpu | StandIn) -> dict:
    """Minimum and scheduled bytes, the plan, and what the model predicts for this device."""
    limits, gigahertz = timer.limits()
    plan = plan_of(work, limits)
    minimum, scheduled = bytes_of(work, plan)
    facts = {"minimum_bytes": minimum, "scheduled_bytes": scheduled, "plan": plan_text(work, plan)}
    if gigahertz:
        facts["predicted_ms"] = plan["cycles"] / gigahertz / 1e6
    return facts


def can_plan() -> bool:
    """Whether the planner, which is compiled for the emulator, can be had here."""
    try:
        plan_of(Pass((1, 1, 16, 16)), Machine())
    except Exception as error:  # a compiler's, or the planner's own
        print(f"no planner, so neither schedules nor predictions: {error}", flush=True)
        return False
    return True


def call_of(work: Pass, device: str) -> Call:
    """The operator on random tensors."""
    n, channels, height, width = work.shape
    like = {"device": device, "dtype": work.dtype}
    x = torch.randn(work.shape, **like)
    gates = torch.randn(n, work.sweeps, 3, work.groups, height, width, **like)
    source = torch.rand(n, work.sweeps, channels, height, width, **like) if work.source else None
    options = (work.direction, "abs", work.merge)
    forward, backward = torch.ops.spn.propagate.default, torch.ops.spn.propagate_backward.default
    if not work.backward:
        return lambda: forward(x, gates, source, *options, work.save, work.save)
    out, winner, saved = forward(x, gates, source, *options, True, True)
    return lambda: backward(out, x, gates, source, winner, saved, *options, True, True, work.source)


def per_column(library: Path, shape: Shape, sweeps: int) -> Call:
    """One launch a column; float32. Its result is compared before it is timed."""
    launch = column_launcher(library)
    n, channels, height, width = shape
    x = torch.randn(shape, device="cuda")
    gates = torch.randn(n, sweeps, 3, channels, height, width, device="cuda")
    hidden, out = torch.empty_like(x), torch.empty_like(x)

    def run() -> torch.Tensor:
        launch(x, gates, hidden, out, sweeps)
        return out

    if sweeps == 4:
        expected = spn.propagate_four_way(x, gates, normalize="abs")
    else:
        expected = spn.propagate(x, gates[:, 0], "left_to_right", normalize="abs")
    difference = ((run() - expected).norm() / expected.norm()).item()
    if not difference < 1e-5:
        raise ValueError(f"the baseline and the kernels disagree: {difference:.1e}")
    return run


def headline(shapes: tuple[Shape, ...]) -> Iterator[Pass]:
    """What the targets are about."""
    for shape in shapes[:3]:
        for dtype in DTYPES.values():
            yield Pass(shape, dtype=dtype)
            yield Pass(shape, dtype=dtype, backward=True)
            if shape == shapes[0]:
                yield Pass(shape, "left_to_right", dtype, source=True)


def others(shapes: tuple[Shape, ...]) -> Iterator[Pass]:
    """The most telling first, as time may end."""
    for shape in shapes:
        for dtype in DTYPES.values():
            yield Pass(shape, dtype=dtype, save=True)
            if shape[1] > 1:
                yield from (
                    Pass(shape, dtype=dtype, backward=b, sharing=min(8, shape[1])) for b in (False, True)
                )
            if shape == shapes[-1]:
                yield from (Pass(shape, dtype=dtype, backward=b) for b in (False, True))
    for shape in shapes:
        for dtype in DTYPES.values():
            yield Pass(shape, "left_to_right", dtype, backward=True)
            yield from (Pass(shape, direction, dtype) for direction in DIRECTIONS)
            if shape != shapes[0]:
                yield Pass(shape, "left_to_right", dtype, source=True)


class Rows:
    """The rows of a result file, which is whole at any time."""

    def __init__(self, path: Path | None, facts: dict, resume: bool) -> None:
        self.path, self.facts, self.rows = path, facts, []
        if resume and path and path.exists():
            before = json.loads(path.read_text())
            self.rows = before["rows"]
            self.facts = {**facts, **before["machine"]}
        self.save()

    def has(self, name: str, shape: str, dtype: str) -> bool:
        return any((r["name"], r["shape"], r["dtype"]) == (name, shape, dtype) for r in self.rows)

    def add(self, row: dict) -> None:
        self.rows.append(row)
        self.save()

    def save(self) -> None:
        if self.path:
            machine.write_results(self.path, self.facts, self.rows)


class Bench:
    def __init__(self, timer: Gpu | StandIn, rows: Rows, seconds: float) -> None:
        self.timer, self.rows, self.seconds = timer, rows, seconds
        self.planner = can_plan()
        facts = rows.facts
        facts["planner"] = self.planner
        if "copy_bytes_per_second" not in facts:
            idle = timer.clocks()
            facts["copy_bytes_per_second"] = copy_bandwidth(timer)
            facts["clocks"] = {"idle": idle, "busy": clocks_while_busy(timer)}
            timer.empty_cache()
            rows.save()
        self.copy = facts["copy_bytes_per_second"]
        self.say(f"copy: {self.copy / 1e12:.2f} TB/s")

    def say(self, text: str) -> None:
        print("stand-in " * isinstance(self.timer, StandIn) + text, flush=True)

    def measure(self, call: Call) -> Iterator[tuple[str, int, list[float]]]:
        """(state of the cache, calls a pair, milliseconds of a call)"""
        timer = self.timer
        if statistics.median(timer.times(call, 0)) > SHORT_MS:
            yield "warm", 1, timer.times(call, self.seconds)
            return
        replay = timer.graph(call)
        yield "warm", REPLAYS, timer.times(replay, self.seconds, REPLAYS)
        yield "flushed", 1, timer.times(replay, self.seconds, before=timer.flush)

    def time(self, name: str, shape: Shape, dtype: str, make: Callable[[], Call], **facts: object) -> bool:
        """Adds rows, unless they are there; False where nothing more can be timed in this process."""
        row = {"name": name, "shape": "x".join(map(str, shape)), "dtype": dtype}
        if self.rows.has(**row):
            return True
        row.update(facts)
        if isinstance(self.timer, StandIn):
            row["stand_in"] = True
        try:
            call = make()
            for cache, calls, times in self.measure(call):
                self.add(row, cache, calls, times)
            del call
        except (RuntimeError, ValueError) as error:  # out of memory, too
            message = str(error).strip().split("\n")[0]
            self.rows.add({**row, "error": message})
            self.say(f"{row['shape']} {dtype} {name}: FAILED: {message}")
        if self.timer.is_lost():
            return False
        self.timer.empty_cache()
        return True

    def add(self, row: dict, cache: str, calls: int, times: list[float]) -> None:
        quarter, median, three_quarters = statistics.quantiles(times, n=4)
        row = {
            **row,
            "cache": cache,
            "median_ms": median,
            "quartiles_ms": [quarter, three_quarters],
            "runs": len(times),
            "calls_a_run": calls,
        }
        text = f"{row['shape']:>16} {row['dtype']:>9} {row['name']:42} {cache:7} {median:9.4f} ms"
        if "scheduled_bytes" in row:
            row["bandwidth_efficiency"] = row["scheduled_bytes"] / (median / 1e3) / self.copy
            row["schedule_efficiency"] = row["minimum_bytes"] / row["scheduled_bytes"]
            text += (
                f"  bandwidth {row['bandwidth_efficiency']:5.2f}  schedule {row['schedule_efficiency']:5.2f}"
            )
        if "predicted_ms" in row:
            text += f"  predicted {row['predicted_ms']:.3f}"
        self.say(text + f"  {row.get('plan', '')}")
        self.rows.add(row)

    def time_pass(self, work: Pass, part: str) -> bool:
        facts: dict = {"part": part}
        if self.planner:
            try:
                facts.update(schedule_of(work, self.timer))
            except Exception as error:  # a time is worth more than its model
                self.say(f"{work.name}: neither schedule nor prediction: {error!r}")
        dtype = str(work.dtype).removeprefix("torch.")
        return self.time(work.name, work.shape, dtype, lambda: call_of(work, self.timer.device), **facts)

    def time_per_column(self, library: Path, shape: Shape, sweeps: int) -> bool:
        name = f"one launch a column, {sweeps} sweep{'s' * (sweeps > 1)}"
        return self.time(name, shape, "float32", lambda: per_column(library, shape, sweeps), part="rest")


def check(device: str) -> None:
    """Whether the kernels are there and right at all."""
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


def facts_of(timer: Gpu | StandIn) -> dict:
    facts = machine.describe(timer.device)
    facts["commit"] = os.environ.get("SPN_COMMIT", facts["commit"])
    if isinstance(timer, StandIn):
        return {"stand_in": "a rehearsal: the CPU at tiny shapes, nothing is measured", **facts}
    names = ("total_memory", "L2_cache_size", "multi_processor_count", "shared_memory_per_multiprocessor")
    names += ("shared_memory_per_block_optin", "clock_rate", "memory_clock_rate", "memory_bus_width")
    facts["properties"] = {name: getattr(timer.properties, name, None) for name in names}
    return facts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--per-column", type=Path, help="library built from benchmarks/per_column.cu")
    parser.add_argument(
        "--part",
        choices=("all", "headline", "rest", "check", "planner"),
        default="all",
        help="check: only whether the kernels are there; planner: only compile that",
    )
    parser.add_argument("--shapes", nargs="+", type=parse_shape, help="instead of the usual")
    parser.add_argument("--seconds", type=float, default=1.0, help="time for each figure")
    parser.add_argument(
        "--budget", type=float, default=float("inf"), help="begin no row after so many seconds"
    )
    parser.add_argument("--json", type=Path)
    parser.add_argument("--resume", action="store_true", help="keep the rows that the file has")
    parser.add_argument("--stand-in", action="store_true", help="rehearse on the CPU")
    arguments = parser.parse_args()
    # Python leaves an interrupt ignored that was so when it started.
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
    jobs: list[Callable[[], bool]] = []
    if arguments.part != "rest":
        jobs += [lambda w=work: bench.time_pass(w, "headline") for work in headline(shapes)]
    if arguments.part != "headline":
        if arguments.per_column:
            columns = [(shape, sweeps) for sweeps in (4, 1) for shape in shapes[:3]]
            jobs += [lambda c=c: bench.time_per_column(arguments.per_column, *c) for c in columns]
        jobs += [lambda w=work: bench.time_pass(w, "rest") for work in others(shapes)]
    for number, job in enumerate(jobs):
        if time.monotonic() > end:
            bench.say(f"time is over: {number} of {len(jobs)} rows")
            break
        if not job():
            bench.say("the GPU answers no longer")
            sys.exit(GO_ON)
    rows.facts["clocks"]["after"] = timer.clocks()
    rows.save()
    # Those of this part, also where an earlier process found them.
    sys.exit(any("error" in row and arguments.part in ("all", row["part"]) for row in rows.rows))


if __name__ == "__main__":
    main()
