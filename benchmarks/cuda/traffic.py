"""Count the memory traffic of the CUDA kernels without a GPU: ``python -m benchmarks.cuda.traffic [--markdown]``.

The kernels run on the emulator of tests/emulator, which counts every access to global memory in sectors of 32 bytes per
warp. The command compares three numbers of bytes:

    minimum    each input read once, each output written once
    scheduled  bytes of the documented schedule (benchmarks/cuda/schedule.py)
    requested  sectors that the kernels request, times 32

requested / scheduled is above 1 where only a part of a sector is used, and where segments of long lines overlap.
minimum / scheduled is the efficiency of the schedule. Requests that hit a cache are counted like any other.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from ..tables import print_table
from .devices import H200
from .schedule import DIRECTIONS, Machine, Pass, bytes_of, plan_of, plan_text

ON_CHIP = Machine(check=False, count=True)
# Too small for a plane of 64 x 64, large enough for two stages of tiles.
STREAMING = replace(ON_CHIP, shared_bytes=37_000)
TARGETS = ((16, 8, 1024, 1024), (32, 32, 128, 128), (1, 1, 480, 854))


@dataclass(frozen=True)
class Traffic:
    work: Pass
    plan: str
    minimum: int
    scheduled: int
    requested: int = 0  # 0 if not run
    written: int = 0  # part of requested
    barriers_per_step: float = 0.0
    bank_conflicts: float = 0.0  # additional passes over shared memory, per access of a warp

    @property
    def overhead(self) -> float:
        return self.requested / self.scheduled

    @property
    def schedule_efficiency(self) -> float:
        return self.minimum / self.scheduled

    def row(self) -> dict[str, object]:
        return {
            "pass": self.work.name,
            "shape": self.work.size,
            "dtype": self.work.dtype_name,
            "minimum": self.minimum,
            "scheduled": self.scheduled,
            "requested": self.requested,
            "requested/scheduled": round(self.overhead, 3),
            "minimum/scheduled": round(self.schedule_efficiency, 3),
            "barriers per step": round(self.barriers_per_step, 2),
            "bank conflicts": round(self.bank_conflicts, 3),
            "plan": self.plan,
        }

    def table_row(self) -> dict[str, object]:
        kilobytes = self.scheduled / 1e3
        return {
            "pass": self.work.name,
            "dtype": self.work.dtype_name,
            "plan": self.plan,
            "scheduled, KB": f"{kilobytes:.0f}" if kilobytes >= 100 else f"{kilobytes:.1f}",
            "minimum / scheduled": f"{self.schedule_efficiency:.3f}",
            "requested / scheduled": f"{self.overhead:.3f}",
            "barriers per line": f"{self.barriers_per_step:.2f}",
            "bank conflicts": f"{self.bank_conflicts:.3f}",
        }

    def planned_table_row(self) -> dict[str, object]:
        return {
            "pass": self.work.name,
            "shape": self.work.size,
            "dtype": self.work.dtype_name,
            "plan": self.plan,
            "minimum, GB": f"{self.minimum / 1e9:.3f}",
            "scheduled, GB": f"{self.scheduled / 1e9:.3f}",
            "minimum / scheduled": f"{self.schedule_efficiency:.3f}",
        }


def measure(work: Pass, machine: Machine) -> Traffic:
    """Run a pass on random tensors and count its traffic."""
    generator = torch.Generator().manual_seed(0)
    n, channels, height, width = work.shape
    plane = (height, width)
    x = torch.randn(work.shape, generator=generator).to(work.dtype)
    gates = torch.randn(n, work.sweeps, 3, work.groups, *plane, generator=generator).to(work.dtype)
    source = None
    if work.source:
        source = torch.rand(n, work.sweeps, channels, *plane, generator=generator).to(work.dtype)
    options = (work.direction, "abs", work.merge)
    out, winner, saved = machine.propagate(x, gates, source, *options, work.save or work.backward)
    if work.backward:
        machine.propagate_backward(out, x, gates, source, winner, saved, *options, work.wanted)
    last = machine.last
    return Traffic(
        work,
        plan_text(work, last),
        *bytes_of(work, last),
        requested=32 * (last["sectors_read"] + last["sectors_written"]),
        written=32 * last["sectors_written"],
        barriers_per_step=last["block_barriers"] / (n * channels * work.steps),
        bank_conflicts=last["shared_passes"] / max(1, last["shared_accesses"]) - 1,
    )


def planned(work: Pass, machine: Machine) -> Traffic:
    """Return the schedule of a pass that is too large to emulate, without requested bytes."""
    plan = plan_of(work, machine)
    return Traffic(work, plan_text(work, plan), *bytes_of(work, plan))


def counted() -> Iterator[Traffic]:
    for width in (64, 61):
        shape = (1, 1, 64, width)
        for dtype in (torch.float32, torch.bfloat16):
            for direction in (*DIRECTIONS, "four_way"):
                yield measure(Pass(shape, direction, dtype), STREAMING)
                yield measure(Pass(shape, direction, dtype, backward=True), ON_CHIP)
            yield measure(Pass(shape, dtype=dtype), ON_CHIP)
            yield measure(Pass(shape, dtype=dtype, save=True), ON_CHIP)
            yield measure(Pass(shape, dtype=dtype, save=True), STREAMING)
            yield measure(Pass(shape, dtype=dtype, backward=True), STREAMING)
    yield measure(Pass((1, 1, 64, 64), "left_to_right", source=True), ON_CHIP)
    yield measure(Pass((1, 4, 64, 64), backward=True, sharing=4), ON_CHIP)
    for wanted in ((True, False, False), (False, True, False)):
        yield measure(Pass((1, 1, 64, 64), backward=True, wanted=wanted), ON_CHIP)
    yield measure(Pass((1, 1, 32, 1024), "top_to_bottom"), ON_CHIP)
    yield measure(Pass((1, 1, 32, 1024), "top_to_bottom", backward=True), ON_CHIP)


def schedules() -> Iterator[Traffic]:
    for shape in TARGETS:
        for dtype in (torch.float32, torch.bfloat16):
            yield planned(Pass(shape, dtype=dtype), H200.machine())
            yield planned(Pass(shape, dtype=dtype, backward=True), H200.machine())
    yield planned(Pass(TARGETS[0], "left_to_right", source=True), H200.machine())
    yield planned(Pass(TARGETS[0], backward=True, sharing=8), H200.machine())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "--markdown", action="store_true", help="print Markdown tables, as in docs/cuda_kernels.md"
    )
    parser.add_argument("--json", type=Path, help="also write the rows to this file")
    arguments = parser.parse_args()
    of_size: dict[str, list[Traffic]] = {}
    for traffic in counted():
        of_size.setdefault(traffic.work.size, []).append(traffic)
    for size, found in of_size.items():
        print(f"Counted on the emulator, N x C x H x W = {size}:\n")
        print_table([traffic.table_row() for traffic in found], arguments.markdown)
        print()
    large = list(schedules())
    print("Schedules on an H200, not run:\n")
    print_table([traffic.planned_table_row() for traffic in large], arguments.markdown)
    if arguments.json:
        rows = {
            "counted": [traffic.row() for found in of_size.values() for traffic in found],
            "planned": [traffic.row() for traffic in large],
        }
        arguments.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
