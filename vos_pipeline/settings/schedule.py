"""Training schedules: steps, batch size, optimizer and learning rate."""

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

    The learning rate rises linearly over ``warmup`` steps. Then ``decay`` lowers it: "cosine" to ``floor`` times the
    rate, "halve" by half every ``halve_every`` steps, "poly" as (1 - step / steps) ** ``power``, "constant" not at all.

    Raises:
        PipelineError: an unknown name, or "halve" without ``halve_every``.
    """

    steps: int
    batch: int  # images per step, over all ranks
    learning_rate: float
    optimizer: str = "adamw"  # one of OPTIMIZERS
    momentum: float = 0.9  # for "sgd"
    weight_decay: float = 1e-4
    warmup: int = 0
    decay: str = "cosine"  # one of DECAYS
    floor: float = 0.0
    halve_every: int = 0
    power: float = 1.0  # for "poly"
    clip: float | None = None  # largest norm of all gradients together
    average: float = 0.0  # decay of the exponential moving average of the weights; 0: no average
    checkpoint_every: int = 200

    def __post_init__(self) -> None:
        check_choice("optimizer", self.optimizer, OPTIMIZERS)
        check_choice("decay", self.decay, DECAYS)
        if self.decay == "halve" and self.halve_every < 1:
            raise PipelineError(f"decay 'halve' needs halve_every >= 1, got {self.halve_every}")

    def rate(self, step: int) -> float:
        """Return the learning rate of a step. Steps count from 0."""
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
    """Schedule and loss of a foreground or instance net. The loss is eq. (1) of the paper, or a milder form."""

    head_factor: float = 1.0  # factor of the learning rate of the head, which must separate similar objects
    reduction: str = "mean"  # of the loss, eq. (1): "mean", or "sum" as in the paper
    balance: float = 1.0  # class balance of the loss: 1 is eq. (1), 0 is plain cross-entropy

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("reduction", self.reduction, REDUCTIONS)


def check_choice(name: str, value: str, allowed: tuple[str, ...]) -> None:
    """Check a setting.

    Raises:
        PipelineError: the value is not one of the allowed ones.
    """
    if value not in allowed:
        raise PipelineError(f"unknown {name} {value!r}: choose one of {', '.join(allowed)}")
