"""What the CUDA kernels move, counted without a GPU: ``python -m benchmarks.traffic``.

The kernels run on the emulator of tests/emulator, which counts every access to global memory in sectors of 32 bytes per
warp. Three figures stand side by side:

    minimum    each input read once, each output written once
    scheduled  what the documented schedule moves (docs/cuda.md): sweeps one after the other, x and the running merge
               again for each, unless they stay on chip
    requested  sectors that the kernels ask for, times 32

requested / scheduled is above 1 where sectors are fetched for a part of them; minimum / scheduled is the schedule's
efficiency. Requests that the caches answer are counted like any other.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "emulator"))

from kernel_emulator import DIRECTIONS, Machine, checkpoint_values, problem_of

VALUE_BYTES = {torch.float64: 8, torch.float32: 4, torch.float16: 2, torch.bfloat16: 2}
BLOCK_LINES = 16
ON_CHIP = Machine(check=False, count=True)
# As a plane of 1024 x 1024 on an H200, with its 226 bytes of shared memory a position: too few for the plane.
STREAMING = Machine(check=False, count=True, shared_bytes=64 * 226)


@dataclass(frozen=True)
class Traffic:
    name: str
    shape: tuple[int, int, int, int]
    dtype: str
    plan: str
    minimum: int
    scheduled: int
    requested: int
    barriers_per_step: float
    bank_conflicts: float  # passes over shared memory beyond one, per access of a warp

    @property
    def overhead(self) -> float:
        return self.requested / self.scheduled

    @property
    def schedule_efficiency(self) -> float:
        return self.minimum / self.scheduled


def forward_bytes(
    shape, direction: str, dtype: torch.dtype, merge: str, save: bool, plan: dict
) -> tuple[int, int]:
    """(minimum, scheduled) of a forward pass with G = C and no source."""
    n, c, height, width = shape
    values, value = n * c * height * width, VALUE_BYTES[dtype]
    state = 8 if dtype == torch.float64 else 4
    sweeps = 4 if direction == "four_way" else 1
    merges = sweeps > 1 and merge != "none"
    saved = n * c * checkpoint_values(height, width, direction) * state if save else 0
    gates, out = 3 * sweeps * value * values, (1 if merges else sweeps) * value * values
    winner = values if save and merge == "max" else 0
    minimum = gates + value * values + out + saved + winner
    scheduled = gates + out + saved + winner
    scheduled += value * values * (1 if plan["resident"] else sweeps)
    if merges and plan["split"]:
        scheduled += 2 * sweeps * state * values
    elif merges and not plan["resident"]:
        scheduled += 2 * (sweeps - 1) * (value if plan["merges_narrow"] else state) * values
    if merges and winner and not plan["split"]:
        scheduled += 2 * values  # the third and fourth sweep write where they win: at most all of it
    return minimum, scheduled


def backward_bytes(shape, direction: str, dtype: torch.dtype, merge: str, plan: dict) -> tuple[int, int]:
    """(minimum, scheduled) of a backward pass with G = C and no source."""
    n, c, height, width = shape
    values, value = n * c * height * width, VALUE_BYTES[dtype]
    state = 8 if dtype == torch.float64 else 4
    sweeps = 4 if direction == "four_way" else 1
    merges = sweeps > 1 and merge != "none"
    saved = n * c * checkpoint_values(height, width, direction) * state
    gates = 3 * sweeps * value * values
    grads = (1 if merges else sweeps) * value * values
    winner = values if merge == "max" else 0
    minimum = 2 * gates + 2 * value * values + grads + saved + winner
    # A block's tiles but the last are brought in twice: once on the way up, once on the way down.
    again = 0.0
    for name in DIRECTIONS if sweeps == 4 else (direction,):
        lines, positions = (width, height) if name in DIRECTIONS[:2] else (height, width)
        for first in range(0, lines, BLOCK_LINES):
            count = min(BLOCK_LINES, lines - first)
            again += (count - 1) // plan["tile_lines"] * plan["tile_lines"] * positions
    again *= n * c * 4 * value
    scheduled = 2 * gates + saved + sweeps * (2 * value * values + winner) + value * values + int(again)
    if sweeps > 1 and plan["split"]:
        scheduled += 2 * sweeps * state * values
    elif sweeps > 1:
        scheduled += 2 * (sweeps - 1) * state * values
    return minimum, scheduled


def plan_text(plan: dict, backward: bool) -> str:
    where = "split" if plan["split"] else "on chip" if plan["resident"] else "streamed"
    where = "global scratch" if not plan["in_shared"] else where
    stages = "" if backward else f" x {plan['stages']}"
    return f"{where}, {plan['threads']} threads, tiles of {plan['tile_lines']} lines{stages}"


def measure(
    shape: tuple[int, int, int, int],
    direction: str,
    dtype: torch.dtype,
    machine: Machine,
    *,
    backward: bool,
    save: bool = False,
) -> Traffic:
    """Runs one pass on random tensors and counts."""
    generator = torch.Generator().manual_seed(0)
    n, c, height, width = shape
    sweeps = 4 if direction == "four_way" else 1
    merge = "max" if sweeps == 4 else "none"
    x = torch.randn(shape, generator=generator).to(dtype)
    gates = torch.randn(n, sweeps, 3, c, height, width, generator=generator).to(dtype)
    out, winner, checkpoints = machine.propagate(x, gates, None, direction, "abs", merge, save or backward)
    if backward:
        machine.propagate_backward(out, x, gates, None, winner, checkpoints, direction, "abs", merge)
    last = machine.last
    if backward:
        minimum, scheduled = backward_bytes(shape, direction, dtype, merge, last)
    else:
        minimum, scheduled = forward_bytes(shape, direction, dtype, merge, save, last)
    steps = sum(
        width if name in DIRECTIONS[:2] else height for name in (DIRECTIONS if sweeps == 4 else (direction,))
    )
    name = ("backward" if backward else "forward, saving" if save else "forward") + f" {direction}"
    return Traffic(
        name,
        shape,
        str(dtype).removeprefix("torch."),
        plan_text(last, backward),
        minimum,
        scheduled,
        32 * (last["sectors_read"] + last["sectors_written"]),
        last["block_barriers"] / (n * c * steps),
        last["shared_passes"] / max(1, last["shared_accesses"]) - 1,
    )


def planned(
    shape: tuple[int, int, int, int], direction: str, dtype: torch.dtype, machine: Machine, *, backward: bool
) -> Traffic:
    """The schedule of a shape too large to emulate: nothing is requested."""
    merge = "max" if direction == "four_way" else "none"
    plan = machine.plan(
        "backward" if backward else "forward", problem_of(shape, dtype, direction, "abs", merge, shape[1], 0)
    )
    if backward:
        minimum, scheduled = backward_bytes(shape, direction, dtype, merge, plan)
    else:
        minimum, scheduled = forward_bytes(shape, direction, dtype, merge, False, plan)
    name = ("backward" if backward else "forward") + f" {direction}"
    dtype_name = str(dtype).removeprefix("torch.")
    return Traffic(name, shape, dtype_name, plan_text(plan, backward), minimum, scheduled, 0, 0.0, 0.0)


def table(width: int, dtypes: tuple[torch.dtype, ...] = (torch.float32, torch.bfloat16)) -> list[Traffic]:
    shape = (1, 1, 64, width)
    rows = []
    for dtype in dtypes:
        for direction in DIRECTIONS:
            rows.append(measure(shape, direction, dtype, STREAMING, backward=False))
        rows.append(measure(shape, "four_way", dtype, STREAMING, backward=False))
        rows.append(measure(shape, "four_way", dtype, ON_CHIP, backward=False))
        rows.append(measure(shape, "four_way", dtype, ON_CHIP, backward=False, save=True))
        for direction in (*DIRECTIONS, "four_way"):
            rows.append(measure(shape, direction, dtype, STREAMING, backward=True))
        rows.append(measure(shape, "four_way", dtype, ON_CHIP, backward=True))
    return rows


def print_rows(rows: list[Traffic]) -> None:
    print(
        f"{'pass':34} {'dtype':9} {'minimum':>9} {'scheduled':>9} {'requested':>9} {'req/sched':>9} "
        f"{'min/sched':>9} {'barriers':>8} {'conflicts':>9}  plan"
    )
    for r in rows:
        print(
            f"{r.name:34} {r.dtype:9} {r.minimum:9} {r.scheduled:9} {r.requested:9} {r.overhead:9.3f} "
            f"{r.schedule_efficiency:9.3f} {r.barriers_per_step:8.2f} {r.bank_conflicts:9.2f}  {r.plan}"
        )


# Multiprocessors, shared memory of a block in KB, and what a copy of memory can be expected to reach in TB/s: 0.88 of
# the data sheet's bandwidth.
GPUS = {"A100 80GB": (108, 163, 1.79), "H100 SXM": (132, 227, 2.95), "H200": (132, 227, 4.22)}
STEP_NS = 60  # assumed: shared memory there and back, three multiply-adds, a barrier
LATENCY_NS = 800  # assumed: global memory, for a block that waits for it

TARGETS = ((16, 8, 1024, 1024), (32, 32, 128, 128), (1, 1, 480, 854))
H200 = Machine(shared_bytes=(227 << 10) - 512, multiprocessors=132)


def predict(shape, dtype: torch.dtype, gpu: str, *, backward: bool) -> tuple[float, float]:
    """(milliseconds that memory needs, milliseconds that the chain of steps needs) for the four-way maximum."""
    multiprocessors, shared, copy = GPUS[gpu]
    machine = Machine(shared_bytes=(shared << 10) - 512, multiprocessors=multiprocessors)
    name = "backward" if backward else "forward"
    plan = machine.plan(name, problem_of(shape, dtype, "four_way", "abs", "max", shape[1], 0))
    traffic = planned(shape, "four_way", dtype, machine, backward=backward)
    n, c, height, width = shape
    shared_bytes = plan["scratch_bytes"] if plan["in_shared"] else 0
    registers = 104 if backward else 64
    together = max(
        1,
        min(
            (shared << 10) // (shared_bytes + 1536),
            65536 // (registers * plan["threads"]),
            2048 // plan["threads"],
        ),
    )
    tasks = n * c * (4 if plan["split"] else 1)
    waves = -(-tasks // (multiprocessors * together))
    lines = max(height, width) if plan["split"] else 2 * (height + width)
    steps = lines * (2.56 if backward else 1)
    # A block waits for a tile unless the next one arrives meanwhile, and for what it merges with.
    waits = 0 if plan["stages"] == 2 else 1
    if not plan["split"] and not plan["resident"]:
        waits += 1
    chain = waves * (steps * STEP_NS + lines / plan["tile_lines"] * waits * LATENCY_NS)
    return traffic.scheduled / copy / 1e9, chain / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--json", type=Path, help="also write the rows to this file")
    arguments = parser.parse_args()
    rows = []
    for width in (64, 61):
        print(f"\nOne plane of 64 x {width}, bytes")
        counted = table(width)
        print_rows(counted)
        rows += counted
    print("\nSchedules on 132 multiprocessors with 227 KB of shared memory (not run), GB")
    for shape in TARGETS:
        for dtype in (torch.float32, torch.bfloat16):
            for backward in (False, True):
                r = planned(shape, "four_way", dtype, H200, backward=backward)
                rows.append(r)
                size = "x".join(map(str, shape))
                print(
                    f"{size:16} {r.name:20} {r.dtype:9} minimum {r.minimum / 1e9:8.4f} scheduled "
                    f"{r.scheduled / 1e9:8.4f} efficiency {r.schedule_efficiency:.3f}  {r.plan}"
                )
    print(
        "\nModel, four-way: ms that memory needs, ms that the chain of steps needs; the larger is the prediction"
    )
    for gpu in GPUS:
        for shape in TARGETS:
            for dtype in (torch.float32, torch.bfloat16):
                cells = [predict(shape, dtype, gpu, backward=backward) for backward in (False, True)]
                text = "   ".join(f"{memory:8.3f} {chain:8.3f}" for memory, chain in cells)
                print(f"{gpu:10} {'x'.join(map(str, shape)):16} {str(dtype).removeprefix('torch.'):9} {text}")
    if arguments.json:
        arguments.json.write_text(json.dumps([asdict(r) for r in rows], indent=1) + "\n")


if __name__ == "__main__":
    main()
