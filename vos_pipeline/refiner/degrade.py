"""Degrade exact masks to coarse masks like those of a predictor, as training inputs for the refiner.

A mask either loses resolution, or gets the mistakes of a predictor (displaced or wavy boundaries, missing and extra
parts, islands and holes, boundaries that follow image segments) and then the form of its output: a hard mask or
uncertain scores.
"""

from __future__ import annotations

import cv2
import numpy as np

Array = np.ndarray


def lose_resolution(mask: Array, factor: int, phase: tuple[int, int] = (0, 0)) -> Array:
    """Average a mask over ``factor`` x ``factor`` cells and interpolate it back bilinearly.

    Args:
        mask: (H, W), float32 in [0, 1].
        factor: side of a cell in pixels, >= 1.
        phase: rows and columns by which the cells are shifted, each in [0, factor).

    Returns:
        (H, W), float32 in [0, 1].

    Example:
        >>> lose_resolution(np.eye(4, dtype=np.float32), 2).shape
        (4, 4)
    """
    h, w = mask.shape
    top, left = phase
    bottom, right = -(h + top) % factor, -(w + left) % factor
    cells = cv2.copyMakeBorder(mask, top, bottom, left, right, cv2.BORDER_REPLICATE)
    size = (cells.shape[1], cells.shape[0])
    cells = cv2.resize(cells, (size[0] // factor, size[1] // factor), interpolation=cv2.INTER_AREA)
    return cv2.resize(cells, size, interpolation=cv2.INTER_LINEAR)[top : top + h, left : left + w]


def smooth_noise(rng: np.random.Generator, size: tuple[int, ...], cell: float) -> Array:
    """Return Gaussian noise of about unit deviation that varies over ``cell`` pixels, float32 (H, W)."""
    h, w = size
    grid = rng.standard_normal((int(h / cell) + 3, int(w / cell) + 3), dtype=np.float32)
    return cv2.resize(grid, (w, h), interpolation=cv2.INTER_CUBIC) * 1.4


def _disk(radius: int) -> Array:
    return cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))


