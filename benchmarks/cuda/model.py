"""Predict the runtime of a pass on a GPU from counts: ``python -m benchmarks.cuda.model [--markdown]``.

The planner uses the same model, which is implemented in csrc/cuda/cost.h. Bytes and instructions are counted
(benchmarks/cuda/traffic.py, benchmarks/cuda/instructions.py); the latency of a line and of a launch is assumed.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass

import torch

from ..tables import print_table
from .devices import DEVICES, Device
from .schedule import Pass, plan_of, plan_text
from .traffic import TARGETS

# One plane more than a round of multiprocessors can process with one block each.
UNEVEN = ((17, 8, 1024, 1024), (1, 136, 128, 128))


@dataclass(frozen=True)
class Prediction:
    plan: str
    rounds: int
    memory: float  # milliseconds
    computing: float
    milliseconds: float  # the longer of the two per round, plus launches


def predict(work: Pass, device: Device) -> Prediction:
    plan = plan_of(work, device.machine())
    cycles = (plan[name] for name in ("memory_cycles", "computing_cycles", "cycles"))
    return Prediction(plan_text(work, plan), plan["rounds"], *map(device.milliseconds, cycles))


def passes() -> list[Pass]:
    found = [
        Pass(shape, dtype=dtype, backward=backward)
        for shape in (*TARGETS, *UNEVEN)
        for dtype in (torch.float32, torch.bfloat16)
        for backward in (False, True)
    ]
    found += [
        Pass(TARGETS[0], "left_to_right", dtype, source=True) for dtype in (torch.float32, torch.bfloat16)
    ]
    found += [Pass(TARGETS[0], backward=True, sharing=8), Pass((1, 64, 512, 512), backward=True, sharing=64)]
    return found


def rows() -> list[dict[str, object]]:
    found = []
    for work in passes():
        row: dict[str, object] = {
            "pass": work.name,
            "shape": work.size,
            "dtype": work.dtype_name,
        }
        for device in DEVICES:
            p = predict(work, device)
            row[f"{device.name}, ms"] = f"{p.milliseconds:.2f} ({p.memory:.2f} / {p.computing:.2f})"
        row[f"plan on the {DEVICES[-1].name}"] = p.plan
        found.append(row)
    return found


def brief_rows() -> list[dict[str, object]]:
    found: list[dict[str, object]] = []
    for work in passes()[: 4 * len(TARGETS)]:
        times = {device.name: f"{predict(work, device).milliseconds:.2f} ms" for device in DEVICES}
        found.append(
            {
                "N x C x H x W": work.size.replace("x", " x "),
                "pass": "backward" if work.backward else "forward",
                "dtype": work.dtype_name,
                **times,
            }
        )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "--markdown", action="store_true", help="print a Markdown table, as in docs/cuda_kernels.md"
    )
    parser.add_argument(
        "--brief",
        action="store_true",
        help="print only the total times of the target shapes, as in docs/cuda.md",
    )
    arguments = parser.parse_args()
    print_table(brief_rows() if arguments.brief else rows(), arguments.markdown)


if __name__ == "__main__":
    main()
