"""The training loop of all networks: steps, learning rate, running average, checkpoints and resuming."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from tqdm import tqdm

from vos_pipeline.errors import PipelineError
from vos_pipeline.settings import Schedule
from vos_pipeline.training.checkpoint import load_checkpoint, save_checkpoint, unusable
from vos_pipeline.training.compute import Compute
from vos_pipeline.training.process_group import Ranks, take_from_first_rank

Net = TypeVar("Net", bound=nn.Module)
# loss(forward, *batch): the loss of a batch, where forward is the network as it is trained.
Loss = Callable[..., Tensor]


class Trainer:
    """Train one network in place.

    A step sets the learning rate, computes the gradient of the loss, and updates the weights and their running average

    .. math:: m \\leftarrow d\\,m + (1 - d)\\,w, \\quad d = \\min(\\text{average}, (1 + t) / (10 + t))

    at step t, which gives the initial weights little influence. If ``average`` is 0, m equals w. Every
    ``checkpoint_every`` steps, and after the last one, everything that the next step depends on is written to
    ``checkpoint``. After training, the network has the averaged weights.

    Args:
        net: the network to train.
        loss: ``loss(forward, *batch)``; ``forward`` is the network with autocast, compilation and ranks applied.
        schedule: steps, optimizer, learning rate and running average.
        checkpoint: file for the training state, or None to write none.
        compute: device and precision of the network.
        ranks: ranks that train the network, each on a share of every batch. Gradients are averaged over the ranks.
        factors: groups of parameters with factors of the learning rate; None trains all at the same rate.
        settings: other values that the training depends on. A resumed training must have the same values.

    Example:
        >>> trainer = Trainer(net, loss, schedule, Path("out/net.pt"))
        >>> trainer.resume()
        >>> trainer.run(batches(step) for step in range(trainer.done, schedule.steps))
    """

    def __init__(
        self,
        net: nn.Module,
        loss: Loss,
        schedule: Schedule,
        checkpoint: Path | None,
        compute: Compute = Compute(),
        *,
        ranks: Ranks = Ranks(),
        factors: Sequence[tuple[Iterable[nn.Parameter], float]] | None = None,
        settings: dict[str, Any] | None = None,
    ) -> None:
        self.net = compute.place(net).train()
        self.loss, self.schedule, self.checkpoint, self.compute = loss, schedule, checkpoint, compute
        self.settings = settings or {}
        self.done = 0
        self.seconds = 0.0  # duration of the steps up to the last checkpoint
        # Without an average these are the weights themselves, so a checkpoint stores them only once.
        self.average = {name: value.detach() for name, value in net.state_dict().items()}
        if schedule.average:
            self.average = {name: value.clone() for name, value in self.average.items()}
        self.optimizer = _optimizer(schedule, factors or [(net.parameters(), 1.0)])
        self.scaler = torch.amp.GradScaler(compute.kind, enabled=compute.precision == "float16")
        self.ranks = ranks
        self.keeps = ranks.rank == 0  # the rank that writes checkpoints and shows the progress bar
        shared = DistributedDataParallel(net, process_group=ranks.group) if ranks.size > 1 else net
        self._forward: Callable[..., Any] = torch.compile(shared) if compute.compiled else shared

    def run(
        self,
        batches: Iterable[Sequence[Tensor]],
        *,
        title: str = "training",
        after_step: Callable[[Tensor], None] | None = None,
        at_checkpoint: Callable[[], None] | None = None,
    ) -> None:
        """Run the remaining steps.

        Args:
            batches: the batches of steps ``done``, ``done`` + 1, ... up to the last one.
            title: title of the progress bar.
            after_step: called with the loss after every step.
            at_checkpoint: called after a checkpoint was written, in the process that wrote it.

        Raises:
            PipelineError: weights became infinite or NaN. This is checked before a checkpoint is written.
        """
        steps = self.schedule.steps
        recent: deque[Tensor] = deque(maxlen=100)
        # A finished training shows no progress bar.
        hidden = not self.keeps or self.done >= steps
        start = time.perf_counter() - self.seconds
        with tqdm(desc=title, initial=self.done, total=steps, disable=hidden) as progress:
            for batch in batches:
                loss = self.step(batch)
                if after_step:
                    after_step(loss)
                recent.append(loss)
                if self.done % 10 == 0 or self.done == steps:  # more frequent reads would stall a GPU
                    progress.set_postfix(loss=f"{torch.stack(list(recent)).mean():.4g}", refresh=False)
                progress.update()
                if self.done % self.schedule.checkpoint_every and self.done != steps:
                    continue
                self._check_weights(title)
                if self.keeps:
                    self.seconds = time.perf_counter() - start
                    self.save()
                    if at_checkpoint:
                        at_checkpoint()
        if self.done >= steps:
            self.finish()
            if self.keeps and steps == 0:  # later stages expect the file
                self.save()

    def _check_weights(self, title: str) -> None:
        """Fail before diverged weights overwrite a good checkpoint; all ranks fail, because their weights are equal."""
        values = [value for value in self.net.state_dict().values() if value.is_floating_point()]
        if not torch.stack([value.isfinite().all() for value in values]).all():
            raise PipelineError(
                f"{title}: the training diverged: weights are infinite or NaN after {self.done} steps, and are not "
                "saved; try float32, or a smaller learning rate"
            )

    def step(self, batch: Sequence[Tensor]) -> Tensor:
        """Run one step and return the loss of this rank's batch."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.schedule.rate(self.done) * group["factor"]
        loss = self.loss(self.forward, *map(self.compute.move, batch))
        self.optimizer.zero_grad()
        self.scaler.scale(loss).backward()
        if self.schedule.clip is not None:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.net.parameters(), self.schedule.clip)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self._update_average()
        self.done += 1
        return loss.detach()

    def forward(self, *inputs: Tensor) -> Any:
        """Run the network as it is trained, with autocast, compilation and ranks applied."""
        with self.compute.autocast():
            return self._forward(*inputs)

    @torch.no_grad()
    def _update_average(self) -> None:
        if not self.schedule.average:
            return
        decay = min(self.schedule.average, (1 + self.done) / (10 + self.done))
        for name, value in self.net.state_dict().items():
            if value.is_floating_point():
                self.average[name].lerp_(value, 1 - decay)
            else:
                self.average[name].copy_(value)

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Use the averaged weights, in evaluation mode, within the block."""
        current = {name: value.clone() for name, value in self.net.state_dict().items()}
        self.net.load_state_dict(self.average)
        self.net.eval()
        try:
            yield
        finally:
            self.net.load_state_dict(current)
            self.net.train()

    def finish(self) -> None:
        """Copy the averaged weights to the network, the same on all ranks."""
        # During training, each rank has separate batch normalisation statistics.
        take_from_first_rank(self.average.values(), self.ranks)
        self.net.load_state_dict(self.average)
        self.net.eval()

    # --- checkpoints ------------------------------------------------------------------------------------------

    def save(self) -> None:
        """Write everything that the next step depends on, or only the weights of a finished training."""
        if self.checkpoint is None:
            return
        state = {
            "settings": self.settings,
            "step": self.done,
            "seconds": self.seconds,
            "net": self.net.state_dict(),
            "average": self.average,
        }
        if self.done < self.schedule.steps:
            state |= {"optimizer": self.optimizer.state_dict(), "scaler": self.scaler.state_dict()}
        save_checkpoint(self.checkpoint, state)

    def resume(self) -> None:
        """Continue from the checkpoint, if it exists.

        Raises:
            PipelineError: the checkpoint belongs to a training with other settings, or cannot be read.
        """
        if self.checkpoint is None or not self.checkpoint.exists():
            return
        state = load_checkpoint(self.checkpoint, self.compute.device)
        done = state.get("step")
        if not isinstance(done, int):
            raise unusable(self.checkpoint, "it is not a training state")
        finished = done >= self.schedule.steps
        if state.get("settings") != self.settings or not (finished or "optimizer" in state):
            raise PipelineError(
                f"{self.checkpoint} belongs to a training with other settings: delete it or choose another folder"
            )
        try:
            self.net.load_state_dict(state["net"])
            for name, value in state["average"].items():
                self.average[name].copy_(value)
            if not finished:
                self.optimizer.load_state_dict(state["optimizer"])
                self.scaler.load_state_dict(state["scaler"])
        except (KeyError, RuntimeError, ValueError, TypeError, AttributeError) as error:
            raise unusable(self.checkpoint, error) from error
        self.done, self.seconds = done, float(state.get("seconds", 0.0))


def is_finished(checkpoint: Path, schedule: Schedule) -> bool:
    """Return whether ``checkpoint`` contains the last step of this schedule."""
    return checkpoint.exists() and load_checkpoint(checkpoint, lazily=True).get("step") == schedule.steps


def training_seconds(checkpoint: Path) -> float:
    """Return the duration in seconds of the steps up to ``checkpoint``."""
    return float(load_checkpoint(checkpoint, lazily=True).get("seconds", 0.0))


def load_average(net: Net, checkpoint: Path, compute: Compute = Compute()) -> Net:
    """Load the averaged weights of ``checkpoint`` into the network, and return it ready for use."""
    try:
        net.load_state_dict(load_checkpoint(checkpoint)["average"])
    except (KeyError, RuntimeError, TypeError, AttributeError) as error:
        raise unusable(checkpoint, error) from error
    return compute.place(net).eval()


def _optimizer(
    schedule: Schedule, factors: Sequence[tuple[Iterable[nn.Parameter], float]]
) -> torch.optim.Optimizer:
    groups = [
        {"params": [p for p in parameters if p.requires_grad], "factor": factor}
        for parameters, factor in factors
    ]
    rate, decay = schedule.learning_rate, schedule.weight_decay
    if schedule.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=rate, momentum=schedule.momentum, weight_decay=decay)
    return torch.optim.AdamW(groups, lr=rate, weight_decay=decay)
