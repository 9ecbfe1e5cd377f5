"""Random silhouettes around the origin with extent about 1, each a list of parts (polygon, whether filled)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

Array = np.ndarray
Part = tuple[Array, bool]  # polygon (n, 2); False cuts a hole


def _closed_curve(rng: np.random.Generator, roughness: float, n: int = 96) -> Array:
    """Return a closed curve (n, 2) with radius 1 + a sum of decaying harmonics."""
    angle = np.linspace(0, 2 * np.pi, n, endpoint=False)
    k = np.arange(1, 13)[:, None]
    radius = 1 + (
        rng.normal(0, roughness, k.shape) / k**0.8 * np.cos(k * angle + rng.uniform(0, 6.3, k.shape))
    ).sum(0)
    return np.stack([np.cos(angle), np.sin(angle)], 1) * np.clip(radius, 0.15, 2)[:, None]


def _ellipse(rng: np.random.Generator, x: float, y: float, a: float, b: float) -> Array:
    curve = _closed_curve(rng, 0.03) * (a, b)
    turn = rng.uniform(0, np.pi)
    return curve @ np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]) + (x, y)


def _limb(points: Array, widths: Array) -> Array:
    """Return the polygon around a polyline whose half width changes from widths[0] to widths[-1]."""
    ahead = np.gradient(points, axis=0)
    across = np.stack([-ahead[:, 1], ahead[:, 0]], 1) / (np.linalg.norm(ahead, axis=1, keepdims=True) + 1e-6)
    return np.concatenate([points + across * widths[:, None], (points - across * widths[:, None])[::-1]])


def _blob(rng: np.random.Generator) -> list[Part]:
    return [(_closed_curve(rng, rng.uniform(0.05, 0.3)) * rng.uniform(0.5, 1.2, 2), True)]


def _polygon(rng: np.random.Generator) -> list[Part]:
    n = int(rng.integers(3, 11))
    angle = np.sort(rng.uniform(0, 2 * np.pi, n))
    return [(np.stack([np.cos(angle), np.sin(angle)], 1) * rng.uniform(0.4, 1.3, (n, 1)), True)]


def _figure(rng: np.random.Generator) -> list[Part]:
    """A body with a head and jointed limbs."""
    parts = [(_closed_curve(rng, 0.08) * (rng.uniform(0.25, 0.6), rng.uniform(0.25, 0.6)), True)]
    for i in range(int(rng.integers(3, 8))):
        angle, points = rng.uniform(0, 2 * np.pi), [rng.uniform(-0.25, 0.25, 2)]
        for _ in range(3):
            points.append(points[-1] + rng.uniform(0.15, 0.5) * np.array([np.cos(angle), np.sin(angle)]))
            angle += rng.normal(0, 0.6)
        steps = np.linspace(0, 3, 16)
        line = np.stack([np.interp(steps, range(4), np.array(points)[:, d]) for d in (0, 1)], 1)
        parts.append((_limb(line, np.linspace(rng.uniform(0.05, 0.2), rng.uniform(0.015, 0.08), 16)), True))
        if i == 0:
            parts.append((_ellipse(rng, *line[-1], *rng.uniform(0.1, 0.25, 2)), True))
    return parts


def _vehicle(rng: np.random.Generator) -> list[Part]:
    """Boxes on wheels, with windows that are sometimes holes."""
    w, h = rng.uniform(0.7, 1.2), rng.uniform(0.2, 0.5)
    box = np.array(
        [
            [-w, 0],
            [-w, -h],
            [-w * 0.5, -h],
            [-w * 0.3, -h * 2],
            [w * 0.4, -h * 2],
            [w * 0.7, -h],
            [w, -h],
            [w, 0],
        ]
    )
    parts = [(box + rng.normal(0, 0.04, box.shape), True)]
    for x in (-0.6 * w, 0.6 * w):
        parts.append((_ellipse(rng, x, 0, rng.uniform(0.12, 0.25), rng.uniform(0.12, 0.25)), True))
    parts.append(
        (
            np.array([[-0.2 * w, -h], [-0.1 * w, -1.7 * h], [0.3 * w, -1.7 * h], [0.4 * w, -h]]),
            rng.random() < 0.6,
        )
    )
    return parts


def _ring(rng: np.random.Generator) -> list[Part]:
    a, b = rng.uniform(0.6, 1.1, 2)
    holes = [
        (_ellipse(rng, *rng.uniform(-0.4, 0.4, 2), *rng.uniform(0.08, 0.35, 2)), False)
        for _ in range(rng.integers(1, 4))
    ]
    return [(_ellipse(rng, 0, 0, a, b), True), *holes]


def _thin(rng: np.random.Generator) -> list[Part]:
    """Wires, poles and twigs: slowly turning lines whose width is a few percent of the extent."""
    parts = []
    for _ in range(int(rng.integers(1, 4))):
        heading = rng.uniform(0, 2 * np.pi) + np.cumsum(rng.normal(0, rng.choice([0.01, 0.15]), 24))
        line = np.cumsum(np.stack([np.cos(heading), np.sin(heading)], 1) * 0.1, 0)
        parts.append((_limb(line - line.mean(0), np.full(24, rng.uniform(0.015, 0.06))), True))
    return parts


Shape = Callable[[np.random.Generator], list[Part]]
SHAPES: tuple[Shape, ...] = (_blob, _blob, _polygon, _figure, _figure, _figure, _vehicle, _ring, _thin)
