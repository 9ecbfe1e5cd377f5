"""The memory of a filter, stored and brought back."""

from __future__ import annotations

import numpy as np


def restored(memory: np.ndarray, like: np.ndarray) -> np.ndarray:
    """A copy of a stored memory; ValueError unless it has the shape and dtype of ``like``."""
    if memory.shape != like.shape or memory.dtype != like.dtype:
        raise ValueError(
            f"a memory must be {like.dtype} {like.shape} here, got {memory.dtype} {memory.shape}"
        )
    return memory.copy()
