"""Build the CPU kernels for 64-bit Arm, with the flags of the normal build but without torch, and run them.

On an Arm machine they are compiled and run natively. On other machines, Debian's cross compiler builds them and the
user-mode emulation of qemu runs them. The harness is built once per state of its sources, into build/arm/<hash>/.
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib.util
import platform
import shutil
import struct
import subprocess
from functools import cache
from math import prod
from pathlib import Path

import torch
from torch import Tensor

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent
NATIVE = platform.system() == "Linux" and platform.machine() == "aarch64"
PREFIX = "" if NATIVE else "aarch64-linux-gnu-"
CXX = shutil.which(f"{PREFIX}g++")
OBJDUMP = shutil.which(f"{PREFIX}objdump")
EMULATOR = None if NATIVE else shutil.which("qemu-aarch64-static") or shutil.which("qemu-aarch64")

DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
NORMALIZATIONS = ("none", "abs", "unit", "sigmoid")
MERGES = (None, "max", "mean", "sum")
DIRECTIONS = ("left_to_right", "right_to_left", "top_to_bottom", "bottom_to_top")


def what_is_missing() -> str | None:
    if CXX is None:
        return f"{PREFIX}g++ is not installed (Debian: g++-aarch64-linux-gnu)"
    if EMULATOR is None and not NATIVE:
        return "qemu-aarch64 is not installed (Debian: qemu-user-static)"
    return None


def build_flags() -> list[str]:
    spec = importlib.util.spec_from_file_location("build_kernels", ROOT / "build_kernels.py")
    build_kernels = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(build_kernels)
    return build_kernels.CPU_FLAGS


@cache
def harness() -> Path:
    """Return the path of the harness. One process builds it while the others wait."""
    include = Path(torch.__file__).parent / "include"
    flags = [*build_flags(), "-Wall", f"-I{include}"]
    sources = [ROOT / "csrc" / "cpu" / "baseline.cpp", HERE / "harness.cpp"]
    digest = hashlib.sha256(" ".join([CXX, *flags, torch.__version__]).encode())
    for path in sorted([*sources, *(ROOT / "csrc").rglob("*.h")]):
        digest.update(path.read_bytes())
    program = ROOT / "build" / "arm" / digest.hexdigest()[:16] / "harness"
    program.parent.mkdir(parents=True, exist_ok=True)
    with open(program.parent / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not program.exists():
            unfinished = program.with_suffix(".unfinished")
            subprocess.run([CXX, *flags, "-static", *map(str, sources), "-o", str(unfinished)], check=True)
            unfinished.rename(program)
    return program


def disassembly() -> str:
    command = [OBJDUMP, "--disassemble", "--demangle", "--no-show-raw-insn", str(harness())]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def bytes_of(tensor: Tensor) -> bytes:
    return tensor.contiguous().view(torch.uint8).numpy().tobytes()


def propagate(
    x: Tensor,
    gates: Tensor,
    source: Tensor | None,
    grad: Tensor,
    direction: str,
    normalize: str,
    merge: str | None,
    restart_every: int | None = None,
    *,
    separate: bool = False,
    wanted: tuple[bool, bool, bool] = (True, True, True),
) -> tuple[Tensor, Tensor | None, list[Tensor | None]]:
    """Return ``out``, ``winner`` and the gradients of x, gates and source that ``wanted`` selects.

    ``winner`` is None unless the merge is "max" and a gradient is wanted. Gates are (N, 3, G, H, W), or
    (N, 4, 3, G, H, W) for "four_way", as in :func:`spn.propagate_four_way`. ``separate`` makes each sweep a separate
    task, as happens if there are more threads than planes.
    """
    four_way = direction == "four_way"
    merge = merge if four_way else None
    wanted = (*wanted[:2], wanted[2] and source is not None)
    numbers = (
        DTYPES.index(x.dtype),
        NORMALIZATIONS.index(normalize),
        MERGES.index(merge),
        0 if four_way else DIRECTIONS.index(direction),
        4 if four_way else 1,
        *x.shape,
        gates.shape[-3],
        0 if source is None else source.shape[-3],
        restart_every or 0,
        separate,
        *wanted,
    )
    given = b"".join(bytes_of(tensor) for tensor in (x, gates, source, grad) if tensor is not None)
    command = [*([EMULATOR] if EMULATOR else []), str(harness())]
    finished = subprocess.run(
        command, input=struct.pack(f"={len(numbers)}q", *numbers) + given, capture_output=True
    )  # fmt: skip
    assert finished.returncode == 0, (finished.returncode, finished.stderr.decode())
    left = memoryview(bytearray(finished.stdout))

    def take(shape: torch.Size, dtype: torch.dtype) -> Tensor:
        nonlocal left
        size = prod(shape) * dtype.itemsize
        taken, left = left[:size], left[size:]
        return torch.frombuffer(taken, dtype=dtype).reshape(shape)

    out = take(grad.shape, x.dtype)
    winner = take(x.shape, torch.uint8) if merge == "max" and any(wanted) else None
    inputs = zip((x, gates, source), wanted, strict=True)
    grads = [take(t.shape, x.dtype) if asked else None for t, asked in inputs]
    assert not left, f"the harness wrote {len(left)} bytes too many"
    return out, winner, grads
