"""Data augmentation: apply the same random transform to a frame and its mask."""

from __future__ import annotations

import math
from collections.abc import Sequence

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from vos_pipeline.settings import Affine

MOST_ENLARGED = 8.0  # objects are only blur at larger scales


def _uniform(shape: tuple[int, ...], generator: Generator, device: torch.device | str) -> Tensor:
    """Draw uniformly from [-1, 1), always on the CPU, so that samples do not depend on the device."""
    return (torch.rand(shape, generator=generator) * 2 - 1).to(device)


def sampling_grid(
    count: int,
    size: Sequence[int],
    ranges: Affine,
    generator: Generator,
    center: tuple[float, float] = (0.0, 0.0),
    largest: float = 0.0,
    device: torch.device | str = "cpu",
) -> Tensor:
    """Draw ``count`` random transforms about ``center`` and return their grids for :func:`warp`.

    Args:
        count: number of transforms N.
        size: (H, W) of the frame. Angles and scales refer to pixels, so they do not depend on the aspect ratio.
        ranges: ranges of the transforms.
        generator: a CPU generator, the only source of randomness.
        center: fixed point (x, y) of rotation and scale, in [-1, 1] across the frame.
        largest: largest scale factor, if larger than the one in ``ranges``.
        device: device on which the grids are computed.

    Returns:
        (N, H, W, 2) float32: the input position of each output pixel, as in ``grid_sample``.
    """
    height, width = size
    angle = _uniform((count,), generator, device) * math.radians(ranges.rotation)
    smallest, largest = 1 / (1 + ranges.scale), max(1 + ranges.scale, largest)
    share = (_uniform((count,), generator, device) + 1) / 2
    zoom = smallest * (largest / smallest) ** share
    mirror = torch.where(torch.rand(count, generator=generator) < ranges.flip, -1.0, 1.0).to(device)
    shift = _uniform((count, 2), generator, device) * 2 * ranges.shift  # the frame spans two units
    # Output to input, q = A (p - shift - c) + c, where A undoes the mirror, the rotation and the zoom.
    cos, sin = torch.cos(angle) / zoom, torch.sin(angle) / zoom
    aspect = height / width
    rows = [torch.stack([mirror * cos, mirror * sin * aspect], 1), torch.stack([-sin / aspect, cos], 1)]
    linear = torch.stack(rows, 1)  # (N, 2, 2)
    fixed = torch.tensor(center, device=device)
    offset = fixed - torch.einsum("nij,nj->ni", linear, shift + fixed)
    x, y = ((2 * torch.arange(n, device=device) + 1) / n - 1 for n in (width, height))
    # An affine map is the sum of a term in x and a term in y, so no (H, W) matrix product is needed.
    along = x[:, None] * linear[:, None, :, 0]  # (N, W, 2)
    across = y[:, None] * linear[:, None, :, 1]  # (N, H, 2)
    grid = along[:, None] + (across + offset[:, None])[:, :, None]
    if ranges.bend > 0:
        # Division by the zoom makes the bend relative to the output frame, not to an enlarged detail.
        nodes = _uniform((count, 2, 4, 6), generator, device) * (2 * ranges.bend / zoom).view(-1, 1, 1, 1)
        smooth = F.interpolate(nodes, size=(24, 36), mode="bicubic", align_corners=True)
        grid += F.interpolate(smooth, size=size, mode="bilinear", align_corners=True).permute(0, 2, 3, 1)
    return grid


def warp(images: Tensor, labels: Tensor, grid: Tensor) -> tuple[Tensor, Tensor]:
    """Apply the same grid to images (bilinear) and labels (nearest), mirrored at the border.

    Args:
        images: (N, C, H, W) float32.
        labels: (N, H, W), any dtype whose values float32 represents exactly.
        grid: (N, H, W, 2), from :func:`sampling_grid`.

    Returns:
        The transformed images and labels, with the shapes and dtypes of the inputs.
    """
    moved = F.grid_sample(images, grid, mode="bilinear", padding_mode="reflection", align_corners=False)
    nearest = F.grid_sample(
        labels[:, None].float(), grid, mode="nearest", padding_mode="reflection", align_corners=False
    )
    return moved, nearest[:, 0].to(labels.dtype)


