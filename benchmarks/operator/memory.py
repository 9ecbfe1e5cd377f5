"""Measure the peak memory of a call."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from pathlib import Path

import torch

from .. import machine

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
_RESET_PEAK = "5"


def peak_megabytes(call: Callable[[], object], device: str) -> float | None:
    """Return how much a call raises the peak of device memory, or of the process (Linux with glibc); else None."""
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        call()
        torch.cuda.synchronize()
        return (torch.cuda.max_memory_allocated() - before) / 1e6
    if machine.allocator() != "glibc":
        return None
    try:
        # Memory that malloc keeps from earlier calls would hide the demand of this call.
        ctypes.CDLL(None).malloc_trim(0)
        _CLEAR.write_text(_RESET_PEAK)
        before = _resident("VmRSS")
        call()
        return (_resident("VmHWM") - before) / 1e3
    except (OSError, AttributeError, KeyError):
        return None


def _resident(field: str) -> int:
    """Return a memory field of the process, in kilobytes."""
    fields = dict(line.split(":", 1) for line in _STATUS.read_text().splitlines())
    return int(fields[field].split()[0])
