"""How long and how fast one net is trained."""

from __future__ import annotations

import math
from dataclasses import dataclass

PRECISIONS = ("float32", "bfloat16", "float16")


@dataclass(frozen=True)
class Schedule:
    """Steps, batch size, optimizer and learning rate of one training.

    The rate rises linearly over ``warmup`` steps. Then ``decay`` lowers it: "cosine" to ``floor`` times the rate,
    "halve" every ``halve_every`` steps, "constant" not at all.
    """

    steps: int
    batch: int  # images per step, of all ranks together
    learning_rate: float
    optimizer: str = "adamw"  # "adamw" or "sgd"
    momentum: float = 0.9  # of "sgd"
    weight_decay: float = 1e-4
    warmup: int = 0
    decay: str = "cosine"
    floor: float = 0.0
    halve_every: int = 0
    clip: float | None = None  # largest norm of all gradients together
    average: float = 0.0  # decay of an exponential moving average of the weights, 0 for none
    checkpoint_every: int = 200

    def rate(self, step: int) -> float:
        """The learning rate of a step, counted from 0."""
        rate = self.learning_rate * min(1.0, (step + 1) / max(self.warmup, 1))
        if self.decay == "halve":
            return rate * 0.5 ** (step // self.halve_every)
        if self.decay == "cosine":
            cosine = 0.5 * (1 + math.cos(math.pi * step / self.steps))
            return rate * (self.floor + (1 - self.floor) * cosine)
        return rate


@dataclass(frozen=True)
class NetSchedule(Schedule):
    """The schedule of a foreground or instance net, and its loss: eq. (1) of the paper and what softens it."""

    head_factor: float = 1.0  # the head learns that many times as fast: it must tell apart what looked alike
    reduction: str = "mean"  # of the loss, eq. (1): "mean" or, as in the paper, "sum"
    balance: float = 1.0  # of the loss: 1 is eq. (1), 0 plain cross-entropy
