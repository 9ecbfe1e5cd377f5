"""Validation of a refiner: scores, and an image of the first validation samples."""

from __future__ import annotations

import numpy as np
import torch
from torch.utils.data import Dataset

from spn import SPNRefiner
from vos_pipeline.evaluation import jaccard
from vos_pipeline.refiner.loss import refinement_loss
from vos_pipeline.refiner.samples import Sample

VALIDATION_SAMPLES = 16


@torch.inference_mode()
def validate(
    refiner: SPNRefiner, samples: Dataset[Sample], device: str = "cpu"
) -> tuple[dict[str, float], np.ndarray]:
    """Score a refiner on the first samples of a data set and draw its results.

    Returns:
        Mean J of the coarse and of the refined masks ("J coarse", "J refined") and the loss without extra weights
        ("validation loss"); and a uint8 RGB image with rows of images, coarse, refined and exact masks.
    """
    rows, scores = [], []
    for index in range(VALIDATION_SAMPLES):
        image, coarse, mask = (torch.from_numpy(v).to(device) for v in samples[index])
        refined = refiner(image.permute(2, 0, 1)[None], coarse[None, None])[0, 0]
        known = mask >= 0
        measured = [
            jaccard((mask > 0.5)[known].cpu().numpy(), (m > 0.5)[known].cpu().numpy())
            for m in (coarse, refined)
        ]
        scores.append((*measured, refinement_loss(refined[None, None], mask[None, None]).item()))
        masks = [m.clamp(0, 1)[..., None].expand_as(image) for m in (coarse, refined, mask)]
        rows.append(torch.cat([image, *masks], 0))
    picture = torch.cat(rows[:8], 1).mul(255).byte().cpu().numpy()
    names = ("J coarse", "J refined", "validation loss")
    return dict(zip(names, np.mean(scores, 0).tolist(), strict=True)), picture
