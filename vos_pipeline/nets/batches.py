"""Batches of augmented samples that depend only on the training step."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from vos_pipeline.data import MaskedVideo
from vos_pipeline.nets.augment import ComposedFrame, color_jitter, sampling_grid, warp
from vos_pipeline.settings import Augmentation
from vos_pipeline.training import Ranks

Batch = tuple[Tensor, Tensor]  # images (N, 3, H, W) float32 in [0, 1], labels (N, H, W) int64


def working_image(frame: np.ndarray, height: int | None, device: str = "cpu") -> Tensor:
    """Convert uint8 RGB (H, W, 3) to (3, H, W) float32 in [0, 1], resized to ``height`` unless it is None."""
    if height is not None and height != frame.shape[0]:
        width = round(frame.shape[1] * height / frame.shape[0])
        frame = cv2.resize(frame, (width, height), interpolation=cv2.INTER_AREA)
    return torch.from_numpy(np.array(frame)).to(device).permute(2, 0, 1).float() / 255


@dataclass(frozen=True)
class MaskedFrame:
    """One frame of a sequence that has a mask, and the height at which the networks see it."""

    sequence: MaskedVideo
    t: int
    height: int | None

    def read(self) -> Batch:
        """Return the image (3, H, W) and the labels (H, W), both uint8."""
        image = working_image(self.sequence.read_frame(self.t), self.height)
        labels = self.sequence.read_mask(self.t)
        labels = cv2.resize(labels, image.shape[:0:-1], interpolation=cv2.INTER_NEAREST)
        return (image * 255).round().to(torch.uint8), torch.from_numpy(labels)


class Batches:
    """Augmented batches that depend only on the step, so a resumed training sees the same samples.

    The ranks of a distributed training split the samples of a step, so the samples do not depend on the number of
    ranks either.

    Args:
        frames: frames to draw from, with equal probability. All samples have the size of the first frame.
        augmentation: how a sample is made from a frame.
        size: samples per step, over all ranks; a multiple of the number of ranks.
        seed: determines all randomness, together with the step and the index in the batch.
        objects: ids that become classes 1, 2, ...; None makes every object class 1, foreground.
        ranks: the ranks that share a batch. Each makes its own part.
        device: device on which samples are made.
    """

    KEPT_FRAMES = 512  # cached with 8 bits; frames of a larger training set are read repeatedly

    def __init__(
        self,
        frames: list[MaskedFrame],
        augmentation: Augmentation,
        size: int,
        seed: int,
        *,
        objects: list[int] | None = None,
        ranks: Ranks = Ranks(),
        device: str = "cpu",
    ) -> None:
        self.frames, self.augmentation, self.seed = frames, augmentation, seed
        self.objects, self.device = objects, device
        each, rest = divmod(size, ranks.size)
        if rest:
            raise ValueError(
                f"size must be a multiple of the {ranks.size} ranks that share a batch, got {size}"
            )
        self.places = range(ranks.rank * each, (ranks.rank + 1) * each)
        self._pixels = lru_cache(self.KEPT_FRAMES)(lambda index: self.frames[index].read())
        self._composed = lru_cache(self.KEPT_FRAMES // 8)(lambda index: ComposedFrame(*self._frame(index)))

    def __call__(self, step: int) -> Batch:
        """Return the images (N, 3, H, W) and classes (N, H, W) of this rank."""
        images, labels = zip(*(self._sample(step, place) for place in self.places), strict=True)
        return torch.cat(images), self._classes(torch.cat(labels))

    def _sample(self, step: int, place: int) -> Batch:
        ranges = self.augmentation
        generator = _generator(self.seed, step, place)
        index = int(torch.randint(len(self.frames), (), generator=generator))
        if ranges.samples is not None:
            which = int(torch.randint(ranges.samples, (), generator=generator))
            generator = _generator(self.seed, index, which)
        if torch.rand((), generator=generator) < ranges.compose:
            image, labels = self._composed(index).sample(
                1, ranges.frame, ranges.object, ranges.drop, generator, ranges.near
            )
        else:
            image, labels = self._frame(index)
            grid = sampling_grid(1, labels.shape, ranges.frame, generator, device=self.device)
            image, labels = warp(image[None], labels[None], grid)
        size = self._pixels(0)[1].shape  # sequences may differ in width
        if labels.shape[1:] != size:
            image = F.interpolate(image, size=size, mode="bilinear", antialias=True)
            labels = F.interpolate(labels[None].float(), size=size)[0].long()
        return color_jitter(image, ranges.color, generator), labels

    def _frame(self, index: int) -> Batch:
        image, labels = (pixels.to(self.device) for pixels in self._pixels(index))
        return image.float() / 255, labels.long()

    def _classes(self, labels: Tensor) -> Tensor:
        if self.objects is None:
            return (labels > 0).long()
        classes = torch.zeros_like(labels)
        for index, k in enumerate(self.objects, 1):
            classes[labels == k] = index
        return classes


def made_ahead(batches: Callable[[int], Batch], steps: Iterable[int]) -> Iterator[Batch]:
    """Yield the batch of each step while a thread prepares the next one."""
    with ThreadPoolExecutor(1) as pool:
        ahead: deque[Future[Batch]] = deque()
        for step in steps:
            ahead.append(pool.submit(batches, step))
            if len(ahead) > 1:
                yield ahead.popleft().result()
        for batch in ahead:
            yield batch.result()


def _generator(*numbers: int) -> Generator:
    # The generator uses only 32 bits of its seed, so all numbers are hashed into these bits.
    return Generator().manual_seed(int(np.random.SeedSequence(numbers).generate_state(1)[0]))
