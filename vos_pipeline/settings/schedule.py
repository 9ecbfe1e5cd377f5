"""How long and how fast one net is trained."""

from __future__ import annotations

import math
from dataclasses import dataclass

from vos_pipeline.errors import PipelineError

PRECISIONS = ("float32", "bfloat16", "float16")
OPTIMIZERS = ("adamw", "sgd")
DECAYS = ("cosine", "halve", "poly", "constant")
REDUCTIONS = ("mean", "sum")


@dataclass(frozen=True)
class Schedule:
    """Steps, batch size, optimizer and learning rate of one training.

    The rate rises linearly over ``warmup`` steps. Then ``decay`` lowers it: "cosine" to ``floor`` times the rate,
    "halve" every ``halve_every`` steps, "poly" as (1 - step / steps) to the ``power``, "constant" not at all.

    Raises:
        PipelineError: a name is not known, or "halve" comes without ``halve_every``.
    """

    steps: int
    batch: int  # images per step, of all ranks together
    learning_rate: float
    optimizer: str = "adamw"  # one of OPTIMIZERS
    momentum: float = 0.9  # of "sgd"
    weight_decay: float = 1e-4
    warmup: int = 0
    decay: str = "cosine"  # one of DECAYS
    floor: float = 0.0
    halve_every: int = 0
    power: float = 1.0  # of "poly"
    clip: float | None = None  # largest norm of all gradients together
    average: float = 0.0  # decay of an exponential moving average of the weights, 0 for none
    checkpoint_every: int = 200

    def __post_init__(self) -> None:
        check_choice("optimizer", self.optimizer, OPTIMIZERS)
        check_choice("decay", self.decay, DECAYS)
        if self.decay == "halve" and self.halve_every < 1:
            raise PipelineError(f"decay 'halve' needs halve_every >= 1, got {self.halve_every}")

    def rate(self, step: int) -> float:
        """The learning rate of a step, counted from 0."""
        rate = self.learning_rate * min(1.0, (step + 1) / max(self.warmup, 1))
        if self.decay == "halve":
            return rate * 0.5 ** (step // self.halve_every)
        if self.decay == "poly":
            return rate * (1 - step / self.steps) ** self.power
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

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("reduction", self.reduction, REDUCTIONS)


def check_choice(name: str, value: str, allowed: tuple[str, ...]) -> None:
    """PipelineError if a setting has none of the allowed values, which it names."""
    if value not in allowed:
        raise PipelineError(f"unknown {name} {value!r}: choose one of {', '.join(allowed)}")
