"""One frame and its mask become many: the same random transform for both, drawn from a given generator."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cached_property

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from vos_pipeline.data import Sequence

Batch = tuple[Tensor, Tensor]  # images (N, 3, H, W) float32 in [0, 1], labels (N, H, W) int64


@dataclass(frozen=True)
class Affine:
    """Ranges of a random transform (the defaults are the authors', paper section 3.2).

    ``shift`` is a share of the frame's size, ``rotation`` degrees, ``scale`` s draws a factor log-uniformly
    from [1 / (1 + s), 1 + s], ``flip`` is the chance of a mirror image, ``bend`` the amplitude of a smooth
    displacement as a share of the frame's size (0: purely affine, as in the paper).
    """

    shift: float = 0.1
    rotation: float = 5.0
    scale: float = 0.05
    flip: float = 0.5
    bend: float = 0.0


@dataclass(frozen=True)
class Augmentation:
    """How one training frame becomes many."""

    frame: Affine = field(default_factory=Affine)  # the whole frame moves
    color: float = 0.0  # strength of the colour jitter
    compose: float = 0.0  # share of samples that move each object over the inpainted background
    object: Affine = field(default_factory=Affine)  # what an object does in such a sample
    drop: float = 0.0  # chance that an object is missing from such a sample


def _uniform(shape: tuple[int, ...], generator: Generator) -> Tensor:
    return torch.rand(shape, generator=generator) * 2 - 1


def sampling_grid(
    count: int,
    size: tuple[int, int],
    ranges: Affine,
    generator: Generator,
    center: tuple[float, float] = (0.0, 0.0),
) -> Tensor:
    """Draw ``count`` transforms about ``center`` as grids for :func:`warp`.

    Args:
        count: number of transforms N.
        size: (H, W) of the frame; angles and scales are those of its pixels, whatever its aspect ratio.
        ranges: what to draw from.
        generator: a CPU generator, the only source of randomness.
        center: fixed point (x, y) of rotation and scale, in [-1, 1] across the frame.

    Returns:
        (N, H, W, 2) float32: for every output pixel the place to read, as in ``grid_sample``.
    """
    height, width = size
    angle = _uniform((count,), generator) * math.radians(ranges.rotation)
    zoom = torch.exp(_uniform((count,), generator) * math.log1p(ranges.scale))
    mirror = torch.where(torch.rand(count, generator=generator) < ranges.flip, -1.0, 1.0)
    shift = _uniform((count, 2), generator) * 2 * ranges.shift  # the frame is two units wide
    # Output to input, q = A (p - shift - c) + c, where A undoes the mirror, the rotation and the zoom.
    cos, sin = torch.cos(angle) / zoom, torch.sin(angle) / zoom
    aspect = height / width
    rows = [torch.stack([mirror * cos, mirror * sin * aspect], 1), torch.stack([-sin / aspect, cos], 1)]
    linear = torch.stack(rows, 1)  # (N, 2, 2)
    fixed = torch.tensor(center)
    offset = fixed - torch.einsum("nij,nj->ni", linear, shift + fixed)
    x, y = ((2 * torch.arange(n) + 1) / n - 1 for n in (width, height))
    # An affine map is a sum of what x and what y contribute, so no (H, W) matrix product is needed.
    along, across = (
        x[:, None] * linear[:, None, :, 0],
        y[:, None] * linear[:, None, :, 1],
    )  # (N, W, 2), (N, H, 2)
    grid = along[:, None] + (across + offset[:, None])[:, :, None]
    if ranges.bend > 0:
        nodes = _uniform((count, 2, 4, 6), generator) * 2 * ranges.bend
        smooth = F.interpolate(nodes, size=(24, 36), mode="bicubic", align_corners=True)
        grid += F.interpolate(smooth, size=size, mode="bilinear", align_corners=True).permute(0, 2, 3, 1)
    return grid


def warp(images: Tensor, labels: Tensor, grid: Tensor) -> tuple[Tensor, Tensor]:
    """Move images and labels alike: bilinear and nearest, mirrored at the border so that both stay natural.

    Args:
        images: (N, C, H, W) float32.
        labels: (N, H, W), any dtype that float32 represents.
        grid: (N, H, W, 2) of :func:`sampling_grid`.

    Returns:
        the moved images and labels, shapes and dtypes as given.
    """
    moved = F.grid_sample(images, grid, mode="bilinear", padding_mode="reflection", align_corners=False)
    nearest = F.grid_sample(
        labels[:, None].float(), grid, mode="nearest", padding_mode="reflection", align_corners=False
    )
    return moved, nearest[:, 0].to(labels.dtype)


def color_jitter(images: Tensor, strength: float, generator: Generator) -> Tensor:
    """Random contrast, brightness, saturation, tint of (N, 3, H, W) images in [0, 1]; 0 changes nothing."""
    if strength == 0:
        return images
    count = len(images)
    contrast = 1 + strength * _uniform((count, 1, 1, 1), generator)
    brightness = strength / 2 * _uniform((count, 1, 1, 1), generator)
    saturation = 1 + strength * _uniform((count, 1, 1, 1), generator)
    tint = 1 + strength / 4 * _uniform((count, 3, 1, 1), generator)
    gray = images.mean(1, keepdim=True)
    images = (gray + (images - gray) * saturation) * tint
    mean = images.mean((1, 2, 3), keepdim=True)
    return ((images - mean) * contrast + mean + brightness).clamp(0, 1)


class ComposedFrame:
    """A frame taken apart: its objects, each free to move over the inpainted background.

    An option beyond the paper, after Khoreva et al., "Lucid Data Dreaming" (2017): the nets see objects apart
    from each other and larger than in the only frame they know, and background where the objects were.

    Args:
        image: (3, H, W) float32 in [0, 1].
        labels: (H, W) int64, 0 for background.
    """

    def __init__(self, image: Tensor, labels: Tensor) -> None:
        self.image, self.labels = image, labels
        self.background = _inpaint(image, labels > 0)
        self.objects = [int(k) for k in labels.unique() if k > 0]

    def sample(
        self, count: int, frame: Affine, motion: Affine, drop: float, generator: Generator
    ) -> tuple[Tensor, Tensor]:
        """Draw ``count`` scenes.

        Args:
            count: number of scenes N.
            frame: how the background moves.
            motion: how each object moves, about its own centre.
            drop: chance that an object is missing.
            generator: a CPU generator.

        Returns:
            images (N, 3, H, W) float32, labels (N, H, W) int64.
        """
        size = self.labels.shape
        images, labels = warp(
            self.background.expand(count, -1, -1, -1),
            torch.zeros_like(self.labels).expand(count, -1, -1),
            sampling_grid(count, size, frame, generator),
        )
        # Later objects hide earlier ones: any of them may come to the front.
        for index in torch.randperm(len(self.objects), generator=generator).tolist():
            layer, matte = self._moved_object(self.objects[index], count, motion, generator)
            shown = torch.rand((count, 1, 1, 1), generator=generator) >= drop
            layer, matte = layer * shown, matte * shown
            images = (1 - matte) * images + layer
            labels = torch.where(matte[:, 0] > 0.5, self.objects[index], labels)
        return images, labels

    def _moved_object(
        self, k: int, count: int, motion: Affine, generator: Generator
    ) -> tuple[Tensor, Tensor]:
        mask = (self.labels == k).float()
        height, width = mask.shape
        y, x = torch.nonzero(mask, as_tuple=True)
        center = ((2 * x.float().mean() + 1) / width - 1, (2 * y.float().mean() + 1) / height - 1)
        grid = sampling_grid(count, (height, width), motion, generator, (center[0].item(), center[1].item()))
        # Colours premultiplied by the matte, zeros beyond the border: nothing of the object's surroundings
        # comes along, and an object cut by the frame is not mirrored back into it.
        layer = torch.cat([self.image * mask, mask[None]]).expand(count, -1, -1, -1)
        moved = F.grid_sample(layer, grid, padding_mode="zeros", align_corners=False)
        return moved[:, :3], moved[:, 3:]


def _inpaint(image: Tensor, mask: Tensor) -> Tensor:
    """The image with the masked pixels, and a rim of mixed ones, filled in from around."""
    if not mask.any():
        return image
    pixels = (image.permute(1, 2, 0) * 255).round().to(torch.uint8).numpy()
    hole = cv2.dilate(mask.to(torch.uint8).numpy(), np.ones((5, 5), np.uint8))
    filled = cv2.inpaint(np.ascontiguousarray(pixels), hole, 5, cv2.INPAINT_TELEA)
    return torch.from_numpy(filled).permute(2, 0, 1).float() / 255


def working_image(sequence: Sequence, t: int, height: int | None) -> Tensor:
    """Frame t as (3, H, W) float32 in [0, 1], at the height the nets work at."""
    frame = sequence.read_frame(t)
    if height is not None and height != frame.shape[0]:
        width = round(frame.shape[1] * height / frame.shape[0])
        frame = cv2.resize(frame, (width, height), interpolation=cv2.INTER_AREA)
    return torch.from_numpy(np.array(frame)).permute(2, 0, 1).float() / 255


class MaskedFrame:
    """A frame and its labels at the working size, read when first needed and kept in 8 bits."""

    def __init__(self, sequence: Sequence, t: int, height: int | None) -> None:
        self.sequence, self.t, self.height = sequence, t, height

    @cached_property
    def _pixels(self) -> Batch:
        image = working_image(self.sequence, self.t, self.height)
        labels = self.sequence.read_mask(self.t)
        labels = cv2.resize(labels, image.shape[:0:-1], interpolation=cv2.INTER_NEAREST)
        return (image * 255).round().to(torch.uint8), torch.from_numpy(labels)

    @property
    def image(self) -> Tensor:
        return self._pixels[0].float() / 255

    @property
    def labels(self) -> Tensor:
        return self._pixels[1].long()

    @cached_property
    def composed(self) -> ComposedFrame:
        return ComposedFrame(self.image, self.labels)


class Batches:
    """Augmented batches as a function of the step alone: a resumed training sees what an unbroken one does.

    Args:
        frames: what to draw from, uniformly.
        augmentation: how a frame becomes a sample.
        size: samples a batch N.
        seed: with the step and the rank, all there is to the randomness.
        objects: ids that become classes 1, 2, ...; None makes every object class 1, foreground.
        rank, world: each rank of a distributed training draws samples of its own.
    """

    def __init__(
        self,
        frames: list[MaskedFrame],
        augmentation: Augmentation,
        size: int,
        seed: int,
        *,
        objects: list[int] | None = None,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        self.frames, self.augmentation, self.size = frames, augmentation, size
        self.seed, self.objects, self.rank, self.world = seed, objects, rank, world

    def __call__(self, step: int) -> Batch:
        generator = Generator().manual_seed((self.seed << 32) + step * self.world + self.rank)
        samples = [self._sample(generator) for _ in range(self.size)]
        shape = samples[0][0].shape[-2:]  # sequences may differ in width: the first sample decides
        images = torch.cat(
            [F.interpolate(x, size=shape, mode="bilinear", antialias=True) for x, _ in samples]
        )
        labels = torch.cat([F.interpolate(y[None].float(), size=shape)[0].long() for _, y in samples])
        return color_jitter(images, self.augmentation.color, generator), self._classes(labels)

    def _classes(self, labels: Tensor) -> Tensor:
        if self.objects is None:
            return (labels > 0).long()
        classes = torch.zeros_like(labels)
        for index, k in enumerate(self.objects, 1):
            classes[labels == k] = index
        return classes

    def _sample(self, generator: Generator) -> Batch:
        ranges = self.augmentation
        frame = self.frames[int(torch.randint(len(self.frames), (), generator=generator))]
        if torch.rand((), generator=generator) < ranges.compose:
            return frame.composed.sample(1, ranges.frame, ranges.object, ranges.drop, generator)
        grid = sampling_grid(1, frame.labels.shape, ranges.frame, generator)
        return warp(frame.image[None], frame.labels[None], grid)
