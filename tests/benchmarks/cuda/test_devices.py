"""The benchmarks and the kernels' planner assume the same constants of a device."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from benchmarks.cuda import devices, schedule

CSRC = Path(__file__).resolve().parents[3] / "csrc"


@pytest.mark.parametrize(
    ("file", "name", "value"),
    [
        ("cuda/limits.h", "kCopyEfficiency", devices.COPY),
        ("cuda/plan.h", "launch_cycles", devices.LAUNCH_CYCLES),
        ("cuda/plan.h", "kHeaderBytes", schedule.kernel_emulator.HEADER),
        ("problem.h", "kCheckpointLines", schedule.BLOCK_LINES),
    ],
)
def test_constants_are_equal(file: str, name: str, value: float):
    (found,) = re.findall(rf"\b{name} = ([\d.]+);", (CSRC / file).read_text())
    assert float(found) == value
