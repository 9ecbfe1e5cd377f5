"""What a GPU should take for a pass, by count alone: ``python -m benchmarks.cuda_model [--markdown]``.

Three lower bounds, of which the largest is the prediction. Two stages of tiles let them overlap; where blocks have one
stage, memory and the others add up.

    memory       scheduled bytes / what a copy of memory reaches
    instructions every position of every line (segments' halos too) x instructions / 32 threads a warp / 4 schedulers,
                 of the busiest multiprocessor
    chain        the lines that a block walks, one after the other, x the latency of a line

Counted: bytes and plans (benchmarks/schedule.py), instructions (benchmarks/instructions.py). Assumed: what says so.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass

import torch

from .schedule import DIRECTIONS, Machine, Pass, bytes_of, plan_of
from .traffic import TARGETS, print_table

SCHEDULERS = 4
HALO = 16
# Of a position and line, by benchmarks/instructions.py on sm_90, for pieces of 4, 2 and 1 values: the mean of vertical
# and horizontal sweeps.
INSTRUCTIONS = {
    ("forward", torch.float32): {4: 47, 2: 55, 1: 76},
    ("forward", torch.bfloat16): {4: 54, 2: 63, 1: 106},
    ("backward", torch.float32): {4: 126, 2: 168, 1: 228},
    ("backward", torch.bfloat16): {4: 140, 2: 163, 1: 258},
    ("backward on chip", torch.float32): {4: 136, 2: 158, 1: 178},
    ("backward on chip", torch.bfloat16): {4: 150, 2: 164, 1: 189},
}
BRANCHES = 1.1  # assumed: what those counts leave out
REGISTERS = 168  # of a thread, at most
# Assumed: shared memory there and back, four dependent multiply-adds, a barrier. The backward pass walks lines twice.
STEP_CYCLES = {False: 110, True: 2 * 130}
TILE_CYCLES = 300  # assumed: what a tile's first and last lines wait for
COPY = 0.88  # assumed: of the data sheet's bandwidth
LAUNCH_MICROSECONDS = 3  # assumed: of each kernel after the first


@dataclass(frozen=True)
class Device:
    name: str
    multiprocessors: int
    shared_kilobytes: int
    terabytes: float  # a second, data sheet
    gigahertz: float

    def machine(self) -> Machine:
        return Machine(shared_bytes=(self.shared_kilobytes << 10) - 512, multiprocessors=self.multiprocessors)


DEVICES = (
    Device("A100 80GB", 108, 163, 2.04, 1.41),
    Device("H100 SXM", 132, 227, 3.35, 1.75),
    Device("H200", 132, 227, 4.80, 1.75),
)


@dataclass(frozen=True)
class Prediction:
    memory: float  # milliseconds
    instructions: float
    chain: float
    overlap: bool

    @property
    def milliseconds(self) -> float:
        computing = max(self.instructions, self.chain)
        return max(self.memory, computing) if self.overlap else self.memory + computing

    @property
    def limit(self) -> str:
        return max(("memory", "instructions", "chain"), key=lambda name: getattr(self, name))


def walked(work: Pass, threads: int) -> list[tuple[int, int]]:
    """(lines x segments, positions with halos) of each sweep."""
    height, width = work.shape[2:]
    sweeps = []
    for name in DIRECTIONS if work.sweeps == 4 else (work.direction,):
        lines, positions = (width, height) if name in DIRECTIONS[:2] else (height, width)
        lines = -(-lines // 16) * 16
        segments = 1 if positions <= threads else -(-positions // (threads - 2 * HALO))
        sweeps.append((lines * segments, positions + 2 * HALO * (segments - 1)))
    return sweeps


def predict(work: Pass, device: Device) -> Prediction:
    plan = plan_of(work, device.machine())
    scheduled = bytes_of(work, plan)[1]
    threads, backward = plan["threads"], work.backward
    n, channels = work.shape[:2]
    sweeps = walked(work, threads)
    together = min(
        (device.shared_kilobytes << 10) // (plan["scratch_bytes"] + 1536),
        65536 // (REGISTERS * threads),
        2048 // threads,
    )
    tasks = n * channels // plan["channels"] * (work.sweeps if plan["split"] else 1)
    per_round = device.multiprocessors * together
    rounds, left = divmod(tasks, per_round)
    # The last round may have fewer blocks on the busiest multiprocessor.
    blocks = rounds * together + -(-left // device.multiprocessors)
    waves = rounds + (left > 0)
    longest = max if plan["split"] else sum
    lines = longest(steps for steps, _ in sweeps) * plan["channels"]
    warps = -(-threads // 32)
    kind = ("backward on chip" if plan["resident"] else "backward") if backward else "forward"
    cycles_a_line = warps * INSTRUCTIONS[kind, work.dtype][plan["piece"]] * BRANCHES / SCHEDULERS
    instructions = blocks * lines * cycles_a_line
    chain = waves * lines * (STEP_CYCLES[backward] + TILE_CYCLES / 16)
    milliseconds = 1 / device.gigahertz / 1e6
    launches = 1 + (plan["split"] and work.merge != "none") + (work.sharing > plan["channels"])
    after = (launches - 1) * LAUNCH_MICROSECONDS / 1e3
    return Prediction(
        scheduled / (device.terabytes * COPY) / 1e9,
        instructions * milliseconds + after,
        chain * milliseconds + after,
        plan["stages"] == 2 or together > 1,
    )


def passes() -> list[Pass]:
    shapes = [
        Pass(shape, dtype=dtype, backward=backward)
        for shape in TARGETS
        for dtype in (torch.float32, torch.bfloat16)
        for backward in (False, True)
    ]
    one = [Pass(TARGETS[0], "left_to_right", dtype, source=True) for dtype in (torch.float32, torch.bfloat16)]
    return [*shapes, *one, Pass(TARGETS[0], backward=True, sharing=8)]


def rows() -> list[dict[str, object]]:
    found = []
    for work in passes():
        row: dict[str, object] = {
            "pass": work.name,
            "shape": "x".join(map(str, work.shape)),
            "dtype": str(work.dtype).removeprefix("torch."),
        }
        for device in DEVICES:
            p = predict(work, device)
            parts = " / ".join(f"{t:.2f}" for t in (p.memory, p.instructions, p.chain))
            row[f"{device.name}, ms"] = f"{p.milliseconds:.2f} ({parts})"
        found.append(row)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--markdown", action="store_true", help="as a table for docs/cuda.md")
    print_table(rows(), parser.parse_args().markdown)


if __name__ == "__main__":
    main()
