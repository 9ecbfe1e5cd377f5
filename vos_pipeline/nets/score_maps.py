"""Score maps: what the nets say of each object, held inside the foreground, and the labels (sections 3.2 and 5.2)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from vos_pipeline.nets.model import ForegroundNet


@torch.no_grad()
def object_probabilities(net: ForegroundNet, image: Tensor, flip_test: bool = False) -> Tensor:
    r"""The probability of each object of a net against its strongest rival, another object or the background:

    .. math:: s_k = \frac{p_k}{p_k + \max_{j \ne k} p_j}, \quad k = 1 \ldots K,\; j = 0 \ldots K,

    where p is the softmax over the net's channels. For one object this is :math:`p_1`. For several,
    :math:`s_k > 1/2` where the largest of the K + 1 channels is that of object k, and nowhere else: one threshold of
    1/2 gives the label that the paper's per-video net gives, the argmax, and the label of a per-object net.

    Args:
        net: (1, 3, H, W) to logits (1, K + 1, H, W).
        image: (3, H, W) in [0, 1].
        flip_test: average p with that of the mirror image.

    Returns:
        (K, H, W) float32 probabilities.

    Source: paper, section 5.2.
    """
    views = torch.stack([image, image.flip(-1)]) if flip_test else image[None]
    logits = net(views.contiguous()).float()  # the weights' memory format decides
    probabilities = logits.softmax(1)
    p = (probabilities[0] + probabilities[1].flip(-1)) / 2 if flip_test else probabilities[0]
    best, second = _two_largest(p)
    rival = torch.where(p == best, second, best)
    return (p / (p + rival))[1:]


def _two_largest(p: Tensor) -> tuple[Tensor, Tensor]:
    """What p.topk(2, 0) gives, in a hundredth of its time."""
    best, second = p[0], torch.zeros_like(p[0])
    for channel in p[1:]:
        second = torch.maximum(second, torch.minimum(best, channel))
        best = torch.maximum(best, channel)
    return best, second


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

    Source: paper, section 3.2.
    """
    return torch.cat([object_probabilities(net, image, flip_test) for net in nets]) * foreground


def labels_from_scores(scores: Tensor, object_ids: Sequence[int], threshold: float = 0.5) -> Tensor:
    """The object of the largest score, background (0) where none reaches ``threshold`` (paper, section 5.2).

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
