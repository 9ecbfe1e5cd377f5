"""Training of a refiner: batches, loss, learning rates, and output files."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import cv2
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from spn import SPNRefiner, VGG16Guidance
from vos_pipeline.data import write_image
from vos_pipeline.errors import PipelineError
from vos_pipeline.output_folder import KIND, REFINER, OutputFolder
from vos_pipeline.refiner.curves import Curves
from vos_pipeline.refiner.loss import refinement_loss
from vos_pipeline.refiner.samples import Sample
from vos_pipeline.refiner.validation import validate
from vos_pipeline.settings import SPNTraining
from vos_pipeline.training import Compute, Trainer, all_ranks, first_rank_first, mean_over_ranks, process_rank


def train_refiner(
    refiner: SPNRefiner,
    samples: Dataset[Sample],
    out: str | Path,
    config: SPNTraining = SPNTraining(),
    *,
    validation: Dataset[Sample] | None = None,
    device: str = "cpu",
    resume: bool = False,
    workers: int = 0,
) -> list[float]:
    """Train a refiner in place; write ``out/spn.pt`` (state) and ``out/spn.safetensors`` (averaged weights).

    A sample depends only on its index, and the state holds everything else, so a resumed training has the same losses
    as an uninterrupted one. In a process group, rank r of R uses the samples r, r + R, ... of each batch, gradients are
    averaged over the ranks, the statistics of batch normalisation are taken from rank 0, and all ranks end with the
    same weights.

    Args:
        refiner: the refiner to train. It holds the averaged weights at the end.
        samples: ``samples[i]`` for any i >= 0: image (S, S, 3), coarse and exact mask (S, S), all float32 in [0, 1];
            the exact mask is -1 where it is unknown.
        out: output folder. ``curves.csv`` in it gets one row per checkpoint. If TensorBoard is installed, all curves
            are also written for it.
        config: see :class:`vos_pipeline.settings.SPNTraining`.
        validation: samples that are measured and drawn (``out/validation/``) at every checkpoint.
        device: device to train on.
        resume: continue from ``out/spn.pt`` if it exists. Without this, ``out`` must contain no files.
        workers: number of processes that prepare samples.

    Returns:
        The loss of every step of this call, averaged over the ranks.

    Raises:
        PipelineError: ``out`` contains files and ``resume`` is not given, the configuration differs from the resumed
            one, or the ranks cannot share a batch evenly.
    """
    rank, world = process_rank()
    if config.batch % world:
        raise PipelineError(f"--batch must be a multiple of the {world} processes, got {config.batch}")
    with first_rank_first() as first:
        if first:
            folder = OutputFolder(out)
            folder.claim(resume=resume)
            folder.identify(KIND, REFINER)
            folder.identify("settings", asdict(config))
            folder.add(*training_files(config))
    out = Path(out)
    trainer = Trainer(
        refiner,
        _loss(config),
        config,
        out / "spn.pt",
        Compute(device, config.precision),
        ranks=all_ranks(),
        factors=_factors(refiner, config),
        settings=asdict(config),
    )
    if resume:
        trainer.resume()
    curves = Curves(out, trainer.done) if rank == 0 else None
    losses: list[float] = []

    def after_step(loss: Tensor) -> None:
        losses.append(mean_over_ranks(loss).item())
        if curves:
            curves.add_step(trainer.done, losses[-1], config.rate(trainer.done - 1))

    def at_checkpoint() -> None:
        scores: dict[str, float] = {}
        with trainer.averaged():
            refiner.save_pretrained(out / "spn.safetensors", dtype=torch.float16)
            if validation is not None:
                scores, picture = validate(refiner, validation, device)
                write_image(out / _picture(trainer.done), picture)
        if curves:
            curves.add_checkpoint(trainer.done, **scores)

    batches = _batches(samples, config, trainer.done, workers, device)
    try:
        trainer.run(batches, title="spn", after_step=after_step, at_checkpoint=at_checkpoint)
    finally:
        if curves:
            curves.close()
    if rank == 0 and not losses:  # stopped between writing the last state and the weights
        refiner.save_pretrained(out / "spn.safetensors", dtype=torch.float16)
    return losses


def training_files(config: SPNTraining) -> tuple[list[str], list[str]]:
    """Return the files that :func:`train_refiner` writes: relative paths, and patterns of TensorBoard's files."""
    every, steps = config.checkpoint_every, config.steps
    checkpoints = {*range(every, steps + 1, every), steps}
    pictures = map(_picture, sorted(checkpoints))
    return ["spn.pt", "spn.safetensors", Curves.FILE, *pictures], ["events.out.tfevents.*"]


def _picture(step: int) -> str:
    return f"validation/{step:06d}.jpg"


def _loss(config: SPNTraining) -> Callable[..., Tensor]:
    def loss(forward: Callable[..., Any], image: Tensor, coarse: Tensor, mask: Tensor) -> Tensor:
        return refinement_loss(forward(image, coarse), mask, config.boundary_weight, coarse)

    return loss


def _factors(refiner: SPNRefiner, config: SPNTraining) -> list[tuple[list[nn.Parameter], float]]:
    """Train VGG-16's convolutions at the scheduled rate, and all else at ``scratch_factor`` times this rate."""
    known = refiner.guidance.features if isinstance(refiner.guidance, VGG16Guidance) else nn.Sequential()
    kept = set(known.parameters())
    others = [parameter for parameter in refiner.parameters() if parameter not in kept]
    return [(list(known.parameters()), 1.0), (others, config.scratch_factor)] if kept else [(others, 1.0)]


def _batches(
    samples: Dataset[Sample], config: SPNTraining, start: int, workers: int, device: str
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Yield this rank's shares of the batches in order, from step ``start`` on."""
    rank, world = process_rank()
    loader = DataLoader(
        samples,
        config.batch // world,
        sampler=range(start * config.batch + rank, config.steps * config.batch, world),
        num_workers=workers,
        pin_memory=device.startswith("cuda"),
        prefetch_factor=4 if workers else None,
        worker_init_fn=_one_thread,
        multiprocessing_context="spawn" if workers else None,  # OpenCV's threads do not survive a fork
    )
    for image, coarse, mask in loader:
        yield image.permute(0, 3, 1, 2), coarse.unsqueeze(1), mask.unsqueeze(1)


def _one_thread(worker: int) -> None:
    cv2.setNumThreads(1)  # the workers already run in parallel
