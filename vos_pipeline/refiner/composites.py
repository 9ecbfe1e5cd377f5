"""Synthetic images with exact masks: procedural shapes textured from free photographs."""

from __future__ import annotations

import math

import cv2
import numpy as np
from torch.utils.data import Dataset

from vos_pipeline.refiner.degrade import degrade, hardness, smooth_noise
from vos_pipeline.refiner.samples import Sample
from vos_pipeline.refiner.shapes import SHAPES

Array = np.ndarray


class Composites(Dataset[Sample]):
    """An endless data set of synthetic images with exact and coarse masks.

    A sample contains a background crop, a few distractors, the object, and sometimes something in front of it. The
    whole image then gets illumination, blur, noise and compression. Edges are antialiased. The mask is the visible
    coverage of the object.

    Args:
        photographs: images to crop textures from, each (H, W, 3) uint8 RGB.
        size: side of a sample in pixels.
        seed: determines all randomness, together with the sample's index: ``composites[i]`` is always the same.
        course: number of samples over which samples become hard, see :func:`vos_pipeline.refiner.hardness`; with 0
            all samples are hard.

    Example:
        >>> grey = np.full((64, 64, 3), 128, np.uint8)
        >>> image, coarse, mask = Composites([grey], size=48)[0]
        >>> image.shape, coarse.shape, mask.shape
        ((48, 48, 3), (48, 48), (48, 48))
    """

    def __init__(self, photographs: list[Array], size: int = 160, seed: int = 0, course: int = 0) -> None:
        if not photographs:
            raise ValueError("photographs must hold at least one (H, W, 3) image, got none")
        self.photographs, self.size, self.seed, self.course = photographs, size, seed, course

    def __getitem__(self, index: int) -> Sample:
        """Return image (S, S, 3), coarse mask (S, S) and exact mask (S, S), all float32 in [0, 1]."""
        rng = np.random.default_rng((self.seed, index))
        hard = hardness(index, self.course)
        for _ in range(20):
            image, mask = self._scene(rng, hard)
            coarse = degrade(mask, rng, image, hard)
            shares = ((coarse > 0.5).mean(), (mask > 0.5).mean())
            if all(0.006 < share < 0.95 for share in shares):  # both classes must occur, as in the paper
                break
        return image, coarse, mask

    def _texture(self, rng: np.random.Generator) -> Array:
        """Return a recoloured crop of a photograph, or a blend of two crops."""
        crop = self._crop(rng)
        if rng.random() < 0.25:
            crop = crop + (self._crop(rng) - crop) * rng.uniform(0.2, 0.8)
        if rng.random() < 0.5:
            crop = np.ascontiguousarray(crop[..., rng.permutation(3)])
        if rng.random() < 0.3:  # changes hues and colours grey photographs
            hues = np.eye(3) + rng.normal(0, 0.25, (3, 3))
            crop = np.clip(cv2.transform(crop, hues.astype(np.float32)), 0, 1)
        if rng.random() < 0.2:  # nearly uniform surfaces: paint, sky, water
            crop = crop.mean((0, 1)) + (crop - crop.mean((0, 1))) * rng.uniform(0, 0.4)
        gain = np.exp(rng.normal(0, 0.25) + rng.normal(0, 0.12, 3)).astype(np.float32)
        return np.clip(crop, 0, 1) ** math.exp(rng.normal(0, 0.3)) * gain

    def _crop(self, rng: np.random.Generator) -> Array:
        """Return a rotated and scaled square of a photograph, (S, S, 3) float32."""
        s = self.size
        photo = self.photographs[rng.integers(len(self.photographs))]
        side = int(np.clip(s * math.exp(rng.uniform(-0.9, 0.9)), 32, min(photo.shape[:2])))
        y, x = rng.integers(0, photo.shape[0] - side + 1), rng.integers(0, photo.shape[1] - side + 1)
        shrink = cv2.INTER_AREA if side > s else cv2.INTER_LINEAR
        crop = cv2.resize(photo[y : y + side, x : x + side], (s, s), interpolation=shrink)
        return (
            np.rot90(np.asarray(crop), int(rng.integers(4)))[:, :: rng.choice([-1, 1])].astype(
                np.float32, order="C"
            )
            / 255
        )

    def _draw(self, rng: np.random.Generator, extent: float, centre: Array) -> list[tuple[Array, bool]]:
        """Draw a random shape: the coverage of each part, (S, S) in [0, 1], rendered at twice the size and averaged."""
        turn, s = rng.uniform(-0.6, 0.6) + rng.integers(4) * np.pi / 2 * (rng.random() < 0.5), self.size
        matrix = extent * np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
        parts = []
        for outline, filled in SHAPES[rng.integers(len(SHAPES))](rng):
            canvas = np.zeros((2 * s, 2 * s), np.uint8)
            cv2.fillPoly(
                canvas, [np.round((outline @ matrix + centre) * 2 * 16).astype(np.int32)], 255, cv2.LINE_AA, 4
            )
            parts.append(
                (cv2.resize(canvas, (s, s), interpolation=cv2.INTER_AREA).astype(np.float32) / 255, filled)
            )
        return parts

    def _object(
        self, rng: np.random.Generator, extent: float, centre: Array, decorated: float
    ) -> tuple[Array, Array]:
        """Return colour (S, S, 3) and coverage (S, S) of an object, whose parts sometimes differ in texture."""
        colour, cover = self._texture(rng), np.zeros((self.size, self.size), np.float32)
        motley = rng.random() < 0.4
        for part, filled in self._draw(rng, extent, centre):
            if filled and motley and rng.random() < 0.6:
                colour += (self._texture(rng) - colour) * part[..., None]
            cover = np.maximum(cover, part) if filled else cover * (1 - part)
        # Windows, stripes and spots are edges that do not belong to the boundary.
        for _ in range(rng.integers(0, 4) if rng.random() < decorated else 0):
            centre_inside = centre + rng.normal(0, 0.4, 2) * extent
            decoration = self._draw(rng, extent * math.exp(rng.uniform(-2, -0.5)), centre_inside)[0][0]
            colour += (self._texture(rng) - colour) * decoration[..., None] * rng.uniform(0.3, 1)
        return colour * self._light(rng), cover

    def _light(self, rng: np.random.Generator) -> Array:
        s = self.size
        return np.exp(smooth_noise(rng, (s, s), s * rng.uniform(0.3, 1)) * rng.uniform(0, 0.2))[..., None]

    def _scene(self, rng: np.random.Generator, hard: float) -> tuple[Array, Array]:
        """Return image and mask. Objects of easy scenes have visible boundaries and little pattern."""
        s = self.size
        image, mask = self._texture(rng), np.zeros((s, s), np.float32)
        kinds = ["other"] * int(rng.integers(0, 5)) + ["object"] + ["front"] * int(rng.random() < 0.25)
        for kind in kinds:
            smallest, largest = (-2.2, 0.0) if kind == "object" else (-2.5, -0.7)
            extent = s * math.exp(rng.uniform(smallest, largest))
            colour, cover = self._object(
                rng, extent, rng.uniform(0.15, 0.85, 2) * s, hard * (kind == "object")
            )
            if rng.random() < 0.3:  # a soft shadow next to the object, not part of the mask
                right, down = rng.uniform(-0.2, 0.2) * extent, rng.uniform(0, 0.3) * extent
                shift = np.array([[1, 0, right], [0, 1, down]], np.float32)
                shade = cv2.GaussianBlur(
                    cv2.warpAffine(cover, shift, (s, s)), (0, 0), rng.uniform(1, 0.1 * extent + 1.1)
                )
                image = image * (1 - rng.uniform(0.2, 0.6) * shade[..., None])
            if rng.random() < 0.3 * hard:  # camouflage: colours become similar to the background
                colour = colour + (image.mean((0, 1)) - colour.mean((0, 1))) * rng.uniform(0.5, 1)
            if rng.random() < 0.4 * hard:  # boundary partly invisible, like a tyre in its own shadow
                seen = np.clip(smooth_noise(rng, (s, s), rng.uniform(0.15, 0.5) * s) + 0.6, 0, 1)
                colour = image + (colour - image) * seen[..., None]
            if kind != "front" and rng.random() < 0.15:  # background out of focus
                image = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.5, 3))
            if rng.random() < 0.5:  # soft edge from the lens
                cover = cv2.GaussianBlur(cover, (0, 0), rng.uniform(0.3, 1.0))
            if rng.random() < 0.1:  # motion blur of the object alone
                kernel = _streak(rng)
                colour, cover = (
                    cv2.filter2D(v, -1, kernel, borderType=cv2.BORDER_REFLECT) for v in (colour, cover)
                )
            image = image + (colour - image) * cover[..., None]
            mask = cover if kind == "object" else mask * (1 - cover)
        return self._camera(image * self._light(rng), mask, rng)

    def _camera(self, image: Array, mask: Array, rng: np.random.Generator) -> tuple[Array, Array]:
        """Apply motion blur (also to the mask), defocus, noise and compression to the whole image."""
        if rng.random() < 0.15:
            kernel = _streak(rng)
            image, mask = (cv2.filter2D(v, -1, kernel, borderType=cv2.BORDER_REFLECT) for v in (image, mask))
        if rng.random() < 0.3:
            image = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.3, 1.2))
        image = image * math.exp(rng.normal(0, 0.2)) + rng.normal(0, 0.05)
        if rng.random() < 0.5:
            image = image + rng.standard_normal(image.shape, dtype=np.float32) * rng.uniform(0, 0.05)
        image = np.clip(image * 255, 0, 255).astype(np.uint8)
        if rng.random() < 0.5:
            quality = int(rng.integers(40, 95))
            encoded = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
            image = np.asarray(cv2.imdecode(encoded, cv2.IMREAD_COLOR))
        return image.astype(np.float32) / 255, np.clip(mask, 0, 1)


def _streak(rng: np.random.Generator) -> Array:
    """Return a motion blur kernel: a short line in a random direction."""
    length = int(rng.integers(3, 12))
    kernel = np.zeros((length, length), np.float32)
    start_x, start_y, end_x, end_y = (int(v) for v in rng.integers(0, length, 4))
    cv2.line(kernel, (start_x, start_y), (end_x, end_y), 1.0)
    return kernel / kernel.sum()
