"""Load trained refiners by name or file, and create untrained ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from spn import LiteGuidance, SPNRefiner, VGG16Guidance
from vos_pipeline.errors import PipelineError
from vos_pipeline.files import fingerprint
from vos_pipeline.settings import SPNTraining


def load_refiner(name_or_file: str | Path, device: str = "cpu", tile: int | None = None) -> SPNRefiner:
    """Load a trained refiner, ready for use.

    Args:
        name_or_file: "lite", or a file that ``train spn`` wrote.
        device: device on which it computes.
        tile: side of the tiles that it processes, to save memory; None processes the whole frame.

    Raises:
        PipelineError: the refiner does not exist, or the file does not contain one.
    """
    try:
        refiner = SPNRefiner.from_pretrained(name_or_file, tile=tile)
    except (ValueError, RuntimeError, OSError) as error:
        raise PipelineError(f"refiner {str(name_or_file)!r}: {error}") from error
    return refiner.to(device).eval()


def refiner_identity(name_or_file: str | Path) -> str:
    """Return a string that identifies the weights of a refiner: the digest of its file, or its name."""
    path = Path(name_or_file)
    return fingerprint([path]) if path.is_file() else str(name_or_file)


def network_of(refiner: SPNRefiner) -> dict[str, Any]:
    """Return ``guidance``, ``form`` and ``convex`` of a refiner, as in :class:`vos_pipeline.settings.SPNTraining`."""
    if isinstance(refiner.guidance, VGG16Guidance):
        guidance = "vgg16"
    else:
        guidance = "lite" if getattr(refiner.guidance, "sees_mask", False) else "lite-image"
    return {"guidance": guidance, "form": refiner.form, "convex": refiner.config["convex"]}


def initial_refiner(config: SPNTraining, vgg_weights: str = "imagenet") -> SPNRefiner:
    """Create the untrained refiner of ``config``, reproducibly. Raises PipelineError if VGG weights are unavailable."""
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
