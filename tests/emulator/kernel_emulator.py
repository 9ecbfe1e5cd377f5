"""Build the CUDA kernels for the emulator with g++, and run them on torch CPU tensors.

A module is built once per state of its sources, in build/emulator/<hash>/.
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent
DIRECTIONS = ("left_to_right", "right_to_left", "top_to_bottom", "bottom_to_top")
NORMALIZATIONS = ("none", "abs", "unit", "sigmoid")
MERGES = ("none", "max", "mean", "sum")
DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
# Gradients of x, gates and source.
ALL = (True, True, True)
CHECKPOINT_LINES = 16
HEADER = 640  # additional bytes of shared memory per block
RESERVED = 1 << 10  # bytes of shared memory that the device reserves per block
# Bytes per clock. With SLOW memory, plans move the fewest bytes; with FAST memory, they spread over multiprocessors.
SLOW, FAST = 0.01, 1e9

CXX = os.environ.get("CXX", "g++")
FLAGS = ["-std=c++17", "-g1", "-fPIC", "-Wall", "-Wno-unknown-pragmas", "-DSPN_EMULATOR"]
SANITIZERS = ["-fsanitize=address,undefined", "-fno-sanitize-recover=undefined", "-fno-omit-frame-pointer"]
EMULATOR = ("scheduler", "memory", "counters", "module")
PLANNER = "spn_planner"


@dataclass(frozen=True)
class Mutation:
    """A fault in csrc/cuda: the expression `old`, which occurs once in the file, is replaced by `new`."""

    file: str
    old: str
    new: str
    meaning: str

    def plant(self, folder: Path, number: int) -> None:
        """Insert both expressions, so that all faults are compiled once and Machine.fault selects one at runtime."""
        path = folder / self.file
        text = path.read_text()
        if text.count(self.old) != 1:
            raise ValueError(
                f"{self.file} must contain {self.old!r} once, found {text.count(self.old)} times"
            )
        choice = f"(::spn::emulator::faulty({number}) ? ({self.new}) : ({self.old}))"
        path.write_text(text.replace(self.old, choice))


@dataclass(frozen=True)
class Build:
    """A build of the kernels: unchanged, with sanitizers, or with faults (then only for float32)."""

    sanitize: bool = False
    mutations: tuple[Mutation, ...] = ()

    @property
    def flags(self) -> list[str]:
        return [*FLAGS, "-O0", *SANITIZERS] if self.sanitize else [*FLAGS, "-O2"]

    def folder(self) -> Path:
        digest = hashlib.sha256(" ".join([CXX, *self.flags, sys.version, str(self)]).encode())
        for path in sources():
            digest.update(path.read_bytes())
        return ROOT / "build" / "emulator" / digest.hexdigest()[:16]

    def module(self, name: str = "spn_emulator") -> Path:
        """Return the compiled module; one process builds it while others wait."""
        module = self.folder() / f"{name}{sysconfig.get_config_var('EXT_SUFFIX')}"
        module.parent.mkdir(parents=True, exist_ok=True)
        with open(module.parent / f"{name}.lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not module.exists():
                objects = self._planner(module.parent) if name == PLANNER else self._objects(module.parent)
                unfinished = module.with_suffix(".unfinished")
                subprocess.run(
                    [CXX, *self.flags, "-shared", *map(str, objects), "-o", str(unfinished)], check=True
                )
                unfinished.rename(module)
        return module

    def _planner(self, folder: Path) -> list[Path]:
        planner = folder / "planner.o"
        _compile({planner: HERE / "planner.cpp"}, self.flags)
        return [planner]

    def _objects(self, folder: Path) -> list[Path]:
        kernels = folder / "kernels.o"
        if not self.mutations:
            objects = {folder / f"{name}.o": HERE / f"{name}.cpp" for name in EMULATOR}
            _compile({kernels: ROOT / "csrc" / "cuda" / "kernels.cu", **objects}, self.flags)
            return [kernels, *objects]
        with tempfile.TemporaryDirectory() as copy:
            csrc = Path(copy) / "csrc"
            shutil.copytree(ROOT / "csrc", csrc)
            for number, mutation in enumerate(self.mutations):
                mutation.plant(csrc / "cuda", number)
            # The include declares `faulty` in files that do not include the emulator.
            flags = [*FLAGS, "-O1", "-w", "-DSPN_ONLY_FLOAT32", "-include", "simt_emulator.h"]
            _compile({kernels: csrc / "cuda" / "kernels.cu"}, flags)
        sound = Build().module().parent
        return [kernels, *(sound / f"{name}.o" for name in EMULATOR)]


def sources() -> list[Path]:
    return sorted(
        p
        for folder in (ROOT / "csrc", ROOT / "csrc" / "cuda", HERE)
        for p in folder.iterdir()
        if p.suffix in (".h", ".cu", ".cpp")
    )


def _compile(objects: dict[Path, Path], flags: list[str]) -> None:
    import pybind11

    include = [
        HERE,
        Path(torch.__file__).parent / "include",
        pybind11.get_include(),
        sysconfig.get_path("include"),
    ]
    command = [CXX, *flags, *(f"-I{path}" for path in include), "-x", "c++", "-c"]
    compilers = [subprocess.Popen([*command, str(source), "-o", str(o)]) for o, source in objects.items()]
    statuses = [compiler.wait() for compiler in compilers]
    if any(statuses):
        raise OSError("the emulator could not be compiled")


def can_build() -> bool:
    return shutil.which(CXX) is not None


@cache
def load(build: Build = Build(), name: str = "spn_emulator") -> ModuleType:
    module = build.module(name)
    # The name must be unique, because pybind11 returns the first module with the same name.
    spec = importlib.util.spec_from_file_location(f"{module.parent.name}.{name}", module)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class KernelError(Exception):
    """The emulator detected an error of a kernel, such as a race or an access out of bounds."""


@dataclass
class Machine:
    """The emulated device, and the checks that are made while it runs."""

    shared_bytes: int = (227 << 10) - 512
    multiprocessors: int = (
        1  # with more planes than half of this, the sweeps of a plane run one after another
    )
    threads: int = 1024
    shared_of_multiprocessor: int = 0  # too small for two blocks
    shared_reserved: int = RESERVED
    bytes_per_clock: float = SLOW
    least_room: int = 32 << 20  # bytes that partial sums may always use
    launch_cycles: float = 0
    blocks: int = 1 << 30  # per launch
    seed: int = 0
    check: bool = True
    count: bool = False
    without_barrier: str = ""
    fault: int = -1  # index of the active fault in build.mutations
    build: Build = Build()
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
            "fault",
        )
        return {name: getattr(self, name) for name in names} | {
            "shared_of_multiprocessor": self.shared_of_multiprocessor,
            "shared_reserved": self.shared_reserved,
            "least_room": self.least_room,
            "launch_cycles": self.launch_cycles,
            "blocks": self.blocks,
            "bytes_per_clock": self.bytes_per_clock,
        }

    def _run(self, name: str, problem: dict, inputs: dict, outputs: dict) -> None:
        arrays = [
            {key: _numpy(value) for key, value in group.items() if value is not None}
            for group in (inputs, outputs)
        ]
        self.last = getattr(load(self.build), name)(problem, *arrays, self._options())
        if self.last["error"]:
            raise KernelError(self.last["error"])
        if self.check and self.last["unwritten"]:
            raise KernelError(f"not written everywhere: {self.last['unwritten']}")

    def plan(
        self,
        name: str,
        problem: dict,
        save: bool = False,
        offset: int = 0,
        wanted: tuple[bool, bool, bool] = ALL,
    ) -> dict[str, Any]:
        """Return the plan of a pass ("forward" or "backward"), without running it or building kernels.

        `save`: whether the forward pass saves tensors for the backward pass. `wanted`: the gradients that the backward
        pass computes. `offset`: storage offset of the inputs, in values.
        """
        planner = load(Build(), PLANNER)
        if name == "forward":
            return planner.forward(problem, self._options(), save, offset)
        return planner.backward(problem, self._options(), wanted, offset)

    def propagate(
        self,
        x: Tensor,
        gates: Tensor,
        source: Tensor | None,
        direction: str,
        normalize: str,
        merge: str,
        save: bool,
        restart_every: int = 0,
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Run the forward pass like torch.ops.spn.propagate: gates (N, D, 3, G, H, W), source (N, D, G_s, H, W)."""
        problem = _problem(x, gates, source, direction, normalize, merge, restart_every)
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
        wanted: tuple[bool, bool, bool] = ALL,
        restart_every: int = 0,
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """Run the backward pass like torch.ops.spn.propagate_backward, only with the inputs that `wanted` needs."""
        for_x, for_gates, for_source = wanted
        outputs = {
            "grad_x": torch.empty_like(x) if for_x else None,
            "grad_gates": torch.empty_like(gates) if for_gates else None,
            "grad_source": torch.empty_like(source) if for_source and source is not None else None,
        }
        self._run(
            "backward",
            _problem(x, gates, source, direction, normalize, merge, restart_every),
            {
                "grad": grad,
                "x": x if for_gates or for_source else None,
                "gates": gates,
                "source": source,
                "winner": winner,
                "checkpoints": checkpoints if for_gates else None,
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
    restart_every: int = 0,
) -> dict[str, int]:
    """Return the Problem of csrc/problem.h."""
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
        "restart_every": restart_every,
    }


def _problem(
    x, gates, source, direction: str, normalize: str, merge: str, restart_every: int
) -> dict[str, int]:
    groups = gates.shape[3], 0 if source is None else source.shape[2]
    return problem_of(tuple(x.shape), x.dtype, direction, normalize, merge, *groups, restart_every)


def _numpy(value: Tensor):
    assert value.is_contiguous()
    if value.dtype == torch.bfloat16:
        value = value.view(torch.int16)
    return value.detach().numpy()
