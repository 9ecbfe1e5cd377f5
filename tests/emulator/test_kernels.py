"""The source of the CUDA kernels on an emulated device, compared with the reference."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from itertools import product

import pytest
import torch
from cases import DIRECTIONS, DTYPES, MERGES, NORMALIZATIONS, Case, check, check_wanted
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kernel_emulator import FAST, SLOW, KernelError, Machine, can_build, problem_of

import spn

pytestmark = [
    pytest.mark.skipif(not can_build(), reason="no C++ compiler for the emulator"),
    pytest.mark.slow,
]

# Everything fits; segments; the smallest shared memory of a device; a little more, for some planes; sweeps side by
# side; channels in parts; chunks of them.
MACHINES = {
    "large": Machine(),
    "few threads": Machine(threads=64),
    "little shared memory": Machine(shared_bytes=(64 << 10) - 512, threads=96),
    "some planes on chip": Machine(shared_bytes=(72 << 10) - 512),
    "sweeps side by side": Machine(multiprocessors=1000, bytes_per_clock=FAST),
    "little room for parts": Machine(multiprocessors=40, threads=64, bytes_per_clock=FAST, least_room=20_000),
    "some multiprocessors": Machine(multiprocessors=8, threads=64, bytes_per_clock=FAST),
}


@st.composite
def cases(draw) -> Case:
    channels = draw(st.sampled_from([1, 2, 3, 4]))
    divisors = [g for g in (1, 2, 3, 4) if channels % g == 0]
    direction = draw(st.sampled_from([*DIRECTIONS, "four_way"]))
    sides = [draw(st.integers(1, 40)), draw(st.integers(1, 40) | st.integers(65, 140))]
    height, width = draw(st.permutations(sides))
    return Case(
        height=height,
        width=width,
        batch=draw(st.integers(1, 2)),
        channels=channels,
        gate_groups=draw(st.sampled_from(divisors)),
        source_groups=draw(st.sampled_from([0, *divisors])),
        direction=direction,
        normalize=draw(st.sampled_from(NORMALIZATIONS)),
        merge=draw(st.sampled_from(MERGES)) if direction == "four_way" else "none",
        dtype=draw(st.sampled_from(DTYPES)),
        seed=draw(st.integers(0, 1000)),
        restart_every=draw(st.sampled_from([0, 0, 0, 1, 2, 3, 5, 8, 16, 24, 48])),
    )


@settings(deadline=None, max_examples=100, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(cases(), st.sampled_from(sorted(MACHINES)), st.integers(0, 1 << 30))
def test_equals_reference(case: Case, machine: str, seed: int):
    check(case, replace(MACHINES[machine], seed=seed))


# Requested gradients of x, gates and source: neither all nor none.
WANTED = [wanted for wanted in product((True, False), repeat=3) if any(wanted) and not all(wanted)]


@settings(deadline=None, max_examples=60, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(cases(), st.sampled_from(sorted(MACHINES)), st.sampled_from(WANTED))
def test_some_gradients_equal_those_of_all(case: Case, machine: str, wanted: tuple[bool, bool, bool]):
    check_wanted(case, MACHINES[machine], wanted)


@pytest.mark.parametrize("machine", sorted(MACHINES))
def test_some_gradients_on_every_machine(machine: str):
    """With and without shared gates and sources."""
    case = Case(37, 42, channels=4, gate_groups=1, source_groups=2)
    check_wanted(case, MACHINES[machine], *WANTED)
    check_wanted(Case(20, 39, source_groups=2, merge="sum"), MACHINES[machine], *WANTED)


FOUR_AND_ONE = [*DIRECTIONS, "four_way"]


def turns(first: Iterable, second: Iterable, third: Sequence) -> list[tuple]:
    """Return triples that cover every pair of values; `first` and `second` must be at least as long as `third`."""
    return [
        (a, b, third[(i + j) % len(third)]) for (i, a), (j, b) in product(enumerate(first), enumerate(second))
    ]


@pytest.mark.parametrize(
    ("direction", "machine", "dtype"), turns(FOUR_AND_ONE, sorted(MACHINES), DTYPES), ids=str
)
def test_every_machine(direction: str, machine: str, dtype: torch.dtype):
    check(
        Case(
            height=37,
            width=42,
            channels=2,
            gate_groups=1,
            source_groups=2 if dtype == torch.float64 else 0,
            direction=direction,
            merge="max" if direction == "four_way" else "none",
            dtype=dtype,
        ),
        MACHINES[machine],
    )


@pytest.mark.parametrize("every", [2, 7, 24])
@pytest.mark.parametrize("direction", ["four_way", "right_to_left", "top_to_bottom"])
def test_sweeps_with_restarts(direction: str, every: int):
    """Sweeps in one piece and in runs of lines (where a restart and a tile coincide) give bitwise equal results."""
    case = Case(
        50,
        70,
        channels=2,
        gate_groups=1,
        source_groups=2,
        direction=direction,
        merge="max" if direction == "four_way" else "none",
        restart_every=every,
    )
    spread = Machine(multiprocessors=1000, bytes_per_clock=FAST)
    for name in ("forward", "backward"):
        assert plan_of(name, case, Machine())["runs"] == 1
        assert (plan_of(name, case, spread)["runs"] > 1) == (every != 7)
    one, *others = (check(case, machine) for machine in (Machine(), Machine(threads=64), spread))
    channels = plan_of("backward", case, Machine())["channels"]
    if plan_of("backward", case, spread)["channels"] == channels:
        assert all(torch.equal(a, b) for other in others for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("normalize", NORMALIZATIONS)
@pytest.mark.parametrize("merge", MERGES)
@pytest.mark.parametrize("source_groups", [0, 1, 2])
def test_every_option(source_groups: int, merge: str, normalize: str):
    check(Case(19, 21, source_groups=source_groups, merge=merge, normalize=normalize), Machine())


@pytest.mark.parametrize(
    "shape",
    [(1, 1), (1, 50), (50, 1), (2, 2), (16, 16), (17, 17), (15, 33), (32, 31), (33, 64), (48, 20), (70, 5)],
    ids=str,
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_edges_of_blocks_and_tiles(shape: tuple[int, int], dtype: torch.dtype):
    check(Case(*shape, channels=1, gate_groups=1, dtype=dtype), Machine())
    check(Case(*shape, channels=1, gate_groups=1, dtype=dtype), Machine(threads=64))


def plan_of(name: str, case: Case, machine: Machine) -> dict:
    shape = (case.batch, case.channels, case.height, case.width)
    options = (case.direction, case.normalize, case.merge, case.gate_groups, case.source_groups)
    options += (case.restart_every,)
    return machine.plan(name, problem_of(shape, case.dtype, *options))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_one_stage(dtype: torch.dtype):
    """Shared memory is too small for the next tile."""
    case = Case(34, 50, channels=2, gate_groups=2, dtype=dtype, source_groups=1)
    for name in ("forward", "backward"):
        machines = (Machine(shared_bytes=size) for size in range(1000, 100000, 1000))
        machine = next(m for m in machines if plan_of(name, case, m)["threads"])
        assert plan_of(name, case, machine)["stages"] == 1
        if name == "backward":
            check(case, machine)
        else:
            x, gates, source = case.tensors()
            options = (case.direction, case.normalize, case.merge, True)
            got, expected = (m.propagate(x, gates, source, *options) for m in (machine, Machine()))
            assert all(torch.equal(a, b) for a, b in zip(got, expected, strict=True))


# Lines of 40 are aligned to vectors in every dtype; for 42 and 37 the alignment depends on the dtype.
@pytest.mark.parametrize(
    ("dtype", "width"),
    [
        *((dtype, width) for dtype in (torch.float32, torch.bfloat16) for width in (40, 42, 37)),
        (torch.float64, 37),
        (torch.float16, 42),
    ],
    ids=str,
)
def test_planes_on_chip_do_not_change_the_result(dtype: torch.dtype, width: int):
    """Keep none, the running sum, x, the argmax and grad on chip: the backward pass is bitwise equal."""
    case = Case(21, width, channels=4, gate_groups=2, source_groups=1, dtype=dtype)
    machines = {}
    for size in range(30_000, 160_000, 250):
        plan = plan_of("backward", case, Machine(shared_bytes=size))
        if plan["channels"] == 2:
            machines.setdefault(plan["resident"], Machine(shared_bytes=size))
    assert set(machines) == set(range(5))
    streamed, *others = (check(case, machines[resident])[2:] for resident in range(5))
    assert all(torch.equal(a, b) for other in others for a, b in zip(other, streamed, strict=True))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_lines_too_long_for_shared_memory(dtype: torch.dtype):
    case = Case(3, 1700, channels=1, gate_groups=1, direction="top_to_bottom", merge="none", dtype=dtype)
    machine = Machine(shared_bytes=(100 << 10) - 512)
    assert not plan_of("backward", case, machine)["carry_in_shared"]
    check(case, machine)


def machine_where(case: Case, holds: Callable[[dict], bool], **changes) -> Machine:
    """Return the first machine whose plan of the backward pass satisfies `holds`."""
    for multiprocessors in (1, 2, 4, 8, 16, 32, 64, 128):
        for bytes_per_clock in (SLOW, FAST):
            machine = Machine(multiprocessors=multiprocessors, bytes_per_clock=bytes_per_clock, **changes)
            if holds(plan_of("backward", case, machine)):
                return machine
    raise LookupError("no machine has such a plan")


@pytest.mark.parametrize("channels", [4, 2, 1])
@pytest.mark.parametrize("source_groups", [0, 1, 2, 4])
def test_channels_that_share_gates(source_groups: int, channels: int):
    """All channels in one block, in parts whose gradients are summed afterwards, or one per block."""
    case = Case(18, 33, channels=4, gate_groups=1, source_groups=source_groups)
    check(case, machine_where(case, lambda plan: plan["channels"] == channels))


@pytest.mark.parametrize(
    ("direction", "dtype", "shape"),
    turns(FOUR_AND_ONE, DTYPES, [(64, 48), (48, 90), (50, 33), (70, 64)]),
    ids=str,
)
def test_parts_in_chunks_of_lines(direction: str, dtype: torch.dtype, shape: tuple[int, int]):
    """Partial sums in chunks, one launch per chunk, are bitwise equal to those without chunks."""
    case = Case(
        *shape,
        channels=4,
        gate_groups=1,
        source_groups=1,
        direction=direction,
        merge="max" if direction == "four_way" else "none",
        dtype=dtype,
    )

    def is_cut(plan: dict) -> bool:
        return plan["chunks"] > 1

    # Three taps and a source per sweep: the parts of blocks with two channels would need 8.
    least_room = 6 * len(case.directions) * shape[0] * shape[1] * (8 if dtype == torch.float64 else 4)
    little = machine_where(case, is_cut, least_room=least_room)
    channels = plan_of("backward", case, little)["channels"]
    much = machine_where(case, lambda plan: not is_cut(plan) and plan["channels"] == channels)
    assert all(torch.equal(a, b) for a, b in zip(check(case, little), check(case, much), strict=True))


def test_a_device_with_too_little_shared_memory_is_an_error():
    x, gates, _ = Case(40, 40).tensors()
    options = ("four_way", "abs", "max")
    out, winner, checkpoints = Machine().propagate(x, gates, None, *options, True)
    little = Machine(shared_bytes=1000)
    with pytest.raises(KernelError, match="too little shared memory"):
        little.propagate(x, gates, None, *options, False)
    with pytest.raises(KernelError, match="too little shared memory"):
        little.propagate_backward(out, x, gates, None, winner, checkpoints, *options)


@pytest.mark.parametrize("machine", ["large", "little shared memory", "sweeps side by side"])
def test_deterministic(machine: str):
    """The order of blocks and threads does not change any bit."""
    case = Case(21, 37, batch=2, channels=4, gate_groups=2, source_groups=1)
    first, second = (check(case, replace(MACHINES[machine], seed=seed)) for seed in (1, 2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("machine", sorted(MACHINES))
def test_tie_goes_to_the_first_direction(machine: str):
    x = torch.randn(1, 1, 9, 20)
    gates = torch.zeros(1, 4, 3, 1, 9, 20)
    m = MACHINES[machine]
    out, winner, checkpoints = m.propagate(x, gates, None, "four_way", "none", "max", True)
    assert torch.equal(out, x)
    assert not winner.any()
    grad = torch.randn_like(x)
    grad_x, grad_gates, _ = m.propagate_backward(
        grad, x, gates, None, winner, checkpoints, "four_way", "none", "max"
    )
    assert torch.equal(grad_x, grad)
    assert not grad_gates[:, 1:].any()


def test_the_maximum_propagates_nan():
    x = torch.zeros(1, 1, 4, 5)
    x[0, 0, 3, 2] = float("nan")
    gates = torch.rand(1, 4, 3, 1, 4, 5)
    expected = spn.reference.propagate_four_way(x, gates).isnan()
    for machine in MACHINES.values():
        out, winner, _ = machine.propagate(x, gates, None, "four_way", "none", "max", True)
        assert torch.equal(out.isnan(), expected)
        assert winner[0, 0, 3, 2] == 0


@pytest.mark.parametrize("normalize", NORMALIZATIONS)
def test_zero_gates_give_no_nan(normalize: str):
    x = torch.ones(1, 1, 6, 6)
    gates = torch.zeros(1, 4, 3, 1, 6, 6)
    out, winner, checkpoints = Machine().propagate(x, gates, None, "four_way", normalize, "max", True)
    assert torch.equal(out, x)  # a constant map is a fixed point
    grads = Machine().propagate_backward(x, x, gates, None, winner, checkpoints, "four_way", normalize, "max")
    assert all(g.isfinite().all() for g in grads if g is not None)


def test_odd_storage_offset_of_half_values():
    """Pairs of 2-byte values can only be accessed together if every array is aligned to a word."""
    flat = torch.randn(1 + 2 * 8 * 12).half()
    x = flat[1:].view(1, 2, 8, 12)
    gates = torch.randn(1, 4, 3, 2, 8, 12).half()
    out, _, _ = Machine().propagate(x, gates, None, "four_way", "abs", "max", False)
    expected = Machine().propagate(x.clone(), gates, None, "four_way", "abs", "max", False)[0]
    assert torch.equal(out, expected)
