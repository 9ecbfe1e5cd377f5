"""Create synthetic clips with exact masks in the DAVIS layout, for demos and tests without downloads.

Textured, shaded, deforming creatures move under a moving camera and occlude one another. The backgrounds are
photographs from the scikit-image wheel. The set named "train" uses separate photographs for its backgrounds and
textures.
"""

from __future__ import annotations

import importlib.util
import zlib
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from vos_pipeline.data.images import read_image, write_image
from vos_pipeline.data.masks import write_labels
from vos_pipeline.errors import PipelineError
from vos_pipeline.files import replacing

# Only files inside the scikit-image wheel: scikit-image would download its other images.
PHOTOS = {
    "train": {
        "background": ("motorcycle_left.png", "astronaut.png", "camera.png", "gravel.png", "moon.png"),
        "texture": ("brick.png", "page.png", "color.png", "text.png", "hubble_deep_field.jpg", "logo.png"),
    },
    "other": {
        "background": ("coffee.png", "chelsea.png", "rocket.jpg", "grass.png"),
        "texture": ("ihc.png", "retina.jpg", "coins.png", "coffee.png", "chelsea.png", "cell.png"),
    },
}


def make_clips(
    out_root: str | Path,
    clips: int = 3,
    frames: int = 25,
    size: tuple[int, int] = (240, 428),
    seed: int = 0,
    set_name: str = "val",
    year: str = "2017",
) -> None:
    """Write synthetic clips as a new DAVIS root, or add them to an existing root as a set.

    Writes ``JPEGImages``, ``Annotations`` and ``ImageSets/<year>/<set>.txt``. The same arguments write the same bytes.
    Clips alternate between two and three objects. Labels are exact (no anti-aliasing); the images have soft edges,
    shadows, noise and changing light.

    Args:
        out_root: output folder.
        clips: number of sequences, named ``<set>-00``, ``<set>-01``, ...
        frames: number of frames per clip.
        size: height and width.
        seed: any integer.
        set_name: name of the set; "train" uses separate photographs.
        year: subfolder of ``ImageSets``.

    Raises:
        ValueError: fewer than one clip or frame, or a size below 32.
        PipelineError: the installed scikit-image does not contain its sample photographs.
    """
    if clips < 1 or frames < 1 or min(size) < 32:
        raise ValueError(f"clips and frames must be >= 1 and size >= 32, got {clips}, {frames}, {size}")
    root = Path(out_root)
    photos = PHOTOS.get(set_name, PHOTOS["other"])
    names = _names(clips, set_name)
    for index, name in enumerate(names):
        # A separate seed per clip: requesting more clips does not change the first ones.
        rng = np.random.default_rng([seed, zlib.crc32(set_name.encode()), index])
        scene = _Scene(rng, photos, index, size)
        for t in range(frames):
            picture, labels = scene.render(t / max(frames - 1, 1))
            write_image(root / _frame(name, t), picture, quality=95)
            write_labels(root / _mask(name, t), labels)
    with replacing(root / _listing(set_name, year)) as file:
        file.write("".join(f"{name}\n" for name in names).encode())


def clip_files(clips: int, frames: int, set_name: str = "val", year: str = "2017") -> list[str]:
    """Return the paths of the files that :func:`make_clips` writes, relative to its root."""
    files = [_listing(set_name, year)]
    for name in _names(clips, set_name):
        for t in range(frames):
            files += [_frame(name, t), _mask(name, t)]
    return files


def _names(clips: int, set_name: str) -> list[str]:
    return [f"{set_name}-{index:02d}" for index in range(clips)]


def _frame(name: str, t: int) -> str:
    return f"JPEGImages/480p/{name}/{t:05d}.jpg"


def _mask(name: str, t: int) -> str:
    return f"Annotations/480p/{name}/{t:05d}.png"


def _listing(set_name: str, year: str) -> str:
    return f"ImageSets/{year}/{set_name}.txt"


