"""The class-balanced loss of the foreground and instance nets, eq. (1)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def class_balanced_loss(logits: Tensor, target: Tensor, reduction: str = "mean") -> Tensor:
    r"""Cross-entropy in which a class weighs one minus its share of the pixels.

    For two classes, with :math:`w = |fg| / (|fg| + |bg|)` of each image,

    .. math:: L = -(1 - w) \sum_{i \in fg} \log p_i^{fg} - w \sum_{i \in bg} \log p_i^{bg},

    so both classes weigh the same in sum however small the object is.  More classes follow the same rule.

    Args:
        logits: (N, C, H, W), floating point; channel 0 is background.
        target: (N, H, W), class of every pixel, bool or integer.
        reduction: ``"sum"`` over pixels and images, as in the paper, or ``"mean"`` over them.

    Raises:
        ValueError: wrong shapes, or another reduction.

    Source: paper, section 3.1, eq. (1); which class gets ``w`` follows the authors' configuration.
    """
    if logits.ndim != 4 or target.shape != (logits.shape[0], *logits.shape[2:]):
        raise ValueError(
            f"target must be (N, H, W) for logits (N, C, H, W) = {tuple(logits.shape)}, "
            f"got {tuple(target.shape)}"
        )
    if reduction not in ("sum", "mean"):
        raise ValueError(f'reduction must be "sum" or "mean", got {reduction!r}')
    target = target.long()
    count = F.one_hot(target.flatten(1), logits.shape[1]).sum(1)  # (N, C) pixels of every class
    weight = 1 - count / target[0].numel()
    loss = F.cross_entropy(logits, target, reduction="none")
    loss = loss * weight.to(loss.dtype).gather(1, target.flatten(1)).view_as(loss)
    return loss.sum() if reduction == "sum" else loss.mean()
