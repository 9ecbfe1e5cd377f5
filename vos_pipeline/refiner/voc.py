"""The paper's training set for the SPN: PASCAL VOC 2012 (and SBD) with coarse masks from an FCN.

"We randomly pick a valid label as foreground and the rest as background"; crops of 256 x 256 in which both
classes occur (paper, section 4.1).
"""

from __future__ import annotations

import os
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import nn
from torch.utils.data import Dataset
from tqdm import tqdm

from spn import IMAGENET_MEAN, IMAGENET_STD
from vos_pipeline.data import VOID
from vos_pipeline.errors import PipelineError
from vos_pipeline.files import replacing
from vos_pipeline.refiner.samples import TRIES, Sample
from vos_pipeline.training import my_share, process_rank, wait_for_all


class VOCPictures:
    """Images with label maps: VOC 2012's segmentation set and, for training, the images that only SBD has.

    Args:
        voc: folder that contains ``VOCdevkit/VOC2012``, or to download it to.
        sbd: folder that contains SBD's ``img``, ``cls``, ``train.txt`` and ``val.txt``, or to download them to; None
            uses VOC alone.
        part: "train" or "validation". Images of VOC's validation set are never used for training.
        download: download missing data sets through torchvision.

    Raises:
        PipelineError: a data set is missing or cannot be downloaded.
    """

    def __init__(
        self, voc: str | Path, sbd: str | Path | None = None, part: str = "train", download: bool = False
    ) -> None:
        SBDataset, VOCSegmentation = _datasets()
        image_set = "val" if part == "validation" else "train"
        own = _opened(VOCSegmentation, voc, "VOCdevkit/VOC2012", image_set=image_set, download=download)
        self._items = {Path(path).stem: (own, i) for i, path in enumerate(own.images)}
        if sbd is not None and part == "train":
            held_out = _opened(VOCSegmentation, voc, "VOCdevkit/VOC2012", image_set="val", download=False)
            names = {Path(path).stem for path in held_out.images}
            for image_set in ("train", "val"):
                more = _opened(
                    SBDataset,
                    sbd,
                    "img, cls, train.txt, val.txt",
                    image_set=image_set,
                    mode="segmentation",
                    download=download and image_set == "train",
                )
                for i, path in enumerate(more.images):
                    if (name := Path(path).stem) not in names:
                        self._items.setdefault(name, (more, i))
        self.names = sorted(self._items)

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """Return the image, uint8 RGB (H, W, 3), and its labels, uint8 (H, W), 255 where they are unknown."""
        dataset, index = self._items[name]
        image, labels = dataset[index]
        return np.array(image), np.array(labels)

    def inventory(self) -> str:
        """Return one line per image with its name and the sizes of its two files, to detect most changes cheaply."""
        return "\n".join(
            f"{name} {os.path.getsize(dataset.images[i])} {os.path.getsize(dataset.masks[i])}"
            for name, (dataset, i) in sorted(self._items.items())
        )