def color_jitter(images: Tensor, strength: float, generator: Generator) -> Tensor:
    """Change contrast, brightness, saturation and tint of (N, 3, H, W) images in [0, 1] randomly; 0 changes nothing."""
    if strength == 0:
        return images
    count, device = len(images), images.device
    contrast = 1 + strength * _uniform((count, 1, 1, 1), generator, device)
    brightness = strength / 2 * _uniform((count, 1, 1, 1), generator, device)
    saturation = 1 + strength * _uniform((count, 1, 1, 1), generator, device)
    tint = 1 + strength / 4 * _uniform((count, 3, 1, 1), generator, device)
    gray = images.mean(1, keepdim=True)
    images = (gray + (images - gray) * saturation) * tint
    mean = images.mean((1, 2, 3), keepdim=True)
    return ((images - mean) * contrast + mean + brightness).clamp(0, 1)


class ComposedFrame:
    """A frame split into its objects, which move independently over the inpainted background.

    This is an addition to the paper, after Khoreva et al., "Lucid Data Dreaming" (2017). During training, objects
    appear separately and larger than in the only known frame, and background appears at their original places.

    Args:
        image: (3, H, W) float32 in [0, 1].
        labels: (H, W) int64, 0 for background.
    """

    def __init__(self, image: Tensor, labels: Tensor) -> None:
        self.image, self.labels = image, labels
        self.background = _inpaint(image, labels > 0)
        self.boxes = {int(k): _box(labels == k) for k in labels.unique() if k > 0}

    def sample(
        self,
        count: int,
        frame: Affine,
        motion: Affine,
        drop: float,
        generator: Generator,
        near: float = 0.0,
    ) -> tuple[Tensor, Tensor]:
        """Draw ``count`` random scenes.

        Args:
            count: number of scenes N.
            frame: ranges of the transform of the background.
            motion: ranges of the transform of each object about its centre.
            drop: probability that an object is missing.
            generator: a CPU generator.
            near: small objects may be enlarged until they span this share of the frame.

        Returns:
            Images (N, 3, H, W) float32, and labels (N, H, W) int64.
        """
        size = self.labels.shape
        images, labels = warp(
            self.background.expand(count, -1, -1, -1),
            torch.zeros_like(self.labels).expand(count, -1, -1),
            sampling_grid(count, size, frame, generator, device=self.image.device),
        )
        # Later objects hide earlier ones; the random order lets any object be in front.
        objects = list(self.boxes)
        for index in torch.randperm(len(objects), generator=generator).tolist():
            layer, matte = self._moved_object(objects[index], count, motion, near, generator)
            shown = (torch.rand((count, 1, 1, 1), generator=generator) >= drop).to(layer.device)
            layer, matte = layer * shown, matte * shown
            images = (1 - matte) * images + layer
            labels = torch.where(matte[:, 0] > 0.5, objects[index], labels)
        return images, labels

    def _moved_object(
        self, k: int, count: int, motion: Affine, near: float, generator: Generator
    ) -> tuple[Tensor, Tensor]:
        mask = (self.labels == k).float()
        center, extent = self.boxes[k]
        largest = min(near / extent, MOST_ENLARGED)
        grid = sampling_grid(count, mask.shape, motion, generator, center, largest, mask.device)
        # Premultiplied colours exclude the object's surroundings. Zeros beyond the border keep an object that the
        # frame cuts off from being mirrored back into it.
        layer = torch.cat([self.image * mask, mask[None]]).expand(count, -1, -1, -1)
        moved = F.grid_sample(layer, grid, padding_mode="zeros", align_corners=False)
        return moved[:, :3], moved[:, 3:]


def _box(mask: Tensor) -> tuple[tuple[float, float], float]:
    """Return the mean pixel (x, y), in [-1, 1] across the frame, and the share of the frame that the mask spans."""
    (y, x), (height, width) = torch.nonzero(mask, as_tuple=True), mask.shape
    spans = (index.max().item() - index.min().item() + 1 for index in (y, x))
    center = ((2 * x.float().mean().item() + 1) / width - 1, (2 * y.float().mean().item() + 1) / height - 1)
    return center, max(span / side for span, side in zip(spans, mask.shape, strict=True))


def _inpaint(image: Tensor, mask: Tensor) -> Tensor:
    """Fill the masked pixels, and a rim of mixed pixels around them, from their surroundings."""
    if not mask.any():
        return image
    pixels = (image.permute(1, 2, 0) * 255).round().to(torch.uint8).cpu().numpy()
    hole = cv2.dilate(mask.to(torch.uint8).cpu().numpy(), np.ones((5, 5), np.uint8))
    filled = cv2.inpaint(np.ascontiguousarray(pixels), hole, 5, cv2.INPAINT_TELEA)
    return torch.from_numpy(filled).permute(2, 0, 1).float().to(image.device) / 255
