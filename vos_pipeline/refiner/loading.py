"""Refiners that are trained, by name or file, and new ones that are not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from spn import LiteGuidance, SPNRefiner, VGG16Guidance
from vos_pipeline.errors import PipelineError
from vos_pipeline.files import fingerprint
from vos_pipeline.settings import SPNTraining


def load_refiner(name_or_file: str | Path, device: str = "cpu", tile: int | None = None) -> SPNRefiner:
    """A trained refiner, ready for use.

    Args:
        name_or_file: "lite", or a file that ``train spn`` wrote.
        device: where it computes.
        tile: side of the tiles that it works in, to save memory; None takes the whole frame.

    Raises:
        PipelineError: there is no such refiner, or the file is of another kind.
    """
    try:
        refiner = SPNRefiner.from_pretrained(name_or_file, tile=tile)
    except (ValueError, RuntimeError, OSError) as error:
        raise PipelineError(f"refiner {str(name_or_file)!r}: {error}") from error
    return refiner.to(device).eval()


def refiner_identity(name_or_file: str | Path) -> str:
    """What tells the weights of one refiner from those of another: a digest of its file, or its name."""
    path = Path(name_or_file)
    return fingerprint([path]) if path.is_file() else str(name_or_file)


def network_of(refiner: SPNRefiner) -> dict[str, Any]:
    """What a refiner is, in the fields of :class:`vos_pipeline.settings.SPNTraining`: guidance, form, convex."""
    if isinstance(refiner.guidance, VGG16Guidance):
        guidance = "vgg16"
    else:
        guidance = "lite" if getattr(refiner.guidance, "sees_mask", False) else "lite-image"
    return {"guidance": guidance, "form": refiner.form, "convex": refiner.config["convex"]}


def initial_refiner(config: SPNTraining, vgg_weights: str = "imagenet") -> SPNRefiner:
    """The untrained refiner of a configuration, the same for the same seed; PipelineError without VGG's weights."""
    torch.manual_seed(config.seed)
    guidance: LiteGuidance | VGG16Guidance
    if config.guidance == "vgg16":
        stride = 1 if config.form == "direct" else 2
        try:
            guidance = VGG16Guidance(None if vgg_weights == "none" else vgg_weights, stride=stride)
        except (RuntimeError, ValueError) as error:
            raise PipelineError(f"--vgg-weights {vgg_weights}: {error}") from error
    else:
        guidance = LiteGuidance(sees_mask=config.guidance == "lite")
    return SPNRefiner(guidance, form=config.form, convex=config.convex)
