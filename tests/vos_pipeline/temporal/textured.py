"""Frames with textured objects moving over a textured background, because optical flow needs texture."""

import cv2
import numpy as np


def texture(height, width, seed, sigma=1.5):
    """Return smooth random RGB, uint8 (height, width, 3), with the full range of values."""
    noise = np.random.default_rng(seed).standard_normal((height, width, 3)).astype(np.float32)
    smooth = cv2.GaussianBlur(noise, (0, 0), sigma)
    return cv2.normalize(smooth, None, 0, 255, cv2.NORM_MINMAX).astype(np.uint8)


def translated(size, motion, seed=0, sigma=1.5):
    """Return two frames; in the second, the scene has moved by motion = (x, y) whole pixels."""
    (height, width), margin = size, max(map(abs, motion)) + 1
    scene = texture(height + 2 * margin, width + 2 * margin, seed, sigma)
    return [
        np.ascontiguousarray(scene[margin - y : margin - y + height, margin - x : margin - x + width])
        for x, y in ((0, 0), motion)
    ]


class Scene:
    """Objects over a background, the last in front. Each is a shape, bool (h, w), with a texture that moves with it."""

    def __init__(self, size, shapes):
        self.background, self.shapes = texture(*size, seed=100), shapes
        self.textures = [texture(*shape.shape, seed=k) for k, shape in enumerate(shapes)]

    def at(self, *corners):
        """Return the frame and the label map with the top left corner of object k at corners[k] = (y, x)."""
        frame, labels = self.background.copy(), np.zeros(self.background.shape[:2], np.uint8)
        for k, ((top, left), shape) in enumerate(zip(corners, self.shapes, strict=True)):
            rows, columns = np.nonzero(shape)
            inside = (rows + top >= 0) & (rows + top < labels.shape[0])
            inside &= (columns + left >= 0) & (columns + left < labels.shape[1])
            rows, columns = rows[inside], columns[inside]
            frame[rows + top, columns + left] = self.textures[k][rows, columns]
            labels[rows + top, columns + left] = k + 1
        return frame, labels
