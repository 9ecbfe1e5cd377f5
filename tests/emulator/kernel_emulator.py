"""Builds the CUDA kernels for the emulator with g++, and runs them on torch CPU tensors.

The module is built once for each state of its sources, into build/emulator/<hash>/.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import sysconfig
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import pybind11
import torch
from torch import Tensor

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent
DIRECTIONS = ("left_to_right", "right_to_left", "top_to_bottom", "bottom_to_top")
NORMALIZATIONS = ("none", "abs", "unit", "sigmoid")
MERGES = ("none", "max", "mean", "sum")
DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
CHECKPOINT_LINES = 16

OBJECTS = {
    "kernels": ROOT / "csrc" / "cuda" / "kernels.cu",
    "emulator": HERE / "emulator.cpp",
    "module": HERE / "module.cpp",
}
FLAGS = ["-std=c++17", "-O1", "-g1", "-fPIC", "-Wall", "-Wno-unknown-pragmas", "-DSPN_EMULATOR"]
SANITIZERS = ["-fsanitize=address,undefined", "-fno-sanitize-recover=undefined", "-fno-omit-frame-pointer"]


def sources() -> list[Path]:
    return sorted(
        p
        for folder in (ROOT / "csrc", ROOT / "csrc" / "cuda", HERE)
        for p in folder.iterdir()
        if p.suffix in (".h", ".cu", ".cpp")
    )


def build(sanitize: bool = False) -> Path:
    """The compiled module's path."""
    compiler = os.environ.get("CXX", "g++")
    flags = FLAGS + (SANITIZERS if sanitize else [])
    digest = hashlib.sha256(" ".join([compiler, sys.version, pybind11.__version__, *flags]).encode())
    for path in sources():
        digest.update(path.read_bytes())
    folder = ROOT / "build" / "emulator" / digest.hexdigest()[:16]
    module = folder / f"spn_emulator{sysconfig.get_config_var('EXT_SUFFIX')}"
    if module.exists():
        return module
    folder.mkdir(parents=True, exist_ok=True)
    include = [
        HERE,
        Path(torch.__file__).parent / "include",
        pybind11.get_include(),
        sysconfig.get_path("include"),
    ]
    includes = [f"-I{path}" for path in include]
    for name, source in OBJECTS.items():
        command = [
            compiler,
            *flags,
            *includes,
            "-x",
            "c++",
            "-c",
            str(source),
            "-o",
            str(folder / f"{name}.o"),
        ]
        subprocess.run(command, check=True)
    objects = [str(folder / f"{name}.o") for name in OBJECTS]
    unfinished = module.with_suffix(f".{os.getpid()}")
    subprocess.run([compiler, *flags, "-shared", *objects, "-o", str(unfinished)], check=True)
    unfinished.rename(module)
    return module


def can_build() -> bool:
    return shutil.which(os.environ.get("CXX", "g++")) is not None


@cache
def load(sanitize: bool = False) -> ModuleType:
    spec = importlib.util.spec_from_file_location("spn_emulator", build(sanitize))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class KernelError(Exception):
    """The emulator saw a kernel do what it must not: a race, an access out of bounds, ..."""


