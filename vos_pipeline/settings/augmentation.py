"""How one training frame becomes many: the ranges that random transforms are drawn from."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Affine:
    """Ranges of a random transform (the defaults are the authors', paper section 3.3).

    ``shift`` is a share of the frame's size, ``rotation`` degrees, ``scale`` s draws a factor log-uniformly
    from [1 / (1 + s), 1 + s], ``flip`` is the chance of a mirror image, ``bend`` the amplitude of a smooth
    displacement as a share of the frame's size (0: purely affine, as in the paper).
    """

    shift: float = 0.1
    rotation: float = 5.0
    scale: float = 0.05
    flip: float = 0.5
    bend: float = 0.0


@dataclass(frozen=True)
class Augmentation:
    """How one training frame becomes many."""

    frame: Affine = field(default_factory=Affine)  # the whole frame moves
    color: float = 0.0  # strength of the colour jitter
    compose: float = 0.0  # share of samples that move each object over the inpainted background
    object: Affine = field(default_factory=Affine)  # what an object does in such a sample
    near: float = 0.0  # ... small ones may grow further, until they span this share of the frame
    drop: float = 0.0  # chance that an object is missing from such a sample
    samples: int | None = None  # different samples that are made of a frame, None for no limit
