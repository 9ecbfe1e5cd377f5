"""Helpers of the CUDA tests: arguments of the operators, and float64 results of the reference."""

from __future__ import annotations

from functools import lru_cache

import pytest
import torch
from gpu_or_stand_in import GPU
from operator_cases import Case
from torch import Tensor

import spn
from spn import _ops

needs_kernels = pytest.mark.skipif(
    GPU.stands_in and not _ops.CPU.loaded, reason="needs the CUDA kernels, or the CPU kernels as stand-in"
)

FOUR_WAY = Case(shape=(2, 4, 37, 42), groups=2)
propagate = torch.ops.spn.propagate.default
propagate_backward = torch.ops.spn.propagate_backward.default


def options_of(case: Case, tensors) -> tuple[list[Tensor | None], tuple[str, str, str]]:
    """Return the operators' arguments: x, gates (N, D, 3, G, H, W), source (N, D, G_s, H, W), and the options."""
    x, gates, *source = tensors
    source = source[0] if source else None
    if case.direction == "four_way":
        return [x, gates, source], (case.direction, case.normalize, case.merge or "none")
    source = None if source is None else source.unsqueeze(1)
    return [x, gates.unsqueeze(1), source], (case.direction, case.normalize, "none")


class Reference:
    """A problem whose values are exact in every dtype, with the float64 results of the reference."""

    def __init__(self, case: Case, device: str):
        generator = torch.Generator(device).manual_seed(0)
        self.case = case

        def draw(*shape: int, uniform: bool = False) -> Tensor:
            make = torch.rand if uniform else torch.randn
            values = make(shape, generator=generator, device=device, dtype=torch.float32)
            return values.to(torch.bfloat16).to(torch.float16).double()

        n, _, *plane = case.shape
        gates = draw(n, *case.lead, 3, case.groups, *plane) / 2
        inputs = [draw(*case.shape), gates.clamp(-1, 1) / 4 if case.normalize == "none" else gates]
        if case.source_groups:
            inputs.append(draw(n, *case.lead, case.source_groups, *plane, uniform=True))
        self.leaves = [t.requires_grad_() for t in inputs]
        self.hidden = case.with_(merge=None)(*self.leaves, api=spn.reference)
        self.merged = None
        if case.direction == "four_way" and case.merge != "max":
            self.merged = spn.reference.merge_directions(self.hidden, case.merge)
        elif case.direction != "four_way":
            self.merged = self.hidden
        self.grad = draw(*(case.shape if self.merged is None else self.merged.shape))
        self._winner = self._gradients = None

    def inputs(self, dtype: torch.dtype) -> list[Tensor]:
        return [t.detach().to(dtype) for t in self.leaves]

    def chosen(self, winner: Tensor) -> Tensor:
        return self.hidden.gather(1, winner.long().unsqueeze(1)).squeeze(1)

    def gradients(self, winner: Tensor | None) -> tuple[Tensor, ...]:
        """Return the gradients for the kernel's argmax, because rounding decides between nearly equal directions."""
        known = self._gradients is not None and (winner is None or torch.equal(winner, self._winner))
        if not known:
            out = self.merged if winner is None else self.chosen(winner)
            self._winner = winner
            self._gradients = torch.autograd.grad(out, self.leaves, self.grad, retain_graph=True)
        return self._gradients


# Tests of one problem in all its dtypes run one after another.
reference_of = lru_cache(maxsize=1)(Reference)
