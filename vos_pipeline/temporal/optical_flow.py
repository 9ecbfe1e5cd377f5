"""Dense optical flow between the frames of a video, at a size at which it takes a few milliseconds."""

from __future__ import annotations

import cv2
import numpy as np

SMALLEST = 32  # pixels; DIS needs a dozen in either direction
LARGEST = 32766  # pixels; what OpenCV can warp


class OpticalFlow:
    """From each frame of a video back to the one before, by dense inverse search (DIS; Kroeger et al., ECCV 2016).

    Args:
        first_frame: uint8 RGB (H, W, 3).
        side: the shorter side, in pixels, of what the flow is computed from, or the frame's own if that is shorter.
            It is less where the longer side would exceed 32766.
    """

    def __init__(self, first_frame: np.ndarray, side: int) -> None:
        height, width = first_frame.shape[:2]
        scale = min(1.0, side / min(height, width), LARGEST / max(height, width))
        self.size = max(1, round(height * scale)), max(1, round(width * scale))
        self.before = self._gray(first_frame)

    def step(self, frame: np.ndarray) -> np.ndarray:
        """The flow f, float32 (h, w, 2) in pixels of ``size``: what is at (x, y) now was at (x, y) + f(x, y) before."""
        now = self._gray(frame)
        search = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_FAST)  # kept, it could not be copied
        flow = np.asarray(search.calc(now, self.before, np.zeros((*now.shape, 2), np.float32)))
        self.before = now
        return flow[: self.size[0], : self.size[1]]

    def _gray(self, frame: np.ndarray) -> np.ndarray:
        height, width = self.size
        small = cv2.resize(frame, (width, height), interpolation=cv2.INTER_AREA)
        below, right = max(0, SMALLEST - height), max(0, SMALLEST - width)
        gray = cv2.cvtColor(small, cv2.COLOR_RGB2GRAY)
        return cv2.copyMakeBorder(gray, 0, below, 0, right, cv2.BORDER_REPLICATE)