class CoarseMasks:
    """Scores of a segmentation network for the labels of an image, computed once and kept on disk.

    Args:
        folder: where the scores are kept, in one small file per image.
        load: returns the network, and is called only if scores are missing. The network maps images (N, 3, H, W),
            normalised as in torchvision, to {"out": logits (N, L, H, W)}.
        device: device on which the network runs.
    """

    def __init__(self, folder: str | Path, load: Callable[[], nn.Module], device: str = "cpu") -> None:
        self.folder, self.load, self.device = Path(folder), load, device

    def fill(self, pictures: VOCPictures) -> None:
        """Compute missing scores; the ranks of a process group share the work."""
        names = [name for name in my_share(pictures.names) if not self._path(name).is_file()]
        if names:
            net = self.load().to(self.device).eval()
            hidden = process_rank()[0] != 0
            for name in tqdm(names, desc="coarse masks", unit="image", disable=hidden):
                labels, scores = self._predict(net, *pictures[name])
                with replacing(self._path(name)) as file:
                    np.savez_compressed(file, labels=labels, scores=scores)
        wait_for_all()

    def read(self, name: str, label: int, size: tuple[int, int]) -> np.ndarray:
        """Return the probability of a label that occurs in the image, float32 (H, W).

        Raises:
            PipelineError: the file is damaged, or belongs to an image with other labels.
        """
        path = self._path(name)
        try:
            with np.load(path) as kept:
                labels, scores = kept["labels"].tolist(), kept["scores"]
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            raise PipelineError(
                f"{path}: cannot be read as coarse masks ({type(error).__name__}): delete it to compute them again"
            ) from None
        if label not in labels or len(labels) != len(scores):
            raise PipelineError(
                f"{path}: has no coarse mask of label {label}, which its image has: delete it to compute them again"
            )
        scores = scores[labels.index(label)]
        return cv2.resize(scores.astype(np.float32) / 255, size[::-1], interpolation=cv2.INTER_LINEAR)

    @torch.inference_mode()
    def _predict(
        self, net: nn.Module, image: np.ndarray, labels: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the objects' labels (K,) and their probabilities at an eighth of the size, uint8 (K, h, w)."""
        pixels = (image / 255 - IMAGENET_MEAN) / IMAGENET_STD
        batch = torch.from_numpy(pixels).permute(2, 0, 1)[None].float().to(self.device)
        probabilities = net(batch)["out"][0].float().softmax(0)
        objects = np.setdiff1d(labels, (0, VOID))
        height, width = (max(1, -(-side // 8)) for side in labels.shape)  # the network's resolution
        scores = nn.functional.interpolate(
            probabilities[objects.tolist()][:, None], (height, width), mode="area"
        )
        return objects, scores[:, 0].mul(255).round().byte().cpu().numpy()

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}.npz"


class VOCObjects(Dataset[Sample]):
    """Crops with one object each: a random label of a random image against the rest (paper, section 4.1).

    Args:
        pictures: the images and labels.
        coarse: the coarse masks, already filled for these images.
        size: side of a crop; 256 in the paper.
        seed: determines all randomness, together with the sample's index.
    """

    def __init__(self, pictures: VOCPictures, coarse: CoarseMasks, size: int = 256, seed: int = 0) -> None:
        self.pictures, self.coarse, self.size, self.seed = pictures, coarse, size, seed

    def __getitem__(self, index: int) -> Sample:
        rng = np.random.default_rng((self.seed, index))
        for _ in range(TRIES):
            name = self.pictures.names[rng.integers(len(self.pictures))]
            image, labels = self.pictures[name]
            objects = np.setdiff1d(labels, (0, VOID))
            if len(objects) == 0:
                continue
            label = int(rng.choice(objects))
            mask = np.where(labels == VOID, -1, labels == label).astype(np.float32)
            coarse = self.coarse.read(name, label, labels.shape)
            for _ in range(TRIES):
                crop = self._crop(image, coarse, mask, rng)
                if _both_classes(crop[1], crop[2]):
                    return crop
        raise PipelineError(
            f"no crop with object and background found in {TRIES} images: check that the FCN is trained"
        )

    def _crop(
        self, image: np.ndarray, coarse: np.ndarray, mask: np.ndarray, rng: np.random.Generator
    ) -> Sample:
        """Crop a square, sometimes mirrored. Beyond the border of a small image the mask is unknown."""
        s, (h, w) = self.size, mask.shape
        low, high = max(0, s - h), max(0, s - w)
        image = cv2.copyMakeBorder(image, 0, low, 0, high, cv2.BORDER_REFLECT)
        coarse = cv2.copyMakeBorder(coarse, 0, low, 0, high, cv2.BORDER_REFLECT)
        mask = cv2.copyMakeBorder(mask, 0, low, 0, high, cv2.BORDER_CONSTANT, value=-1)
        top, left = rng.integers(mask.shape[0] - s + 1), rng.integers(mask.shape[1] - s + 1)
        mirror = rng.choice([-1, 1])
        image, coarse, mask = (
            np.ascontiguousarray(v[top : top + s, left : left + s][:, ::mirror])
            for v in (image, coarse, mask)
        )
        return image.astype(np.float32) / 255, coarse, mask


def _both_classes(coarse: np.ndarray, mask: np.ndarray) -> bool:
    sides = (coarse > 0.5, coarse <= 0.5, mask == 1, mask == 0)
    return all(side.any() for side in sides)


def load_fcn(weights: str = "coco") -> nn.Module:
    """Load torchvision's FCN-ResNet-50 for VOC's 21 labels.

    Args:
        weights: "coco" for torchvision's weights (downloaded once), or a file with such a state dict.

    Raises:
        PipelineError: the weights cannot be downloaded or read.
    """
    from torchvision.models.segmentation import FCN_ResNet50_Weights, fcn_resnet50

    try:
        if weights == "coco":
            state = FCN_ResNet50_Weights.COCO_WITH_VOC_LABELS_V1.get_state_dict(
                progress=True, check_hash=True
            )
        else:
            state = torch.load(weights, map_location="cpu", weights_only=True)
        net = fcn_resnet50(weights=None, weights_backbone=None, num_classes=21, aux_loss=True)
        net.load_state_dict(state)
    except Exception as error:  # no connection, disk full, missing or wrong file: same remedy
        raise PipelineError(
            f"the FCN's weights {weights!r} are not available ({type(error).__name__}: {error}): download "
            f"{FCN_ResNet50_Weights.COCO_WITH_VOC_LABELS_V1.url} elsewhere, and give the file as --fcn FILE"
        ) from error
    return net


def _datasets() -> tuple[type, type]:
    """Import torchvision's data sets lazily, because the other training sets do not need torchvision."""
    try:
        from torchvision.datasets import SBDataset, VOCSegmentation
    except (ImportError, RuntimeError) as error:  # RuntimeError: built for another torch
        raise PipelineError(
            f"--voc needs torchvision ({error}): install the version that matches this torch"
        ) from error
    return SBDataset, VOCSegmentation


def _opened(kind: type, root: str | Path, layout: str, **options: Any) -> Any:
    try:
        return kind(str(root), **options)
    except (RuntimeError, OSError) as error:
        raise PipelineError(
            f"{root}: has no {kind.__name__} ({layout}): give its folder, or --download ({error})"
        ) from error
