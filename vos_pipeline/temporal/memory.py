"""Restore the stored state of a filter."""

from __future__ import annotations

import numpy as np


def restored(memory: np.ndarray, like: np.ndarray) -> np.ndarray:
    """Return a copy of a stored array; raise ValueError unless it has the shape and dtype of ``like``."""
    if memory.shape != like.shape or memory.dtype != like.dtype:
        raise ValueError(
            f"stored filter state must be {like.dtype} {like.shape}, got {memory.dtype} {memory.shape}"
        )
    return memory.copy()
