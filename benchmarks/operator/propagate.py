"""Speed and memory of the four-way operator beside the copy of as many bytes and what a user would run instead.

    python -m benchmarks.operator.propagate [--device cpu|cuda] [--shapes 1x32x512x512 ...] [--json FILE]

normalize="abs", merge="max", one gate set a channel. Every provider's result is compared with the float64 reference on
a small shape before anything is timed. The copy, the operator and its rivals are timed in turns within one run, so that
a ratio holds where the machine's speed drifts; figures are medians with quartiles. docs/figures/benchmarks.py
draws them.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

import spn

from .. import machine
from . import memory, providers

SHAPES = ("1x32x512x512", "1x1x480x854", "1x32x128x128", "1x32x256x256")
DTYPES = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
    "float64": torch.float64,
}

# Elements a pixel and channel that have to move: 12 gates, x and the result; backward: grad, x, 12 gates in, 13 out.
FORWARD_ELEMENTS = 14
BACKWARD_ELEMENTS = 27

Call = Callable[[], object]


def parse_shape(text: str) -> tuple[int, int, int, int]:
    shape = tuple(int(part) for part in text.split("x"))
    if len(shape) != 4 or min(shape) < 1:
        raise argparse.ArgumentTypeError(f"a shape is NxCxHxW, got {text!r}")
    return shape


def synchronize(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def time_in_turns(calls: dict[str, Call], device: str, seconds: float) -> dict[str, list[float]]:
    """Milliseconds of each call, made in turns for about `seconds` in all, at least five turns after one to warm up."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for call in calls.values():
        call()
    synchronize(device)
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or min(map(len, times.values())) < 5:
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            synchronize(device)
            times[name].append(1e3 * (time.perf_counter() - start))
    return times


