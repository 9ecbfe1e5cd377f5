"""Speed of the four-way operator against the copy of as many bytes, and against what a user would run instead.

    python -m benchmarks.propagate [--device cpu|cuda] [--shapes 1x32x512x512 ...] [--json FILE]

normalize="abs", merge="max", one gate set a channel. Every provider's result is compared with the float64 reference on
a small shape before anything is timed. Copy and provider are timed in turns within one run, so that a ratio holds where
the machine's speed drifts; the figures are medians with quartiles.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

import spn

from . import machine, providers

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


def parse_shape(text: str) -> tuple[int, int, int, int]:
    shape = tuple(int(part) for part in text.split("x"))
    if len(shape) != 4 or min(shape) < 1:
        raise argparse.ArgumentTypeError(f"a shape is NxCxHxW, got {text!r}")
    return shape


def synchronize(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def time_in_turns(functions: list[Callable[[], object]], device: str, seconds: float) -> list[list[float]]:
    """Seconds of each function, called in turns for about `seconds` in all, at least five turns."""
    for function in functions:
        function()
    synchronize(device)
    times: list[list[float]] = [[] for _ in functions]
    end = time.perf_counter() + seconds
    while len(times[0]) < 5 or time.perf_counter() < end:
        for function, measured in zip(functions, times, strict=True):
            start = time.perf_counter()
            function()
            synchronize(device)
            measured.append(time.perf_counter() - start)
    return times


def summary(times: list[float]) -> dict:
    low, median, high = statistics.quantiles(times, n=4)
    return {"median_ms": 1e3 * median, "quartiles_ms": [1e3 * low, 1e3 * high], "runs": len(times)}


def copy_of(total_bytes: int, device: str) -> Callable[[], object]:
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


def passes(
    provider: providers.Provider, x: torch.Tensor, gates: torch.Tensor
) -> dict[str, tuple[int, Callable[[], object]]]:
    """For each pass, the elements it has to move and a call that does it."""
    x_train, gates_train = x.clone().requires_grad_(), gates.clone().requires_grad_()
    grad = torch.ones_like(x)

    def forward() -> None:
        with torch.no_grad():
            provider(x, gates)

    def both() -> None:
        torch.autograd.grad(provider(x_train, gates_train), (x_train, gates_train), grad)

    return {"forward": (FORWARD_ELEMENTS, forward), "both": (FORWARD_ELEMENTS + BACKWARD_ELEMENTS, both)}


def measure(
    shape: tuple[int, ...], dtype: torch.dtype, device: str, rivals: dict, seconds: float
) -> list[dict]:
    x, gates = inputs(shape, dtype, device)
    rows = []
    for name, provider in {"native": providers.native, **rivals}.items():
        for pass_name, (elements, call) in passes(provider, x, gates).items():
            if name == "numba" and (pass_name != "forward" or dtype != torch.float32 or shape[0] != 1):
                continue
            total_bytes = elements * x.numel() * x.element_size()
            copied, own = time_in_turns([copy_of(total_bytes, device), call], device, seconds)
            row = {
                "provider": name,
                "shape": "x".join(map(str, shape)),
                "dtype": str(dtype).removeprefix("torch."),
                "pass": pass_name,
                **summary(own),
                "copy_ms": 1e3 * statistics.median(copied),
                "ratio_to_copy": statistics.median(own) / statistics.median(copied),
                "minimum_bytes": total_bytes,
                "gigabytes_per_second": total_bytes / statistics.median(own) / 1e9,
            }
            rows.append(row)
            print(
                f"{row['shape']:>14} {row['dtype']:>9} {pass_name:>8} {name:>8} {row['median_ms']:10.3f} ms"
                f" {row['gigabytes_per_second']:7.1f} GB/s {row['ratio_to_copy']:8.2f} x copy",
                flush=True,
            )
    return rows


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.propagate", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--shapes", nargs="+", type=parse_shape, default=[parse_shape(s) for s in SHAPES])
    parser.add_argument("--dtypes", nargs="+", choices=tuple(DTYPES), default=["float32", "bfloat16"])
    parser.add_argument(
        "--rivals", nargs="*", choices=("eager", "compile", "numba"), default=["eager", "numba"]
    )
    parser.add_argument("--seconds", type=float, default=2.0, help="time for each figure")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(argv)

    rivals: dict[str, providers.Provider] = {}
    if "eager" in options.rivals:
        rivals["eager"] = providers.eager
    if "compile" in options.rivals:
        rivals["compile"] = torch.compile(providers.eager)
    if "numba" in options.rivals and options.device == "cpu" and (numba := providers.numba_provider()):
        rivals["numba"] = numba

    rows = []
    for dtype in (DTYPES[name] for name in options.dtypes):
        check(providers.native, dtype, options.device)
        if dtype == torch.float32:
            for rival in rivals.values():
                check(rival, dtype, options.device)
        for shape in options.shapes:
            rows += measure(
                shape, dtype, options.device, rivals if dtype == torch.float32 else {}, options.seconds
            )
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(
            json.dumps({"machine": machine.describe(options.device), "rows": rows}, indent=1)
        )
        print(f"wrote {options.json}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
