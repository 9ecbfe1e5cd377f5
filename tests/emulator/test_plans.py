"""The CUDA tests reach every kind of plan. Without a GPU, the failure names the cases to add."""

from __future__ import annotations

import pytest
from kernel_emulator import can_build
from plan_kinds import RUNS, all_kinds, kinds_of_plans, proposals, reached, source_of

pytestmark = pytest.mark.skipif(not can_build(), reason="no C++ compiler for the planner")


@pytest.mark.slow
def test_the_cuda_tests_reach_every_kind_of_plan():
    missing = all_kinds() - reached(RUNS).keys()
    assert not missing, "\n".join(
        [
            "no case of tests/spn/cuda_cases.py reaches these kinds of plans:",
            *(", ".join(kind) for kind in sorted(missing)),
            "run tests/emulator/plan_kinds.py --write, or add",
            *(source_of(run).strip() for run in proposals(missing)),
        ]
    )


def test_every_case_has_plans():
    for run in RUNS:
        for dtype in run.dtypes:
            names = {kind[1] for kind in kinds_of_plans(run.case, dtype)}
            assert names == {"forward", "backward"}, run


@pytest.mark.slow
def test_the_search_finds_all_known_kinds():
    """A search that finds too few kinds would accept any cases as complete."""
    words = {word for kind in all_kinds() for word in kind}
    known = ("streamed", "planes on chip", "sweeps side by side", "one stage", "merges in the tensors' dtype")
    known += ("lines carried in shared memory", "lines carried in global memory", "several tasks per block")
    known += tuple(f"shared gates {how}" for how in ("in one block", "in parts", "block by block"))
    known += tuple(f"{count} arrays" for count in range(1, 5)) + tuple(f"pieces of {n}" for n in (1, 2, 4))
    assert set(known) <= words


def test_missing_cases_are_detected():
    """Without long lines or without a source, kinds are missing, and the proposals reach them."""
    for fewer in (
        [run for run in RUNS if max(run.case.shape) < 2000],
        [run for run in RUNS if run.case.source_groups == 0],
    ):
        missing = all_kinds() - reached(fewer).keys()
        assert missing
        assert not missing - reached(proposals(missing)).keys()
