"""Random problems for the emulated kernels, and comparisons with the reference implementation."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from kernel_emulator import DIRECTIONS, DTYPES, MERGES, NORMALIZATIONS, Machine
from torch import Tensor

import spn

# Relative RMS error. Outputs are rounded to the dtype; the hidden state is float32 or better.
TOLERANCE = {torch.float64: 1e-13, torch.float32: 2e-6, torch.float16: 1e-3, torch.bfloat16: 8e-3}


@dataclass(frozen=True)
class Case:
    height: int
    width: int
    batch: int = 1
    channels: int = 2
    gate_groups: int = 2
    source_groups: int = 0
    direction: str = "four_way"
    normalize: str = "abs"
    merge: str = "max"
    dtype: torch.dtype = torch.float32
    seed: int = 0
    restart_every: int = 0

    @property
    def directions(self) -> tuple[str, ...]:
        return DIRECTIONS if self.direction == "four_way" else (self.direction,)

    def tensors(self) -> tuple[Tensor, Tensor, Tensor | None]:
        generator = torch.Generator().manual_seed(self.seed)
        n, d, plane = self.batch, len(self.directions), (self.height, self.width)
        x = torch.randn(n, self.channels, *plane, generator=generator)
        gates = torch.randn(n, d, 3, self.gate_groups, *plane, generator=generator)
        if self.normalize == "none":
            gates = gates / 4
        source = torch.rand(n, d, self.source_groups, *plane, generator=generator)
        return x.to(self.dtype), gates.to(self.dtype), source.to(self.dtype) if self.source_groups else None


def hidden_maps(case: Case, x: Tensor, gates: Tensor, source: Tensor | None) -> Tensor:
    """Return the hidden maps of the reference implementation, (N, D, C, H, W)."""
    return torch.stack(
        [
            spn.reference.propagate(
                x,
                gates[:, d],
                direction,
                source=None if source is None else source[:, d],
                normalize=case.normalize,
                restart_every=case.restart_every or None,
            )
            for d, direction in enumerate(case.directions)
        ],
        dim=1,
    )


def error(got: Tensor, expected: Tensor, floor: float = 1e-30) -> float:
    """Return the relative error; `floor` bounds the norm from below, because cancellation leaves rounding errors."""
    got, expected = got.detach().double(), expected.detach().double()
    return float((got - expected).norm() / expected.norm().clamp(min=floor))


def check(case: Case, machine: Machine) -> tuple[Tensor, ...]:
    """Run both passes on the machine, compare them with the reference in float64 and return all results."""
    x, gates, source = case.tensors()
    out, winner, checkpoints = machine.propagate(
        x, gates, source, case.direction, case.normalize, case.merge, True, case.restart_every
    )
    leaves = [
        None if t is None else t.to(torch.float64, copy=True).requires_grad_() for t in (x, gates, source)
    ]
    hidden = hidden_maps(case, *leaves)
    if case.merge == "max":
        # Rounding decides between nearly equal values, so the gradient follows the kernel's choice.
        chosen = hidden.gather(1, winner.long().unsqueeze(1)).squeeze(1)
        assert error(chosen, hidden.amax(1)) < TOLERANCE[torch.float32]
        expected = chosen
    elif case.merge == "none":
        expected = hidden
    else:
        expected = spn.reference.merge_directions(hidden, case.merge)
    tolerance = TOLERANCE[case.dtype]
    assert error(out, expected) < tolerance, ("out", error(out, expected))
    assert not out.isnan().any()

    options = (case.direction, case.normalize, case.merge)
    without = machine.propagate(x, gates, source, *options, False, case.restart_every)[0]
    assert torch.equal(without, out), "saving for the backward pass changes the result"

    grad = torch.randn(out.shape, generator=torch.Generator().manual_seed(case.seed + 1)).to(case.dtype)
    grads = machine.propagate_backward(
        grad, x, gates, source, winner, checkpoints, *options, restart_every=case.restart_every
    )
    expected_grads = torch.autograd.grad(
        expected, [t for t in leaves if t is not None], grad.double(), materialize_grads=True
    )
    for name, got, wanted in zip(("x", "gates", "source"), grads, expected_grads, strict=False):
        assert error(got, wanted, floor=float(grad.double().norm())) < 2 * tolerance, name
    return out, checkpoints, *(g for g in grads if g is not None), *([] if winner is None else [winner])


def check_wanted(case: Case, machine: Machine, *masks: tuple[bool, bool, bool]) -> None:
    """Check that each gradient is bitwise the same, whichever gradients are requested."""
    x, gates, source = case.tensors()
    options = (case.direction, case.normalize, case.merge)
    out, winner, checkpoints = machine.propagate(x, gates, source, *options, True, case.restart_every)
    grad = torch.randn(out.shape, generator=torch.Generator().manual_seed(case.seed + 1)).to(case.dtype)
    arguments = (grad, x, gates, source, winner, checkpoints, *options)
    all_of_them = machine.propagate_backward(*arguments, restart_every=case.restart_every)
    for wanted in masks:
        found = machine.propagate_backward(*arguments, wanted, case.restart_every)
        for asked, got, expected in zip(wanted, found, all_of_them, strict=True):
            assert got is None if expected is None or not asked else torch.equal(got, expected), wanted


__all__ = [
    "DIRECTIONS",
    "DTYPES",
    "MERGES",
    "NORMALIZATIONS",
    "TOLERANCE",
    "Case",
    "check",
    "check_wanted",
    "error",
    "hidden_maps",
]
