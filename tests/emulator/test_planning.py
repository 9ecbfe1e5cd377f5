"""Every problem has a plan on every device, with the expected runtime and memory."""

from __future__ import annotations

import sys
from itertools import product

import pytest
import torch
from kernel_emulator import DTYPES, HEADER, ROOT, SLOW, Machine, can_build, problem_of

sys.path.insert(0, str(ROOT))

from benchmarks.cuda.devices import A100, H200, RTX_5090, T4, Device
from benchmarks.cuda.schedule import Pass, plan_of

pytestmark = pytest.mark.skipif(not can_build(), reason="no C++ compiler for the planner")

# Shared memory per block: 64, 163, 227 and 99 KB.
DEVICES = (T4, A100, H200, RTX_5090)
SIDES = (*range(1, 65), *range(66, 700, 7), *(round(700 * 1.12**i) for i in range(30)), 20000)


def shapes(side: int) -> list[tuple[int, int]]:
    return [(side, side), (1, side), (side, 1), (17, side), (side, 40)]


def problems(dtype: torch.dtype) -> list[dict[str, int]]:
    options = product(
        ("left_to_right", "bottom_to_top", "four_way"), ("max", "mean", "none"), (1, 4), (0, 1, 4), SIDES
    )
    return [
        problem_of((1, 4, *plane), dtype, direction, "abs", merge, groups, source_groups)
        for direction, merge, groups, source_groups, side in options
        if (direction == "four_way") or merge == "none"
        for plane in (shapes(side) if side % 3 == 0 else shapes(side)[:1])
    ]


def may_be_beyond_bound(problem: dict[str, int], dtype: torch.dtype, device: Device) -> bool:
    """Return whether the workspace may exceed its bound: few lines allow few chunks, and no block can take several
    channels, because they have separate gates or because 64 KB are too little for float64 sums over channels."""
    alone = problem["gate_groups"] == problem["channels"] or (device is T4 and dtype == torch.float64)
    return alone and min(problem["height"], problem["width"]) < 64


@pytest.mark.parametrize("device", DEVICES, ids=lambda device: device.name)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_problem_has_a_plan(dtype: torch.dtype, device: Device):
    machine = device.machine()
    for problem in problems(dtype):
        for plan in (machine.plan("forward", problem, save=True), machine.plan("backward", problem)):
            assert 32 <= plan["threads"] <= 384, problem
            assert HEADER + plan["scratch_bytes"] <= device.shared_kilobytes << 10, problem
            assert plan["beyond_bound"] == 0 or may_be_beyond_bound(problem, dtype, device), problem


@pytest.mark.parametrize("planes", [133, 136, 140])
@pytest.mark.parametrize(("side", "most"), [(128, 1.75), (1024, 1.1)])
def test_slightly_more_planes_than_multiprocessors_take_one_round(side: int, most: float, planes: int):
    """With one block per multiprocessor, a second round would take as long as the first."""
    plan = plan_of(Pass((1, planes, side, side)), H200.machine())
    assert not plan["split"] and plan["rounds"] == 1 and plan["together"] >= 2
    fewer = plan_of(Pass((1, 132, side, side)), H200.machine())
    assert plan["cycles"] < most * fewer["cycles"]


def test_fewer_planes_than_multiprocessors_have_one_block_each():
    assert plan_of(Pass((16, 8, 1024, 1024)), H200.machine())["together"] == 1


def test_a_line_takes_its_instructions_and_its_latency():
    """12 warps are three per scheduler: 3 x 46 x 1.1 instructions, then about 84 cycles."""
    plan = plan_of(Pass((16, 8, 1024, 1024)), H200.machine())
    segments = -(-1024 // (plan["threads"] - 32))
    assert plan["computing_cycles"] / (4 * 1024 * segments) == pytest.approx(3 * 46 * 1.1 + 65 + 300 / 16)


@pytest.mark.parametrize(
    ("shape", "sharing"),
    [((1, 64, 512, 512), 64), ((8, 8, 1024, 1024), 8), ((2, 32, 300, 700), 16), ((1, 64, 16, 5000), 64)],
    ids=str,
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("device", [A100, H200], ids=lambda device: device.name)
def test_the_backward_workspace_is_bounded(device, dtype, shape, sharing):
    """At most five times x in the dtype of the state: one plane per sweep, and one for all partial sums."""
    for direction in ("four_way", "left_to_right", "top_to_bottom"):
        work = Pass(shape, direction, dtype, backward=True, sharing=sharing)
        plan = plan_of(work, device.machine())
        x = 4 * torch.Size(shape).numel()
        carried = 0 if plan["carry_in_shared"] else 4 * plan["blocks"] * plan["carry_values"]
        sweeps = 4 * x if plan["split"] else x if direction == "four_way" else 0
        assert plan["workspace_bytes"] <= sweeps + max(x, 32 << 20) + carried + 1024


def test_partial_sums_are_split_into_chunks_if_they_do_not_fit():
    plan = plan_of(Pass((1, 64, 512, 512), dtype=torch.bfloat16, backward=True, sharing=64), H200.machine())
    assert plan["chunks"] > 1 and plan["workspace_bytes"] < 350 << 20
    assert plan_of(Pass((1, 4, 64, 64), backward=True, sharing=4), H200.machine())["chunks"] == 1


def test_slow_memory_keeps_planes_on_chip():
    """With slow memory, plans move the fewest bytes."""
    slow = Machine(multiprocessors=1, bytes_per_clock=SLOW)
    for backward in (False, True):
        work = Pass((1, 2, 64, 64), backward=backward)
        assert plan_of(work, slow)["resident"] == (4 if backward else 2)
