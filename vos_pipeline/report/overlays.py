"""Draw label masks over frames, as images and as a video."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from vos_pipeline.data import VOID, Sequence, davis_palette, read_labels, write_video


def overlay(frame: np.ndarray, labels: np.ndarray, alpha: float = 0.5) -> np.ndarray:
    """Tint a frame with the palette colour of each object and draw the boundaries of objects in full colour.

    Args:
        frame: uint8 (H, W, 3).
        labels: uint8 (H, W); void is drawn as background.
        alpha: weight of the tint.

    Returns:
        uint8 (H, W, 3).
    """
    if frame.shape[:2] != labels.shape:
        raise ValueError(f"labels must be {frame.shape[:2]} like the frame, got {labels.shape}")
    labels = np.where(labels == VOID, 0, labels)
    tint = davis_palette()[labels].astype(np.float32)
    weight = np.where(labels > 0, np.float32(alpha), np.float32(0))
    weight[label_contours(labels)] = 1
    return (frame + weight[..., None] * (tint - frame) + 0.5).astype(np.uint8)


def label_contours(labels: np.ndarray) -> np.ndarray:
    """Return the object pixels that touch another label in one of four directions, bool (H, W)."""
    padded = np.pad(labels, 1, mode="edge")
    differs = np.zeros(labels.shape, bool)
    for rows, columns in ((0, 1), (2, 1), (1, 0), (1, 2)):
        height, width = labels.shape
        differs |= labels != padded[rows : rows + height, columns : columns + width]
    return differs & (labels > 0)


def write_overlay_video(path: Path, sequence: Sequence, labels: Path) -> None:
    """Write an mp4 of the sequence tinted by the masks ``labels/<frame>.png``, with its frame rate or times."""

    def frames() -> Iterator[np.ndarray]:
        for t, frame in enumerate(sequence.frame_paths):
            yield overlay(sequence.read_frame(t), read_labels(labels / f"{frame.stem}.png"))

    write_video(path, frames(), sequence.frame_rate, sequence.times)
