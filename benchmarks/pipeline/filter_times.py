"""Time the temporal filters: milliseconds per frame against the number of objects, alternately on the same scores.

    python -m benchmarks.pipeline.filter_times [--json FILE]

Frames are 480 x 854 pixels of moving random texture. Each object is a disc that moves with the texture. Every second
object has a second, smaller disc next to it, which may be part of the object or a false alarm.
``python -m docs.figures.temporal_filters`` writes the table of docs/pipeline_results.md from the JSON file.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import cv2
import numpy as np

from vos_pipeline.temporal import ConnectedRegionFilter, FlowFilter

from ..machine import describe, write_results
from ..tables import print_table

SIZE, FRAMES, STEP = (480, 854), 16, 4  # STEP: pixels per frame
COUNTS = (1, 2, 3, 5, 7, 10, 20, 50)


def make_video(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return frames, uint8 (T, H, W, 3), and scores, float32 (T, K, H, W)."""
    rng = np.random.default_rng(seed)
    height, width = SIZE
    texture = cv2.GaussianBlur(rng.random((height, width + FRAMES * STEP, 3), np.float32), (0, 0), 3)
    texture = cv2.normalize(texture, None, 0, 255, cv2.NORM_MINMAX).astype(np.uint8)
    radius = min(120, 300 / np.sqrt(count))
    centers = rng.uniform((radius, radius), (width - radius, height - radius), (count, 2))
    frames, scores = [], np.zeros((FRAMES, count, *SIZE), np.float32)
    for t in range(FRAMES):
        shift = STEP * (FRAMES - t)
        frames.append(texture[:, shift : shift + width])
        for k, (x, y) in enumerate(centers):
            center = (int(x + STEP * t), int(y))
            cv2.circle(scores[t, k], center, int(radius * 0.7), 0.6 + 0.4 * k / count, -1)
            if k % 2:
                beside = (int(center[0] + 2 * radius), center[1])
                cv2.circle(scores[t, k], beside, int(radius * 0.2), 0.6, -1)
    return np.stack(frames), scores


def measure(count: int) -> dict:
    frames, scores = make_video(count)
    first = scores[0] >= 0.5
    filters = {"flow filter": FlowFilter(frames[0], first), "CRAF": ConnectedRegionFilter(first)}
    seconds: dict[str, list[float]] = {name: [] for name in filters}
    for t in range(1, FRAMES):
        for name, over_time in filters.items():
            start = time.perf_counter()
            over_time.step(scores[t], frames[t])
            seconds[name].append(time.perf_counter() - start)
    medians = {name: float(np.median(values)) for name, values in seconds.items()}
    ratio = medians["flow filter"] / medians["CRAF"]
    return {
        "objects": count,
        **{f"{name}, ms": 1e3 * value for name, value in medians.items()},
        "flow filter / CRAF": ratio,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path, help="also write the results to this file")
    args = parser.parse_args()
    rows = [measure(count) for count in COUNTS]
    if args.json:
        write_results(args.json, describe("cpu"), rows)
    print_table([{name: f"{value:.4g}" for name, value in row.items()} for row in rows], as_markdown=False)


if __name__ == "__main__":
    main()
