"""Time passes and write one row per timing to a result file that is complete at any time."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Iterator
from pathlib import Path

from .. import machine
from .cases import Shape, call_of, per_column
from .schedule import Machine, Pass, bytes_of, plan_of, plan_text
from .timers import Call, Timer, copy_bandwidth

SHORT_MS = (
    2.0  # shorter calls are timed as graphs, because launches and the resolution of events would matter
)
REPLAYS = 20


def can_plan() -> bool:
    """Return whether the planner, which is compiled for the emulator, works here."""
    try:
        plan_of(Pass((1, 1, 16, 16)), Machine())
    except Exception as error:  # from the compiler or from the planner
        print(f"the planner is not available, so schedules and predictions are omitted: {error}", flush=True)
        return False
    return True


def schedule_of(work: Pass, timer: Timer) -> dict:
    """Return minimum and scheduled bytes, the plan and the predicted runtime on this device."""
    limits, gigahertz = timer.limits()
    plan = plan_of(work, limits)
    minimum, scheduled = bytes_of(work, plan)
    facts = {"minimum_bytes": minimum, "scheduled_bytes": scheduled, "plan": plan_text(work, plan)}
    if gigahertz:
        facts["predicted_ms"] = plan["cycles"] / gigahertz / 1e6
    return facts


class Rows:
    """The rows of a result file that is complete at any time."""

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
    def __init__(self, timer: Timer, rows: Rows, seconds: float) -> None:
        self.timer, self.rows, self.seconds = timer, rows, seconds
        self.planner = can_plan()
        facts = rows.facts
        facts["planner"] = self.planner
        if "copy_bytes_per_second" not in facts:
            idle = timer.clocks()
            facts["copy_bytes_per_second"] = copy_bandwidth(timer)
            facts["clocks"] = {"idle": idle, "busy": timer.clocks_while_busy()}
            timer.empty_cache()
            rows.save()
        self.copy = facts["copy_bytes_per_second"]
        self.say(f"copy: {self.copy / 1e12:.2f} TB/s")

    def say(self, text: str) -> None:
        print("stand-in " * self.timer.stands_in + text, flush=True)

    def measure(self, call: Call) -> Iterator[tuple[str, int, list[float]]]:
        """Yield (state of the cache, calls per pair of events, milliseconds per call)."""
        timer = self.timer
        if statistics.median(timer.times(call, 0)) > SHORT_MS:
            yield "warm", 1, timer.times(call, self.seconds)
            return
        replay = timer.graph(call)
        yield "warm", REPLAYS, timer.times(replay, self.seconds, REPLAYS)
        yield "flushed", 1, timer.times(replay, self.seconds, before=timer.flush)

    def time(self, name: str, shape: Shape, dtype: str, make: Callable[[], Call], **facts: object) -> bool:
        """Add rows unless they exist; return False if this process cannot time anything more."""
        row = {"name": name, "shape": "x".join(map(str, shape)), "dtype": dtype}
        if self.rows.has(**row):
            return True
        row.update(facts)
        if self.timer.stands_in:
            row["stand_in"] = True
        try:
            call = make()
            for cache, calls, times in self.measure(call):
                self.add(row, cache, calls, times)
            del call
        except (RuntimeError, ValueError) as error:  # includes out of memory
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
            except Exception as error:  # keep the timing even if the model fails
                self.say(f"{work.name}: no schedule and no prediction: {error!r}")
        dtype = work.dtype_name
        return self.time(work.name, work.shape, dtype, lambda: call_of(work, self.timer.device), **facts)

    def time_per_column(self, library: Path, shape: Shape, sweeps: int) -> bool:
        name = f"one launch per column, {sweeps} sweep{'s' * (sweeps > 1)}"
        return self.time(name, shape, "float32", lambda: per_column(library, shape, sweeps), part="rest")
