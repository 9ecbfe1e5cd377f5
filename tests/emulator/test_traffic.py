"""The kernels ask for no more memory than their documented schedule moves: a performance test without a GPU."""

from __future__ import annotations

import sys
from dataclasses import replace

import pytest
import torch
from kernel_emulator import DIRECTIONS, ROOT, Machine, can_build
from mutations import NO_SPREAD, PLANTED

sys.path.insert(0, str(ROOT))

from benchmarks.schedule import Pass
from benchmarks.traffic import H200, ON_CHIP, STREAMING, TARGETS, Traffic, measure, planned

pytestmark = pytest.mark.skipif(not can_build(), reason="no C++ compiler for the emulator")

ALIGNED = (1, 1, 64, 64)
PASSES = [{}, {"save": True}, {"backward": True}]


def count(work: Pass, machine: Machine) -> Traffic:
    traffic = measure(work, machine)
    # Less than the schedule would be a schedule that is not the kernels'.
    assert traffic.requested >= traffic.scheduled
    return traffic


@pytest.mark.parametrize("machine", [STREAMING, ON_CHIP], ids=["streaming", "on chip"])
@pytest.mark.parametrize("options", PASSES, ids=str)
@pytest.mark.parametrize("direction", [*DIRECTIONS, "four_way"])
def test_requested_bytes(direction: str, options: dict, machine: Machine):
    if options.get("backward") and machine is STREAMING:
        pytest.skip("one plan for both machines")
    assert count(Pass(ALIGNED, direction, **options), machine).overhead <= 1.10


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64], ids=str)
@pytest.mark.parametrize("backward", [False, True])
def test_requested_bytes_of_other_dtypes(backward: bool, dtype: torch.dtype):
    assert count(Pass(ALIGNED, dtype=dtype, backward=backward), ON_CHIP).overhead <= 1.10


@pytest.mark.parametrize("backward", [False, True])
def test_sweeps_side_by_side(backward: bool):
    assert count(Pass(ALIGNED, backward=backward), replace(ON_CHIP, multiprocessors=1000)).overhead <= 1.10


@pytest.mark.parametrize(("multiprocessors", "share"), [(1, 0.6), (8, 1)], ids=["together", "in parts"])
def test_gates_are_read_once_for_the_channels_of_a_block(multiprocessors: int, share: float):
    machine = replace(ON_CHIP, multiprocessors=multiprocessors)
    shared = count(Pass((1, 4, 64, 64), backward=True, sharing=4), machine)
    alone = measure(Pass(ALIGNED, backward=True), ON_CHIP)
    assert shared.overhead <= 1.10
    assert shared.requested < share * 4 * alone.requested
    assert (machine.last["workspace_bytes"] == 0) == (multiprocessors == 1)


@pytest.mark.parametrize("backward", [False, True])
def test_segments_overlap_little(backward: bool):
    traffic = count(Pass((1, 1, 32, 1024), "top_to_bottom", backward=backward), ON_CHIP)
    assert traffic.overhead <= 1.10


def test_counts_partial_sectors():
    """Rows that begin anywhere in a sector cost more: the count can fail. Wide rows of a tile keep it below 1.5."""
    odd = measure(Pass((1, 1, 64, 61), "left_to_right"), STREAMING)
    assert 1.4 < odd.overhead < 1.5


def test_one_barrier_a_step_and_few_bank_conflicts():
    for direction in DIRECTIONS:
        forward = measure(Pass(ALIGNED, direction), STREAMING)
        backward = measure(Pass(ALIGNED, direction, backward=True), ON_CHIP)
        assert forward.barriers_per_step < 1.1 and backward.barriers_per_step < 2.1
        assert forward.bank_conflicts < 0.06 and backward.bank_conflicts < 0.06


def test_without_the_spread_lanes_meet_in_banks():
    machine = replace(STREAMING, build=PLANTED, fault=PLANTED.mutations.index(NO_SPREAD))
    assert measure(Pass(ALIGNED, "left_to_right"), machine).bank_conflicts > 0.5


def test_schedules_of_the_target_shapes():
    """What docs/cuda.md says about bytes: changing a plan must be meant."""
    efficiency = {
        (shape, dtype, backward): planned(
            Pass(shape, dtype=dtype, backward=backward), H200
        ).schedule_efficiency
        for shape in TARGETS
        for dtype in (torch.float32, torch.bfloat16)
        for backward in (False, True)
    }
    assert efficiency[TARGETS[0], torch.float32, False] > 0.60
    assert efficiency[TARGETS[0], torch.bfloat16, False] > 0.60
    assert efficiency[TARGETS[0], torch.float32, True] > 0.68
    assert efficiency[TARGETS[1], torch.float32, False] == 1
    assert efficiency[TARGETS[1], torch.bfloat16, False] == 1
    assert min(efficiency.values()) > 0.42
