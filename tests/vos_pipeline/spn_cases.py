"""Shared by the tests of the refiner's training: small images, masks and a small refiner."""

import cv2
import numpy as np
import torch

from spn.guidance import LiteGuidance
from spn.refiner import SPNRefiner
from vos_pipeline.settings import SPNTraining

TINY = SPNTraining(steps=6, batch=2, size=32, learning_rate=3e-3, checkpoint_every=2)


def photographs():
    rng = np.random.default_rng(0)
    return [cv2.resize(rng.integers(0, 255, (8, 8, 3), dtype=np.uint8), (96, 80)) for _ in range(3)]


def tiny_refiner():
    torch.manual_seed(0)
    return SPNRefiner(LiteGuidance(widths=(4, 4, 4, 4), sees_mask=True), hidden=4, groups=2)


def masked_folder(root, count=2):
    for name in ("images", "masks"):
        (root / name).mkdir()
    labels = np.zeros((40, 60), np.uint8)
    labels[10:30, 5:25], labels[15:35, 35:50], labels[:2] = 1, 2, 255
    for i in range(count):
        cv2.imwrite(str(root / "images" / f"{i}.png"), photographs()[i % 3][:40, :60])
        cv2.imwrite(str(root / "masks" / f"{i}.png"), labels)
    return root / "images", root / "masks"


def square(size=48):
    mask = np.zeros((size, size), np.float32)
    mask[12:36, 8:32] = 1
    return mask
