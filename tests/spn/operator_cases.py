"""Helpers of the operator tests: cases (shape and options), their inputs, and the error measure."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from itertools import product

import pytest
import torch
from hypothesis import strategies as st

import spn
from spn import _ops

DIRECTIONS = ("left_to_right", "right_to_left", "top_to_bottom", "bottom_to_top")
NORMALIZATIONS = ("none", "abs", "unit", "sigmoid")
MERGES = ("max", "mean", "sum", None)
DTYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
# Requested gradients of x, gates and source; at least one of them.
WANTED = [wanted for wanted in product((True, False), repeat=3) if any(wanted)]

DEVICES = ["cpu"] + ["cuda"] * torch.cuda.is_available()

# The operator and its specification in plain PyTorch, which share their properties.
BACKENDS = [
    pytest.param(spn, id="operator"),
    pytest.param(spn.reference, id="reference", marks=pytest.mark.slow),
]

needs_cpu_kernels = pytest.mark.skipif(not _ops.CPU.loaded, reason=f"CPU kernels: {_ops.CPU.reason}")

# Relative RMS errors: several roundings of the state and one of the result.
TOLERANCES = {torch.float64: 1e-13, torch.float32: 2e-6, torch.float16: 6e-4, torch.bfloat16: 5e-3}


def kernels_on(device: str) -> bool:
    """Whether compiled kernels, and not the reference, run on this device."""
    return (_ops.CUDA if device == "cuda" else _ops.CPU).loaded


def relative_rms(actual: torch.Tensor, expected: torch.Tensor) -> float:
    """Return the RMS of the error relative to the RMS of the expected values; NaN counts as an infinite error.

    Inputs are of order one. If the expected values nearly cancel, the error is relative to 0.1 instead.
    """
    assert actual.shape == expected.shape, (actual.shape, expected.shape)
    if actual.numel() == 0:
        return 0.0
    expected = expected.detach().double()
    actual = actual.detach().double().to(expected.device)
    size = expected.square().mean().sqrt().item()
    error = (actual - expected).square().mean().sqrt().item()
    return float("inf") if math.isnan(error) else error / max(size, 0.1)


def assert_close(
    actual: torch.Tensor, expected: torch.Tensor, dtype: torch.dtype | None = None, what: str = ""
) -> None:
    tolerance = TOLERANCES[dtype or actual.dtype]
    error = relative_rms(actual, expected)
    assert error <= tolerance, f"{what} relative RMS error {error:.2e} > {tolerance:.0e}"


@dataclass(frozen=True)
class Case:
    """A call of the operator: ``case(*case.inputs())``; ``direction="four_way"`` is propagate_four_way."""

    shape: tuple[int, int, int, int] = (2, 4, 5, 7)
    groups: int = 2
    source_groups: int = 0  # 0 selects the SPN form
    direction: str = "four_way"
    normalize: str = "abs"
    merge: str | None = "max"
    restart_every: int | None = None

    @property
    def lead(self) -> tuple[int, ...]:
        return (4,) if self.direction == "four_way" else ()

    def inputs(self, dtype=torch.float64, device="cpu", requires_grad=False, seed=0) -> list[torch.Tensor]:
        """Return x, gates and, in source form, source. Unnormalised gates sum to at most 1 in magnitude."""
        generator = torch.Generator().manual_seed(seed)
        n, _, *plane = self.shape
        x = torch.randn(self.shape, generator=generator, dtype=torch.float64)
        gates = (
            torch.randn(n, *self.lead, 3, self.groups, *plane, generator=generator, dtype=torch.float64) / 2
        )
        tensors = [x, gates.clamp(-1, 1) / 3 if self.normalize == "none" else gates]
        if self.source_groups:
            source = (n, *self.lead, self.source_groups, *plane)
            tensors.append(torch.rand(source, generator=generator, dtype=torch.float64) + 0.5)
        return [t.to(device, dtype).requires_grad_(requires_grad) for t in tensors]

    def __call__(self, x, gates, source=None, api=spn) -> torch.Tensor:
        options = {"source": source, "normalize": self.normalize, "restart_every": self.restart_every}
        if self.direction == "four_way":
            return api.propagate_four_way(x, gates, merge=self.merge, **options)
        return api.propagate(x, gates, self.direction, **options)

    def __str__(self) -> str:
        form = f"source{self.source_groups}" if self.source_groups else "spn"
        where = f"four_way-{self.merge}" if self.direction == "four_way" else self.direction
        restart = f"-every{self.restart_every}" if self.restart_every else ""
        return f"{form}-{self.normalize}-{where}-G{self.groups}-{'x'.join(map(str, self.shape))}{restart}"

    def with_(self, **changes) -> Case:
        return replace(self, **changes)


# A small case of each kind, for tests that do not depend on values.
CASES = [
    Case((2, 4, 5, 7), 2, 0, "four_way", "abs", "max"),
    Case((1, 2, 18, 3), 1, 2, "four_way", "sigmoid", "mean"),
    Case((1, 4, 3, 32), 4, 1, "four_way", "none", None),
    Case((2, 3, 4, 17), 3, 0, "left_to_right", "unit"),
    Case((1, 2, 5, 35), 1, 0, "four_way", "unit", "max", restart_every=3),
    Case((1, 2, 16, 4), 1, 2, "bottom_to_top", "sigmoid"),
]


def gradients(case: Case, inputs, grad=None, api=spn):
    """Return the output and the gradients of all inputs; the incoming gradient is random unless given."""
    leaves = [t.detach().requires_grad_() for t in inputs]
    out = case(*leaves, api=api)
    if grad is None:
        grad = torch.randn(out.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64).to(out)
    return out.detach(), torch.autograd.grad(out, leaves, grad, materialize_grads=True, allow_unused=True)


def divisors(number: int) -> list[int]:
    return [d for d in range(1, number + 1) if number % d == 0]


# Kernels process blocks of 16 lines: sizes on both sides of block boundaries, and of vector widths.
SIZES = st.one_of(st.integers(1, 9), st.sampled_from([15, 16, 17, 31, 32, 33, 47, 49]))


@st.composite
def cases(
    draw,
    merges=MERGES,
    normalizations=NORMALIZATIONS,
    forms=("spn", "source"),
    directions=None,
    restarts=(None, None, None, 1, 2, 3, 7, 16, 24),
) -> Case:
    channels = draw(st.sampled_from([1, 2, 3, 4, 6, 9, 12]))
    return Case(
        shape=(draw(st.integers(1, 3)), channels, draw(SIZES), draw(SIZES)),
        groups=draw(st.sampled_from(divisors(channels))),
        source_groups=draw(st.sampled_from(divisors(channels)))
        if draw(st.sampled_from(forms)) == "source"
        else 0,
        direction=draw(st.sampled_from(directions or ("four_way", "four_way", *DIRECTIONS))),
        normalize=draw(st.sampled_from(normalizations)),
        merge=draw(st.sampled_from(merges)),
        restart_every=draw(st.sampled_from(restarts)),
    )
