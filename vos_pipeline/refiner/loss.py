"""Loss of the refiner: two-class cross-entropy, optionally with more weight near boundaries."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def refinement_loss(
    refined: Tensor, mask: Tensor, boundary_weight: float = 0.0, coarse: Tensor | None = None, radius: int = 4
) -> Tensor:
    r"""Two-class cross-entropy with extra weight near the boundaries of the exact and the coarse mask.

    .. math:: L = \frac{\sum_i w_i\, [-m_i \log r_i - (1 - m_i) \log (1 - r_i)]}{\sum_i w_i}, \quad
        w_i = 1 + \beta\,[\text{i within radius of the boundary of } m \text{ or of } c > 1/2]

    and :math:`w_i = 0` where the mask is unknown. The boundary of c adds weight to islands and holes that only the
    coarse mask has.

    Args:
        refined: r, (N, K, H, W) in [0, 1].
        mask: m, (N, K, H, W) in [0, 1], or negative where it is unknown.
        boundary_weight: beta >= 0; 0 gives the paper's loss.
        coarse: c, (N, K, H, W) in [0, 1], or None to use only the boundary of the exact mask.
        radius: width of the extra weight on each side of a boundary, in pixels.
    """
    weight = (mask >= 0).float()
    mask = mask.clamp(min=0)
    if boundary_weight:
        near = _near_outline(mask, radius)
        if coarse is not None:
            near = torch.maximum(near, _near_outline((coarse > 0.5).float(), radius))
        weight = weight * (1 + boundary_weight * near)
    loss = F.binary_cross_entropy(refined.float().clamp(1e-5, 1 - 1e-5), mask, reduction="none")
    return (weight * loss).sum() / weight.sum().clamp(min=1)


def _near_outline(mask: Tensor, radius: int) -> Tensor:
    return _spread(mask, radius) + _spread(1 - mask, radius) - 1


def _spread(x: Tensor, radius: int) -> Tensor:
    """Return the maximum over squares, computed per axis."""
    side = 2 * radius + 1
    return F.max_pool2d(F.max_pool2d(x, (side, 1), 1, (radius, 0)), (1, side), 1, (0, radius))
