"""Data augmentation: the ranges of the random transforms of a training frame."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Affine:
    """Ranges of a random transform. The defaults are those of the authors (paper, section 3.3).

    Args:
        shift: largest shift as a fraction of the frame size.
        rotation: largest rotation in degrees.
        scale: a value s draws the scale factor log-uniformly from [1 / (1 + s), 1 + s].
        flip: probability of a mirror image.
        bend: amplitude of a smooth displacement as a fraction of the frame size; 0 is purely affine, as in the paper.
    """

    shift: float = 0.1
    rotation: float = 5.0
    scale: float = 0.05
    flip: float = 0.5
    bend: float = 0.0


@dataclass(frozen=True)
class Augmentation:
    """The transforms that produce training samples from one frame."""

    frame: Affine = field(default_factory=Affine)  # transform of the whole frame
    color: float = 0.0  # strength of the colour jitter
    compose: float = 0.0  # fraction of samples that move each object over the inpainted background
    object: Affine = field(default_factory=Affine)  # transform of an object in such a sample
    near: float = 0.0  # small objects may grow further, up to this fraction of the frame
    drop: float = 0.0  # probability that an object is missing from such a sample
    samples: int | None = None  # number of different samples per frame; None: no limit
