"""Training of foreground and instance nets: loss, and learning rates of features and head."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import Tensor

from vos_pipeline.nets.batches import Batch, made_ahead
from vos_pipeline.nets.losses import class_balanced_loss
from vos_pipeline.nets.model import ForegroundNet
from vos_pipeline.settings import NetSchedule
from vos_pipeline.training import Compute, Ranks, Trainer


def train_net(
    net: ForegroundNet,
    batches: Callable[[int], Batch],
    schedule: NetSchedule,
    checkpoint: Path | None,
    compute: Compute = Compute(),
    *,
    resume: bool = False,
    ranks: Ranks = Ranks(),
    title: str = "training",
) -> ForegroundNet:
    """Train a network in place on batches of images and classes, and return it ready for use.

    Args:
        net: (N, 3, H, W) to logits (N, C, H, W).
        batches: function from a step to its images and classes, which must always be the same.
        schedule: steps, learning rate and loss.
        checkpoint: file for the training state, or None to write none.
        compute: device and precision of the network.
        resume: continue from ``checkpoint`` if it exists.
        ranks: ranks that train the network together. ``batches`` returns the equal share of this rank.
        title: title of the progress bar.
    """
    head = {id(parameter) for parameter in net.head.parameters()}
    features = [parameter for parameter in net.parameters() if id(parameter) not in head]
    trainer = Trainer(
        net,
        _loss(schedule),
        schedule,
        checkpoint,
        compute,
        ranks=ranks,
        factors=[(features, 1.0), (net.head.parameters(), schedule.head_factor)],
    )
    if resume:
        trainer.resume()
    trainer.run(made_ahead(batches, range(trainer.done, schedule.steps)), title=title)
    return net


def _loss(schedule: NetSchedule) -> Callable[..., Tensor]:
    """Return eq. (1) over the whole batch, independent of the number of ranks that share it."""

    def loss(forward: Callable[[Tensor], Any], images: Tensor, labels: Tensor) -> Tensor:
        value = class_balanced_loss(forward(images).float(), labels, schedule.reduction, schedule.balance)
        # Gradients are averaged over ranks, so a sum over one rank's images is scaled to the whole batch.
        return value * (schedule.batch / len(images)) if schedule.reduction == "sum" else value

    return loss