class _Scene:
    """A background under a moving camera, and the creatures in front of it, the farthest first."""

    def __init__(
        self, rng: np.random.Generator, photos: dict[str, tuple[str, ...]], index: int, size: tuple[int, int]
    ) -> None:
        self.size, self.rng = size, rng
        height, width = size
        backdrop = photos["background"][index % len(photos["background"])]
        photo = _photo(backdrop, rng)
        cover = 1.4 * max(height / photo.shape[0], width / photo.shape[1])
        self.background = cv2.resize(photo, None, fx=cover, fy=cover, interpolation=cv2.INTER_AREA)
        self.pan = rng.uniform(-0.09, 0.09, 2) * height
        self.tilt, self.zoom = rng.uniform(-5, 5), rng.uniform(0.9, 1.12)
        self.shake = rng.uniform(0, 2 * np.pi, 2)
        self.light = rng.uniform(0, 2 * np.pi, 2)  # phase of the strength; direction

        count = 2 + index % 2
        textures = rng.permutation([file for file in photos["texture"] if file != backdrop])
        # Neighbouring starts and swapped ends make the paths cross.
        lanes = (np.arange(count) + 0.5) / count
        ends = lanes[::-1] if count == 2 else lanes[[1, 2, 0]]
        self.creatures = [
            _Creature.random(rng, _photo(str(textures[k]), rng), size, (lanes[k], ends[k]), count)
            for k in range(count)
        ]

    def render(self, u: float) -> tuple[np.ndarray, np.ndarray]:
        """Return the image, uint8 (H, W, 3), and the labels, uint8 (H, W), at time u in [0, 1]."""
        height, width = self.size
        camera = self._camera(u)
        shift = np.array(
            [[1, 0, (width - self.background.shape[1]) / 2], [0, 1, (height - self.background.shape[0]) / 2]]
        )
        picture = _warp(self.background, camera @ _square(shift), self.size).astype(np.float32)
        labels = np.zeros(self.size, np.uint8)
        for label, creature in enumerate(self.creatures, start=1):
            mask = creature.mask(u, camera, self.size)
            picture = self._paint(picture, mask, creature.texture_at(u, camera, self.size), creature.radius)
            labels[mask] = label
        seen = np.asarray(cv2.GaussianBlur(picture, (0, 0), 0.6))  # blur of a lens
        seen = seen * (1 + 0.08 * np.sin(2 * np.pi * u + self.light[0])) + self.rng.normal(0, 3, seen.shape)
        return np.clip(seen + 0.5, 0, 255).astype(np.uint8), labels

    def _camera(self, u: float) -> np.ndarray:
        """Return the affine map (2, 3) from world coordinates (the first image) to the image at time u."""
        height, width = self.size
        about = (width / 2, height / 2)
        camera = np.asarray(cv2.getRotationMatrix2D(about, self.tilt * u, self.zoom**u), float)
        camera[:, 2] += self.pan * u + 0.006 * height * (np.sin(23 * u + self.shake) - np.sin(self.shake))
        return camera

    def _paint(self, picture: np.ndarray, mask: np.ndarray, texture: np.ndarray, radius: float) -> np.ndarray:
        solid = mask.astype(np.float32)
        relief = cv2.GaussianBlur(solid, (0, 0), radius / 3)
        down, right = np.gradient(relief)
        facing = right * np.cos(self.light[1]) + down * np.sin(self.light[1])
        shading = np.clip(0.55 + 0.5 * relief + 1.2 * radius / 3 * facing, 0.35, 1.3)[..., None]
        drop = np.array([[1, 0, 0.12 * radius], [0, 1, 0.2 * radius]], np.float32)
        shadow = cv2.GaussianBlur(_warp(solid, drop, self.size, cv2.BORDER_CONSTANT), (0, 0), radius / 5)
        alpha = cv2.GaussianBlur(solid, (0, 0), 0.7)[..., None]
        return (1 - alpha) * picture * (1 - 0.4 * shadow[..., None]) + alpha * texture * shading


