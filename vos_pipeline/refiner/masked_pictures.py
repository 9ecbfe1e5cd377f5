"""Pictures with masks of one's own as a training set."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from torch.utils.data import Dataset

from vos_pipeline.data import VOID, list_images, read_image, read_labels
from vos_pipeline.errors import PipelineError
from vos_pipeline.refiner.degrade import degrade, hardness
from vos_pipeline.refiner.samples import TRIES, Sample

HELD_OUT = 10  # every tenth picture is kept for validation, if there are that many


class MaskedPictures(Dataset[Sample]):
    """Random crops of pictures with masks; the object is a random label, the rest is background (paper, 4.1).

    Args:
        images: folder of pictures.
        masks: folder of indexed or 0/255 masks with the pictures' names.
        size: side of a crop.
        seed: with the index of a sample, the only source of randomness.
        part: "train" or "validation"; the latter has every tenth picture, if there are at least ten, and none
            otherwise.
        course: number of samples in which coarse masks become hard, see :func:`vos_pipeline.refiner.hardness`.
    """

    def __init__(
        self,
        images: str | Path,
        masks: str | Path,
        size: int = 160,
        seed: int = 0,
        part: str = "train",
        course: int = 0,
    ) -> None:
        by_name = {path.stem: path for path in list_images(Path(masks))}
        pairs = [(path, by_name[path.stem]) for path in list_images(Path(images)) if path.stem in by_name]
        if not pairs:
            raise PipelineError(f"no picture in {images} has a mask of the same name in {masks}")
        held_out = pairs[HELD_OUT - 1 :: HELD_OUT]
        self.pairs = held_out if part == "validation" else [pair for pair in pairs if pair not in held_out]
        self.size, self.seed, self.course = size, seed, course

    def __bool__(self) -> bool:
        return bool(self.pairs)

    def __getitem__(self, index: int) -> Sample:
        rng = np.random.default_rng((self.seed, index))
        for _ in range(TRIES):
            image_path, mask_path = self.pairs[rng.integers(len(self.pairs))]
            image, labels = read_image(image_path), read_labels(mask_path)
            objects = np.setdiff1d(labels, (0, VOID))
            if len(objects) == 0 or image.shape[:2] != labels.shape:
                continue
            mask = (labels == rng.choice(objects)).astype(np.float32)
            image, mask = self._crop(image, mask, rng)
            coarse = degrade(mask, rng, image, hardness(index, self.course))
            if (coarse > 0.5).any() and (coarse <= 0.5).any() and mask.any():
                return image, coarse, mask
        raise PipelineError(
            f"no crop with an object found in {TRIES} tries: are the masks of {mask_path.parent} empty?"
        )

    def _crop(
        self, image: np.ndarray, mask: np.ndarray, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """A square about a pixel of the object, scaled, mirrored and relit."""
        s = self.size
        y, x = np.argwhere(mask > 0)[rng.integers(np.count_nonzero(mask))]
        scale, mirror = np.exp(rng.uniform(-0.4, 0.4)), rng.choice([-1, 1])
        centre = rng.uniform(0.2, 0.8, 2) * s
        zoom = scale * mirror
        matrix = np.array([[zoom, 0, centre[0] - zoom * x], [0, scale, centre[1] - scale * y]], np.float32)
        image = cv2.warpAffine(image, matrix, (s, s), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
        mask = cv2.warpAffine(mask, matrix, (s, s), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
        gain = np.exp(rng.normal(0, 0.15) + rng.normal(0, 0.05, 3))
        return np.clip(image / 255 * gain, 0, 1).astype(np.float32), mask
