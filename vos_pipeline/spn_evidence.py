"""How well a refiner does while it learns: the loss, measures and pictures of validation, curves."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import Dataset

from spn import SPNRefiner
from vos_pipeline.files import replacing
from vos_pipeline.metrics import jaccard

__all__ = ["Curves", "refinement_loss", "validate"]

VALIDATION_SAMPLES = 16


def refinement_loss(
    refined: Tensor, mask: Tensor, boundary_weight: float = 0.0, coarse: Tensor | None = None, radius: int = 4
) -> Tensor:
    r"""Two-class cross-entropy, with more weight where an outline is or was.

    .. math:: L = \frac{\sum_i w_i\, [-m_i \log r_i - (1 - m_i) \log (1 - r_i)]}{\sum_i w_i}, \quad
        w_i = 1 + \beta\,[\text{i within radius of the outline of } m \text{ or of } c > 1/2]

    and :math:`w_i = 0` where the mask is not known. The outline of c matters where the coarse mask has islands
    and holes of its own.

    Args:
        refined: r, (N, K, H, W) in [0, 1].
        mask: m, (N, K, H, W) in [0, 1], or negative where it is not known.
        boundary_weight: beta >= 0; 0 gives the paper's loss.
        coarse: c, (N, K, H, W) in [0, 1], or None for the true outline alone.
        radius: in pixels.
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
    """Maximum over squares, one axis after the other."""
    side = 2 * radius + 1
    return F.max_pool2d(F.max_pool2d(x, (side, 1), 1, (radius, 0)), (1, side), 1, (0, radius))


@torch.inference_mode()
def validate(
    refiner: SPNRefiner, samples: Dataset, device: str = "cpu"
) -> tuple[dict[str, float], np.ndarray]:
    """Measures a refiner on the first samples of a data set and draws what it does.

    Returns:
        mean J of the coarse and of the refined masks ("J coarse", "J refined") and the loss without extra
        weights ("validation loss"); a picture, uint8 RGB: a row of images, coarse, refined and exact masks.
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


class Curves:
    """``curves.csv``, a row a checkpoint, and for TensorBoard, where it is installed, a point a step as well."""

    COLUMNS = ("step", "loss", "J coarse", "J refined", "validation loss")

    def __init__(self, folder: Path, done: int) -> None:
        self.path, self.losses = folder / "curves.csv", []
        rows = self.path.read_text().splitlines()[1:] if done and self.path.exists() else []
        # A run that was stopped may have written a row for a state that it did not keep.
        kept = [row for row in rows if int(row.split(",")[0]) <= done]
        with replacing(self.path) as file:
            file.write("".join(f"{row}\n" for row in (",".join(self.COLUMNS), *kept)).encode())
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            self.writer = None
        else:
            self.writer = SummaryWriter(str(folder), purge_step=done + 1 if done else None)

    def add_step(self, step: int, loss: float, learning_rate: float) -> None:
        """A step that was done."""
        self.losses.append(loss)
        self._draw(step, loss=loss, learning_rate=learning_rate)

    def add_checkpoint(self, step: int, **scores: float) -> None:
        """What validation measured, none of it or all, beside the mean loss since the checkpoint before."""
        values = [np.mean(self.losses), *(scores.get(name, np.nan) for name in self.COLUMNS[2:])]
        self.losses = []
        with self.path.open("a") as file:
            file.write(",".join([str(step), *(f"{value:.5f}" for value in values)]) + "\n")
        self._draw(step, **scores)

    def _draw(self, step: int, **values: float) -> None:
        if self.writer is not None:
            for name, value in values.items():
                self.writer.add_scalar(name, value, step)
