"""The kernels request no more bytes than their documented schedule: a performance test without a GPU."""

from __future__ import annotations

import sys
from dataclasses import replace
from itertools import pairwise, product

import pytest
import torch
from kernel_emulator import DIRECTIONS, FAST, ROOT, SLOW, Machine, Mutation, can_build
from mutations import EVEN_ROWS, NO_SPREAD, PLANTED

sys.path.insert(0, str(ROOT))

from benchmarks.cuda.schedule import Pass, plan_of
from benchmarks.cuda.traffic import H200, ON_CHIP, STREAMING, Traffic, measure, planned

pytestmark = [
    pytest.mark.skipif(not can_build(), reason="no C++ compiler for the emulator"),
    pytest.mark.slow,
]

ALIGNED = (1, 1, 64, 64)
# Slow memory: only bytes matter.
NARROW = replace(H200.machine(), bytes_per_clock=SLOW)
PASSES = [{}, {"save": True}, {"backward": True}]


def count(work: Pass, machine: Machine) -> Traffic:
    traffic = measure(work, machine)
    # Fewer bytes would mean that the kernels use another schedule.
    assert traffic.requested >= traffic.scheduled
    return traffic


@pytest.mark.parametrize("machine", [STREAMING, ON_CHIP], ids=["streaming", "on chip"])
@pytest.mark.parametrize("options", PASSES, ids=str)
@pytest.mark.parametrize("direction", [*DIRECTIONS, "four_way"])
def test_requested_bytes(direction: str, options: dict, machine: Machine):
    traffic = count(Pass(ALIGNED, direction, **options), machine)
    assert traffic.overhead <= 1.10
    assert ("on chip" in traffic.plan) == (machine is ON_CHIP and direction == "four_way")


@pytest.mark.parametrize("options", [{}, {"backward": True}], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_planes_on_chip_move_the_minimum(dtype: torch.dtype, options: dict):
    traffic = count(Pass(ALIGNED, dtype=dtype, **options), ON_CHIP)
    assert traffic.schedule_efficiency == 1
    assert traffic.overhead <= 1.10


@pytest.mark.parametrize("shape", [(32, 32, 112, 112), (32, 32, 96, 96), (32, 32, 61, 103)], ids=str)
@pytest.mark.parametrize("backward", [False, True])
def test_larger_planes_on_chip(backward: bool, shape: tuple[int, int, int, int]):
    for dtype in (torch.float32, torch.bfloat16):
        assert planned(Pass(shape, dtype=dtype, backward=backward), NARROW).schedule_efficiency == 1


def machine_that_keeps(work: Pass, arrays: int) -> Machine:
    """Return a machine with the least shared memory that keeps this many arrays of the backward pass on chip."""
    for size in range(10_000, 230_000, 500):
        machine = replace(ON_CHIP, shared_bytes=size)
        forward, backward = plan_of(replace(work, backward=False, save=True), machine), plan_of(work, machine)
        if forward["threads"] and backward["threads"] and backward["resident"] == arrays:
            return machine
    raise LookupError(f"no machine keeps {arrays} arrays")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_each_array_on_chip_saves_its_bytes(dtype: torch.dtype):
    work = Pass(ALIGNED, dtype=dtype, backward=True)
    scheduled = []
    for arrays in range(5):
        traffic = count(work, machine_that_keeps(work, arrays))
        assert traffic.overhead <= 1.10
        scheduled.append(traffic.scheduled)
    values, value = 64 * 64, dtype.itemsize
    # The running sum is written and read three times; x, the argmax and grad are read once instead of four times.
    saved = [6 * 4 * values, 3 * value * values, 3 * values, 3 * value * values]
    assert [a - b for a, b in pairwise(scheduled)] == saved


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64], ids=str)
@pytest.mark.parametrize("backward", [False, True])
def test_requested_bytes_of_other_dtypes(backward: bool, dtype: torch.dtype):
    assert count(Pass(ALIGNED, dtype=dtype, backward=backward), ON_CHIP).overhead <= 1.10


@pytest.mark.parametrize("backward", [False, True])
def test_sweeps_side_by_side(backward: bool):
    machine = replace(ON_CHIP, multiprocessors=1000, bytes_per_clock=FAST)
    assert count(Pass(ALIGNED, backward=backward), machine).overhead <= 1.10


MASKS = [wanted for wanted in product((True, False), repeat=3) if any(wanted)]


