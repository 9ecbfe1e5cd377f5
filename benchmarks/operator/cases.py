"""Benchmark cases of the operator: how they are written, their inputs, and the bytes that they have to move.

1x32x512x512                                four directions, "abs", separate gates for each channel
1x32x512x512:G=1                            G channel groups share gates
4x96x56x56:source:sigmoid                   source form; another normalization
56x576x56x2:source:left_to_right            one direction
...:forward                                 the backward pass is not timed
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

import spn

DIRECTIONS = spn.reference.DIRECTIONS
NORMALIZATIONS = ("none", "abs", "unit", "sigmoid")


class Case(NamedTuple):
    shape: tuple[int, int, int, int]  # of x
    groups: int
    source: bool = False
    normalize: str = "abs"
    direction: str | None = None  # None: all four, merged by their maximum
    forward_only: bool = False

    @property
    def is_plain(self) -> bool:
        """Whether the rivals can compute this case."""
        return self == Case(self.shape, self.shape[1])

    @property
    def passes(self) -> tuple[str, ...]:
        return ("forward",) if self.forward_only else ("forward", "both")

    def __str__(self) -> str:
        options = [f"G={self.groups}"] if self.groups != self.shape[1] else []
        options += ["source"] if self.source else []
        options += [self.normalize] if self.normalize != "abs" else []
        options += [self.direction] if self.direction else []
        options += ["forward"] if self.forward_only else []
        return ":".join(["x".join(map(str, self.shape)), *options])


def parse_shape(text: str) -> tuple[int, int, int, int]:
    try:
        n, channels, height, width = (int(part) for part in text.split("x"))
    except ValueError:
        n = channels = height = width = 0
    if min(n, channels, height, width) < 1:
        raise argparse.ArgumentTypeError(f"a shape is NxCxHxW, got {text!r}")
    return n, channels, height, width


def parse_case(text: str) -> Case:
    shape, *options = text.split(":")
    case = Case(parse_shape(shape), groups=parse_shape(shape)[1])
    for option in options:
        if option.startswith("G="):
            groups = int(option[2:]) if option[2:].isdecimal() else 0
            if groups < 1 or case.shape[1] % groups:
                raise argparse.ArgumentTypeError(
                    f"G must divide C = {case.shape[1]}, got {option!r} in {text!r}"
                )
            case = case._replace(groups=groups)
        elif option == "source":
            case = case._replace(source=True)
        elif option in NORMALIZATIONS:
            case = case._replace(normalize=option)
        elif option in DIRECTIONS:
            case = case._replace(direction=option)
        elif option == "forward":
            case = case._replace(forward_only=True)
        else:
            known = ", ".join(("G=...", "source", *NORMALIZATIONS, *DIRECTIONS, "forward"))
            raise argparse.ArgumentTypeError(
                f"an option of a case is one of {known}, got {option!r} in {text!r}"
            )
    return case


def inputs(case: Case, dtype: torch.dtype, device: str) -> tuple[Tensor, ...]:
    """Return x, gates and, in source form, one source per channel."""
    generator = torch.Generator().manual_seed(0)
    n, channels, height, width = case.shape
    sweeps = () if case.direction else (4,)
    shapes = [case.shape, (n, *sweeps, 3, case.groups, height, width)]
    if case.source:
        shapes.append((n, *sweeps, channels, height, width))
    return tuple(torch.randn(shape, generator=generator).to(device, dtype) for shape in shapes)


class Traffic(NamedTuple):
    """Bytes that have to be read from and written to memory."""

    read: int
    written: int

    @property
    def total(self) -> int:
        return self.read + self.written


def minimum_traffic(name: str, given: Sequence[Tensor]) -> Traffic:
    """Return the minimum traffic of the pass "forward" or "both" for these inputs.

    The forward pass reads the inputs and writes the result, which is as large as x. The backward pass reads the inputs
    again and the gradient of the result, and writes the gradients of the inputs.
    """
    inputs_bytes, result = sum(t.nbytes for t in given), given[0].nbytes
    forward = Traffic(inputs_bytes, result)
    if name == "forward":
        return forward
    return Traffic(forward.read + result + inputs_bytes, forward.written + inputs_bytes)
