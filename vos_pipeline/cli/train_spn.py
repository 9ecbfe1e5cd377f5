"""Implementation of ``train spn``: choose the training set and the refiner, and train it."""

from __future__ import annotations

import argparse
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from typing import Any

from torch.utils.data import Dataset

from vos_pipeline import refiner
from vos_pipeline.data import list_images, read_image
from vos_pipeline.errors import PipelineError
from vos_pipeline.files import digest, fingerprint
from vos_pipeline.output_folder import KIND, REFINER, OutputFolder
from vos_pipeline.settings import SPN_PRESETS, SPNTraining
from vos_pipeline.training import first_rank_first, join_process_group, process_rank

# The paper's training on VOC, with any preset: crops of 256 pixels and equal weights for all pixels.
VOC_DEFAULTS = {name: getattr(SPN_PRESETS["paper"], name) for name in ("size", "boundary_weight")}

Samples = Dataset[refiner.Sample]


def train_spn(args: argparse.Namespace) -> None:
    """Train the SPN, in every process that ``torchrun`` started."""
    device = join_process_group(args.device)
    config = configuration(args)
    init = refiner.load_refiner(args.init) if args.init else None
    if init:
        config = replace(config, **_network(args, refiner.network_of(init)))
    samples, validation, data = _samples(args, config, device)
    net = init or refiner.initial_refiner(config, args.vgg_weights)
    with first_rank_first() as first:
        if first:
            folder = OutputFolder(args.out)
            folder.claim(resume=args.resume, overwrite=args.overwrite, inputs=_inputs(args))
            if args.voc:  # first, so that a refusal leaves no note
                _claim_coarse_masks(args)
            folder.identify(KIND, REFINER)
            folder.identify("training data", data)
            folder.identify("start", refiner.refiner_identity(args.init or args.vgg_weights))
    for part in (samples, validation):
        if isinstance(part, refiner.VOCObjects):
            part.coarse.fill(part.pictures)
    refiner.train_refiner(
        net,
        samples,
        args.out,
        config,
        validation=validation,
        device=device,
        resume=True,
        workers=args.workers,
    )
    if process_rank()[0] == 0:
        print(f"refiner  {args.out / 'spn.safetensors'}")


def configuration(args: argparse.Namespace) -> SPNTraining:
    """Return the training constants: those of the preset, overridden by the options."""
    names = [field.name for field in fields(SPNTraining)]
    given = {name: value for name in names if (value := getattr(args, name, None)) is not None}
    return replace(SPN_PRESETS[args.preset], **(VOC_DEFAULTS if args.voc else {}) | given)


def _network(args: argparse.Namespace, network: dict[str, Any]) -> dict[str, Any]:
    """Return the network of ``--init``.

    Raises:
        PipelineError: an option requests another network.
    """
    for name, value in network.items():
        given = getattr(args, name)
        if given is not None and given != value:
            raise PipelineError(
                f"--{name} {given}: the refiner of --init has {name} {value}: omit one of the two options"
            )
    return network


def _inputs(args: argparse.Namespace) -> list[Path]:
    named = (args.images, args.masks, args.photos, args.voc, args.sbd, args.init, args.fcn, args.vgg_weights)
    return [Path(name) for name in named if name is not None and Path(name).exists()]


def _samples(
    args: argparse.Namespace, config: SPNTraining, device: str
) -> tuple[Samples, Samples | None, dict[str, str]]:
    """Return training samples, validation samples and fingerprints that identify the data."""
    if bool(args.images) != bool(args.masks):
        raise PipelineError(
            "--images and --masks belong together: give both, or neither to train on composites"
        )
    if args.voc and args.images:
        raise PipelineError("--voc and --images are two training sets: give only one of them")
    if args.preset == "paper" and not (args.voc or args.images):
        raise PipelineError(
            "--preset paper needs the paper's images: give --voc FOLDER --download, or --images and --masks"
        )
    if args.voc:
        return _voc_samples(args, config, device)
    course = 0 if args.init else config.steps * config.batch  # a trained refiner starts with hard samples
    if args.images:
        folders = refiner.PictureFolders(args.images, args.masks, progress=process_rank()[0] == 0)
        train = refiner.MaskedPictures(folders, config.size, config.seed, "train", course)
        validation = refiner.MaskedPictures(folders, config.size, config.seed, "validation")
        files = [path for pair in folders.pairs for path in pair]
        return train, validation or None, {"images and masks": fingerprint(files)}
    files = list_images(args.photos) if args.photos else []
    photographs = refiner.bundled_photographs() + [read_image(path) for path in files]
    return (
        refiner.Composites(photographs, config.size, config.seed, course),
        refiner.Composites(photographs, config.size, config.seed + 1),
        {"photographs": fingerprint(files)},
    )


def _voc_samples(
    args: argparse.Namespace, config: SPNTraining, device: str
) -> tuple[Samples, Samples, dict[str, str]]:
    with first_rank_first() as first:  # it downloads the data that the other ranks read
        parts = {
            part: refiner.VOCPictures(args.voc, args.sbd, part, download=args.download and first)
            for part in ("train", "validation")
        }
    coarse = refiner.CoarseMasks(_coarse_masks(args), partial(refiner.load_fcn, args.fcn), device)
    train, validation = (
        refiner.VOCObjects(pictures, coarse, config.size, config.seed) for pictures in parts.values()
    )
    data = {
        "pictures": digest("\n".join(pictures.inventory() for pictures in parts.values()).encode()),
        "network": refiner.refiner_identity(args.fcn),
    }
    return train, validation, data


def _coarse_masks(args: argparse.Namespace) -> Path:
    return args.coarse_masks or args.out / "coarse-masks"


def _claim_coarse_masks(args: argparse.Namespace) -> None:
    """Claim the folder of coarse masks.

    Several trainings may share the masks of one network, but never the masks of different networks.
    """
    folder = OutputFolder(_coarse_masks(args), "--coarse-masks")
    folder.claim(resume=folder.note.exists())
    folder.identify("network", refiner.refiner_identity(args.fcn))
