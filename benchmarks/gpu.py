"""Times the CUDA kernels against the copy of as many bytes and against one launch a column.

    python -m benchmarks.gpu [--per-column libper_column.so] [--shapes 16x8x1024x1024 ...] [--json FILE]

Every figure is the median of device-event timings in turns with the copy. Two ratios say how good a kernel is:

    bandwidth   scheduled bytes / time, over the copy's bytes / time
    schedule    minimum bytes / scheduled bytes (benchmarks/traffic.py)
"""

from __future__ import annotations

import argparse
import ctypes
import json
import statistics
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import torch

import spn

from . import machine

SHAPES = ("16x8x1024x1024", "32x32x128x128", "1x1x480x854", "1x32x512x512")
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
COPY_BYTES = 4 << 30


def event_times(functions: list[Callable[[], object]], seconds: float) -> list[list[float]]:
    """Milliseconds of each function, called in turns for about `seconds`, 5 to 200 turns after two to warm up."""
    for function in functions * 2:
        function()
    torch.cuda.synchronize()
    times: list[list[float]] = [[] for _ in functions]
    end = time.perf_counter() + seconds
    while len(times[0]) < 5 or (time.perf_counter() < end and len(times[0]) < 200):
        pairs = []
        for function in functions:
            start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            function()
            stop.record()
            pairs.append((start, stop))
        torch.cuda.synchronize()
        for measured, (start, stop) in zip(times, pairs, strict=True):
            measured.append(start.elapsed_time(stop))
    return times


