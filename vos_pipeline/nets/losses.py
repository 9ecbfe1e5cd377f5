"""Class-balanced loss of the foreground and instance nets, eq. (1)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def class_balanced_loss(
    logits: Tensor, target: Tensor, reduction: str = "mean", balance: float = 1.0
) -> Tensor:
    r"""Cross-entropy with class weights that decrease with the number of pixels of a class.

    For two classes, with :math:`w = |fg| / (|fg| + |bg|)` of each image,

    .. math:: L = -(1 - w) \sum_{i \in fg} \log p_i^{fg} - w \sum_{i \in bg} \log p_i^{bg},

    so both classes have the same total weight however small the object is. An image without foreground (w = 0) or
    without background contributes nothing. With more than two classes, class c with :math:`n_c` pixels has the weight
    :math:`n_c^{-1} / \sum_k n_k^{-1}`, summed over the classes k that occur; for two classes this equals the above.
    A network trained this way overestimates small objects, because its probabilities assume that half of the pixels
    are foreground. ``balance`` b uses :math:`n_c^{-b}` instead of :math:`n_c^{-1}`: 1 is eq. (1), and 0 is plain
    cross-entropy.

    Args:
        logits: (N, C, H, W), floating point; channel 0 is background.
        target: (N, H, W), class of every pixel, bool or integer.
        reduction: ``"sum"`` over pixels and images, as in the paper, or ``"mean"`` over them.
        balance: see above, in [0, 1].

    Raises:
        ValueError: shapes do not match, or ``reduction`` is unknown.

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
    loss = F.cross_entropy(logits, target, reduction="none")
    if balance:
        weight = _class_weights(target, logits.shape[1], balance)
        loss = loss * weight.gather(1, target.flatten(1)).view_as(loss)
    return loss.sum() if reduction == "sum" else loss.mean()


def _class_weights(target: Tensor, classes: int, balance: float) -> Tensor:
    """Return the (N, C) weights of a pixel of each class in each image; all are 0 for an image of one class."""
    count = F.one_hot(target.flatten(1), classes).sum(1)
    weight = torch.where(count > 0, count.clamp(min=1).float() ** -balance, 0)
    several = (count > 0).sum(1, keepdim=True) > 1
    return weight / weight.sum(1, keepdim=True) * several
