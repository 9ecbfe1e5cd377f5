"""The problems on which the CUDA kernels are compared with the reference, chosen so that they reach every kind of plan.

tests/emulator/test_plans.py fails when a kind is missing; ``python tests/emulator/plan_kinds.py --write`` then writes
FOUND anew.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from math import prod

import torch
from operator_cases import DTYPES, NORMALIZATIONS, Case

F64, F32, F16, BF16 = DTYPES


@dataclass(frozen=True)
class Run:
    """One problem in several dtypes, whose values all of them can hold: the reference answers for all at once."""

    case: Case
    dtypes: tuple[torch.dtype, ...] = DTYPES

    def __str__(self) -> str:
        return str(self.case)


def gpu_seconds(case: Case, dtypes: tuple[torch.dtype, ...] = DTYPES) -> float:
    """About what a comparison takes on a GPU: nearly all of it is the reference, launch by launch."""
    forward_kernels, backward_kernels, launch = 9, 26, 6e-6
    height, width = case.shape[2:]
    lines = {"four_way": 2 * (height + width), "left_to_right": width, "right_to_left": width}
    # With "max", winners say where gradients go: those of the states' two precisions.
    backward = len({dtype == torch.float64 for dtype in dtypes}) if case.merge == "max" else 1
    launches = lines.get(case.direction, height) * (forward_kernels + backward * backward_kernels)
    gates = 3 * prod(case.lead) * case.groups + case.shape[1] * prod(case.lead)
    passes_of_memory = (30 + 30 * backward) * 8 / 2e12
    return (
        0.02 * (1 + len(dtypes))
        + launches * launch
        + case.shape[0] * gates * height * width * passes_of_memory
    )


# Planes of 200 x 200 in pieces of four values and of one, of 128 x 128, and a frame of a video.
CHOSEN = tuple(
    Run(Case(shape, 1, source_groups, "four_way", normalize, "max"), (F32, BF16))
    for shape in ((70, 1, 200, 200), (70, 1, 200, 201), (200, 1, 128, 128), (1, 1, 480, 854))
    for normalize, source_groups in product(NORMALIZATIONS, (0, 1))
    if shape[0] > 1 or (normalize in ("abs", "sigmoid")) == (source_groups == 0)
)

FOUND = (
    Run(Case((1100, 2, 2, 1900), 1, 1, "top_to_bottom", "none", None), (F32, F64, F16, BF16)),
    Run(Case((1, 2, 2, 1901), 1, 1, "bottom_to_top", "abs", None), (F32, F64, F16, BF16)),
    Run(Case((1, 1, 20, 21), 1, 0, "left_to_right", "unit", None), (F32, F64, F16, BF16)),
    Run(Case((1, 1, 20, 22), 1, 0, "right_to_left", "sigmoid", None), (F32, F64, F16, BF16)),
    Run(Case((1, 1, 20, 21), 1, 0, "four_way", "none", "mean"), (F32, F64, F16, BF16)),
    Run(Case((9, 64, 20, 21), 1, 0, "four_way", "abs", "mean"), (F32, F64, F16, BF16)),
    Run(Case((1, 1, 20, 22), 1, 0, "four_way", "unit", "sum"), (F32, F64, F16, BF16)),
    Run(Case((67, 16, 20, 22), 1, 0, "four_way", "sigmoid", "sum"), (F32, F64, F16, BF16)),
    Run(Case((1, 2, 20, 24), 1, 0, "four_way", "none", None), (F32, F64, F16, BF16)),
    Run(Case((1100, 2, 20, 24), 1, 2, "four_way", "abs", "mean"), (F32, F64, F16, BF16)),
    Run(Case((1, 1, 20, 400), 1, 0, "top_to_bottom", "unit", None), (F32, F64, F16, BF16)),
    Run(Case((1100, 2, 20, 24), 1, 1, "top_to_bottom", "sigmoid", None), (F32, F64, F16, BF16)),
    Run(Case((67, 64, 20, 21), 1, 1, "four_way", "none", "max"), (F32, F64, F16, BF16)),
    Run(Case((1, 2, 2, 3661), 1, 0, "top_to_bottom", "abs", None), (F32, F16, BF16)),
    Run(Case((1, 1, 20, 402), 1, 0, "top_to_bottom", "unit", None), (F32, F16, BF16)),
    Run(Case((1100, 2, 2, 1902), 1, 0, "top_to_bottom", "sigmoid", None), (F32, F16, BF16)),
    Run(Case((1100, 4, 20, 22), 1, 1, "four_way", "none", "max"), (F32, F64, F16, BF16)),
    Run(Case((17, 16, 100, 101), 1, 1, "four_way", "abs", "mean"), (F32, F64, F16, BF16)),
    Run(Case((67, 4, 100, 150), 2, 1, "four_way", "unit", "sum"), (F32, F64, F16, BF16)),
    Run(Case((1, 1, 20, 401), 1, 0, "top_to_bottom", "sigmoid", None), (F32, F64, F16, BF16)),
    Run(Case((1100, 4, 20, 21), 1, 1, "top_to_bottom", "none", None), (F32, F64, F16, BF16)),
    Run(Case((67, 64, 20, 21), 1, 0, "four_way", "abs", "sum"), (F32, F64, F16, BF16)),
    Run(Case((1, 1, 2, 1900), 1, 1, "top_to_bottom", "unit", None), (F32, F64)),
    Run(Case((1, 1, 2, 1902), 1, 1, "top_to_bottom", "sigmoid", None), (F32,)),
    Run(Case((1, 1, 2, 3660), 1, 0, "top_to_bottom", "none", None), (F32, F16, BF16)),
    Run(Case((1, 1, 2, 3661), 1, 1, "top_to_bottom", "abs", None), (F32, F64, F16, BF16)),
    Run(Case((1, 1, 2, 3662), 1, 1, "top_to_bottom", "unit", None), (F32, F16, BF16)),
    Run(Case((1100, 4, 20, 22), 1, 1, "top_to_bottom", "sigmoid", None), (F32, F64, F16, BF16)),
    Run(Case((9, 16, 128, 130), 1, 0, "four_way", "none", "mean"), (F32, F64, F16, BF16)),
    Run(Case((1, 2, 20, 21), 1, 0, "four_way", "abs", "max"), (F32, F64, F16, BF16)),
    Run(Case((9, 64, 64, 64), 1, 0, "four_way", "unit", "mean"), (F32, F16, BF16)),
    Run(Case((1100, 2, 64, 64), 1, 1, "left_to_right", "sigmoid", None), (F32, F64)),
    Run(Case((17, 4, 168, 168), 1, 1, "four_way", "none", "mean"), (F32, F64, F16, BF16)),
    Run(Case((67, 4, 112, 112), 1, 1, "four_way", "abs", "mean"), (F32, F16, BF16)),
    Run(Case((1, 1, 168, 168), 1, 1, "left_to_right", "unit", None), (F32, F64, F16, BF16)),
    Run(Case((133, 64, 20, 24), 1, 64, "four_way", "sigmoid", "max"), (F32, F64, F16, BF16)),
    Run(Case((1, 1, 20, 401), 1, 0, "four_way", "none", "mean"), (F32, F64, F16, BF16)),
    Run(Case((17, 16, 20, 401), 1, 0, "four_way", "abs", "mean"), (F32, F64, F16, BF16)),
    Run(Case((17, 16, 200, 200), 1, 0, "four_way", "unit", "mean"), (F32, F64, F16, BF16)),
    Run(Case((9, 64, 100, 150), 1, 0, "four_way", "sigmoid", "max"), (F32, F16, BF16)),
    Run(Case((1, 2, 2, 1900), 1, 0, "top_to_bottom", "none", None), (F32, F64, F16, BF16)),
    Run(Case((67, 1, 64, 64), 1, 1, "four_way", "abs", "mean"), (F32, F64, F16, BF16)),
    Run(Case((67, 16, 20, 21), 1, 1, "four_way", "unit", "sum"), (F32, F64)),
    Run(Case((1, 2, 20, 21), 1, 0, "top_to_bottom", "sigmoid", None), (F32, F64, F16, BF16)),
    Run(Case((1, 2, 20, 22), 1, 0, "top_to_bottom", "none", None), (F32, F64, F16, BF16)),
    Run(Case((1, 2, 20, 400), 1, 0, "top_to_bottom", "abs", None), (F32, F64, F16, BF16)),
    Run(Case((1, 2, 20, 401), 1, 0, "top_to_bottom", "unit", None), (F32, F64, F16, BF16)),
    Run(Case((1, 2, 20, 402), 1, 1, "top_to_bottom", "sigmoid", None), (F32, F64, F16, BF16)),
    Run(Case((1100, 4, 20, 22), 1, 0, "top_to_bottom", "none", None), (F32, F64, F16, BF16)),
    Run(Case((1100, 2, 2, 1901), 1, 0, "top_to_bottom", "abs", None), (F32, F64, F16, BF16)),
    Run(Case((1100, 16, 20, 21), 1, 1, "top_to_bottom", "unit", None), (F32, F64, F16, BF16)),
    Run(Case((17, 4, 100, 150), 1, 1, "four_way", "sigmoid", "mean"), (F32, F16, BF16)),
    Run(Case((1, 2, 2, 1902), 1, 0, "top_to_bottom", "none", None), (F32, F16, BF16)),
    Run(Case((1, 2, 2, 3660), 1, 0, "top_to_bottom", "abs", None), (F32, F16, BF16)),
    Run(Case((1, 2, 2, 3662), 1, 0, "top_to_bottom", "unit", None), (F32, F16, BF16)),
    Run(Case((270, 1, 64, 64), 1, 1, "four_way", "sigmoid", "mean"), (F32, F64, F16)),
    Run(Case((1, 2, 20, 24), 1, 0, "top_to_bottom", "none", None), (F32, F16, BF16)),
    Run(Case((1100, 2, 20, 21), 1, 0, "top_to_bottom", "abs", None), (F64, F16, BF16)),
    Run(Case((1100, 4, 20, 21), 1, 0, "top_to_bottom", "unit", None), (F32, F16, BF16)),
    Run(Case((1100, 16, 20, 21), 1, 16, "top_to_bottom", "sigmoid", None), (F64, F16, BF16)),
    Run(Case((1100, 16, 20, 22), 1, 0, "top_to_bottom", "none", None), (F32, F16, BF16)),
    Run(Case((1100, 16, 20, 24), 1, 0, "top_to_bottom", "abs", None), (F32, F16, BF16)),
    Run(Case((67, 2, 20, 21), 1, 1, "four_way", "unit", "mean"), (F32, F64, F16, BF16)),
    Run(Case((9, 16, 20, 22), 1, 0, "four_way", "sigmoid", "mean"), (F32, F64, F16, BF16)),
    Run(Case((67, 2, 20, 22), 1, 1, "four_way", "none", "mean"), (F32, F64, F16, BF16)),
    Run(Case((17, 64, 20, 22), 1, 1, "four_way", "abs", "mean"), (F32, F64, F16, BF16)),
    Run(Case((9, 64, 20, 24), 1, 0, "four_way", "unit", "mean"), (F32, F64, F16, BF16)),
    Run(Case((1100, 1, 20, 21), 1, 0, "four_way", "sigmoid", "mean"), (F32, F64, F16, BF16)),
    Run(Case((1100, 2, 20, 21), 1, 0, "four_way", "none", "mean"), (F32, F64, F16, BF16)),
    Run(Case((1100, 2, 20, 21), 1, 1, "four_way", "abs", "mean"), (F32, F64, F16, BF16)),
    Run(Case((1100, 1, 20, 22), 1, 0, "four_way", "unit", "mean"), (F32, F64, F16, BF16)),
    Run(Case((133, 64, 20, 21), 1, 1, "four_way", "sigmoid", "mean"), (F32, F64, F16, BF16)),
    Run(Case((133, 64, 20, 22), 1, 64, "four_way", "none", "mean"), (F32, F64, F16, BF16)),
    Run(Case((1, 64, 100, 101), 1, 1, "four_way", "abs", "mean"), (F32, F64, F16, BF16)),
    Run(Case((1100, 1, 20, 21), 1, 1, "top_to_bottom", "unit", None), (F32, F64)),
    Run(Case((1100, 1, 20, 22), 1, 1, "top_to_bottom", "sigmoid", None), (F32, F64)),
    Run(Case((1100, 2, 20, 21), 1, 1, "top_to_bottom", "none", None), (F16, BF16)),
    Run(Case((1100, 2, 20, 22), 1, 0, "top_to_bottom", "abs", None), (F16, BF16)),
    Run(Case((1100, 2, 20, 24), 1, 0, "top_to_bottom", "unit", None), (F16, BF16)),
    Run(Case((17, 16, 20, 21), 1, 1, "four_way", "sigmoid", "max"), (F32, F16, BF16)),
    Run(Case((17, 16, 20, 22), 1, 1, "four_way", "none", "mean"), (F32, F16, BF16)),
    Run(Case((1100, 2, 2, 1900), 1, 0, "top_to_bottom", "abs", None), (F16, BF16)),
    Run(Case((1100, 2, 2, 1901), 1, 1, "top_to_bottom", "unit", None), (F16, BF16)),
    Run(Case((1100, 2, 2, 1902), 1, 1, "top_to_bottom", "sigmoid", None), (F16, BF16)),
    Run(Case((133, 4, 20, 22), 2, 1, "four_way", "none", "mean"), (F64, F16, BF16)),
    Run(Case((34, 64, 20, 22), 1, 0, "four_way", "abs", "mean"), (F32, F16, BF16)),
    Run(Case((17, 16, 20, 24), 1, 1, "four_way", "unit", "mean"), (F32, F16, BF16)),
    Run(Case((17, 64, 20, 24), 1, 1, "four_way", "sigmoid", "mean"), (F32, F16, BF16)),
    Run(Case((5, 16, 100, 101), 1, 16, "four_way", "none", "max"), (F32, F16, BF16)),
    Run(Case((1100, 16, 20, 22), 1, 16, "top_to_bottom", "abs", None), (F16, BF16)),
    Run(Case((270, 4, 20, 24), 2, 1, "four_way", "unit", "mean"), (F64, F16, BF16)),
    Run(Case((1100, 16, 20, 24), 1, 16, "top_to_bottom", "sigmoid", None), (F16, BF16)),
    Run(Case((133, 64, 20, 21), 1, 64, "four_way", "none", "mean"), (F64, F16, BF16)),
    Run(Case((1100, 2, 20, 24), 1, 1, "four_way", "abs", "mean"), (F64, F16, BF16)),
    Run(Case((133, 64, 20, 22), 1, 1, "four_way", "unit", "mean"), (F64, F16, BF16)),
    Run(Case((1, 2, 20, 400), 1, 0, "four_way", "sigmoid", "mean"), (F32, F64, F16, BF16)),
    Run(Case((133, 4, 100, 101), 2, 0, "four_way", "none", "max"), (F32, F16, BF16)),
    Run(Case((1100, 1, 20, 401), 1, 1, "top_to_bottom", "abs", None), (F32, F64)),
    Run(Case((1, 64, 230, 232), 1, 1, "top_to_bottom", "unit", None), (F32, F64, F16, BF16)),
    Run(Case((67, 4, 160, 160), 2, 1, "four_way", "sigmoid", "max"), (F32, F16, BF16)),
    Run(Case((67, 1, 112, 112), 1, 1, "four_way", "none", "mean"), (F32, F64)),
    Run(Case((1100, 1, 20, 21), 1, 1, "four_way", "abs", "mean"), (F32, F64)),
    Run(Case((1100, 1, 20, 22), 1, 1, "four_way", "unit", "mean"), (F32, F64)),
    Run(Case((34, 64, 20, 24), 1, 0, "four_way", "sigmoid", "max"), (F16, BF16)),
    Run(Case((1100, 4, 20, 21), 1, 0, "four_way", "none", "max"), (F16, BF16)),
    Run(Case((1100, 4, 20, 21), 1, 0, "four_way", "abs", "mean"), (F16, BF16)),
    Run(Case((67, 4, 150, 151), 2, 1, "four_way", "unit", "mean"), (F32, F64, F16, BF16)),
    Run(Case((1100, 4, 20, 21), 2, 1, "four_way", "sigmoid", "mean"), (F32, F64)),
    Run(Case((1, 64, 200, 201), 1, 1, "top_to_bottom", "none", None), (F32, F16, BF16)),
    Run(Case((1, 64, 200, 202), 1, 1, "top_to_bottom", "abs", None), (F32, F16, BF16)),
    Run(Case((133, 64, 20, 24), 1, 0, "four_way", "unit", "mean"), (F16, BF16)),
    Run(Case((1, 2, 20, 401), 1, 1, "top_to_bottom", "sigmoid", None), (F64,)),
    Run(Case((1100, 1, 20, 24), 1, 1, "top_to_bottom", "none", None), (F32,)),
    Run(Case((1100, 2, 20, 22), 1, 1, "top_to_bottom", "abs", None), (F64,)),
    Run(Case((67, 4, 64, 64), 1, 4, "four_way", "unit", "max"), (F32, F16, BF16)),
    Run(Case((1100, 16, 20, 21), 1, 0, "top_to_bottom", "sigmoid", None), (F64,)),
    Run(Case((34, 4, 200, 201), 2, 1, "four_way", "none", "mean"), (F32, F64, F16, BF16)),
    Run(Case((133, 4, 150, 150), 2, 1, "four_way", "abs", "max"), (F32, F16, BF16)),
    Run(Case((133, 1, 100, 101), 1, 0, "four_way", "unit", "mean"), (F32, F64, F16, BF16)),
    Run(Case((133, 4, 112, 112), 2, 1, "four_way", "sigmoid", "max"), (F32, F16, BF16)),
    Run(Case((270, 1, 100, 101), 1, 1, "four_way", "none", "mean"), (F32, F64, F16, BF16)),
    Run(Case((1100, 1, 64, 64), 1, 1, "four_way", "abs", "max"), (F32, F16, BF16)),
    Run(Case((270, 1, 100, 150), 1, 0, "four_way", "unit", "mean"), (F32, F64, F16, BF16)),
    Run(Case((34, 4, 100, 101), 1, 0, "four_way", "sigmoid", "mean"), (F64, F16, BF16)),
    Run(Case((133, 2, 100, 101), 1, 0, "four_way", "none", "mean"), (F64, F16, BF16)),
    Run(Case((9, 16, 20, 21), 1, 0, "four_way", "abs", "max"), (F64,)),
    Run(Case((9, 64, 20, 21), 1, 1, "four_way", "unit", "max"), (F64,)),
    Run(Case((270, 1, 20, 21), 1, 0, "four_way", "sigmoid", "max"), (F32,)),
    Run(Case((270, 4, 20, 21), 1, 1, "four_way", "none", "max"), (F64,)),
    Run(Case((270, 1, 20, 22), 1, 0, "four_way", "abs", "max"), (F32,)),
    Run(Case((1, 64, 112, 112), 1, 0, "four_way", "unit", "max"), (F32, F16, BF16)),
    Run(Case((270, 4, 20, 24), 1, 1, "four_way", "sigmoid", "max"), (F64,)),
    Run(Case((1100, 2, 20, 22), 1, 0, "four_way", "none", "max"), (F32,)),
    Run(Case((133, 1, 128, 130), 1, 0, "four_way", "abs", "max"), (F32, F64, F16, BF16)),
    Run(Case((9, 64, 20, 401), 1, 0, "four_way", "unit", "max"), (F16, BF16)),
    Run(Case((1100, 1, 20, 24), 1, 0, "four_way", "sigmoid", "max"), (F32,)),
    Run(Case((1100, 4, 20, 21), 2, 1, "four_way", "none", "max"), (F64,)),
    Run(Case((1100, 4, 20, 21), 2, 4, "four_way", "abs", "max"), (F64,)),
    Run(Case((9, 4, 100, 150), 1, 1, "four_way", "unit", "max"), (F32, F16, BF16)),
    Run(Case((9, 4, 100, 150), 1, 4, "four_way", "sigmoid", "max"), (F32, F16, BF16)),
    Run(Case((1100, 4, 20, 22), 2, 4, "four_way", "none", "mean"), (F64,)),
    Run(Case((2, 64, 100, 150), 1, 64, "four_way", "abs", "mean"), (F64, F16, BF16)),
    Run(Case((9, 16, 150, 151), 1, 1, "four_way", "unit", "max"), (F16, BF16)),
    Run(Case((1100, 4, 20, 24), 2, 4, "four_way", "sigmoid", "max"), (F64,)),
    Run(Case((1100, 1, 64, 64), 1, 1, "four_way", "none", "mean"), (F16, BF16)),
    Run(Case((270, 64, 20, 24), 1, 1, "four_way", "abs", "mean"), (F32,)),
    Run(Case((1100, 2, 64, 64), 1, 1, "four_way", "unit", "max"), (F32, F16)),
    Run(Case((1, 2, 20, 401), 1, 0, "four_way", "sigmoid", "mean"), (F32, F64, F16, BF16)),
    Run(Case((17, 16, 20, 400), 1, 0, "four_way", "none", "mean"), (F32, F64, F16, BF16)),
    Run(Case((67, 4, 20, 400), 1, 0, "four_way", "abs", "mean"), (F32, F64, F16, BF16)),
    Run(Case((133, 4, 20, 401), 1, 0, "four_way", "unit", "mean"), (F32, F64, F16, BF16)),
    Run(Case((270, 1, 20, 400), 1, 0, "four_way", "sigmoid", "mean"), (F32, F64, F16, BF16)),
    Run(Case((17, 64, 20, 402), 1, 0, "four_way", "none", "mean"), (F32, F64, F16, BF16)),
    Run(Case((1, 64, 150, 151), 1, 0, "top_to_bottom", "abs", None), (F64,)),
    Run(Case((9, 4, 160, 160), 1, 1, "four_way", "unit", "max"), (F32, F16, BF16)),
    Run(Case((133, 1, 100, 101), 1, 1, "four_way", "sigmoid", "max"), (F16, BF16)),
    Run(Case((9, 4, 2, 1900), 1, 0, "four_way", "none", "mean"), (F32, F64, F16, BF16)),
    Run(Case((9, 4, 2, 1901), 1, 0, "four_way", "abs", "mean"), (F32, F64, F16, BF16)),
    Run(Case((5, 16, 2, 1902), 1, 16, "four_way", "unit", "mean"), (F32, F64, F16, BF16)),
    Run(Case((34, 64, 2, 1901), 1, 1, "four_way", "sigmoid", "mean"), (F32, F64, F16, BF16)),
    Run(Case((133, 16, 2, 1900), 1, 1, "four_way", "none", "mean"), (F32, F64, F16, BF16)),
    Run(Case((270, 1, 100, 101), 1, 1, "four_way", "abs", "max"), (F16, BF16)),
    Run(Case((1100, 1, 20, 401), 1, 0, "four_way", "unit", "mean"), (F32, F64, F16, BF16)),
    Run(Case((5, 16, 128, 130), 1, 16, "four_way", "sigmoid", "max"), (F16, BF16)),
    Run(Case((1, 1, 20, 400), 1, 0, "four_way", "none", "mean"), (F32, F64, F16)),
    Run(Case((67, 4, 20, 402), 1, 0, "four_way", "abs", "mean"), (F32, F16, BF16)),
    Run(Case((133, 4, 20, 401), 1, 1, "four_way", "unit", "mean"), (F32, F16, BF16)),
    Run(Case((270, 4, 20, 400), 1, 4, "four_way", "sigmoid", "mean"), (F32, F16, BF16)),
    Run(Case((270, 4, 20, 402), 1, 1, "four_way", "none", "mean"), (F32, F16, BF16)),
    Run(Case((1100, 1, 2, 1902), 1, 0, "four_way", "abs", "mean"), (F32, F64, F16, BF16)),
    Run(Case((133, 4, 100, 150), 2, 1, "four_way", "unit", "max"), (F16, BF16)),
    Run(Case((1100, 1, 100, 101), 1, 0, "four_way", "sigmoid", "mean"), (F64, F16)),
    Run(Case((2, 64, 64, 64), 1, 1, "four_way", "none", "max"), (F32,)),
    Run(Case((133, 1, 64, 64), 1, 0, "four_way", "abs", "max"), (F64,)),
    Run(Case((133, 1, 64, 64), 1, 0, "four_way", "unit", "mean"), (F64,)),
    Run(Case((133, 1, 64, 64), 1, 1, "four_way", "sigmoid", "max"), (F64,)),
    Run(Case((2, 64, 20, 401), 1, 0, "four_way", "none", "mean"), (F32, F64)),
    Run(Case((2, 64, 20, 402), 1, 0, "four_way", "abs", "mean"), (F32, F64)),
    Run(Case((270, 1, 20, 401), 1, 1, "four_way", "unit", "mean"), (F32, F64)),
    Run(Case((2, 64, 100, 101), 1, 0, "four_way", "sigmoid", "max"), (F32,)),
    Run(Case((1100, 1, 20, 401), 1, 1, "four_way", "none", "mean"), (F32, F64)),
    Run(Case((67, 1, 100, 150), 1, 1, "four_way", "abs", "max"), (F64,)),
    Run(Case((133, 1, 128, 130), 1, 1, "four_way", "unit", "max"), (F32,)),
    Run(Case((67, 1, 150, 151), 1, 0, "four_way", "sigmoid", "max"), (F32,)),
    Run(Case((67, 1, 2, 1901), 1, 1, "four_way", "none", "mean"), (F64, F16, BF16)),
    Run(Case((270, 1, 2, 1900), 1, 0, "four_way", "abs", "max"), (F32, F16, BF16)),
    Run(Case((133, 1, 150, 150), 1, 0, "four_way", "unit", "max"), (F32,)),
    Run(Case((34, 64, 2, 1902), 1, 1, "four_way", "sigmoid", "max"), (F32, F16, BF16)),
    Run(Case((270, 4, 2, 1901), 2, 0, "four_way", "none", "max"), (F32, F16, BF16)),
    Run(Case((9, 4, 200, 201), 1, 0, "four_way", "abs", "max"), (F32,)),
    Run(Case((9, 4, 200, 202), 1, 0, "four_way", "unit", "max"), (F32,)),
    Run(Case((34, 1, 20, 400), 1, 1, "four_way", "sigmoid", "max"), (F64,)),
    Run(Case((34, 1, 20, 401), 1, 1, "four_way", "none", "max"), (F64,)),
    Run(Case((67, 1, 200, 202), 1, 0, "four_way", "abs", "max"), (F32,)),
    Run(Case((67, 2, 200, 202), 1, 0, "four_way", "unit", "max"), (F32,)),
    Run(Case((133, 4, 20, 400), 2, 1, "four_way", "sigmoid", "max"), (F32,)),
    Run(Case((270, 4, 20, 401), 2, 1, "four_way", "none", "max"), (F32,)),
    Run(Case((270, 4, 20, 402), 2, 1, "four_way", "abs", "max"), (F32,)),
    Run(Case((1100, 1, 20, 401), 1, 1, "four_way", "unit", "max"), (F32,)),
    Run(Case((1100, 1, 20, 402), 1, 1, "four_way", "sigmoid", "mean"), (F32,)),
    Run(Case((270, 4, 2, 1900), 2, 0, "four_way", "none", "max"), (F32, F16, BF16)),
    Run(Case((270, 4, 2, 1901), 2, 1, "four_way", "abs", "mean"), (F64, F16, BF16)),
    Run(Case((270, 4, 2, 1902), 2, 0, "four_way", "unit", "max"), (F32, F16, BF16)),
    Run(Case((34, 1, 2, 1900), 1, 0, "four_way", "sigmoid", "max"), (F16, BF16)),
    Run(Case((34, 4, 2, 1900), 1, 1, "four_way", "none", "max"), (F16, BF16)),
    Run(Case((17, 16, 2, 1900), 1, 1, "four_way", "abs", "max"), (F16, BF16)),
    Run(Case((34, 4, 2, 1901), 1, 1, "four_way", "unit", "max"), (F16, BF16)),
    Run(Case((34, 1, 2, 1902), 1, 0, "four_way", "sigmoid", "mean"), (F16, BF16)),
    Run(Case((34, 4, 2, 1902), 1, 1, "four_way", "none", "max"), (F16, BF16)),
    Run(Case((270, 4, 2, 1902), 2, 1, "four_way", "abs", "max"), (F16, BF16)),
    Run(Case((1100, 1, 2, 1901), 1, 0, "four_way", "unit", "max"), (F16, BF16)),
    Run(Case((1100, 2, 2, 1901), 1, 1, "left_to_right", "sigmoid", None), (F64,)),
    Run(Case((2, 64, 2, 1900), 1, 1, "four_way", "none", "max"), (F32,)),
    Run(Case((9, 16, 2, 1900), 1, 1, "four_way", "abs", "max"), (F32,)),
    Run(Case((5, 16, 2, 1901), 1, 0, "four_way", "unit", "max"), (F64,)),
    Run(Case((2, 64, 2, 1901), 1, 1, "four_way", "sigmoid", "max"), (F32,)),
    Run(Case((9, 16, 2, 1901), 1, 1, "four_way", "none", "max"), (F32,)),
    Run(Case((17, 16, 2, 1900), 1, 0, "four_way", "abs", "max"), (F32,)),
    Run(Case((2, 64, 2, 1902), 1, 1, "four_way", "unit", "max"), (F32,)),
    Run(Case((9, 16, 2, 1902), 1, 1, "four_way", "sigmoid", "max"), (F32,)),
    Run(Case((17, 16, 2, 1901), 1, 0, "four_way", "none", "max"), (F32,)),
    Run(Case((17, 16, 2, 1902), 1, 0, "four_way", "abs", "max"), (F32,)),
    Run(Case((9, 64, 2, 1900), 1, 1, "four_way", "unit", "max"), (F32,)),
    Run(Case((9, 64, 2, 1901), 1, 1, "four_way", "sigmoid", "max"), (F32,)),
    Run(Case((9, 64, 2, 1902), 1, 1, "four_way", "none", "max"), (F32,)),
    Run(Case((270, 1, 2, 1900), 1, 1, "four_way", "abs", "max"), (F32,)),
    Run(Case((9, 4, 2, 3660), 1, 1, "four_way", "unit", "max"), (F64,)),
    Run(Case((1, 64, 2, 3660), 1, 0, "four_way", "sigmoid", "max"), (F64,)),
    Run(Case((9, 4, 2, 3661), 1, 1, "four_way", "none", "max"), (F64,)),
    Run(Case((1, 64, 2, 3661), 1, 0, "four_way", "abs", "max"), (F64,)),
)  # end of FOUND

RUNS = (*CHOSEN, *FOUND)
