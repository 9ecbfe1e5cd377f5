"""Times the CUDA kernels against the copy of as many bytes and against one launch a column.

    python -m benchmarks.gpu [--per-column libper_column.so] [--shapes 16x8x1024x1024 ...] [--json FILE]

Every figure is the median of device-event timings. Two ratios say how good a kernel is, and a third how good the model:

    bandwidth   scheduled bytes / time, over the copy's bytes / time
    schedule    minimum bytes / scheduled bytes (benchmarks/schedule.py)
    predicted   milliseconds by benchmarks/cuda_model.py, for a device that it knows
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch

import spn

from . import machine
from .cuda_model import DEVICES, predict
from .propagate import parse_shape
from .providers import column_launcher
from .schedule import DIRECTIONS, Machine, Pass, kernel_emulator
from .traffic import planned

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


def schedule_of(work: Pass) -> dict:
    """Minimum and scheduled bytes, the plan, and what the model predicts for a device that it knows."""
    properties = torch.cuda.get_device_properties(0)
    device = Machine(
        shared_bytes=getattr(properties, "shared_memory_per_block_optin", 227 << 10) - 512,
        multiprocessors=properties.multi_processor_count,
    )
    traffic = planned(work, device)
    facts = {"minimum_bytes": traffic.minimum, "scheduled_bytes": traffic.scheduled, "plan": traffic.plan}
    for known in DEVICES:
        if known.name.split()[0] in properties.name:
            facts["predicted_ms"] = predict(work, known).milliseconds
    return facts


def can_plan() -> bool:
    """Whether the planner, which is compiled for the emulator, can be had here."""
    try:
        kernel_emulator.load()
    except (ImportError, OSError) as error:
        print(f"no planner, so neither schedules nor predictions: {error}", flush=True)
        return False
    return True


def row_of(name: str, shape, dtype: str, times: list[float], copy: float, schedule: dict) -> dict:
    quarter, median, three_quarters = statistics.quantiles(times, n=4)
    row = {
        "name": name,
        "shape": "x".join(map(str, shape)),
        "dtype": dtype,
        "median_ms": median,
        "quartiles_ms": [quarter, three_quarters],
        "runs": len(times),
        **schedule,
    }
    text = f"{row['shape']:>16} {dtype:>9} {name:42} {median:9.3f} ms"
    if "scheduled_bytes" in schedule:
        row["bandwidth_efficiency"] = schedule["scheduled_bytes"] / (median / 1e3) / copy
        row["schedule_efficiency"] = schedule["minimum_bytes"] / schedule["scheduled_bytes"]
        text += f"  bandwidth {row['bandwidth_efficiency']:5.2f}  schedule {row['schedule_efficiency']:5.2f}"
    if "predicted_ms" in schedule:
        text += f"  predicted {schedule['predicted_ms']:.3f}"
    print(text + f"  {schedule.get('plan', '')}", flush=True)
    return row


def call_of(work: Pass) -> Callable[[], object]:
    """The operator on random tensors."""
    n, channels, height, width = work.shape
    like = {"device": "cuda", "dtype": work.dtype}
    x = torch.randn(work.shape, **like)
    gates = torch.randn(n, work.sweeps, 3, work.groups, height, width, **like)
    source = torch.rand(n, work.sweeps, channels, height, width, **like) if work.source else None
    options = (work.direction, "abs", work.merge)
    forward, backward = torch.ops.spn.propagate.default, torch.ops.spn.propagate_backward.default
    if not work.backward:
        return lambda: forward(x, gates, source, *options, work.save)
    out, winner, saved = forward(x, gates, source, *options, True)
    return lambda: backward(out, x, gates, source, winner, saved, *options)


def passes(shape: tuple[int, ...], dtype: torch.dtype) -> list[Pass]:
    found = [
        Pass(shape, dtype=dtype),
        Pass(shape, dtype=dtype, save=True),
        Pass(shape, dtype=dtype, backward=True),
        *(Pass(shape, direction, dtype) for direction in DIRECTIONS),
        Pass(shape, "left_to_right", dtype, backward=True),
        Pass(shape, "left_to_right", dtype, source=True),
    ]
    if shape[1] > 1:
        found += [Pass(shape, dtype=dtype, backward=b, sharing=min(8, shape[1])) for b in (False, True)]
    return found


def per_column(library: Path, shape, sweeps: int) -> Callable[[], torch.Tensor]:
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
        raise SystemExit(f"the baseline and the kernels disagree: {difference:.1e}")
    return run


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
            machine.write_results(arguments.json, facts, rows)

    planner = can_plan()
    facts["planner"] = planner
    for shape in arguments.shapes:
        for dtype in arguments.dtypes:
            for work in passes(shape, DTYPES[dtype]):
                schedule = schedule_of(work) if planner else {}
                call = call_of(work)
                # Replayed from a graph where launches would take as long as the work.
                timed = graph_of(call) if shape[0] * shape[1] * shape[2] * shape[3] < 1 << 24 else call
                times = event_times([timed], arguments.seconds)[0]
                rows.append(row_of(work.name, shape, dtype, times, copy, schedule))
                save()
                del call, timed
                torch.cuda.empty_cache()
        if arguments.per_column:
            for sweeps in (4, 1):
                run = per_column(arguments.per_column, shape, sweeps)
                label = f"one launch a column, {sweeps} sweep{'s' * (sweeps > 1)}"
                times = event_times([run], arguments.seconds)[0]
                rows.append(row_of(label, shape, "float32", times, copy, {}))
                save()
                del run
                torch.cuda.empty_cache()


if __name__ == "__main__":
    main()