def graph_of(function: Callable[[], object]) -> Callable[[], None]:
    """Replays the function's launches: without the launch gaps of small work."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        function()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        function()
    return graph.replay


def copy_bandwidth() -> float:
    """Bytes a second of a large copy, read and written counted together."""
    source = torch.ones(COPY_BYTES // 2, dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    times = event_times([lambda: target.copy_(source)], 1.0)[0]
    return COPY_BYTES / (statistics.median(times) / 1e3)


def scheduled_bytes(shape: tuple[int, ...], direction: str, dtype: torch.dtype, backward: bool) -> dict:
    """Minimum and scheduled bytes and the plan, from the planner; empty where it cannot be built."""
    try:
        from .traffic import Machine, planned
    except ImportError as error:
        return {"schedule_unknown": str(error)}
    properties = torch.cuda.get_device_properties(0)
    device = Machine(
        shared_bytes=getattr(properties, "shared_memory_per_block_optin", 227 << 10) - 512,
        multiprocessors=properties.multi_processor_count,
    )
    try:
        traffic = planned(shape, direction, dtype, device, backward=backward)
    except (OSError, subprocess.CalledProcessError) as error:  # no compiler for the planner
        return {"schedule_unknown": str(error)}
    return {"minimum_bytes": traffic.minimum, "scheduled_bytes": traffic.scheduled, "plan": traffic.plan}


def row_of(name: str, shape, dtype: torch.dtype, times: list[float], copy: float, schedule: dict) -> dict:
    quarter, median, three_quarters = statistics.quantiles(times, n=4)
    row = {
        "name": name,
        "shape": "x".join(map(str, shape)),
        "dtype": str(dtype).removeprefix("torch."),
        "median_ms": median,
        "quartiles_ms": [quarter, three_quarters],
        "runs": len(times),
        **schedule,
    }
    text = f"{row['shape']:>16} {row['dtype']:>9} {name:32} {median:9.3f} ms"
    if "scheduled_bytes" in schedule:
        row["bandwidth_efficiency"] = schedule["scheduled_bytes"] / (median / 1e3) / copy
        row["schedule_efficiency"] = schedule["minimum_bytes"] / schedule["scheduled_bytes"]
        text += f"  bandwidth {row['bandwidth_efficiency']:5.2f}  schedule {row['schedule_efficiency']:5.2f}"
        text += f"  {schedule['plan']}"
    print(text, flush=True)
    return row


def passes(shape, dtype: torch.dtype) -> dict[str, tuple[Callable[[], object], str, bool]]:
    """name -> (call, direction, backward)."""
    n, channels, height, width = shape
    x = torch.randn(shape, device="cuda", dtype=dtype)
    gates = torch.randn(n, 4, 3, channels, height, width, device="cuda", dtype=dtype)
    options = ("four_way", "abs", "max")
    operator, adjoint = torch.ops.spn.propagate.default, torch.ops.spn.propagate_backward.default
    out, winner, checkpoints = operator(x, gates, None, *options, True)
    one = gates[:, :1].contiguous()
    one_out, one_winner, one_checkpoints = operator(x, one, None, "left_to_right", "abs", "none", True)
    source = torch.rand(n, 1, channels, height, width, device="cuda", dtype=dtype)

    def backward(direction: str, merge: str, grad, gates, winner, checkpoints):
        return adjoint(grad, x, gates, None, winner, checkpoints, direction, "abs", merge)

    calls = {
        "four-way forward": (lambda: operator(x, gates, None, *options, False), "four_way", False),
        "four-way forward, saving": (lambda: operator(x, gates, None, *options, True), "four_way", None),
        "four-way backward": (
            lambda: backward("four_way", "max", out, gates, winner, checkpoints),
            "four_way",
            True,
        ),
    }
    for direction in spn.reference.DIRECTIONS:
        calls[f"{direction} forward"] = (
            lambda direction=direction: operator(x, one, None, direction, "abs", "none", False),
            direction,
            False,
        )
    calls["left_to_right backward"] = (
        lambda: backward("left_to_right", "none", one_out, one, one_winner, one_checkpoints),
        "left_to_right",
        True,
    )
    calls["left_to_right source form"] = (
        lambda: operator(x, one, source, "left_to_right", "none", "none", False),
        "left_to_right",
        None,
    )
    return calls


def per_column(library: Path, shape, sweeps: int) -> Callable[[], torch.Tensor]:
    """One launch a column; float32. Its result is compared before it is timed."""
    function = ctypes.CDLL(str(library)).per_column_forward
    function.argtypes = [ctypes.c_void_p] * 4 + [ctypes.c_int64] * 4 + [ctypes.c_int, ctypes.c_void_p]
    n, channels, height, width = shape
    x = torch.randn(shape, device="cuda")
    gates = torch.randn(n, sweeps, 3, channels, height, width, device="cuda")
    hidden, out = torch.empty_like(x), torch.empty_like(x)

    def run() -> torch.Tensor:
        stream = torch.cuda.current_stream().cuda_stream
        error = function(*(t.data_ptr() for t in (x, gates, hidden, out)), *shape, sweeps, stream)
        if error:
            raise RuntimeError(f"per_column_forward: CUDA error {error}")
        return out

    if sweeps == 4:
        expected = spn.propagate_four_way(x, gates, normalize="abs")
    else:
        expected = spn.propagate(x, gates[:, 0], "left_to_right", normalize="abs")
    difference = ((run() - expected).norm() / expected.norm()).item()
    if not difference < 1e-5:
        raise SystemExit(f"the baseline and the kernels disagree: {difference:.1e}")
    return run


def parse_shape(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split("x"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--per-column", type=Path, help="library built from benchmarks/per_column.cu")
    parser.add_argument("--shapes", nargs="+", type=parse_shape, default=[parse_shape(s) for s in SHAPES])
    parser.add_argument("--dtypes", nargs="+", choices=DTYPES, default=list(DTYPES))
    parser.add_argument("--seconds", type=float, default=1.0, help="time for each figure")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()

    copy = copy_bandwidth()
    print(f"copy: {copy / 1e12:.2f} TB/s", flush=True)
    facts = {**machine.describe("cuda"), "copy_bytes_per_second": copy}
    rows: list[dict] = []

    def save() -> None:
        if arguments.json:
            arguments.json.write_text(json.dumps({"machine": facts, "rows": rows}, indent=1) + "\n")

    for shape in arguments.shapes:
        for name in arguments.dtypes:
            dtype = DTYPES[name]
            calls = passes(shape, dtype)
            small = shape[0] * shape[1] * shape[2] * shape[3] < 1 << 24
            for label, (call, direction, backward) in calls.items():
                schedule = {} if backward is None else scheduled_bytes(shape, direction, dtype, backward)
                timed = graph_of(call) if small else call
                rows.append(
                    row_of(label, shape, dtype, event_times([timed], arguments.seconds)[0], copy, schedule)
                )
                save()
            del calls
            torch.cuda.empty_cache()
        if arguments.per_column:
            for sweeps in (4, 1):
                run = per_column(arguments.per_column, shape, sweeps)
                label = f"one launch a column, {sweeps} sweep{'s' * (sweeps > 1)}"
                times = event_times([run], arguments.seconds)[0]
                rows.append(row_of(label, shape, torch.float32, times, copy, {}))
                save()
                del run
                torch.cuda.empty_cache()


if __name__ == "__main__":
    main()