@pytest.mark.parametrize("machine", [STREAMING, ON_CHIP], ids=["streaming", "on chip"])
@pytest.mark.parametrize("wanted", MASKS, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_gradients_that_are_not_requested_move_nothing(dtype: torch.dtype, wanted: tuple, machine: Machine):
    work = Pass(ALIGNED, dtype=dtype, backward=True, source=True, wanted=wanted)
    if machine is STREAMING:
        machine = replace(machine, shared_bytes=45_000)
    traffic = count(work, machine)
    assert traffic.overhead <= 1.10
    if machine is ON_CHIP:  # only the requested gradients are written, once
        assert traffic.schedule_efficiency == 1
        for_x, for_gates, for_source = wanted
        planes = for_x + 12 * for_gates + 4 * for_source
        assert traffic.written == planes * 64 * 64 * dtype.itemsize


@pytest.mark.parametrize("wanted", MASKS[:-1], ids=str)
def test_no_partial_sums_for_gradients_that_are_not_requested(wanted: tuple):
    """With sweeps side by side and channels in parts, an input without gradient needs no workspace."""
    for_x, for_gates, _ = wanted
    work = Pass((1, 4, 64, 64), backward=True, sharing=4, wanted=wanted)
    machine = replace(ON_CHIP, multiprocessors=1000, bytes_per_clock=FAST)
    traffic, plan = count(work, machine), plan_of(work, machine)
    assert plan["split"] and plan["channels"] == 1 and traffic.overhead <= 1.10
    values = 4 * 4 * 64 * 64  # elements of x, for all sweeps
    expected = 4 * values * (for_x + 3 * for_gates)
    assert plan["workspace_bytes"] == pytest.approx(expected, abs=1024)


@pytest.mark.parametrize(("multiprocessors", "share"), [(1, 0.6), (8, 1)], ids=["together", "in parts"])
def test_gates_are_read_once_for_the_channels_of_a_block(multiprocessors: int, share: float):
    machine = replace(
        ON_CHIP, multiprocessors=multiprocessors, bytes_per_clock=SLOW if multiprocessors == 1 else FAST
    )
    alone = measure(Pass(ALIGNED, backward=True), machine)
    shared = count(Pass((1, 4, 64, 64), backward=True, sharing=4), machine)
    assert shared.overhead <= 1.10
    assert shared.requested < share * 4 * alone.requested
    assert (machine.last["workspace_bytes"] == 0) == (multiprocessors == 1)


@pytest.mark.parametrize("backward", [False, True])
def test_segments_overlap_little(backward: bool):
    traffic = count(Pass((1, 1, 32, 1024), "top_to_bottom", backward=backward), ON_CHIP)
    assert traffic.overhead <= 1.10


def test_counts_partial_sectors():
    """Unaligned rows request more sectors, so the count can fail. Wide rows of a tile keep it below 1.5."""
    odd = measure(Pass((1, 1, 64, 61), "left_to_right"), STREAMING)
    assert 1.4 < odd.overhead < 1.5


def test_one_barrier_per_line_and_few_bank_conflicts():
    for direction in DIRECTIONS:
        forward = measure(Pass(ALIGNED, direction), STREAMING)
        backward = measure(Pass(ALIGNED, direction, backward=True), ON_CHIP)
        assert forward.barriers_per_step < 1.1 and backward.barriers_per_step < 2.1
        assert forward.bank_conflicts < 0.06 and backward.bank_conflicts < 0.06
    on_chip = measure(Pass(ALIGNED, backward=True), ON_CHIP)
    assert on_chip.barriers_per_step < 2.1 and on_chip.bank_conflicts < 0.06


@pytest.mark.parametrize("fault", [NO_SPREAD, EVEN_ROWS], ids=lambda fault: fault.file)
def test_without_the_spread_there_are_bank_conflicts(fault: Mutation):
    work, machine, conflicts = {
        NO_SPREAD: (Pass(ALIGNED, "left_to_right"), STREAMING, 0.5),
        EVEN_ROWS: (Pass(ALIGNED, backward=True), ON_CHIP, 0.3),
    }[fault]
    machine = replace(machine, build=PLANTED, fault=PLANTED.mutations.index(fault))
    assert measure(work, machine).bank_conflicts > conflicts


def test_schedules_of_the_target_shapes():
    """What docs/cuda_kernels.md says about bytes: changing a plan must be meant."""
    large, on_chip, one_plane = (16, 8, 1024, 1024), (32, 32, 128, 128), (1, 1, 480, 854)
    efficiency = {
        (shape, dtype, backward): planned(
            Pass(shape, dtype=dtype, backward=backward), H200.machine()
        ).schedule_efficiency
        for shape in (large, on_chip, one_plane)
        for dtype in (torch.float32, torch.bfloat16)
        for backward in (False, True)
    }
    assert efficiency[large, torch.float32, False] > 0.60
    assert efficiency[large, torch.bfloat16, False] > 0.60
    assert efficiency[large, torch.float32, True] > 0.68
    assert efficiency[on_chip, torch.float32, False] == 1
    assert efficiency[on_chip, torch.bfloat16, False] == 1
    # According to the model, several streamed blocks per multiprocessor are faster than one with planes on chip.
    assert efficiency[on_chip, torch.float32, True] > 0.68
    assert efficiency[on_chip, torch.bfloat16, True] > 0.58
    assert min(efficiency.values()) > 0.42
