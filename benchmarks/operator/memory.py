"""The most memory a call holds beyond what was there before it."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from pathlib import Path

import torch

from .. import machine

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
_RESET_PEAK = "5"


def peak_megabytes(call: Callable[[], object], device: str) -> float | None:
    """Of device memory, or of the process on Linux with glibc's allocator; None where neither can be read."""
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        call()
        torch.cuda.synchronize()
        return (torch.cuda.max_memory_allocated() - before) / 1e6
    if machine.allocator() != "glibc":
        return None
    try:
        # What malloc keeps of earlier calls would hide what this one needs.
        ctypes.CDLL(None).malloc_trim(0)
        _CLEAR.write_text(_RESET_PEAK)
        before = _resident("VmRSS")
        call()
        return (_resident("VmHWM") - before) / 1e3
    except (OSError, AttributeError, KeyError):
        return None


def _resident(field: str) -> int:
    """Kilobytes."""
    fields = dict(line.split(":", 1) for line in _STATUS.read_text().splitlines())
    return int(fields[field].split()[0])
