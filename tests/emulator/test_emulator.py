"""The emulator detects every kind of fault, every mutation of the kernels and every removed barrier."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from cases import check
from kernel_emulator import HERE, ROOT, can_build, load
from mutations import CASES, MUTATIONS, PLANTED, barriers, noticed

pytestmark = [
    pytest.mark.skipif(not can_build(), reason="no C++ compiler for the emulator"),
    pytest.mark.slow,
]

FAULTS = {
    "no barrier": "race|nothing wrote",
    "warp barrier only": "race",
    "uninitialised": "nothing wrote",
    "beyond the end": "outside every array",
    "beyond shared": "outside every array",
    "diverges": "different barriers",
    "misaligned": "misaligned",
    "copy not waited for": "on its way",
    "copy left behind": "never waited for",
    "two copies": "on its way",
    "forgets to write": "not written",
}


def run_fault(name: str, blocks: int = 1, values: int = 64, seed: int = 0) -> tuple[list[int], str]:
    return load().fault(name, blocks, values, seed)


@pytest.mark.parametrize("name", sorted(FAULTS))
def test_detects_a_fault(name: str):
    assert re.search(FAULTS[name], run_fault(name)[1])


def test_detects_blocks_that_write_to_the_same_address():
    assert "race" in run_fault("blocks collide", blocks=2)[1]
    assert run_fault("blocks collide", blocks=1) == ([0] * 64, "")


@pytest.mark.parametrize("seed", range(3))
def test_correct_kernels_have_no_fault(seed: int):
    assert run_fault("block barrier", blocks=2, values=128, seed=seed) == ([*range(1, 64), 0] * 2, "")
    assert run_fault("copy waited for", seed=seed) == ([7] * 64, "")


# ---- Mutations ------------------------------------------------------------------------------------------------------


def test_barriers_have_unique_names_and_are_reached():
    names = barriers()
    assert len(names) == len(set(names)) and len(names) >= 10
    seen, resident = set(), set()
    for case, machine in CASES:
        check(case, machine)
        seen |= set(machine.last["barriers"])
        resident.add(machine.last["resident"])
    assert resident >= {0, 2, 4}
    assert machine.last["blocks"] < case.batch, "several tasks per block"
    assert {name for name in names if name.startswith("backward")} <= seen
    x, gates, _ = CASES[1][0].tensors()
    CASES[1][1].propagate(x, gates, None, "four_way", "abs", "max", True)
    assert {name for name in names if name.startswith("forward")} <= set(CASES[1][1].last["barriers"])


def test_no_error_without_an_active_fault():
    """All faults are compiled in and none is active; test_kernels.py runs the unchanged kernels."""
    assert not list(noticed(build=PLANTED))


@pytest.mark.parametrize("barrier", barriers())
def test_detects_a_removed_barrier(barrier: str):
    assert next(noticed(without_barrier=barrier), None)


@pytest.mark.parametrize("number", range(len(MUTATIONS)), ids=lambda number: MUTATIONS[number].meaning)
def test_detects_a_mutation(number: int):
    assert next(noticed(build=PLANTED, fault=number), None)


# ---- Sanitizers -----------------------------------------------------------------------------------------------------

SANITIZED = """
import sys
sys.path[:0] = [{here!r}, {root!r}]
import torch
from cases import Case, check
from kernel_emulator import Build, Machine

sanitized = Build(sanitize=True)
for dtype in (torch.float32, torch.float64, torch.bfloat16):  # values of 4, 8 and 2 bytes
    check(Case(19, 36, channels=2, gate_groups=1, source_groups=2, dtype=dtype), Machine(build=sanitized))
    check(Case(7, 69, dtype=dtype), Machine(build=sanitized, shared_bytes=65024, threads=64))
    check(Case(21, 30, channels=1, gate_groups=1, dtype=dtype), Machine(build=sanitized, shared_bytes=36 << 10))
    check(Case(18, 33, dtype=dtype, merge="mean"), Machine(build=sanitized, multiprocessors=99, bytes_per_clock=1e9))
print("sanitized runs are clean")
"""


def library_of_compiler(name: str) -> Path | None:
    compiler = os.environ.get("CXX", "g++")
    found = subprocess.run([compiler, f"-print-file-name={name}"], capture_output=True, text=True)
    path = Path(found.stdout.strip())
    return path if found.returncode == 0 and path.is_absolute() and path.exists() else None


def test_address_and_undefined_behaviour_sanitizers():
    # libstdc++ is preloaded, too, because the sanitizer looks up its exception functions at startup.
    libraries = [library_of_compiler(name) for name in ("libasan.so", "libstdc++.so.6")]
    if None in libraries:
        pytest.skip("the compiler has no libasan.so")
    environment = dict(os.environ, LD_PRELOAD=" ".join(map(str, libraries)), ASAN_OPTIONS="detect_leaks=0")
    script = SANITIZED.format(here=str(HERE), root=str(ROOT))
    run = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr
    assert "sanitized runs are clean" in run.stdout
    assert "runtime error" not in run.stderr
