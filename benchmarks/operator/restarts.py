"""Time a restart every k columns: with restart_every, and by moving the pieces into the batch.

    python -m benchmarks.operator.restarts [--json FILE]

The sweep is the one of GSPN's first stage, in source form from left to right. The pieces of x, gates and source are
copied into the batch, and the pieces of the result back. The compatible layer copies the three maps of gates into one
tensor. All are first compared with the reference and then timed alternately within one run. Results are medians with
quartiles.
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path

import torch
from torch import Tensor

import spn
from spn.compat import GateRecurrent2dnoind

from .. import machine
from .cases import Case, inputs
from .propagate import both_of, forward_of, time_in_turns
from .providers import Provider

CHANNELS, SIDE, COLUMNS = 576, 56, 2  # of GSPN's first stage: C, H and W, k
SHAPES = ((1, CHANNELS, SIDE, SIDE), (2, CHANNELS, SIDE, SIDE))


def restart_every(x: Tensor, gates: Tensor, source: Tensor) -> Tensor:
    return spn.propagate(x, gates, "left_to_right", source=source, restart_every=COLUMNS)


def pieces_in_batch(x: Tensor, gates: Tensor, source: Tensor) -> Tensor:
    def pieces(maps: Tensor) -> Tensor:
        """(N, ..., H, W) -> (N W/k, ..., H, k)"""
        return maps.unflatten(-1, (-1, COLUMNS)).movedim(-2, 1).flatten(0, 1)

    h = spn.propagate(pieces(x), pieces(gates), "left_to_right", source=pieces(source))
    return h.unflatten(0, (x.shape[0], -1)).movedim(1, -2).flatten(-2)


def compatible_layer(x: Tensor, gates: Tensor, source: Tensor) -> Tensor:
    return GateRecurrent2dnoind(COLUMNS)(x, source, *gates.unbind(1))


PROVIDERS: dict[str, Provider] = {
    "restart_every": restart_every,
    "pieces in the batch": pieces_in_batch,
    "spn.compat": compatible_layer,
}


def check(provider: str) -> None:
    """Exit if the provider does not compute the restarts."""
    x, gates, source = (t.double() for t in inputs(case_of((2, 4, 6, 8)), torch.float32, "cpu"))
    expected = spn.reference.propagate(x, gates, "left_to_right", source=source, restart_every=COLUMNS)
    if not torch.allclose(PROVIDERS[provider](x, gates, source), expected, rtol=1e-12, atol=1e-12):
        raise SystemExit(f"{provider} disagrees with the reference")


def case_of(shape: tuple[int, int, int, int]) -> Case:
    return Case(shape, groups=shape[1], source=True, normalize="none", direction="left_to_right")


def measure(shape: tuple[int, int, int, int], name: str, seconds: float) -> list[dict]:
    """Return one row per provider for the pass "forward" or "both"."""
    given = inputs(case_of(shape), torch.float32, "cpu")
    call_of = forward_of if name == "forward" else both_of
    calls = {provider: call_of(PROVIDERS[provider], given) for provider in PROVIDERS}
    times = time_in_turns(calls, "cpu", seconds)
    least = statistics.median(times["restart_every"])
    rows = []
    for provider, milliseconds in times.items():
        low, median, high = statistics.quantiles(milliseconds, n=4)
        row = {"provider": provider, "shape": "x".join(map(str, shape)), "columns": COLUMNS, "pass": name}
        row |= {"median_ms": median, "quartiles_ms": [low, high], "runs": len(milliseconds)}
        rows.append({**row, "ratio_to_restart_every": median / least})
        print(
            f"{row['shape']:>14} {name:>8} {provider:>20} {median:8.1f} ms {median / least:6.2f} x",
            flush=True,
        )
    return rows


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.operator.restarts", description=__doc__.splitlines()[0]
    )
    parser.add_argument(
        "--seconds", type=float, default=20.0, help="measuring time per shape and pass (default: %(default)s)"
    )
    parser.add_argument("--json", type=Path, help="also write the results to this file")
    options = parser.parse_args(argv)

    for provider in PROVIDERS:
        check(provider)
    rows = [
        row
        for shape in SHAPES
        for name in ("forward", "both")
        for row in measure(shape, name, options.seconds)
    ]
    if options.json:
        machine.write_results(options.json, machine.describe("cpu"), rows)


if __name__ == "__main__":
    main()
