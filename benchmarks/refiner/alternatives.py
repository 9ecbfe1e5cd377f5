"""Alternative methods that align a coarse mask with image edges: guided filter, global smoother, dense CRF.

They come from optional libraries: install ``opencv-contrib-python-headless`` instead of ``opencv-python-headless`` for
the two filters, and ``pydensecrf2`` for the CRF. (OpenCV's fast bilateral solver is not available in any wheel, because
it requires OpenCV built with Eigen.) A method maps an image (H, W, 3) in [0, 1] and scores (H, W) in [0, 1], both
float32, to refined scores (H, W).
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from itertools import product

import cv2
import numpy as np

Refine = Callable[..., np.ndarray]


def guided_filter(image: np.ndarray, scores: np.ndarray, radius: int, epsilon: float) -> np.ndarray:
    """He et al., "Guided image filtering", ECCV 2010, with the colours as guide."""
    return cv2.ximgproc.guidedFilter(image, scores, radius, epsilon)


def global_smoother(image: np.ndarray, scores: np.ndarray, smoothness: float, colour: float) -> np.ndarray:
    """Min et al., "Fast global image smoothing based on weighted least squares", TIP 2014."""
    guide = np.rint(image * 255).astype(np.uint8)
    return cv2.ximgproc.fastGlobalSmootherFilter(guide, scores, smoothness, colour)


def dense_crf(
    image: np.ndarray, scores: np.ndarray, space: float, colour: float, weight: float, trust: float
) -> np.ndarray:
    """Krähenbühl and Koltun, "Efficient inference in fully connected CRFs with Gaussian edge potentials", NIPS
    2011: five mean field iterations. ``trust`` moves scores towards 1/2, because hard masks are uncertain."""
    from pydensecrf.densecrf import DenseCRF2D

    h, w = scores.shape
    foreground = np.clip(0.5 + trust * (scores - 0.5), 1e-4, 1 - 1e-4)
    crf = DenseCRF2D(w, h, 2)
    unary = -np.log(np.stack([1 - foreground, foreground])).reshape(2, -1)
    crf.setUnaryEnergy(np.ascontiguousarray(unary, np.float32))
    crf.addPairwiseGaussian(sxy=3, compat=min(3.0, weight))
    pixels = np.ascontiguousarray(np.rint(image * 255).astype(np.uint8))
    crf.addPairwiseBilateral(sxy=space, srgb=colour, rgbim=pixels, compat=weight)
    return np.asarray(crf.inference(5))[1].reshape(h, w)


@dataclass(frozen=True)
class Alternative:
    """A method, the values to try for each of its parameters, and a check that it is installed."""

    refine: Refine
    grid: dict[str, tuple[float, ...]]
    installed: Callable[[], bool]

    def settings(self) -> list[dict[str, float]]:
        """Return all combinations of the grid."""
        return [dict(zip(self.grid, values, strict=True)) for values in product(*self.grid.values())]


def _contrib() -> bool:
    return hasattr(cv2, "ximgproc")


ALTERNATIVES = {
    "guided filter": Alternative(
        guided_filter, {"radius": (2, 4, 8, 16), "epsilon": (1e-3, 1e-2, 1e-1)}, _contrib
    ),
    "global smoother": Alternative(
        global_smoother, {"smoothness": (10.0, 100.0, 1000.0), "colour": (2.0, 5.0, 10.0, 20.0)}, _contrib
    ),
    "dense CRF": Alternative(
        dense_crf,
        {"space": (20.0, 40.0), "colour": (3.0, 6.0), "weight": (1.0, 4.0, 10.0), "trust": (0.5, 0.9)},
        lambda: importlib.util.find_spec("pydensecrf") is not None,
    ),
}