def copy_of(total_bytes: int, device: str) -> Call:
    """Copies so many bytes, read and written counted together."""
    source = torch.ones(total_bytes // 2, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return lambda: target.copy_(source)


def inputs(shape: tuple[int, ...], dtype: torch.dtype, device: str) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    n, channels, height, width = shape
    x = torch.randn(shape, generator=generator).to(device, dtype)
    gates = torch.randn(n, 4, 3, channels, height, width, generator=generator).to(device, dtype)
    return x, gates


def check(provider: providers.Provider, dtype: torch.dtype, device: str) -> None:
    """The provider computes the same function, or nothing is timed."""
    x, gates = inputs((1, 2, 37, 50), dtype, device)
    expected = spn.reference.propagate_four_way(x.double(), gates.double(), normalize="abs")
    error = ((provider(x, gates).double() - expected).norm() / expected.norm()).item()
    if not error < 50 * torch.finfo(dtype).eps:
        raise SystemExit(f"a provider is wrong: relative error {error:.1e} in {dtype}")


def forward_of(provider: providers.Provider, x: torch.Tensor, gates: torch.Tensor) -> Call:
    def forward() -> torch.Tensor:
        with torch.no_grad():
            return provider(x, gates)

    return forward


def both_of(provider: providers.Provider, x: torch.Tensor, gates: torch.Tensor) -> Call:
    """Forward and backward of what a training step computes."""
    x, gates = x.clone().requires_grad_(), gates.clone().requires_grad_()
    grad = torch.ones_like(x)
    return lambda: torch.autograd.grad(provider(x, gates), (x, gates), grad)


def measure_pass(
    name: str, shape, dtype: torch.dtype, device: str, rivals: dict[str, providers.Rival], seconds: float
) -> list[dict]:
    """One row for the operator and one for each rival, of the pass "forward" or "both"."""
    call_of = forward_of if name == "forward" else both_of
    elements = FORWARD_ELEMENTS + (0 if name == "forward" else BACKWARD_ELEMENTS)
    x, gates = inputs(shape, dtype, device)
    total_bytes = elements * x.numel() * x.element_size()
    native = call_of(providers.native, x, gates)
    copy = copy_of(total_bytes, device)
    times = time_in_turns({"copy": copy, "native": native}, device, seconds)
    facts = {
        "shape": "x".join(map(str, shape)),
        "dtype": str(dtype).removeprefix("torch."),
        "pass": name,
        "minimum_bytes": total_bytes,
    }
    own = statistics.median(times["native"])
    rows = [row_of("native", facts, times["native"], statistics.median(times["copy"]), own, native, device)]
    for rival, (provider, serves) in rivals.items():
        if not serves(name, x):
            continue
        try:
            call = call_of(provider, x, gates)
            turns = time_in_turns({"copy": copy, "native": native, rival: call}, device, seconds)
        except providers.TooSlow as error:
            print(f"{facts['shape']:>14} {facts['dtype']:>9} {name:>8} {rival:>10} {error}", flush=True)
            rows.append({"provider": rival, **facts, "unfinished": str(error)})
            continue
        own = statistics.median(turns["native"])
        rows.append(row_of(rival, facts, turns[rival], statistics.median(turns["copy"]), own, call, device))
    return rows


def row_of(
    provider: str, facts: dict, times: list[float], copy: float, native: float, call: Call, device: str
) -> dict:
    low, median, high = statistics.quantiles(times, n=4)
    row = {
        "provider": provider,
        **facts,
        "median_ms": median,
        "quartiles_ms": [low, high],
        "runs": len(times),
        "copy_ms": copy,
        "ratio_to_copy": median / copy,
        "ratio_to_native": median / native,
        "gigabytes_per_second": facts["minimum_bytes"] / median / 1e6,
        "peak_megabytes": memory.peak_megabytes(call, device),
    }
    peak = "" if row["peak_megabytes"] is None else f" {row['peak_megabytes']:8.1f} MB"
    print(
        f"{row['shape']:>14} {row['dtype']:>9} {row['pass']:>8} {provider:>10} {median:10.3f} ms"
        f" {row['gigabytes_per_second']:7.1f} GB/s {row['ratio_to_copy']:8.2f} x copy"
        f" {row['ratio_to_native']:8.2f} x native{peak}",
        flush=True,
    )
    return row


def rivals_of(options: argparse.Namespace) -> dict[str, providers.Rival]:
    rivals = {
        "eager": lambda: providers.eager_rival(),
        "compile": lambda: providers.compile_rival(options.compile_seconds),
        "numba": lambda: providers.numba_rival() if options.device == "cpu" else None,
        "per-column": lambda: providers.per_column_rival(options.per_column) if options.per_column else None,
    }
    made = {name: make() for name, make in rivals.items() if name in options.rivals}
    return {name: rival for name, rival in made.items() if rival is not None}


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.operator.propagate", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--shapes", nargs="+", type=parse_shape, default=[parse_shape(s) for s in SHAPES])
    parser.add_argument("--dtypes", nargs="+", choices=tuple(DTYPES), default=["float32", "bfloat16"])
    parser.add_argument("--passes", nargs="+", choices=("forward", "both"), default=["forward", "both"])
    parser.add_argument(
        "--rivals",
        nargs="*",
        choices=("eager", "compile", "numba", "per-column"),
        default=["eager", "numba", "per-column"],
        help="timed in float32; torch.compile takes minutes and is left out unless named",
    )
    parser.add_argument(
        "--compile-seconds", type=int, default=180, help="patience with torch.compile, a shape"
    )
    parser.add_argument(
        "--per-column", type=Path, help="on CUDA, library built from benchmarks/cuda/per_column.cu"
    )
    parser.add_argument("--seconds", type=float, default=2.0, help="time for each figure")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(argv)

    rivals = rivals_of(options)
    facts = machine.describe(options.device)
    if options.device == "cpu":
        facts["matmul_gigaflops"] = machine.matmul_gigaflops()
    rows: list[dict] = []
    for name in options.dtypes:
        dtype = DTYPES[name]
        check(providers.native, dtype, options.device)
        if dtype == torch.float32:
            for rival in rivals:
                if rival != "compile":  # what eager computes, and minutes for a shape of its own
                    check(rivals[rival].provider, dtype, options.device)
        for shape in options.shapes:
            for pass_name in options.passes:
                served = rivals if dtype == torch.float32 else {}
                rows += measure_pass(pass_name, shape, dtype, options.device, served, options.seconds)
                if options.json:
                    machine.write_results(options.json, facts, rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
