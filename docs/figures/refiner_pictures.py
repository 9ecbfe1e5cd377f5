"""Draw the refiner's training curves and its effect on free photographs: before and after, gates, and influence.

    python -m docs.figures.refiner_pictures [--weights lite] [--out docs/_static/refiner]

The photographs come from scikit-image. The coarse masks are polygons of a few clicks, averaged over cells of 24 pixels.
The curves are benchmarks/results/refiner_training.csv, the curves.csv of the training that made the shipped weights.
"""

from __future__ import annotations

import argparse
import io
from pathlib import Path

import cv2
import matplotlib
import numpy as np
import skimage.data
import torch
from matplotlib import pyplot as plt
from PIL import Image

import spn
from vos_pipeline.refiner import VALIDATION_SAMPLES, lose_resolution

CELL = 24  # pixels
ROOT = Path(__file__).parents[2]
DOCS, CURVES = ROOT / "docs", ROOT / "benchmarks" / "results" / "refiner_training.csv"

# The boundary of each photograph's object, (x, y) in pixels.
OUTLINES = {
    "coffee": [
        (175, 60), (230, 20), (290, 15), (360, 30), (405, 70), (440, 130), (478, 220), (470, 290), (430, 345),
        (350, 380), (260, 388), (170, 360), (110, 300), (80, 230), (90, 160), (130, 110), (175, 95),
    ],
    "astronaut": [
        (154, 78), (175, 35), (210, 16), (255, 20), (294, 65), (294, 117), (262, 140), (262, 178), (294, 196),
        (308, 250), (348, 280), (358, 345), (400, 343), (460, 365), (500, 430), (512, 512), (20, 512), (24, 392),
        (59, 248), (116, 215), (147, 154), (186, 160), (181, 124),
    ],
    "rocket": [(322, 126), (331, 140), (335, 180), (336, 406), (309, 406), (309, 180), (313, 140)],
}  # fmt: skip
VIEWS = {"astronaut": (slice(0, 341),), "rocket": (slice(90, 427), slice(70, 575))}  # all of shape 2 : 3
DIRECTIONS = ("left to right", "right to left", "top to bottom", "bottom to top")
SOURCES = {"crema": (300, 150), "saucer": (130, 210), "table": (545, 330)}  # (x, y) in "coffee"


def load(name: str) -> tuple[np.ndarray, np.ndarray]:
    """Return a photograph, uint8 (H, W, 3), and its coarse mask, float32 (H, W)."""
    photo = getattr(skimage.data, name)()[..., :3]
    mask = np.zeros(photo.shape[:2], np.uint8)
    cv2.fillPoly(mask, [np.array(OUTLINES[name])], 1)
    view = VIEWS.get(name, ())
    return np.ascontiguousarray(photo[view]), lose_resolution(mask.astype(np.float32), CELL)[view]