def _move(mask: Array, rng: np.random.Generator, amount: float) -> Array:
    """Displace the boundary by waves, often only parts of it; sometimes also transform the whole mask affinely."""
    h, w = mask.shape
    rows, columns = np.mgrid[:h, :w].astype(np.float32)
    cell = rng.uniform(6, 40)
    waves = np.stack([smooth_noise(rng, (h, w), cell) for _ in range(2)]) * np.float32(amount * 0.5)
    if rng.random() < 0.7:  # correct in some places, wrong in others
        waves = waves * np.clip(smooth_noise(rng, (h, w), rng.uniform(20, 60)) * 2, 0, 1)
    columns, rows = columns + waves[0], rows + waves[1]
    if rng.random() < 0.5:
        scale = 1 + rng.uniform(-1, 1) * amount / 100
        turn = np.asarray(cv2.getRotationMatrix2D((w / 2, h / 2), rng.uniform(-1, 1) * amount, scale), float)
        turn[:, 2] += rng.uniform(-1, 1, 2) * amount * 0.7
        columns, rows = (row[0] * columns + row[1] * rows + row[2] for row in turn)
    at = (columns.astype(np.float32), rows.astype(np.float32))
    return cv2.remap(mask, *at, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


def _patches(mask: Array, rng: np.random.Generator) -> Array:
    """Remove ellipses from the object or add them to it, mostly at the boundary."""
    h, w = mask.shape
    outline = np.argwhere(cv2.morphologyEx((mask > 0.5).astype(np.uint8), cv2.MORPH_GRADIENT, _disk(1)))
    mask = mask.copy()
    for _ in range(rng.integers(1, 4)):
        on_outline = len(outline) > 0 and rng.random() < 0.8
        y, x = outline[rng.integers(len(outline))] if on_outline else (rng.integers(h), rng.integers(w))
        axes = tuple(int(v) for v in rng.uniform(2, max(4, min(h, w) / 9), 2))
        cv2.ellipse(
            mask, (int(x), int(y)), axes, float(rng.uniform(0, 180)), 0, 360, float(rng.random() < 0.4), -1
        )
    return mask


def _remnants(mask: Array, rng: np.random.Generator) -> Array:
    """Keep only a few spots of the object, so that the refiner also sees masks of which only little is correct."""
    noise, inside = smooth_noise(rng, mask.shape, rng.uniform(8, 30)), mask > 0.5
    if not inside.any():
        return mask
    return np.where(noise > np.quantile(noise[inside], rng.uniform(0.6, 0.97)), mask, np.float32(0))


def _islands(mask: Array, rng: np.random.Generator) -> Array:
    """Add false alarms anywhere in the image, and sometimes holes in the object."""
    noise = smooth_noise(rng, mask.shape, rng.uniform(8, 40))
    threshold = rng.uniform(1.9, 3.0)
    if rng.random() < 0.4:
        mask = np.where(noise < -threshold, np.float32(0), mask)
    return np.maximum(mask, (noise > threshold).astype(np.float32))


def confuse(mask: Array, rng: np.random.Generator, image: Array) -> Array:
    """In some places, add background that looks like the object and remove parts that look like the background.

    A network tuned on another frame makes such errors. Here, a linear classifier of the colours at and around each
    pixel is fitted to the mask, and the pixels that it misclassifies with the highest confidence are flipped.
    """
    likeness = _likeness(mask, rng, image)
    right = smooth_noise(rng, mask.shape, rng.uniform(15, 60)) <= rng.uniform(-0.5, 1)  # unchanged here
    wrong = np.zeros_like(mask)
    for side, towards, most in ((mask <= 0.5, likeness, 0.08), (mask > 0.5, -likeness, 0.15)):
        if side.any():
            sure = np.quantile(towards[side], 1 - rng.uniform(0, most))
            wrong[side & ~right & (towards > sure)] = 1
    wrong = cv2.morphologyEx(wrong, cv2.MORPH_OPEN, _disk(int(rng.integers(1, 4))))
    return np.where(wrong > 0, 1 - mask, mask)


def _likeness(mask: Array, rng: np.random.Generator, image: Array) -> Array:
    """Return object likeness (H, W): a least-squares fit to 1 inside and -1 outside, with equal total weights."""
    h, w = mask.shape
    near, around = (cv2.GaussianBlur(image, (0, 0), s) for s in (rng.uniform(1, 2), rng.uniform(4, 10)))
    features = np.concatenate([near, near**2, around, around**2, np.ones((h, w, 1), np.float32)], 2)
    features = features.reshape(h * w, -1)
    inside = (mask > 0.5).ravel()
    weight = np.where(inside, 1 / max(inside.sum(), 1), 1 / max((~inside).sum(), 1))[:, None]
    normal = (features * weight).T @ features + 1e-4 * np.eye(features.shape[1])
    return (features @ np.linalg.solve(normal, (features * weight).T @ (inside * 2.0 - 1))).reshape(h, w)


def snap(mask: Array, rng: np.random.Generator, image: Array) -> Array:
    """Replace the mask by the majority in each image segment, which gives errors that follow image edges."""
    h, w = mask.shape
    cell = rng.uniform(5, 24)
    rows, columns = np.mgrid[cell / 2 : h : cell, cell / 2 : w : cell] + rng.uniform(-cell / 3, cell / 3)
    seeds = np.zeros((h, w), np.int32)
    at = (rows.clip(0, h - 1).astype(int), columns.clip(0, w - 1).astype(int))
    seeds[at] = np.arange(1, rows.size + 1).reshape(rows.shape)
    segments = cv2.watershed((image * 255).astype(np.uint8), seeds)
    segments = cv2.dilate(segments.astype(np.float32), np.ones((3, 3)))  # over the watersheds (-1)
    segments = segments.astype(np.int64).clip(0)
    area = np.bincount(segments.ravel()).clip(1)
    share = (np.bincount(segments.ravel(), mask.ravel()) / area)[segments]
    snapped = (share > rng.uniform(0.3, 0.7)).astype(np.float32)
    if rng.random() < 0.5:
        return snapped
    return np.where(smooth_noise(rng, (h, w), rng.uniform(20, 60)) > 0, snapped, mask)


def _mistakes(mask: Array, rng: np.random.Generator, image: Array | None, hard: float) -> Array:
    """Add mistakes of a predictor, each kind with its own probability."""
    if rng.random() < 0.8 - 0.35 * hard:
        mask = _move(mask, rng, rng.choice([0.7, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0]))
    if rng.random() < 0.4:
        mask = _patches(mask, rng)
    if rng.random() < 0.2:
        grow = (cv2.erode, cv2.dilate)[rng.choice(2)]
        mask = grow(mask, _disk(int(rng.choice([1, 1, 2, 2, 3, 4, 6]))))
    if rng.random() < 0.1 * hard:
        mask = _remnants(mask, rng)
    if rng.random() < 0.35:
        mask = _islands(mask, rng)
    if image is not None and rng.random() < 0.4 * hard:
        mask = confuse(mask, rng, image)
    if image is not None and rng.random() < 0.35 * hard:
        mask = snap(mask, rng, image)
    if rng.random() < 0.35:
        mask = lose_resolution(mask, int(rng.choice([2, 4, 4, 8, 8, 16])))
    return mask


def _as_output(mask: Array, rng: np.random.Generator) -> Array:
    """Return a hard mask, sometimes blurred, or uncertain scores with shallow slopes, drift and noise."""
    h, w = mask.shape
    if rng.random() < 0.7:
        hard = (mask > rng.uniform(0.35, 0.65)).astype(np.float32)
        return cv2.GaussianBlur(hard, (0, 0), rng.uniform(0.5, 4)) if rng.random() < 0.25 else hard
    logit = (mask - rng.uniform(0.4, 0.6)) * rng.uniform(4, 14)
    logit += smooth_noise(rng, (h, w), rng.uniform(8, 48)) * rng.uniform(0, 0.8)
    if rng.random() < 0.3:
        logit += rng.standard_normal((h, w), dtype=np.float32) * 0.3
    return 1 / (1 + np.exp(-logit))


def hardness(index: int, course: int) -> float:
    """Return how hard sample ``index`` is, in [0, 1].

    The first third of a course is easy, the last third has hardness 1, as have all samples without a course
    (``course`` 0). From hard samples alone, a network needs long to learn that masks follow edges.
    """
    return min(max(3 * index / course - 1, 0.0), 1.0) if course else 1.0


def degrade(mask: Array, rng: np.random.Generator, image: Array | None = None, hard: float = 1.0) -> Array:
    """Draw a random coarse mask for an exact mask.

    Three masks in ten only lose resolution (1/4 to 1/32). The others become hard masks or blurred or noisy scores. A
    third of these are otherwise correct, so that a refiner learns to leave correct masks unchanged. The rest have
    displaced, grown or shrunk boundaries, missing or extra parts, islands and holes, confusions of similar colours, or
    boundaries that follow the wrong edges.

    Args:
        mask: (H, W), float32 in [0, 1].
        rng: source of all randomness.
        image: (H, W, 3), float32 in [0, 1], RGB. Without it, no similar colours are confused and no boundary follows
            wrong edges.
        hard: in [0, 1]. Easy masks (0) almost always have mistakes, and the image shows them: no boundary follows
            wrong edges, no similar colours are confused, and no object is reduced to spots.

    Returns:
        (H, W), float32 in [0, 1].

    Example:
        >>> degrade(np.eye(32, dtype=np.float32), np.random.default_rng(0)).shape
        (32, 32)
    """
    if rng.random() < 0.3:
        factor = int(rng.choice([4, 8, 8, 12, 16, 16, 16, 24, 32, 32, 32]))
        top, left = (int(v) for v in rng.integers(0, factor, 2))
        return lose_resolution(mask, factor, (top, left))
    coarse = _mistakes(mask, rng, image, hard) if rng.random() < 1 - 0.33 * hard else mask
    return np.clip(_as_output(coarse, rng), 0, 1).astype(np.float32)
