"""Score maps: what the nets say of each object, held inside the foreground, and the labels (section 3.3)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from vos_pipeline.nets.model import ForegroundNet


@torch.no_grad()
def object_probabilities(net: ForegroundNet, image: Tensor, flip_test: bool = False) -> Tensor:
    """What a net says of each of its objects, averaged with what it says of the mirror image if asked.

    Args:
        net: (1, 3, H, W) to logits (1, K + 1, H, W), or (1, 2 K, H, W) if it is ``paired``.
        image: (3, H, W) in [0, 1].
        flip_test: see both the image and its mirror image.

    Returns:
        (K, H, W) float32 probabilities.
    """
    views = torch.stack([image, image.flip(-1)]) if flip_test else image[None]
    logits = net(views.contiguous()).float()  # the weights' memory format decides
    if net.paired:
        probabilities = logits.unflatten(1, (-1, 2)).softmax(2)[:, :, 1]
    else:
        probabilities = logits.softmax(1)[:, 1:]
    if flip_test:
        return (probabilities[0] + probabilities[1].flip(-1)) / 2
    return probabilities[0]


def foreground_mask(
    net: ForegroundNet, image: Tensor, threshold: float = 0.5, flip_test: bool = False
) -> Tensor:
    """bool (H, W): where the foreground net's probability for ``image`` (3, H, W) reaches ``threshold``."""
    return object_probabilities(net, image, flip_test)[0] >= threshold


def object_scores(
    nets: Sequence[ForegroundNet], foreground: Tensor, image: Tensor, flip_test: bool = False
) -> Tensor:
    """Each object's score map: its probability, zero outside the foreground.

    Args:
        nets: what :func:`train_instance` gave for each of :func:`instance_jobs`.
        foreground: bool (H, W), see :func:`foreground_mask`.
        image: (3, H, W) in [0, 1].
        flip_test: average over the mirror image.

    Returns:
        (K, H, W) scores in [0, 1].

    Source: paper, section 3.3.
    """
    return torch.cat([object_probabilities(net, image, flip_test) for net in nets]) * foreground


def labels_from_scores(scores: Tensor, object_ids: Sequence[int], threshold: float = 0.5) -> Tensor:
    """The object of the largest score, background (0) where none reaches ``threshold``.

    Args:
        scores: (K, H, W).
        object_ids: label of each channel.
        threshold: see above.

    Returns:
        (H, W) uint8 labels.
    """
    best, index = scores.max(0)
    ids = torch.as_tensor(object_ids, dtype=torch.uint8, device=scores.device)
    return torch.where(best >= threshold, ids[index], 0).to(torch.uint8)


def resize_scores(scores: Tensor, size: tuple[int, int]) -> Tensor:
    """(K, h, w) scores brought to the frame's size."""
    if scores.shape[-2:] == tuple(size):
        return scores
    return F.interpolate(scores[None], size=size, mode="bilinear", align_corners=False)[0].clamp(0, 1)
