"""Region similarity J and contour accuracy F, as the DAVIS 2017 semi-supervised evaluation defines them.

Perazzi et al., "A Benchmark Dataset and Evaluation Methodology for Video Object Segmentation", CVPR 2016,
section 5; Pont-Tuset et al., "The 2017 DAVIS Challenge on Video Object Segmentation". Two faults of the
official program are left behind: decay is right beyond 256 frames, and a missing frame is an error.
"""

from __future__ import annotations

import math

import cv2
import numpy as np

BOUNDARY_TOLERANCE = 0.008  # of the image diagonal


def jaccard(truth: np.ndarray, result: np.ndarray) -> float:
    """Region similarity J = |truth and result| / |truth or result|, 1 if both are empty; bool (H, W)."""
    union = np.count_nonzero(truth | result)
    return np.count_nonzero(truth & result) / union if union else 1.0


def boundary(mask: np.ndarray) -> np.ndarray:
    """One pixel wide boundary: where a pixel differs from its east, south or south-east neighbour.

    Outside the image the nearest pixel counts, so an object cut by the border has no boundary along it.

    Args:
        mask: bool (H, W).

    Returns:
        bool (H, W).
    """
    padded = np.pad(mask, ((0, 1), (0, 1)), mode="edge")
    east, south, south_east = padded[:-1, 1:], padded[1:, :-1], padded[1:, 1:]
    return (mask ^ east) | (mask ^ south) | (mask ^ south_east)


def f_measure(truth: np.ndarray, result: np.ndarray, tolerance: float = BOUNDARY_TOLERANCE) -> float:
    r"""Contour accuracy :math:`F = 2 P R / (P + R)`.

    Precision P is the share of the result's boundary inside the truth's boundary dilated by a disk x^2 + y^2
    <= r^2, recall R the reverse; r = ceil(tolerance * diagonal), in pixels.

    Args:
        truth, result: bool (H, W).

    Returns:
        F in [0, 1]; 1 if neither has a boundary, 0 if only one has.
    """
    radius = math.ceil(tolerance * math.hypot(*truth.shape))
    box = _surroundings(truth | result)
    truth_edge, result_edge = boundary(truth[box]), boundary(result[box])
    if not truth_edge.any() or not result_edge.any():
        return float(truth_edge.any() == result_edge.any())
    precision = np.mean(_dilate(truth_edge, radius)[result_edge])
    recall = np.mean(_dilate(result_edge, radius)[truth_edge])
    return float(2 * precision * recall / (precision + recall)) if precision + recall else 0.0


def _dilate(edge: np.ndarray, radius: int) -> np.ndarray:
    offsets = np.arange(-radius, radius + 1)
    disk = (offsets[:, None] ** 2 + offsets**2 <= radius**2).astype(np.uint8)
    return cv2.dilate(edge.astype(np.uint8), disk).astype(bool)


def _surroundings(mask: np.ndarray) -> tuple[slice, slice]:
    """The box of a mask and one pixel around it: holds its boundary and all that decides on it."""
    x, y, width, height = cv2.boundingRect(mask.view(np.uint8))
    return slice(max(y - 1, 0), y + height + 1), slice(max(x - 1, 0), x + width + 1)
