"""Bytes that each pass of the CUDA kernels must move, and bytes that its schedule (docs/cuda_kernels.md) moves.

    minimum    each input read once, each output written once
    scheduled  bytes that the plan moves: inputs that all sweeps need are read again for each sweep unless they stay on
               chip, gates once for all channels that a block processes together

The plans and their byte counts come from csrc/cuda/*_plan.h, compiled for the emulator of tests/emulator.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests" / "emulator"))

import kernel_emulator
from kernel_emulator import ALL, DIRECTIONS, Machine, checkpoint_values, problem_of

__all__ = ["ALL", "DIRECTIONS", "Machine", "Pass", "bytes_of", "kernel_emulator", "plan_of", "plan_text"]

BLOCK_LINES = 16  # lines between two checkpoints, and lines per tile
# A plan keeps the first `resident` of these on chip (csrc/cuda/*_memory.h, forward_plan.h).
RESIDENT = {False: ("x", "running merge"), True: ("running sum", "x", "argmax", "grad")}
VALUE_BYTES = {torch.float64: 8, torch.float32: 4, torch.float16: 2, torch.bfloat16: 2}


@dataclass(frozen=True)
class Pass:
    """One call of an operator: "abs" gates, merged by "max" for four directions, not merged for one direction."""

    shape: tuple[int, int, int, int]
    direction: str = "four_way"
    dtype: torch.dtype = torch.float32
    backward: bool = False
    save: bool = False  # forward: save what the backward pass needs
    sharing: int = 1  # channels that share gates
    source: bool = False  # one source per channel
    wanted: tuple[bool, bool, bool] = ALL  # backward: gradients of x, gates and source

    @property
    def size(self) -> str:
        return "x".join(map(str, self.shape))

    @property
    def dtype_name(self) -> str:
        return str(self.dtype).removeprefix("torch.")

    @property
    def sweeps(self) -> int:
        return 4 if self.direction == "four_way" else 1

    @property
    def merge(self) -> str:
        return "max" if self.sweeps == 4 else "none"

    @property
    def groups(self) -> int:
        return self.shape[1] // self.sharing

    @property
    def steps(self) -> int:
        height, width = self.shape[2:]
        lines = {name: width if name in DIRECTIONS[:2] else height for name in DIRECTIONS}
        return sum(lines.values()) if self.sweeps == 4 else lines[self.direction]

    @property
    def name(self) -> str:
        words = ["backward" if self.backward else "forward", "saving" if self.save else ""]
        words += [self.direction, "source form" if self.source else ""]
        words += [f"{self.sharing} channels per gate" if self.sharing > 1 else ""]
        if self.wanted != ALL:
            names = zip(("x", "gates", "source"), self.wanted, strict=True)
            words += ["of " + " and ".join(name for name, asked in names if asked)]
        return " ".join(word for word in words if word)

    def problem(self) -> dict[str, int]:
        source_groups = self.shape[1] if self.source else 0
        return problem_of(
            self.shape, self.dtype, self.direction, "abs", self.merge, self.groups, source_groups
        )


def plan_of(work: Pass, machine: Machine) -> dict[str, Any]:
    name = "backward" if work.backward else "forward"
    return machine.plan(name, work.problem(), save=work.save or work.backward, wanted=work.wanted)


def on_chip(work: Pass, plan: dict[str, Any]) -> tuple[str, ...]:
    return RESIDENT[work.backward][: plan["resident"]]


def plan_text(work: Pass, plan: dict[str, Any]) -> str:
    kept = on_chip(work, plan)
    words = ["split" if plan["split"] else "streamed"]
    if kept:
        words = ["on chip" if kept == RESIDENT[work.backward] else " + ".join(kept) + " on chip"]
    words.append(f"{plan['threads']} threads")
    if plan["stages"] == 1:
        words.append("one stage")
    if plan["channels"] > 1:
        words.append(f"{plan['channels']} channels together")
    return ", ".join(words)


def bytes_of(work: Pass, plan: dict[str, Any]) -> tuple[int, int]:
    """Return the minimum and the scheduled bytes of a pass."""
    n, channels, height, width = work.shape
    planes = n * channels * height * width
    value, state = VALUE_BYTES[work.dtype], 8 if work.dtype == torch.float64 else 4
    merges = work.merge != "none"
    x = value * planes
    gates = 3 * work.sweeps * x // work.sharing
    source = work.sweeps * x * work.source
    out = x * (1 if merges else work.sweeps)
    winner = planes * merges
    states = n * channels * checkpoint_values(height, width, work.direction) * state
    if not work.backward:
        return x + gates + source + out + (winner + states) * work.save, plan["bytes"]
    for_x, for_gates, for_source = work.wanted
    read = gates + source + out + winner + x * (for_gates or for_source) + states * for_gates
    return read + x * for_x + gates * for_gates + source * for_source, plan["bytes"]
