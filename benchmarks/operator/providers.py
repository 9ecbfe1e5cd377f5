"""Implementations to time: the operator and its rivals, which compute (x, gates) four-way with "abs" and "max"."""

from __future__ import annotations

import ctypes
import signal
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

import spn

from .cases import Case

MOST_VALUES = 1 << 21  # elements of x, for rivals that keep every line as a tensor

Provider = Callable[..., Tensor]  # of x, gates and, in source form, source


class TooSlow(Exception):
    """A provider exceeded its time limit."""


class Rival(NamedTuple):
    """A provider, and whether it supports a pass ("forward" or "both") for an x."""

    provider: Provider
    serves: Callable[[str, Tensor], bool]


def native(case: Case) -> Provider:
    return _provider(case, spn.propagate, spn.propagate_four_way)


def reference(case: Case) -> Provider:
    return _provider(case, spn.reference.propagate, spn.reference.propagate_four_way)


def _provider(case: Case, one_way: Callable[..., Tensor], four_way: Callable[..., Tensor]) -> Provider:
    def run(x: Tensor, gates: Tensor, source: Tensor | None = None) -> Tensor:
        if case.direction:
            return one_way(x, gates, case.direction, source=source, normalize=case.normalize)
        return four_way(x, gates, source=source, normalize=case.normalize)

    return run


def eager(x: Tensor, gates: Tensor) -> Tensor:
    """Run the reference implementation; its autograd graph is linear in the number of lines."""
    return spn.reference.propagate_four_way(x, gates, normalize="abs")


def eager_rival() -> Rival:
    return Rival(eager, lambda name, x: x.numel() <= MOST_VALUES)  # larger maps take minutes per call


def compile_rival(seconds: int) -> Rival:
    """Return torch.compile of the reference, whose loops it unrolls; it stops after `seconds` per shape."""
    import torch._inductor.compile_fx  # before the alarm is set: it must not interrupt this import

    def compiled(x: Tensor, gates: Tensor) -> Tensor:
        def give_up(*_: object) -> None:
            raise TooSlow(f"not compiled after {seconds} s")

        previous = signal.signal(signal.SIGALRM, give_up)
        signal.alarm(seconds)
        try:
            return torch.compile(eager, dynamic=False)(x, gates)
        finally:
            signal.alarm(0)
            signal.signal(signal.SIGALRM, previous)

    return Rival(compiled, lambda name, x: True)


def column_launcher(library: Path) -> Callable[[Tensor, Tensor, Tensor, Tensor, int], None]:
    """Return launch(x, gates, hidden, out, sweeps) of per_column.cu: one launch per column and direction; float32."""
    function = ctypes.CDLL(str(library)).per_column_forward
    function.argtypes = [ctypes.c_void_p] * 4 + [ctypes.c_int64] * 4 + [ctypes.c_int, ctypes.c_void_p]

    def launch(x: Tensor, gates: Tensor, hidden: Tensor, out: Tensor, sweeps: int) -> None:
        stream = torch.cuda.current_stream().cuda_stream
        error = function(*(t.data_ptr() for t in (x, gates, hidden, out)), *x.shape, sweeps, stream)
        if error:
            raise RuntimeError(f"per_column_forward: CUDA error {error}")

    return launch


def per_column_rival(library: Path) -> Rival:
    """Return the baseline with one launch per column and direction; forward only."""
    launch = column_launcher(library)

    def run(x: Tensor, gates: Tensor) -> Tensor:
        hidden, out = torch.empty_like(x), torch.empty_like(x)
        launch(x, gates, hidden, out, 4)
        return out

    return Rival(run, lambda name, x: name == "forward" and x.dtype == torch.float32)


def numba_rival() -> Rival | None:
    """Return plain loops in numba, planes distributed over threads; forward only. None if numba is missing."""
    try:
        import numba
    except ImportError:
        return None
    import numpy as np

    @numba.njit(parallel=True, fastmath=True, cache=False)
    def sweeps(x, gates, out):
        planes, height, width = x.shape
        for plane in numba.prange(planes):
            for d in range(4):
                horizontal = d < 2
                lines, positions = (width, height) if horizontal else (height, width)
                previous = np.zeros(positions + 2, np.float32)
                current = np.zeros(positions + 2, np.float32)
                for step in range(lines):
                    t = lines - 1 - step if d % 2 else step
                    for j in range(positions):
                        i, k = (j, t) if horizontal else (t, j)
                        value = x[plane, i, k]
                        if step > 0:
                            a = gates[d, 0, plane, i, k]
                            b = gates[d, 1, plane, i, k]
                            c = gates[d, 2, plane, i, k]
                            scale = np.float32(1) / max(np.float32(1), abs(a) + abs(b) + abs(c))
                            total = b * (previous[j + 1] - value)
                            if j > 0:
                                total += a * (previous[j] - value)
                            if j + 1 < positions:
                                total += c * (previous[j + 2] - value)
                            value += scale * total
                        current[j + 1] = value
                        if d == 0 or value > out[plane, i, k]:
                            out[plane, i, k] = value
                    previous, current = current, previous

    def run(x: Tensor, gates: Tensor) -> Tensor:
        numba.set_num_threads(torch.get_num_threads())
        out = torch.empty_like(x)
        sweeps(x[0].numpy(), gates[0].numpy(), out[0].numpy())
        return out

    return Rival(run, lambda name, x: name == "forward" and x.dtype == torch.float32 and x.shape[0] == 1)