@dataclass
class Machine:
    """The device that is emulated, and what is watched while it runs."""

    shared_bytes: int = 227 << 10
    multiprocessors: int = 1  # more planes than half of it: the sweeps of a plane run one after the other
    threads: int = 1024
    seed: int = 0
    check: bool = True
    count: bool = False
    without_barrier: str = ""
    plan_only: bool = False
    sanitize: bool = False
    last: dict[str, Any] = field(default_factory=dict)

    def _options(self) -> dict[str, Any]:
        names = (
            "shared_bytes",
            "multiprocessors",
            "threads",
            "seed",
            "check",
            "count",
            "without_barrier",
            "plan_only",
        )
        return {name: getattr(self, name) for name in names}

    def _run(self, name: str, problem: dict, inputs: dict, outputs: dict) -> None:
        arrays = [
            {key: _numpy(value) for key, value in group.items() if value is not None}
            for group in (inputs, outputs)
        ]
        self.last = getattr(load(self.sanitize), name)(problem, *arrays, self._options())
        if self.last["error"]:
            raise KernelError(self.last["error"])
        if self.check and not self.plan_only and self.last["unwritten"]:
            raise KernelError(f"not written everywhere: {self.last['unwritten']}")

    def plan(self, name: str, problem: dict) -> dict[str, Any]:
        """How a pass ("forward" or "backward") would be cut into blocks; nothing runs."""
        planner = replace(self, plan_only=True)
        planner._run(name, problem, {}, {})
        return planner.last

    def propagate(
        self,
        x: Tensor,
        gates: Tensor,
        source: Tensor | None,
        direction: str,
        normalize: str,
        merge: str,
        save: bool,
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """As torch.ops.spn.propagate: gates (N, D, 3, G, H, W), source (N, D, G_s, H, W)."""
        problem = _problem(x, gates, source, direction, normalize, merge)
        n, channels, height, width = x.shape
        shape = (n, problem["directions"], channels, height, width) if merge == "none" else tuple(x.shape)
        out = torch.empty(shape, dtype=x.dtype)
        winner = torch.empty(x.shape, dtype=torch.uint8) if save and merge == "max" else None
        values = checkpoint_values(height, width, direction)
        state = torch.float64 if x.dtype == torch.float64 else torch.float32
        checkpoints = torch.empty((n, channels, values), dtype=state) if save else None
        self._run(
            "forward",
            problem,
            {"x": x, "gates": gates, "source": source},
            {"out": out, "winner": winner, "checkpoints": checkpoints},
        )
        return out, winner, checkpoints

    def propagate_backward(
        self,
        grad: Tensor,
        x: Tensor,
        gates: Tensor,
        source: Tensor | None,
        winner: Tensor | None,
        checkpoints: Tensor,
        direction: str,
        normalize: str,
        merge: str,
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """As torch.ops.spn.propagate_backward."""
        outputs = {
            "grad_x": torch.empty_like(x),
            "grad_gates": torch.empty_like(gates),
            "grad_source": None if source is None else torch.empty_like(source),
        }
        self._run(
            "backward",
            _problem(x, gates, source, direction, normalize, merge),
            {
                "grad": grad,
                "x": x,
                "gates": gates,
                "source": source,
                "winner": winner,
                "checkpoints": checkpoints,
            },
            outputs,
        )
        return tuple(outputs.values())


def checkpoint_values(height: int, width: int, direction: str) -> int:
    directions = DIRECTIONS if direction == "four_way" else (direction,)
    total = 0
    for name in directions:
        lines, positions = (width, height) if name in DIRECTIONS[:2] else (height, width)
        total += (lines - 1) // CHECKPOINT_LINES * positions
    return total


def problem_of(
    shape: tuple[int, int, int, int],
    dtype: torch.dtype,
    direction: str,
    normalize: str,
    merge: str,
    gate_groups: int,
    source_groups: int,
) -> dict[str, int]:
    """A csrc/problem.h Problem."""
    four = direction == "four_way"
    return {
        "dtype": DTYPES.index(dtype),
        "normalize": NORMALIZATIONS.index(normalize),
        "merge": MERGES.index(merge),
        "first_direction": 0 if four else DIRECTIONS.index(direction),
        "directions": 4 if four else 1,
        "batch": shape[0],
        "channels": shape[1],
        "height": shape[2],
        "width": shape[3],
        "gate_groups": gate_groups,
        "source_groups": source_groups,
    }


def _problem(x, gates, source, direction: str, normalize: str, merge: str) -> dict[str, int]:
    source_groups = 0 if source is None else source.shape[2]
    return problem_of(tuple(x.shape), x.dtype, direction, normalize, merge, gates.shape[3], source_groups)


def _numpy(value: Tensor):
    assert value.is_contiguous()
    if value.dtype == torch.bfloat16:
        value = value.view(torch.int16)
    return value.detach().numpy()
