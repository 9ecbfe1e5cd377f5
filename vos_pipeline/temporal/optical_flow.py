"""Dense optical flow between the frames of a video, at a size small enough to take a few milliseconds."""

from __future__ import annotations

import cv2
import numpy as np

SMALLEST = 32  # pixels; DIS needs about a dozen in each direction
LARGEST = 32766  # pixels; OpenCV's limit for warping


class OpticalFlow:
    """Flow from each frame of a video to the previous one, by dense inverse search (DIS; Kroeger et al., ECCV 2016).

    Args:
        first_frame: uint8 RGB (H, W, 3).
        side: shorter side, in pixels, of the resized frames from which the flow is computed. Smaller frames are not
            enlarged, and the longer side is limited to 32766.
    """

    def __init__(self, first_frame: np.ndarray, side: int) -> None:
        height, width = first_frame.shape[:2]
        scale = min(1.0, side / min(height, width), LARGEST / max(height, width))
        self.size = max(1, round(height * scale)), max(1, round(width * scale))
        self.before = self._gray(first_frame)

    def step(self, frame: np.ndarray) -> np.ndarray:
        """Return the flow f, float32 (h, w, 2) in pixels of ``size``: (x, y) was at (x, y) + f(x, y) before."""
        now = self._gray(frame)
        search = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_FAST)  # cannot be copied if kept
        flow = np.asarray(search.calc(now, self.before, np.zeros((*now.shape, 2), np.float32)))
        self.before = now
        return flow[: self.size[0], : self.size[1]]

    def _gray(self, frame: np.ndarray) -> np.ndarray:
        height, width = self.size
        small = cv2.resize(frame, (width, height), interpolation=cv2.INTER_AREA)
        below, right = max(0, SMALLEST - height), max(0, SMALLEST - width)
        gray = cv2.cvtColor(small, cv2.COLOR_RGB2GRAY)
        return cv2.copyMakeBorder(gray, 0, below, 0, right, cv2.BORDER_REPLICATE)
