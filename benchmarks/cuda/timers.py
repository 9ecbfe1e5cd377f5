"""Timers: a GPU with its events, or the CPU as a stand-in for rehearsals."""

from __future__ import annotations

import statistics
import subprocess
import time
from collections.abc import Callable

import torch

from .devices import H200
from .schedule import Machine

Call = Callable[[], object]

COPY_BYTES = 4 << 30
FEWEST, MOST = 10, 200  # pairs of events


class Gpu:
    stands_in = False
    device = "cuda"
    copy_bytes = COPY_BYTES

    def __init__(self) -> None:
        self.properties = torch.cuda.get_device_properties(0)
        self._flushed: torch.Tensor | None = None

    def times(self, call: Call, seconds: float, calls: int = 1, before: Call | None = None) -> list[float]:
        """Return milliseconds per call, from pairs of events around `calls` calls; `before` is not timed."""
        warm = time.perf_counter() + min(0.1, seconds)
        while True:
            call()
            torch.cuda.synchronize()
            if time.perf_counter() > warm:
                break
        found: list[float] = []
        end = time.perf_counter() + seconds
        while len(found) < FEWEST or (time.perf_counter() < end and len(found) < MOST):
            # Several pairs are queued at once, so that the GPU never waits for the next launch.
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
        """Return whether the GPU no longer responds; after some errors every later call fails."""
        try:
            torch.cuda.synchronize()
        except RuntimeError:
            return True
        return False

    def clocks(self) -> str | None:
        return machine_clocks()

    def clocks_while_busy(self) -> str | None:
        values = torch.ones(1 << 28, device=self.device)
        for _ in range(1000):  # about a second, queued
            values.mul_(1.0)
        clocks = self.clocks()
        torch.cuda.synchronize()
        return clocks

    def limits(self) -> tuple[Machine, float]:
        """Return the limits that the planner uses, and the clock in gigahertz."""
        return limits_of(torch.ops.spn.cuda_limits(torch.cuda.current_device()))


class StandIn:
    """The CPU as a stand-in for a GPU; its timings are meaningless."""

    stands_in = True
    device = "cpu"
    copy_bytes = 1 << 20

    def __init__(self) -> None:
        torch.set_num_threads(1)  # the work is too small for several threads

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

    def clocks_while_busy(self) -> str | None:
        return None

    def limits(self) -> tuple[Machine, float]:
        return H200.machine(), H200.gigahertz


Timer = Gpu | StandIn


def copy_bandwidth(timer: Timer) -> float:
    """Return bytes per second of a large copy, the sum of bytes read and written."""
    source = torch.ones(timer.copy_bytes // 2, dtype=torch.uint8, device=timer.device)
    target = torch.empty_like(source)
    times = timer.times(lambda: target.copy_(source), 1.0)
    return timer.copy_bytes / (statistics.median(times) / 1e3)


def machine_clocks() -> str | None:
    """Return the clocks of multiprocessors and memory, temperature, power and throttling reasons."""
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
    """Parse the result of the operator spn::cuda_limits: the planner's limits, and the clock in gigahertz."""
    values = {name: float(value) for name, value in (pair.split("=") for pair in text.split())}
    gigahertz = values.pop("kilohertz") / 1e6
    exact = {name: value for name, value in values.items() if name in ("bytes_per_clock", "launch_cycles")}
    return Machine(**{name: int(value) for name, value in values.items()} | exact), gigahertz
