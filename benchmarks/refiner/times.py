"""Time the refiner: seconds per frame at 480p against the number of objects, and the share of each kind of work.

    python -m benchmarks.refiner.times [--data ROOT] [--json FILE]

ROOT is a DAVIS root: the masks are consecutive frames of the objects that benchmarks.refiner.quality scores. Without it
the objects are moving ellipses with the bounding boxes of these objects. The image is synthetic. Coarse masks are the
ground truth averaged over 16 x 16 pixels. Each number of objects is measured on several choices of objects, because
their sizes differ.

Each frame is refined alternately in whole frames and in windows around the objects. Seconds are medians over all frames
and choices. The milliseconds per kind of work come from torch.profiler, for one frame of the last choice.

``python -m docs.figures.refiner_table`` writes the table of docs/refiner.md from the JSON file.
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path

import cv2
import numpy as np
import torch
from torch.profiler import ProfilerActivity, profile

from spn import SPNRefiner
from vos_pipeline.refiner import lose_resolution

from ..machine import describe, write_results
from ..tables import print_table
from .quality import chosen

SIZE, FACTOR = (480, 854), 16
FIRST_FRAME = 10
CHOICES = {1: 4, 3: 2, 7: 1}  # number of objects: number of choices of objects
WAYS = {"whole frames": False, "windows": True}
# Operators whose name contains one of these, checked in this order; all others are "rest".
KINDS = {
    "convolutions": ("conv", "mm"),
    "upsampling": ("upsample",),
    "operator": ("spn::",),
    "copies": ("copy_", "clone", "cat", "index"),
}


def davis_masks(data: Path, frames: int) -> np.ndarray:
    """Return the masks of consecutive frames, float32 (frames, objects, H, W)."""
    sequences, size = chosen(data, None), SIZE[::-1]
    masks = [
        cv2.resize((mask == k).astype(np.float32), size, interpolation=cv2.INTER_NEAREST)
        for t in range(FIRST_FRAME, FIRST_FRAME + frames)
        for sequence in sequences
        for mask in [sequence.read_mask(t)]
        for k in sequence.object_ids
    ]
    return np.stack(masks).reshape(frames, -1, *SIZE)


def drawn_masks(frames: int) -> np.ndarray:
    """Return moving ellipses with the bounding boxes of DAVIS's objects, float32 (frames, objects, H, W)."""
    boxes = ((312, 382), (168, 293), (85, 137), (287, 287), (158, 319), (92, 61), (214, 162), (234, 93))
    rng = np.random.default_rng(0)
    masks = np.zeros((frames, len(boxes), *SIZE), np.float32)
    for k, (height, width) in enumerate(boxes):
        y = rng.uniform(height / 2, SIZE[0] - height / 2)
        x = rng.uniform(width / 2, SIZE[1] - width / 2 - 4 * frames)
        for t in range(frames):
            center, axes = (int(x + 4 * t), int(y)), (width // 2, height // 2)
            cv2.ellipse(masks[t, k], center, axes, 0, 0, 360, 1, -1)
    return masks


def drawn_image() -> torch.Tensor:
    texture = cv2.GaussianBlur(np.random.default_rng(0).random((*SIZE, 3), np.float32), (0, 0), 3)
    return torch.from_numpy(cv2.normalize(texture, None, 0, 1, cv2.NORM_MINMAX)).permute(2, 0, 1)[None]


def choices(objects: int, count: int) -> list[list[int]]:
    """Return several choices of `count` objects, starting at evenly spaced objects."""
    starts = range(0, objects, -(-objects // CHOICES[count]))
    return [[(start + i) % objects for i in range(count)] for start in starts]


def kind_of(operator: str) -> str:
    return next((kind for kind, names in KINDS.items() if any(n in operator for n in names)), "rest")


def milliseconds_by_kind(refiner: SPNRefiner, image: torch.Tensor, coarse: torch.Tensor) -> dict[str, float]:
    with profile(activities=[ProfilerActivity.CPU]) as record:
        refiner(image, coarse)
    sums = dict.fromkeys([f"{kind}, ms" for kind in (*KINDS, "rest")], 0.0)
    for event in record.key_averages():
        sums[f"{kind_of(event.key)}, ms"] += event.self_cpu_time_total / 1e3
    return sums


@torch.inference_mode()
def measure(refiner: SPNRefiner, image: torch.Tensor, masks: np.ndarray, count: int) -> list[dict]:
    """Return one row per way of evaluation."""
    seconds: dict[str, list[float]] = {way: [] for way in WAYS}
    for objects in choices(masks.shape[1], count):
        for t, frame in enumerate(masks):
            coarse = torch.from_numpy(np.stack([lose_resolution(frame[k], FACTOR) for k in objects]))[None]
            for way, refiner.windows in WAYS.items():
                start = time.perf_counter()
                refiner(image, coarse)
                if t:  # the first call prepares kernels for new shapes
                    seconds[way].append(time.perf_counter() - start)
    rows = []
    for way, refiner.windows in WAYS.items():
        kinds = milliseconds_by_kind(refiner, image, coarse)
        rows.append({"objects": count, "way": way, "seconds": float(np.median(seconds[way])), **kinds})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, help="a DAVIS root")
    parser.add_argument("--weights", default="lite", help="'lite' or a .safetensors file")
    parser.add_argument("--threads", type=int, default=2, help="threads of torch (default: %(default)s)")
    parser.add_argument(
        "--frames",
        type=int,
        default=3,
        help="frames per choice; the first is not timed (default: %(default)s)",
    )
    parser.add_argument("--json", type=Path, help="also write the results to this file")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    refiner, image = SPNRefiner.from_pretrained(args.weights), drawn_image()
    masks = davis_masks(args.data, args.frames) if args.data else drawn_masks(args.frames)
    rows = [row for count in CHOICES for row in measure(refiner, image, masks, count)]
    facts = describe("cpu") | {"masks": "DAVIS" if args.data else "drawn", "load": os.getloadavg()[0]}
    if args.json:
        write_results(args.json, facts, rows)
    print_table(
        [{k: f"{v:.3g}" if isinstance(v, float) else v for k, v in row.items()} for row in rows], False
    )


if __name__ == "__main__":
    main()
