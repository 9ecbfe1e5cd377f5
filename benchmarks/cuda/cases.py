"""The passes to time, and calls that run them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch

import spn

from ..operator.providers import column_launcher
from .schedule import DIRECTIONS, Pass
from .timers import Call
from .traffic import TARGETS

Shape = tuple[int, int, int, int]

SHAPES: tuple[Shape, ...] = (*TARGETS, (1, 32, 512, 512))
STAND_IN_SHAPES: tuple[Shape, ...] = ((2, 2, 24, 24), (2, 4, 16, 16), (1, 1, 20, 36), (1, 4, 16, 20))
DTYPES = (torch.float32, torch.bfloat16)


def headline(shapes: tuple[Shape, ...]) -> Iterator[Pass]:
    """Yield the passes that the performance targets cover."""
    for shape in shapes[:3]:
        for dtype in DTYPES:
            yield Pass(shape, dtype=dtype)
            yield Pass(shape, dtype=dtype, backward=True)
            if shape == shapes[0]:
                yield Pass(shape, "left_to_right", dtype, source=True)


def others(shapes: tuple[Shape, ...]) -> Iterator[Pass]:
    """Yield further passes, the most informative first, because the time may run out."""
    for shape in shapes:
        for dtype in DTYPES:
            yield Pass(shape, dtype=dtype, save=True)
            if shape[1] > 1:
                yield from (
                    Pass(shape, dtype=dtype, backward=b, sharing=min(8, shape[1])) for b in (False, True)
                )
            if shape == shapes[-1]:
                yield from (Pass(shape, dtype=dtype, backward=b) for b in (False, True))
    for shape in shapes:
        for dtype in DTYPES:
            yield Pass(shape, "left_to_right", dtype, backward=True)
            yield from (Pass(shape, direction, dtype) for direction in DIRECTIONS)
            if shape != shapes[0]:
                yield Pass(shape, "left_to_right", dtype, source=True)


def call_of(work: Pass, device: str) -> Call:
    """Return a call of the operator on random tensors."""
    n, channels, height, width = work.shape
    like = {"device": device, "dtype": work.dtype}
    x = torch.randn(work.shape, **like)
    gates = torch.randn(n, work.sweeps, 3, work.groups, height, width, **like)
    source = torch.rand(n, work.sweeps, channels, height, width, **like) if work.source else None
    options = (work.direction, "abs", work.merge)
    forward, backward = torch.ops.spn.propagate.default, torch.ops.spn.propagate_backward.default
    if not work.backward:
        return lambda: forward(x, gates, source, *options, work.save, work.save)
    out, winner, saved = forward(x, gates, source, *options, True, True)
    return lambda: backward(out, x, gates, source, winner, saved, *options, True, True, work.source)


def per_column(library: Path, shape: Shape, sweeps: int) -> Call:
    """Return a call of the baseline with one launch per column; raise ValueError if its result is wrong."""
    launch = column_launcher(library)
    n, channels, height, width = shape
    x = torch.randn(shape, device="cuda")
    gates = torch.randn(n, sweeps, 3, channels, height, width, device="cuda")
    hidden, out = torch.empty_like(x), torch.empty_like(x)

    def run() -> torch.Tensor:
        launch(x, gates, hidden, out, sweeps)
        return out

    if sweeps == 4:
        expected = spn.propagate_four_way(x, gates, normalize="abs")
    else:
        expected = spn.propagate(x, gates[:, 0], "left_to_right", normalize="abs")
    difference = ((run() - expected).norm() / expected.norm()).item()
    if not difference < 1e-5:
        raise ValueError(f"the baseline and the kernels disagree: {difference:.1e}")
    return run
