"""The refiner's training loop and its loss."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, Dataset, Subset
from tqdm import tqdm

from spn import SPNRefiner
from vos_pipeline.errors import PipelineError
from vos_pipeline.images import write_image
from vos_pipeline.spn_evidence import Curves, refinement_loss, validate
from vos_pipeline.train import autocast, load_checkpoint, memory_format, process_rank, save_checkpoint

__all__ = ["SPNTraining", "train"]


@dataclass(frozen=True)
class SPNTraining:
    """Constants of one training. How the weights that ship with spn were made: docs/refiner.md."""

    guidance: str = "lite"  # "lite" (which sees the mask too), "lite-image" or "vgg16"
    form: str = "embedded"
    steps: int = 9_000
    batch: int = 4  # of all processes together
    size: int = 160  # side of the crops in pixels
    learning_rate: float = 2e-3
    weight_decay: float = 1e-4
    average: float = 0.998  # decay of the moving average of the weights, which is what is kept
    boundary_weight: float = 3.0  # extra weight of pixels near an outline; 0 is the paper's plain loss
    precision: str = "float32"  # or "bfloat16", "float16": autocast, twice as fast where the processor has it
    seed: int = 0
    checkpoint_every: int = 200


def train(
    refiner: SPNRefiner,
    samples: Dataset,
    out: str | Path,
    config: SPNTraining = SPNTraining(),
    *,
    validation: Dataset | None = None,
    device: str = "cpu",
    resume: bool = False,
    workers: int = 0,
) -> list[float]:
    """Trains a refiner in place; writes ``out/spn.pt`` (state), ``out/spn.safetensors`` (averaged weights).

    A sample is a function of its index alone and the state holds everything else, so a training that was
    stopped and resumed goes through the same losses as one that was not. In a process group rank r of R takes
    the samples r, r + R, ... of each batch, gradients are averaged over the ranks, the statistics of batch
    normalisation are rank 0's, and all ranks end with the same weights.

    Args:
        refiner: what to train; holds the averaged weights at the end.
        samples: ``samples[i]`` for any i >= 0: picture (S, S, 3), coarse and exact mask (S, S), all
            float32 in [0, 1]; the exact mask is -1 where it is not known.
        out: folder to write to; ``curves.csv`` in it gets a row a checkpoint, TensorBoard finds all curves in it, if it
            is installed.
        config: see :class:`SPNTraining`.
        validation: samples to measure and to draw (``out/validation/``) with every checkpoint.
        device: where to train.
        resume: go on from ``out/spn.pt`` if it is there.
        workers: processes that prepare samples.

    Returns:
        The loss of every step done in this call, mean over the ranks.
    """
    rank, world = process_rank()
    if config.batch % world:
        raise PipelineError(f"--batch {config.batch} does not divide by {world} processes: choose a multiple")
    learner = _Learner(refiner, config, device)
    state, weights = Path(out) / "spn.pt", Path(out) / "spn.safetensors"
    if resume and state.exists():
        learner.load(state)
    curves = Curves(Path(out), learner.done) if rank == 0 else None
    losses = []
    batches = _batches(samples, config, learner.done, workers, device)
    progress = tqdm(batches, desc="spn", initial=learner.done, total=config.steps, disable=rank != 0)
    for image, coarse, mask in progress:
        losses.append(learner.learn(image, coarse, mask))
        progress.set_postfix(loss=f"{np.mean(losses[-100:]):.4f}")
        if rank != 0:
            continue
        curves.add_step(learner.done, losses[-1], learning_rate(config, learner.done - 1))
        if learner.done % config.checkpoint_every == 0 or learner.done == config.steps:
            learner.save(state)
            with learner.averaged():
                refiner.save_pretrained(weights, dtype=torch.float16)
                scores = {}
                if validation is not None:
                    scores, picture = validate(refiner, validation, device)
                    write_image(Path(out) / "validation" / f"{learner.done:06d}.jpg", picture)
            curves.add_checkpoint(learner.done, **scores)
    learner.finish()
    return losses


def learning_rate(config: SPNTraining, step: int) -> float:
    """Warm-up over 100 steps, then a cosine to 1 % of the rate."""
    cosine = 0.5 * (1 + math.cos(math.pi * step / config.steps))
    return config.learning_rate * min(1.0, (step + 1) / 100) * (0.01 + 0.99 * cosine)


class _Learner:
    """A refiner on its way: its optimizer, the moving average of its weights, the steps that are done."""

    def __init__(self, refiner: SPNRefiner, config: SPNTraining, device: str) -> None:
        layout = memory_format(device, config.precision)
        self.refiner = refiner.to(device, memory_format=layout).train()
        self.config, self.device, self.layout, self.done = config, device, layout, 0
        self.average = {name: value.detach().clone() for name, value in refiner.state_dict().items()}
        self.optimizer = torch.optim.AdamW(
            refiner.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay
        )
        self.scaler = torch.amp.GradScaler(torch.device(device).type, enabled=config.precision == "float16")
        self.world = process_rank()[1]
        self.forward = DistributedDataParallel(refiner) if self.world > 1 else refiner

    def learn(self, image: Tensor, coarse: Tensor, mask: Tensor) -> float:
        """One step; the loss, mean over the ranks."""
        image, coarse, mask = (
            v.to(self.device, non_blocking=True, memory_format=self.layout) for v in (image, coarse, mask)
        )
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.config, self.done)
        with autocast(self.device, self.config.precision):
            refined = self.forward(image, coarse)
        loss = refinement_loss(refined, mask, self.config.boundary_weight, coarse)
        self.optimizer.zero_grad()
        self.scaler.scale(loss).backward()
        self.scaler.unscale_(self.optimizer)
        nn.utils.clip_grad_norm_(self.refiner.parameters(), 1.0)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self._update_average()
        self.done += 1
        loss = loss.detach()
        if self.world > 1:
            dist.all_reduce(loss)
        return loss.item() / self.world

    @torch.no_grad()
    def _update_average(self) -> None:
        decay = min(self.config.average, (1 + self.done) / (10 + self.done))
        for name, value in self.refiner.state_dict().items():
            if value.is_floating_point():
                self.average[name].lerp_(value, 1 - decay)
            else:
                self.average[name].copy_(value)

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """The refiner with the weights that are kept, as it will be used, for as long as the block lasts."""
        current = {name: value.clone() for name, value in self.refiner.state_dict().items()}
        self.refiner.load_state_dict(self.average)
        self.refiner.eval()
        try:
            yield
        finally:
            self.refiner.load_state_dict(current)
            self.refiner.train()

    def finish(self) -> None:
        """Leaves the averaged weights in the refiner, the same ones on all ranks."""
        if self.world > 1:  # until here the statistics of batch normalisation were each rank's own
            for value in self.average.values():
                dist.broadcast(value, 0)
        self.refiner.load_state_dict(self.average)
        self.refiner.eval()

    def save(self, path: Path) -> None:
        """Writes everything that the next step depends on."""
        state = {"config": asdict(self.config), "step": self.done, "average": self.average}
        state |= {name: getattr(self, name).state_dict() for name in ("refiner", "optimizer", "scaler")}
        save_checkpoint(path, state)

    def load(self, path: Path) -> None:
        """Goes on where :meth:`save` was called; PipelineError if the settings were others."""
        state = load_checkpoint(path, self.device)
        if state["config"] != asdict(self.config):
            raise PipelineError(
                f"{path} is of a training with other settings: delete it or choose another folder"
            )
        for name in ("refiner", "optimizer", "scaler"):
            getattr(self, name).load_state_dict(state[name])
        self.average, self.done = state["average"], state["step"]


def _batches(
    samples: Dataset, config: SPNTraining, start: int, workers: int, device: str
) -> Iterator[list[Tensor]]:
    """This rank's shares of the batches from step ``start`` on, in order."""
    rank, world = process_rank()
    rest = Subset(samples, range(start * config.batch + rank, config.steps * config.batch, world))
    loader = DataLoader(
        rest,
        config.batch // world,
        num_workers=workers,
        pin_memory=device.startswith("cuda"),
        prefetch_factor=4 if workers else None,
        worker_init_fn=_one_thread,
        multiprocessing_context="spawn" if workers else None,  # OpenCV's threads do not survive a fork
    )
    for image, coarse, mask in loader:
        yield image.permute(0, 3, 1, 2), coarse.unsqueeze(1), mask.unsqueeze(1)


def _one_thread(worker: int) -> None:
    cv2.setNumThreads(1)  # the workers are the parallelism
