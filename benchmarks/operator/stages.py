"""Time single sweeps on one CPU thread: nanoseconds per 16 values of a line, from the caches and from memory.

    python -m benchmarks.operator.stages [--json FILE]

Each direction is timed alone, once with all data in the caches and once with data from memory. torch.sum gives the
time that memory alone needs for a cache line. Results are minima over many calls: the undisturbed speed of this
machine, which is the basis for comparing designs.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import torch

import spn

from .. import machine

IN_CACHE, IN_MEMORY = (1, 1, 128, 512), (1, 8, 512, 512)
STEP = 16  # values: a cache line of float32


def fastest(call: Callable[[], object], seconds: float) -> float:
    """Return the nanoseconds of the fastest call."""
    best, end = float("inf"), time.perf_counter() + seconds
    while time.perf_counter() < end:
        start = time.perf_counter()
        call()
        best = min(best, time.perf_counter() - start)
    return 1e9 * best


def sweep_calls(shape: tuple[int, ...], direction: str) -> dict[str, Callable[[], object]]:
    n, channels, height, width = shape
    x = torch.randn(shape)
    gates = torch.randn(n, 3, channels, height, width)
    x_train, gates_train = x.clone().requires_grad_(), gates.clone().requires_grad_()
    out = spn.propagate(x_train, gates_train, direction, normalize="abs")
    grad = torch.ones_like(out)
    return {
        "forward": lambda: spn.propagate(x, gates, direction, normalize="abs"),
        "backward": lambda: torch.autograd.grad(out, (x_train, gates_train), grad, retain_graph=True),
    }


def overhead(seconds: float) -> dict[str, float]:
    """Return the nanoseconds of a call on a single pixel."""
    return {name: fastest(call, seconds) for name, call in sweep_calls((1, 1, 1, 1), "left_to_right").items()}


def measure(seconds: float) -> list[dict]:
    per_call = overhead(seconds)
    rows = []
    for direction in spn.reference.DIRECTIONS:
        for where, shape in (("caches", IN_CACHE), ("memory", IN_MEMORY)):
            steps = shape[0] * shape[1] * shape[2] * shape[3] / STEP
            for name, call in sweep_calls(shape, direction).items():
                nanoseconds = (fastest(call, seconds) - per_call[name]) / steps
                rows.append({"direction": direction, "pass": name, "from": where, "ns_per_step": nanoseconds})
                print(f"{direction:>14} {name:>8} from {where}: {nanoseconds:6.1f} ns", flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--seconds", type=float, default=2.0, help="measuring time per result (default: %(default)s)"
    )
    parser.add_argument("--json", type=Path, help="also write the results to this file")
    options = parser.parse_args()
    torch.set_num_threads(1)

    facts = machine.describe("cpu")
    facts["call_overhead_ns"] = overhead(options.seconds)
    values = torch.ones(96 << 18)
    facts["ns_per_line_read"] = fastest(lambda: values.sum(), options.seconds) / (values.numel() / STEP)
    print(f"torch.sum, per cache line from memory: {facts['ns_per_line_read']:.1f} ns")
    rows = measure(options.seconds)
    if options.json:
        machine.write_results(options.json, facts, rows)


if __name__ == "__main__":
    main()