def tensors(photo: np.ndarray, coarse: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.from_numpy(photo).permute(2, 0, 1)[None] / 255, torch.from_numpy(coarse.copy())[None, None]


def cut_out(photo: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Return the object on a pale background."""
    return (244 + (photo - 244.0) * mask[..., None]).astype(np.uint8)


def before_and_after(refiner: spn.SPNRefiner) -> plt.Figure:
    """Draw one row per photograph: the photograph, the coarse mask and the refined mask."""
    figure, axes = plt.subplots(len(OUTLINES), 3, figsize=(9, 6.3), layout="compressed")
    for row, name in zip(axes, OUTLINES, strict=True):
        photo, coarse = load(name)
        with torch.inference_mode():
            refined = refiner(*tensors(photo, coarse))[0, 0].numpy()
        for axis, picture in zip(row, (photo, cut_out(photo, coarse), cut_out(photo, refined)), strict=True):
            axis.imshow(picture)
            axis.axis("off")
    for axis, title in zip(
        axes[0], ("photograph", f"cells of {CELL} x {CELL} pixels", "refined"), strict=True
    ):
        axis.set_title(title)
    return figure


def gate_maps(refiner: spn.SPNRefiner) -> plt.Figure:
    """Draw the sum of each pixel's three gates per direction: the weight and sign of the previous line."""
    photo, coarse = load("coffee")
    with torch.inference_mode():
        gates = refiner.gates(*tensors(photo, coarse))[0, 0]
    sums = gates.sum(1)[:, 0].numpy()  # over taps; the first group
    figure, axes = plt.subplots(2, 2, figsize=(8, 5), layout="compressed")
    for axis, values, direction in zip(axes.flat, sums, DIRECTIONS, strict=True):
        drawn = axis.imshow(values, cmap="RdBu_r", vmin=-1, vmax=1)
        axis.set_title(direction, fontsize=10)
        axis.axis("off")
    figure.colorbar(drawn, ax=axes, shrink=0.8, label="weight of the previous line")
    return figure


def influence(refiner: spn.SPNRefiner) -> plt.Figure:
    """Draw how much of a single pixel reaches each other pixel in one four-way pass, mean over the channel groups."""
    photo, coarse = load("coffee")
    with torch.inference_mode():
        gates = refiner.gates(*tensors(photo, coarse))[0]
    step = photo.shape[0] // gates.shape[-2]
    grey = cv2.cvtColor(photo, cv2.COLOR_RGB2GRAY)
    figure, axes = plt.subplots(1, len(SOURCES), figsize=(9, 2.3), layout="compressed")
    for axis, (name, (x, y)) in zip(axes, SOURCES.items(), strict=True):
        impulse = torch.zeros(1, gates.shape[3], *gates.shape[-2:])
        impulse[..., y // step, x // step] = 1
        source = torch.ones(1, 4, 1, *gates.shape[-2:])  # the whole pixel enters, whatever its gates are
        arriving = spn.propagate_four_way(impulse, gates, source=source, merge=None).abs().amax(1)
        reach = arriving[0].mean(0).clamp(min=1e-6).log10().numpy()
        axis.imshow(grey, cmap="gray", vmin=-60, vmax=400)
        size = (grey.shape[1], grey.shape[0])
        drawn = axis.imshow(cv2.resize(reach, size), cmap="inferno", vmin=-4, vmax=0, alpha=0.7)
        axis.plot(x, y, "c+", markersize=9)
        axis.set_title(name, fontsize=10)
        axis.axis("off")
    figure.colorbar(drawn, ax=axes, shrink=0.9, label="influence (power of ten)")
    return figure


def training() -> plt.Figure:
    """Draw loss and J over the training steps."""
    curves = np.genfromtxt(CURVES, delimiter=",", names=True)
    figure, (loss, overlap) = plt.subplots(1, 2, figsize=(9, 2.8), layout="compressed")
    loss.semilogy(curves["step"], curves["loss"], label="training, extra weight near boundaries")
    loss.semilogy(curves["step"], curves["validation_loss"], label="validation, equal weights")
    overlap.plot(curves["step"], curves["J_refined"], label="refined")
    overlap.plot(curves["step"], curves["J_coarse"], "--", label="coarse")
    for axis, title in ((loss, "cross-entropy"), (overlap, f"J of {VALIDATION_SAMPLES} composites")):
        axis.set_title(title, fontsize=10)
        axis.set_xlabel("training step")
        axis.grid(alpha=0.3)
        axis.legend(fontsize=8)
    return figure


def save(figure: plt.Figure, path: Path) -> None:
    """Save a PNG with 160 colours, to keep photographs small."""
    data = io.BytesIO()
    figure.savefig(data, dpi=100)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.open(data).convert("RGB").quantize(160, dither=Image.Dither.NONE).save(path, optimize=True)
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--weights", default="lite", help="'lite' or a .safetensors file")
    parser.add_argument("--out", type=Path, default=DOCS / "_static" / "refiner")
    args = parser.parse_args()
    matplotlib.use("agg")
    refiner = spn.SPNRefiner.from_pretrained(args.weights)
    figures = {draw.__name__: draw(refiner) for draw in (before_and_after, gate_maps, influence)}
    for name, figure in {"training": training(), **figures}.items():
        path = args.out / f"{name}.png"
        save(figure, path)
        print(path, f"{path.stat().st_size // 1000} kB")


if __name__ == "__main__":
    main()
