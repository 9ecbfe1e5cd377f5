"""A training set from a user's own images and masks."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from torch.utils.data import Dataset

from vos_pipeline.data import VOID, MaskFolder, image_size, list_images, read_image
from vos_pipeline.errors import PipelineError
from vos_pipeline.refiner.degrade import degrade, hardness
from vos_pipeline.refiner.samples import TRIES, Sample

HELD_OUT = 10  # every tenth image is kept for validation, if there are at least ten


class PictureFolders:
    """Images of one folder and the masks of the same names in another folder, all checked.

    Args:
        images: folder of images.
        masks: folder of masks named like the images, see :class:`vos_pipeline.data.MaskFolder`.
        progress: show a progress bar if the check takes long.

    Raises:
        PipelineError: no image has a mask, a mask cannot be read or differs in size from its image, or no mask
            contains an object.
    """

    def __init__(self, images: str | Path, masks: str | Path, progress: bool = False) -> None:
        by_name = {path.stem: path for path in list_images(Path(masks))}
        self.pairs = [
            (path, by_name[path.stem]) for path in list_images(Path(images)) if path.stem in by_name
        ]
        if not self.pairs:
            raise PipelineError(f"no image in {images} has a mask of the same name in {masks}")
        self.masks = MaskFolder(mask for _, mask in self.pairs)
        sizes = self.masks.survey(progress).sizes
        for image, mask in self.pairs:
            if image_size(image) != sizes[mask]:
                raise PipelineError(
                    f"{mask}: is {_by(sizes[mask])}, but its image {image} is {_by(image_size(image))}; "
                    "a mask must have the size of its image"
                )
        if not self.masks.labels():
            raise PipelineError(f"{masks}: no mask of an image in {images} contains an object")


class MaskedPictures(Dataset[Sample]):
    """Random crops of images with masks; the object is a random label, the rest background (paper, section 4.1).

    Args:
        folders: the images and their masks.
        size: side of a crop.
        seed: determines all randomness, together with the sample's index.
        part: "train" or "validation". "validation" has every tenth image, or none if there are fewer than ten.
            Images without an object are in neither part.
        course: number of samples over which coarse masks become hard, see :func:`vos_pipeline.refiner.hardness`.

    Raises:
        PipelineError: no training image contains an object.
    """

    def __init__(
        self, folders: PictureFolders, size: int = 160, seed: int = 0, part: str = "train", course: int = 0
    ) -> None:
        self.masks = folders.masks
        self.pairs = [
            (image, mask)
            for k, (image, mask) in enumerate(folders.pairs, start=1)
            if (k % HELD_OUT == 0) == (part == "validation") and self.masks.labels(mask)
        ]
        if part == "train" and not self.pairs:
            raise PipelineError(
                f"{folders.pairs[0][1].parent}: only masks kept for validation (every {HELD_OUT}th) contain an object"
            )
        self.size, self.seed, self.course = size, seed, course

    def __bool__(self) -> bool:
        return bool(self.pairs)

    def __getitem__(self, index: int) -> Sample:
        rng = np.random.default_rng((self.seed, index))
        for _ in range(TRIES):
            image_path, mask_path = self.pairs[rng.integers(len(self.pairs))]
            image, labels = read_image(image_path), self.masks.read(mask_path)
            mask = (labels == rng.choice(np.setdiff1d(labels, (0, VOID)))).astype(np.float32)
            image, mask = self._crop(image, mask, rng)
            coarse = degrade(mask, rng, image, hardness(index, self.course))
            if (coarse > 0.5).any() and (coarse <= 0.5).any() and mask.any():
                return image, coarse, mask
        raise PipelineError(
            f"no crop with object and background found in {TRIES} tries: check whether the masks in {mask_path.parent} "
            "cover whole images or only specks"
        )

    def _crop(
        self, image: np.ndarray, mask: np.ndarray, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """Crop a square around a pixel of the object, with random scale, mirroring and brightness."""
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


def _by(size: tuple[int, int]) -> str:
    return f"{size[1]}x{size[0]}"
