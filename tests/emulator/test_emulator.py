"""A check that cannot fail is a defect: the emulator sees every fault, and misses every barrier that is taken away."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from cases import Case, check
from kernel_emulator import HERE, ROOT, KernelError, Machine, can_build, load

pytestmark = pytest.mark.skipif(not can_build(), reason="no C++ compiler for the emulator")

FAULTS = {
    "no barrier": "race|nothing wrote",
    "warp barrier only": "race",
    "uninitialised": "nothing wrote",
    "beyond the end": "outside every array",
    "beyond shared": "outside every array",
    "diverges": "different barriers",
    "misaligned": "misaligned",
    "copy not waited for": "never waited for",
    "spoilt copy": None,
    "forgets to write": "not written",
}


def run_fault(name: str, blocks: int = 1, values: int = 64, seed: int = 0) -> tuple[list[int], str]:
    return load().fault(name, blocks, values, seed)


@pytest.mark.parametrize("name", sorted(FAULTS))
def test_sees_a_fault(name: str):
    values, error = run_fault(name)
    if FAULTS[name] is None:
        assert set(values) == {-1}  # poison: the copy had not arrived
    else:
        assert re.search(FAULTS[name], error)


def test_sees_blocks_that_write_the_same_values():
    assert "race" in run_fault("blocks collide", blocks=2)[1]
    assert run_fault("blocks collide", blocks=1) == ([0] * 64, "")


@pytest.mark.parametrize("seed", range(3))
def test_sees_no_fault_where_there_is_none(seed: int):
    assert run_fault("block barrier", blocks=2, values=128, seed=seed) == ([*range(1, 64), 0] * 2, "")
    assert run_fault("copy waited for", seed=seed) == ([7] * 64, "")


# ---- Barriers -------------------------------------------------------------------------------------------------------


def barriers() -> list[str]:
    """Every barrier of the kernels' source, as the emulator names them: forward.h:B0 of the block, W of the warp."""
    found = []
    for path in sorted((ROOT / "csrc" / "cuda").glob("*.h")):
        if path.name == "simt.h":
            continue
        for kind, number in re.findall(r"SPN_(WARP_)?BARRIER\((\d+)\)", path.read_text()):
            found.append(f"{path.name}:{'W' if kind else 'B'}{number}")
    return found


# What misses a barrier: lines across warps, tiles of one stage and two, pairs of values, merges, resident planes.
WITNESSES = [
    (Case(37, 40, channels=1, gate_groups=1), Machine()),
    (Case(40, 70, channels=1, gate_groups=1), Machine(shared_bytes=20000)),
    (Case(70, 40, channels=1, gate_groups=1, dtype=torch.bfloat16), Machine(shared_bytes=20000)),
]


def test_barriers_have_names_of_their_own_and_run():
    names = barriers()
    assert len(names) == len(set(names)) and len(names) >= 8
    seen = set()
    for case, machine in WITNESSES:
        x, gates, source = case.tensors()
        options = (case.direction, case.normalize, case.merge)
        _, winner, checkpoints = machine.propagate(x, gates, source, *options, True)
        seen |= set(machine.last["barriers"])
        machine.propagate_backward(x, x, gates, source, winner, checkpoints, *options)
        seen |= set(machine.last["barriers"])
    assert seen == set(names)


def test_witnesses_are_green_with_every_barrier():
    for case, machine in WITNESSES:
        check(case, machine)


def misses(barrier: str, **watch: bool) -> bool:
    for case, machine in WITNESSES:
        try:
            check(case, replace(machine, without_barrier=barrier, **watch))
        except (KernelError, AssertionError):
            return True
    return False


@pytest.mark.parametrize("barrier", barriers())
def test_misses_a_barrier(barrier: str):
    assert misses(barrier)


# ---- Sanitizers -----------------------------------------------------------------------------------------------------

SANITIZED = """
import sys
sys.path[:0] = [{here!r}, {root!r}]
import torch
from cases import Case, check
from kernel_emulator import Machine

for dtype in (torch.float32, torch.float64, torch.float16, torch.bfloat16):
    check(Case(19, 36, channels=2, gate_groups=1, source_groups=2, dtype=dtype), Machine(sanitize=True))
    check(Case(35, 9, dtype=dtype), Machine(sanitize=True, shared_bytes=9000, threads=32))
    check(Case(18, 33, dtype=dtype, merge="mean"), Machine(sanitize=True, shared_bytes=1000, multiprocessors=99))
print("sanitized runs are clean")
"""


def library_of_compiler(name: str) -> Path | None:
    compiler = os.environ.get("CXX", "g++")
    found = subprocess.run([compiler, f"-print-file-name={name}"], capture_output=True, text=True)
    path = Path(found.stdout.strip())
    return path if found.returncode == 0 and path.is_absolute() and path.exists() else None


def test_address_and_undefined_behaviour_sanitizers():
    # libstdc++ beside it: the sanitizer wants to find its exceptions already there when it starts.
    libraries = [library_of_compiler(name) for name in ("libasan.so", "libstdc++.so.6")]
    if None in libraries:
        pytest.skip("the compiler has no libasan.so")
    environment = dict(os.environ, LD_PRELOAD=" ".join(map(str, libraries)), ASAN_OPTIONS="detect_leaks=0")
    script = SANITIZED.format(here=str(HERE), root=str(ROOT))
    run = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, timeout=600
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert "sanitized runs are clean" in run.stdout
    assert "runtime error" not in run.stderr
