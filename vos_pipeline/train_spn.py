"""Training of the refiner: ``train spn``, on VOC, on pictures with masks, or on composites that cost nothing."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import torch
from torch.utils.data import Dataset

from spn import LiteGuidance, SPNRefiner, VGG16Guidance
from vos_pipeline.composites import Composites
from vos_pipeline.data import list_images
from vos_pipeline.errors import PipelineError
from vos_pipeline.images import read_image
from vos_pipeline.spn_data import MaskedPictures, bundled_photographs
from vos_pipeline.spn_training import SPNTraining, train
from vos_pipeline.train import join_process_group, process_rank

__all__ = ["add_arguments", "build_refiner", "main_train"]

# What the paper trains with on VOC: crops of 256 pixels, all pixels of one weight.
VOC_DEFAULTS = {"size": 256, "boundary_weight": 0.0}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of ``train spn`` to a parser."""
    default = SPNTraining()
    parser.add_argument(
        "--out", required=True, help="folder for spn.safetensors, the training's state, curves and pictures"
    )
    data = parser.add_argument_group("data (without any of them: composites of free photographs)")
    data.add_argument("--images", help="folder of pictures")
    data.add_argument("--masks", help="folder of masks with the pictures' names")
    data.add_argument("--photos", help="photographs to draw composites from, beside the bundled ones")
    data.add_argument("--voc", help="folder that holds VOCdevkit/VOC2012: the paper's training set")
    data.add_argument("--sbd", help="folder of SBD (img, cls, ...), to join VOC")
    data.add_argument("--download", action="store_true", help="fetch VOC and SBD if they are not there")
    data.add_argument(
        "--fcn",
        default="coco",
        help="'coco' (torchvision's weights) or a file of them, for the coarse masks of VOC",
    )
    data.add_argument("--coarse-masks", help="folder to keep them in (default: OUT/coarse-masks)")
    net = parser.add_argument_group("network")
    net.add_argument(
        "--init", help="refiner to start from: 'lite' or a .safetensors file; samples are hard at once"
    )
    net.add_argument("--guidance", choices=("lite", "lite-image", "vgg16"), default=default.guidance)
    net.add_argument(
        "--vgg-weights", default="imagenet", help="'imagenet', 'none' or a file (default: %(default)s)"
    )
    net.add_argument("--form", choices=("embedded", "direct"), default=default.form)
    run = parser.add_argument_group("training")
    run.add_argument("--precision", choices=("float32", "bfloat16", "float16"), default=default.precision)
    for name in ("steps", "batch", "seed"):
        run.add_argument(f"--{name}", type=int, default=getattr(default, name))
    run.add_argument("--size", type=int, help=f"side of the crops (default: {default.size}; 256 for VOC)")
    run.add_argument("--learning-rate", type=float, default=default.learning_rate)
    run.add_argument(
        "--boundary-weight",
        type=float,
        help=f"extra weight near outlines (default: {default.boundary_weight}; for VOC 0, the paper's loss)",
    )
    run.add_argument(
        "--workers",
        type=int,
        default=min(8, (os.cpu_count() or 1) - 1),
        help="processes that prepare samples (default: %(default)s)",
    )
    run.add_argument("--device", default="cpu")
    run.add_argument("--resume", action="store_true", help="go on with what an earlier run left in --out")


def main_train(args: argparse.Namespace) -> None:
    """Runs ``train spn`` with the options of :func:`add_arguments`, in every process that ``torchrun`` started."""
    device = join_process_group(args.device)
    config = _config(args)
    samples, validation = _samples(args, config, device)
    if args.init:
        refiner = SPNRefiner.from_pretrained(args.init)
    else:
        refiner = build_refiner(config, args.vgg_weights)
    train(
        refiner,
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


def _config(args: argparse.Namespace) -> SPNTraining:
    fields = ("guidance", "form", "steps", "batch", "seed", "learning_rate", "precision")
    config = {name: getattr(args, name) for name in fields}
    for name in ("size", "boundary_weight"):
        fallback = VOC_DEFAULTS[name] if args.voc else getattr(SPNTraining, name)
        given = getattr(args, name)
        config[name] = fallback if given is None else given
    return SPNTraining(**config)


def _samples(args: argparse.Namespace, config: SPNTraining, device: str) -> tuple[Dataset, Dataset | None]:
    """What to train on, and what to validate on."""
    if bool(args.images) != bool(args.masks):
        raise PipelineError("--images and --masks belong together: give both, or neither for free composites")
    if args.voc and args.images:
        raise PipelineError("--voc and --images are two training sets: give one of them")
    if args.voc:
        return _voc_samples(args, config, device)
    course = 0 if args.init else config.steps * config.batch  # what knows something starts with hard samples
    if args.images:
        folders = (args.images, args.masks, config.size, config.seed)
        return MaskedPictures(*folders, "train", course), MaskedPictures(*folders, "validation") or None
    photographs = bundled_photographs() + [
        read_image(p) for p in (list_images(Path(args.photos)) if args.photos else [])
    ]
    return (
        Composites(photographs, config.size, config.seed, course),
        Composites(photographs, config.size, config.seed + 1),
    )


def _voc_samples(args: argparse.Namespace, config: SPNTraining, device: str) -> tuple[Dataset, Dataset]:
    from vos_pipeline.voc import CoarseMasks, VOCObjects, VOCPictures, load_fcn

    folder = args.coarse_masks or Path(args.out) / "coarse-masks"
    if args.download and process_rank()[0] != 0:
        torch.distributed.barrier()  # rank 0 fetches, the others find it there
    download = args.download and process_rank()[0] == 0
    parts = {part: VOCPictures(args.voc, args.sbd, part, download) for part in ("train", "validation")}
    if download and process_rank()[1] > 1:
        torch.distributed.barrier()
    coarse = CoarseMasks(folder, lambda: load_fcn(args.fcn), device)
    for pictures in parts.values():
        coarse.fill(pictures)
    train_set, validation = (VOCObjects(p, coarse, config.size, config.seed) for p in parts.values())
    return train_set, validation


def build_refiner(config: SPNTraining, vgg_weights: str = "imagenet") -> SPNRefiner:
    """The untrained refiner of a configuration, the same for the same seed; PipelineError without VGG's weights."""
    torch.manual_seed(config.seed)
    if config.guidance == "vgg16":
        stride = 1 if config.form == "direct" else 2
        try:
            guidance = VGG16Guidance(None if vgg_weights == "none" else vgg_weights, stride=stride)
        except (RuntimeError, ValueError) as error:
            raise PipelineError(f"--vgg-weights {vgg_weights}: {error}") from error
    else:
        guidance = LiteGuidance(sees_mask=config.guidance == "lite")
    return SPNRefiner(guidance, form=config.form)
