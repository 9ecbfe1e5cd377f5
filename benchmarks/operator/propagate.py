"""Time the operator and measure its memory, compared with memory traffic alone and with other implementations.

    python -m benchmarks.operator.propagate [--device cpu|cuda] [--shapes 1x32x512x512 ...] [--json FILE]

A shape may be followed by options (cases.py). Before timing, every result is compared with the float64 reference on a
small shape. Two baselines show what memory traffic alone takes (comparisons.py):

    copy     copies the same number of bytes into existing memory
    fresh    plain torch that reads the same number of bytes and returns the same amount of newly allocated memory

The baselines, the operator and its rivals are timed alternately within one run, so that ratios hold even if the speed
of the machine drifts. Results are medians with quartiles. Fresh memory is cheap with an allocator that keeps freed
memory; the result file names the allocator. docs/figures/benchmarks.py draws the results.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from .. import machine
from . import comparisons, memory, providers
from .cases import Case, inputs, minimum_traffic, parse_case
from .comparisons import Call

CASES = (
    "1x32x512x512",
    "1x32x512x512:G=1",
    "1x32x256x256",
    "1x32x128x128",
    "1x1x480x854",
    "4x64x56x56",
    "4x64x56x56:G=1",
    "8x384x14x14",
    "8x768x7x7",
    "4x96x56x56:source:sigmoid",
    "8x384x14x14:source:sigmoid",
    "56x576x56x2:source:left_to_right:forward",
)
DTYPES = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
    "float64": torch.float64,
}
LARGE_MEGABYTES = 403  # the gates' gradients at 1x32x512x512


def synchronize(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def time_in_turns(calls: dict[str, Call], device: str, seconds: float) -> dict[str, list[float]]:
    """Time the calls alternately for about `seconds`, at least five times each after a warm-up; return milliseconds."""
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


def check(case: Case, provider: providers.Provider, dtype: torch.dtype, device: str) -> None:
    """Exit if the provider disagrees with the reference."""
    given = inputs(case, dtype, device)
    expected = providers.reference(case)(*(t.double() for t in given))
    error = ((provider(*given).double() - expected).norm() / expected.norm()).item()
    if not error < 50 * torch.finfo(dtype).eps:
        raise SystemExit(
            f"a provider disagrees with the reference: relative error {error:.1e}, {dtype}, {case}"
        )


def small(case: Case) -> Case:
    """Return a small case with the same options, which is quick to check."""
    groups = min(2, case.groups)
    return case._replace(shape=(1, groups * case.shape[1] // case.groups, 37, 50), groups=groups)


def check_all(
    cases: Sequence[Case], rivals: dict[str, providers.Rival], dtype: torch.dtype, device: str
) -> None:
    for case in dict.fromkeys(map(small, cases)):
        check(case, providers.native(case), dtype, device)
    for name, rival in rivals.items():
        if name != "compile":  # the same code as eager, and minutes of compilation for this shape
            check(Case((1, 2, 37, 50), 2), rival.provider, dtype, device)


def forward_of(provider: providers.Provider, given: Sequence[Tensor]) -> Call:
    def forward() -> Tensor:
        with torch.no_grad():
            return provider(*given)

    return forward


def both_of(provider: providers.Provider, given: Sequence[Tensor]) -> Call:
    """Return a forward and a backward pass, as in a training step."""
    given = [t.detach().requires_grad_() for t in given]
    grad = torch.ones_like(given[0])
    return lambda: torch.autograd.grad(provider(*given), given, grad)


def measure_pass(
    name: str, case: Case, given: Sequence[Tensor], rivals: dict[str, providers.Rival], seconds: float
) -> list[dict]:
    """Return one row for the operator and one per rival, for the pass "forward" or "both"."""
    x, device = given[0], given[0].device.type
    call_of = forward_of if name == "forward" else both_of
    provider = providers.native(case)
    traffic = minimum_traffic(name, given)
    returned = comparisons.sizes_returned(name, provider, given)
    calls = {
        "copy": comparisons.copy_of(traffic.total, device),
        "fresh": comparisons.fresh_of(traffic.read, returned, device),
        "native": call_of(provider, given),
    }
    facts = {
        "case": str(case),
        "shape": "x".join(map(str, case.shape)),
        "groups": case.groups,
        "form": "source" if case.source else "SPN",
        "normalize": case.normalize,
        "directions": case.direction or "four_way",
        "dtype": str(x.dtype).removeprefix("torch."),
        "pass": name,
        "minimum_bytes": traffic.total,
        "returned_bytes": sum(returned),
    }
    rows = [row_of("native", facts, time_in_turns(calls, device, seconds), calls["native"], device)]
    for rival, (rival_provider, serves) in rivals.items():
        if not (case.is_plain and serves(name, x)):
            continue
        call = call_of(rival_provider, given)
        try:
            turns = time_in_turns({**calls, rival: call}, device, seconds)
        except providers.TooSlow as error:
            print(f"{case!s:<27} {facts['dtype']:>9} {name:>8} {rival:>10} {error}", flush=True)
            rows.append({"provider": rival, **facts, "unfinished": str(error)})
            continue
        rows.append(row_of(rival, facts, turns, call, device))
    return rows


def row_of(provider: str, facts: dict, turns: dict[str, list[float]], call: Call, device: str) -> dict:
    low, median, high = statistics.quantiles(turns[provider], n=4)
    copy, fresh, native = (statistics.median(turns[name]) for name in ("copy", "fresh", "native"))
    row = {
        "provider": provider,
        **facts,
        "median_ms": median,
        "quartiles_ms": [low, high],
        "runs": len(turns[provider]),
        "copy_ms": copy,
        "fresh_ms": fresh,
        "ratio_to_copy": median / copy,
        "ratio_to_fresh": median / fresh,
        "ratio_to_native": median / native,
        "gigabytes_per_second": facts["minimum_bytes"] / median / 1e6,
        "peak_megabytes": memory.peak_megabytes(call, device),
    }
    peak = "" if row["peak_megabytes"] is None else f" {row['peak_megabytes']:8.1f} MB"
    print(
        f"{row['case']:<27} {row['dtype']:>9} {row['pass']:>8} {provider:>10} {median:10.3f} ms"
        f" {row['gigabytes_per_second']:7.1f} GB/s {row['ratio_to_copy']:8.2f} x copy"
        f" {row['ratio_to_fresh']:8.2f} x fresh {row['ratio_to_native']:8.2f} x native{peak}",
        flush=True,
    )
    return row


def time_multiplication(device: str, seconds: float) -> dict[str, float]:
    """Time the same multiplication into existing and into fresh memory, and print both."""
    turns = time_in_turns(comparisons.multiplication(LARGE_MEGABYTES, device), device, seconds)
    existing, fresh = (statistics.median(turns[name]) for name in ("existing", "fresh"))
    print(
        f"a * 2 of {LARGE_MEGABYTES} MB: {existing:.1f} ms into existing memory, {fresh:.1f} ms into fresh memory"
    )
    return {"megabytes": LARGE_MEGABYTES, "existing_ms": existing, "fresh_ms": fresh}


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
    parser.add_argument(
        "--shapes",
        nargs="+",
        type=parse_case,
        default=[parse_case(text) for text in CASES],
        metavar="CASE",
        help="NxCxHxW and options: G=..., source, a normalization, a direction, forward; "
        "for example 4x96x56x56:source:sigmoid (default: the cases of docs/benchmarks.md)",
    )
    parser.add_argument("--dtypes", nargs="+", choices=tuple(DTYPES), default=["float32", "bfloat16"])
    parser.add_argument("--passes", nargs="+", choices=("forward", "both"), default=["forward", "both"])
    parser.add_argument(
        "--rivals",
        nargs="*",
        choices=("eager", "compile", "numba", "per-column"),
        default=["eager", "numba", "per-column"],
        help="other implementations to time, in float32; by default all but compile, which takes minutes",
    )
    parser.add_argument(
        "--compile-seconds",
        type=int,
        default=180,
        help="time limit of torch.compile per shape (default: %(default)s)",
    )
    parser.add_argument(
        "--per-column", type=Path, help="on CUDA: library built from benchmarks/cuda/per_column.cu"
    )
    parser.add_argument(
        "--seconds", type=float, default=1.0, help="measuring time per result (default: %(default)s)"
    )
    parser.add_argument("--json", type=Path, help="also write the results to this file")
    options = parser.parse_args(argv)

    rivals = rivals_of(options)
    facts = machine.describe(options.device)
    facts["multiplication"] = time_multiplication(options.device, options.seconds)
    if options.device == "cpu":
        facts["matmul_gigaflops"] = machine.matmul_gigaflops()
    rows: list[dict] = []
    for dtype in map(DTYPES.__getitem__, options.dtypes):
        served = rivals if dtype == torch.float32 else {}
        check_all(options.shapes, served, dtype, options.device)
        for case in options.shapes:
            given = inputs(case, dtype, options.device)
            for name in case.passes:
                if name in options.passes:
                    rows += measure_pass(name, case, given, served, options.seconds)
                    if options.json:
                        machine.write_results(options.json, facts, rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
