"""How much the refiner improves coarse masks of real video: J, F, F2 before and after, seconds a frame.

    python benchmarks/refine_quality.py --data ROOT [--predictions DIR] [--weights lite] [--json FILE]

ROOT is a DAVIS root. Coarse masks are the ground truth averaged over 16 x 16 and 32 x 32 pixels and
interpolated bilinearly, and, where DIR has them, the predictions of another tool (DIR/<sequence>/%05d.png,
indexed). F takes the official boundary radius (8 pixels at 480p), F2 one of 2 pixels. A guided filter stands
beside the refiner.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import torch

from spn.refiner import SPNRefiner
from vos_pipeline.data import load_davis
from vos_pipeline.degrade import lose_resolution
from vos_pipeline.images import read_labels
from vos_pipeline.metrics import f_measure, jaccard

SEQUENCES = ("blackswan", "car-shadow", "drift-straight", "horsejump-high", "libby")
Refine = Callable[[np.ndarray, np.ndarray], np.ndarray]


def guided_filter(
    image: np.ndarray, scores: np.ndarray, radius: int = 8, epsilon: float = 1e-3
) -> np.ndarray:
    """Guided filter (He et al., ECCV 2010), grey image as guide: a local linear model by box filters."""

    def mean(x: np.ndarray) -> np.ndarray:
        return cv2.blur(x, (2 * radius + 1, 2 * radius + 1))

    guide = image.mean(2)
    average, average_scores = mean(guide), mean(scores)
    slope = (mean(guide * scores) - average * average_scores) / (mean(guide * guide) - average**2 + epsilon)
    return mean(slope) * guide + mean(average_scores - slope * average)


def refiner_of(weights: str, seconds: list[float]) -> Refine:
    """(H, W, 3) image and (H, W) scores to refined scores; every call adds its time."""
    net = SPNRefiner.from_pretrained(weights)

    @torch.inference_mode()
    def refine(image: np.ndarray, scores: np.ndarray) -> np.ndarray:
        pixels, coarse = torch.from_numpy(image).permute(2, 0, 1)[None], torch.from_numpy(scores)[None, None]
        start = time.perf_counter()
        refined = net(pixels, coarse)
        seconds.append(time.perf_counter() - start)
        return refined[0, 0].numpy()

    return refine


def cases(data: Path, predictions: Path | None, sequences: list[str], every: int) -> Iterator[tuple]:
    """(case, sequence, image, coarse scores, true mask), all at the size of the truth."""
    for sequence in load_davis(data, "2016", "val", sequences=sequences):
        for t in range(1, len(sequence) - 1, every):
            image = sequence.read_frame(t).astype(np.float32) / 255
            truth = sequence.read_mask(t) == 1
            for factor in (16, 32):
                yield (
                    f"1/{factor}",
                    sequence.name,
                    image,
                    lose_resolution(truth.astype(np.float32), factor),
                    truth,
                )
            name = sequence.frame_paths[t].stem
            path = predictions / sequence.name / f"{name}.png" if predictions else None
            if path is not None and path.exists():
                scores = (read_labels(path) > 0).astype(np.float32)
                yield "predictions", sequence.name, image, scores, truth


def score(truth: np.ndarray, scores: np.ndarray) -> tuple[float, float, float]:
    """J, F and F2 of scores cut at 0.5."""
    mask = scores > 0.5
    two_pixels = 1.99 / np.hypot(*truth.shape)
    return jaccard(truth, mask), f_measure(truth, mask), f_measure(truth, mask, two_pixels)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="DAVIS root")
    parser.add_argument("--predictions", type=Path, help="masks of another tool, to be refined too")
    parser.add_argument("--weights", default="lite", help="'lite' or a .safetensors file")
    parser.add_argument("--sequences", nargs="+", default=list(SEQUENCES))
    parser.add_argument("--every", type=int, default=5, help="take every so many frames")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--json", type=Path, help="write the table to this file")
    parser.add_argument("--pictures", type=Path, help="folder for one picture a case and sequence")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)

    seconds: list[float] = []
    methods = {"coarse": lambda image, scores: scores, "guided filter": guided_filter}
    methods["refiner"] = refiner_of(args.weights, seconds)
    results: dict[tuple[str, str], dict[str, list]] = {}
    for case, sequence, image, coarse, truth in cases(
        args.data, args.predictions, args.sequences, args.every
    ):
        for method, refine in methods.items():
            refined = refine(image, coarse)
            results.setdefault((case, method), {}).setdefault(sequence, []).append(score(truth, refined))
            if method == "refiner" and args.pictures:
                panel = [
                    image,
                    *(np.repeat(v[..., None], 3, 2) for v in (coarse, refined, truth.astype(np.float32))),
                ]
                picture = np.concatenate([np.concatenate(panel[:2], 1), np.concatenate(panel[2:], 1)])
                args.pictures.mkdir(parents=True, exist_ok=True)
                name = f"{case.replace('/', '_')}-{sequence}.png"
                cv2.imwrite(str(args.pictures / name), picture[..., ::-1] * 255)

    table = [
        {
            "case": case,
            "method": method,
            "sequence": sequence,
            **dict(zip(("J", "F", "F2"), map(float, row), strict=True)),
        }
        for (case, method), by_sequence in results.items()
        for sequence, row in _with_mean({s: np.mean(rows, 0) for s, rows in by_sequence.items()})
    ]
    for row in table:
        print(
            f"{row['case']:12} {row['method']:14} {row['sequence']:15}",
            *(f"{row[measure]:.3f}" for measure in ("J", "F", "F2")),
        )
    median = float(np.median(seconds))
    print(
        f"refiner: {median:.3f} s a frame and object,",
        f"{args.threads} threads, {image.shape[1]} x {image.shape[0]}",
    )
    if args.json:
        machine = {"machine": platform.processor() or platform.machine(), "torch": torch.__version__}
        record = {**machine, "threads": args.threads, "every": args.every, "seconds": median, "table": table}
        args.json.write_text(json.dumps(record, indent=1) + "\n")


def _with_mean(rows: dict[str, np.ndarray]) -> list[tuple[str, np.ndarray]]:
    return [*rows.items(), ("mean", np.mean(list(rows.values()), 0))]


if __name__ == "__main__":
    main()