@dataclass(frozen=True)
class _Creature:
    """A wobbling body with swinging limbs, a texture and a path; in local coordinates the body has radius 1."""

    texture: np.ndarray  # uint8 (S, S, 3), covers [-2, 2] in local coordinates
    radius: float
    path: np.ndarray  # (2, 2): start and end in world coordinates
    bob: tuple[float, float]  # height and phase of the bobbing
    turn: float  # rotation over the clip in radians
    growth: float  # scale factor over the clip
    wobble: np.ndarray  # (3, 4): harmonic, amplitude, phase, speed
    limbs: np.ndarray  # (L, 5): angle, length, width, phase, swing

    @classmethod
    def random(
        cls,
        rng: np.random.Generator,
        photo: np.ndarray,
        size: tuple[int, int],
        lanes: tuple[float, float],
        count: int,
    ) -> _Creature:
        height, width = size
        side = int(min(photo.shape[:2]) * rng.uniform(0.5, 0.8))
        y, x = (rng.integers(0, extent - side + 1) for extent in photo.shape[:2])
        scale = min(height, 0.75 * width)
        radius = scale * rng.uniform(0.15, 0.2) * (1.15 if count == 2 else 1)
        margin = 1.2 * radius
        across = margin + np.array(lanes) * (width - 2 * margin)
        reach = rng.uniform(0.45, 0.8)  # fraction of the way to the other lane
        across[1] = across[0] + reach * (across[1] - across[0])
        down = rng.uniform(0.38, 0.62) * height + rng.uniform(-0.12, 0.12, 2) * height
        limbs = rng.integers(2, 5)
        start = rng.uniform(0, 2 * np.pi)
        angles = start + np.arange(limbs) * 2 * np.pi / limbs + rng.uniform(-0.4, 0.4, limbs)
        return cls(
            texture=cv2.resize(photo[y : y + side, x : x + side], (256, 256), interpolation=cv2.INTER_AREA),
            radius=radius,
            path=np.stack([across, down], axis=1),
            bob=(rng.uniform(0.02, 0.06) * height, rng.uniform(0, 2 * np.pi)),
            turn=rng.uniform(0.5, 1.3) * rng.choice([-1, 1]),
            growth=rng.uniform(0.75, 1.35),
            wobble=np.stack(
                [np.arange(2, 5), rng.uniform(0.05, 0.16, 3), rng.uniform(0, 6.3, 3), rng.uniform(-4, 4, 3)],
                axis=1,
            ),
            limbs=np.stack(
                [
                    angles,
                    rng.uniform(1.3, 1.9, limbs),
                    rng.uniform(0.16, 0.3, limbs),
                    rng.uniform(0, 2 * np.pi, limbs),
                    rng.uniform(0.2, 0.5, limbs),
                ],
                axis=1,
            ),
        )

    def pose(self, u: float, camera: np.ndarray) -> np.ndarray:
        """Return the affine map (2, 3) from local coordinates to the image."""
        x, y = self.path[0] + (self.path[1] - self.path[0]) * u
        y += self.bob[0] * np.sin(9 * u + self.bob[1])
        scale, angle = self.radius * self.growth**u, self.turn * u
        cos, sin = scale * np.cos(angle), scale * np.sin(angle)
        return camera @ np.array([[cos, -sin, x], [sin, cos, y], [0, 0, 1]])

    def mask(self, u: float, camera: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        """Return the pixels that the creature covers, bool (H, W)."""
        canvas = np.zeros(size, np.uint8)
        pose = self.pose(u, camera)
        for outline in self._outlines(u):
            points = outline @ pose[:, :2].T + pose[:, 2]
            cv2.fillPoly(canvas, [np.round(points * 16).astype(np.int32)], 1, shift=4)
        return canvas.astype(bool)

    def texture_at(self, u: float, camera: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        extent = self.texture.shape[0]
        own = np.array([[4 / extent, 0, -2], [0, 4 / extent, -2], [0, 0, 1]])
        return _warp(self.texture, self.pose(u, camera) @ own, size).astype(np.float32)

    def _outlines(self, u: float) -> list[np.ndarray]:
        angle = np.linspace(0, 2 * np.pi, 90, endpoint=False)
        radius = 1 + sum(a * np.cos(k * angle + phase + speed * u) for k, a, phase, speed in self.wobble)
        outlines = [radius[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)]
        tip = np.linspace(-np.pi / 2, np.pi / 2, 12)
        for at, length, width, phase, swing in self.limbs:
            # A capsule along the x axis from the body's centre, rotated into position.
            capsule = np.stack([length - width + width * np.cos(tip), width * np.sin(tip)], axis=1)
            capsule = np.concatenate([[[0, -1.4 * width]], capsule, [[0, 1.4 * width]]])
            heading = at + swing * np.sin(8 * u + phase)
            cos, sin = np.cos(heading), np.sin(heading)
            outlines.append(capsule @ np.array([[cos, sin], [-sin, cos]]))
        return outlines


def _photo(file: str, rng: np.random.Generator) -> np.ndarray:
    """Return a photograph from the scikit-image wheel, uint8 (H, W, 3); tint grey photographs with two colours."""
    spec = importlib.util.find_spec("skimage")
    if spec is None or spec.origin is None:
        raise PipelineError("synthetic clips need scikit-image: run pip install 'spatial-propagation[vos]'")
    path = Path(spec.origin).parent / "data" / file
    if not path.is_file():
        raise PipelineError(
            f"the installed scikit-image does not contain {file}: run pip install 'scikit-image>=0.20'"
        )
    photo = read_image(path)
    if np.ptp(photo.astype(np.int16), axis=2).max() == 0:
        dark, light = rng.uniform(10, 90, 3), rng.uniform(140, 250, 3)
        grey = photo[..., :1] / 255
        photo = (dark + (light - dark) * grey).astype(np.uint8)
    return photo


def _warp(
    image: np.ndarray, matrix: np.ndarray, size: tuple[int, int], border: int = cv2.BORDER_REFLECT
) -> np.ndarray:
    return cv2.warpAffine(image, matrix[:2], size[::-1], flags=cv2.INTER_LINEAR, borderMode=border)


def _square(matrix: np.ndarray) -> np.ndarray:
    return np.vstack([matrix, [0, 0, 1]])
