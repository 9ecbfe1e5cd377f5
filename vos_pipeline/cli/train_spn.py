"""``train spn``: from its options to a training set, a refiner and its training."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from torch.utils.data import Dataset

from vos_pipeline import refiner
from vos_pipeline.data import list_images, read_image
from vos_pipeline.errors import PipelineError
from vos_pipeline.settings import SPNTraining
from vos_pipeline.training import first_rank_first, join_process_group, process_rank

# What the paper trains with on VOC: crops of 256 pixels, all pixels of one weight.
VOC_DEFAULTS = {"size": 256, "boundary_weight": 0.0}

Samples = Dataset[refiner.Sample]


def train_spn(args: argparse.Namespace) -> None:
    """Train in every process that ``torchrun`` started."""
    device = join_process_group(args.device)
    config = configuration(args)
    samples, validation = _samples(args, config, device)
    if args.init:
        net = refiner.load_refiner(args.init)
    else:
        net = refiner.initial_refiner(config, args.vgg_weights)
    refiner.train_refiner(
        net,
        samples,
        args.out,
        config,
        validation=validation,
        device=device,
        resume=args.resume,
        workers=args.workers,
    )
    if process_rank()[0] == 0:
        print(f"refiner  {Path(args.out) / 'spn.safetensors'}")


def configuration(args: argparse.Namespace) -> SPNTraining:
    """The constants of the training that the options ask for."""
    fields = ("guidance", "form", "steps", "batch", "seed", "learning_rate", "precision")
    config: dict[str, Any] = {name: getattr(args, name) for name in fields}
    for name in ("size", "boundary_weight"):
        fallback = VOC_DEFAULTS[name] if args.voc else getattr(SPNTraining, name)
        given = getattr(args, name)
        config[name] = fallback if given is None else given
    return SPNTraining(**config)


def _samples(args: argparse.Namespace, config: SPNTraining, device: str) -> tuple[Samples, Samples | None]:
    """What to train on, and what to validate on."""
    if bool(args.images) != bool(args.masks):
        raise PipelineError("--images and --masks belong together: give both, or neither for free composites")
    if args.voc and args.images:
        raise PipelineError("--voc and --images are two training sets: give one of them")
    if args.voc:
        return _voc_samples(args, config, device)
    course = 0 if args.init else config.steps * config.batch  # what knows something starts with hard samples
    if args.images:
        folders = refiner.PictureFolders(args.images, args.masks, progress=process_rank()[0] == 0)
        validation = refiner.MaskedPictures(folders, config.size, config.seed, "validation")
        return refiner.MaskedPictures(folders, config.size, config.seed, "train", course), validation or None
    photographs = refiner.bundled_photographs() + [
        read_image(p) for p in (list_images(Path(args.photos)) if args.photos else [])
    ]
    return (
        refiner.Composites(photographs, config.size, config.seed, course),
        refiner.Composites(photographs, config.size, config.seed + 1),
    )


def _voc_samples(args: argparse.Namespace, config: SPNTraining, device: str) -> tuple[Samples, Samples]:
    with first_rank_first() as first:  # which fetches what the others find
        parts = {
            part: refiner.VOCPictures(args.voc, args.sbd, part, download=args.download and first)
            for part in ("train", "validation")
        }
    folder = args.coarse_masks or Path(args.out) / "coarse-masks"
    coarse = refiner.CoarseMasks(folder, lambda: refiner.load_fcn(args.fcn), device)
    for pictures in parts.values():
        coarse.fill(pictures)
    train, validation = (
        refiner.VOCObjects(pictures, coarse, config.size, config.seed) for pictures in parts.values()
    )
    return train, validation
