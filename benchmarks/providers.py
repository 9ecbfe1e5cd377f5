"""What a user would run instead: each provider turns (x, gates) into the merged map, four-way, "abs", "max"."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

import spn

Provider = Callable[[Tensor, Tensor], Tensor]


def native(x: Tensor, gates: Tensor) -> Tensor:
    return spn.propagate_four_way(x, gates, normalize="abs")


def eager(x: Tensor, gates: Tensor) -> Tensor:
    """The reference: unbind and stack, so that its autograd graph stays linear in the number of lines."""
    return spn.reference.propagate_four_way(x, gates, normalize="abs")


def numba_provider() -> Provider | None:
    """The loops a user would write with numba, planes over threads; forward only. None where numba is missing."""
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
        if x.shape[0] != 1 or gates.shape[3] != x.shape[1] or x.dtype != torch.float32:
            raise ValueError("the numba provider takes one float32 sample with its own gates a channel")
        numba.set_num_threads(torch.get_num_threads())
        out = torch.empty_like(x)
        sweeps(x[0].numpy(), gates[0].numpy(), out[0].numpy())
        return out

    return run
