"""Region similarity J and contour accuracy F, as the DAVIS 2017 semi-supervised evaluation defines them.

Perazzi et al., "A Benchmark Dataset and Evaluation Methodology for Video Object Segmentation", CVPR 2016,
section 5; Pont-Tuset et al., "The 2017 DAVIS Challenge on Video Object Segmentation". Two faults of the official
program are fixed: decay is correct beyond 256 frames, and a missing frame raises an error.
"""

from __future__ import annotations

import math

import cv2
import numpy as np

BOUNDARY_TOLERANCE = 0.008  # fraction of the image diagonal


def jaccard(truth: np.ndarray, result: np.ndarray) -> float:
    """Return the region similarity J = |truth and result| / |truth or result| of bool (H, W); 1 if both are empty."""
    union = np.count_nonzero(truth | result)
    return np.count_nonzero(truth & result) / union if union else 1.0


def boundary(mask: np.ndarray) -> np.ndarray:
    """Return the boundary, one pixel wide: pixels that differ from their east, south or south-east neighbour.

    A neighbour outside the image has the value of the nearest pixel, so an object cut off by the image border has no
    boundary along the border.

    Args:
        mask: bool (H, W).

    Returns:
        bool (H, W).
    """
    padded = np.pad(mask, ((0, 1), (0, 1)), mode="edge")
    east, south, south_east = padded[:-1, 1:], padded[1:, :-1], padded[1:, 1:]
    return (mask ^ east) | (mask ^ south) | (mask ^ south_east)


def f_measure(truth: np.ndarray, result: np.ndarray, tolerance: float = BOUNDARY_TOLERANCE) -> float:
    r"""Return the contour accuracy :math:`F = 2 P R / (P + R)`.

    Precision P is the fraction of the result's boundary inside the ground truth's boundary dilated by a disk
    x^2 + y^2 <= r^2; recall R is the reverse. The radius is r = ceil(tolerance * diagonal) pixels.

    Args:
        truth, result: bool (H, W).

    Returns:
        F in [0, 1]; 1 if neither mask has a boundary, 0 if only one has a boundary.
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
    """Return the bounding box of a mask plus one pixel, which contains all pixels that determine its boundary."""
    x, y, width, height = cv2.boundingRect(mask.view(np.uint8))
    return slice(max(y - 1, 0), y + height + 1), slice(max(x - 1, 0), x + width + 1)
