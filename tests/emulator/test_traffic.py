"""The kernels ask for no more memory than their documented schedule moves: a performance test without a GPU."""

from __future__ import annotations

import sys
from dataclasses import replace

import pytest
import torch
from kernel_emulator import DIRECTIONS, ROOT, Machine, can_build

sys.path.insert(0, str(ROOT))

from benchmarks.traffic import H200, ON_CHIP, STREAMING, TARGETS, Traffic, measure, planned

pytestmark = pytest.mark.skipif(not can_build(), reason="no C++ compiler for the emulator")

ALIGNED = (1, 1, 64, 64)
PASSES = [(False, False), (False, True), (True, False)]  # backward, save


def count(direction: str, dtype: torch.dtype, machine: Machine, backward: bool, save: bool) -> Traffic:
    traffic = measure(ALIGNED, direction, dtype, machine, backward=backward, save=save)
    # Less than the schedule would be a schedule that is not the kernels'. Winners are written where they win.
    slack = 2 * 64 * 64 if save else 0
    assert traffic.requested >= traffic.scheduled - slack
    return traffic


@pytest.mark.parametrize("machine", [STREAMING, ON_CHIP], ids=["streaming", "on chip"])
@pytest.mark.parametrize(("backward", "save"), PASSES)
@pytest.mark.parametrize("direction", [*DIRECTIONS, "four_way"])
def test_requested_bytes(direction: str, backward: bool, save: bool, machine: Machine):
    assert count(direction, torch.float32, machine, backward, save).overhead <= 1.10


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64], ids=str)
@pytest.mark.parametrize("backward", [False, True])
def test_requested_bytes_of_other_dtypes(backward: bool, dtype: torch.dtype):
    assert count("four_way", dtype, ON_CHIP, backward, False).overhead <= 1.10


@pytest.mark.parametrize("backward", [False, True])
def test_sweeps_side_by_side(backward: bool):
    machine = replace(ON_CHIP, multiprocessors=1000)
    assert count("four_way", torch.float32, machine, backward, False).overhead <= 1.10


def test_counts_partial_sectors():
    """Rows that begin anywhere in a sector cost more: the count can fail."""
    odd = measure((1, 1, 64, 61), "left_to_right", torch.float32, STREAMING, backward=False)
    assert odd.overhead > 1.5


def test_one_barrier_a_step_and_few_bank_conflicts():
    for direction in DIRECTIONS:
        forward = measure(ALIGNED, direction, torch.float32, STREAMING, backward=False)
        backward = measure(ALIGNED, direction, torch.float32, ON_CHIP, backward=True)
        assert forward.barriers_per_step < 1.1 and backward.barriers_per_step < 2.7
        assert forward.bank_conflicts < 0.15 and backward.bank_conflicts < 0.15


def test_schedules_of_the_target_shapes():
    """What docs/cuda.md says about bytes: changing a plan must be meant."""
    efficiency = {
        (shape, dtype, backward): round(
            planned(shape, "four_way", dtype, H200, backward=backward).schedule_efficiency, 2
        )
        for shape in TARGETS
        for dtype in (torch.float32, torch.bfloat16)
        for backward in (False, True)
    }
    assert efficiency[TARGETS[0], torch.float32, False] >= 0.60
    assert efficiency[TARGETS[0], torch.bfloat16, False] >= 0.60
    assert efficiency[TARGETS[1], torch.float32, False] == 1
    assert efficiency[TARGETS[1], torch.bfloat16, False] == 1
    assert min(efficiency.values()) >= 0.42
