"""Score maps of the objects, restricted to the foreground, and labels (paper, sections 3.2 and 5.2)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from vos_pipeline.nets.model import ForegroundNet


@torch.no_grad()
def object_probabilities(net: ForegroundNet, image: Tensor, flip_test: bool = False) -> Tensor:
    r"""Return the probability of each object relative to the most probable other channel, object or background.

    .. math:: s_k = \frac{p_k}{p_k + \max_{j \ne k} p_j}, \quad k = 1 \ldots K,\; j = 0 \ldots K,

    where p is the softmax over the network's channels. For one object this is :math:`p_1`. For several objects,
    :math:`s_k > 1/2` exactly where channel k is the largest of the K + 1 channels. The threshold 1/2 therefore gives
    the paper's labels for both kinds of network: the argmax of a per-video net and the label of a per-object net.

    Args:
        net: (1, 3, H, W) to logits (1, K + 1, H, W).
        image: (3, H, W) in [0, 1].
        flip_test: average p over the image and its mirror image.

    Returns:
        (K, H, W) float32 probabilities.

    Source: paper, section 5.2.
    """
    views = torch.stack([image, image.flip(-1)]) if flip_test else image[None]
    logits = net(views.contiguous()).float()  # the weights determine the memory format
    probabilities = logits.softmax(1)
    p = (probabilities[0] + probabilities[1].flip(-1)) / 2 if flip_test else probabilities[0]
    best, second = _two_largest(p)
    rival = torch.where(p == best, second, best)
    return (p / (p + rival))[1:]


def _two_largest(p: Tensor) -> tuple[Tensor, Tensor]:
    """Return the result of ``p.topk(2, 0)``, a hundred times faster."""
    best, second = p[0], torch.zeros_like(p[0])
    for channel in p[1:]:
        second = torch.maximum(second, torch.minimum(best, channel))
        best = torch.maximum(best, channel)
    return best, second


def foreground_mask(
    net: ForegroundNet, image: Tensor, threshold: float = 0.5, flip_test: bool = False
) -> Tensor:
    """Return the bool (H, W) mask where the probability of foreground in ``image`` (3, H, W) is >= ``threshold``."""
    return object_probabilities(net, image, flip_test)[0] >= threshold


def object_scores(
    nets: Sequence[ForegroundNet], foreground: Tensor, image: Tensor, flip_test: bool = False
) -> Tensor:
    """Return the score map of each object: its probability, and zero outside the foreground.

    Args:
        nets: the instance net of each item of :func:`instance_jobs`, from :func:`train_instance`.
        foreground: bool (H, W), see :func:`foreground_mask`.
        image: (3, H, W) in [0, 1].
        flip_test: average over the image and its mirror image.

    Returns:
        (K, H, W) scores in [0, 1].

    Source: paper, section 3.2.
    """
    return torch.cat([object_probabilities(net, image, flip_test) for net in nets]) * foreground


def labels_from_scores(scores: Tensor, object_ids: Sequence[int], threshold: float = 0.5) -> Tensor:
    """Return the object with the largest score, or background (0) below ``threshold`` (paper, section 5.2).

    Args:
        scores: (K, H, W).
        object_ids: label of each channel.
        threshold: smallest score of an object.

    Returns:
        (H, W) uint8 labels.
    """
    best, index = scores.max(0)
    ids = torch.as_tensor(object_ids, dtype=torch.uint8, device=scores.device)
    return torch.where(best >= threshold, ids[index], 0).to(torch.uint8)


def resize_scores(scores: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize (K, h, w) scores to ``size``, the size of the frame."""
    if scores.shape[-2:] == tuple(size):
        return scores
    return F.interpolate(scores[None], size=size, mode="bilinear", align_corners=False)[0].clamp(0, 1)
