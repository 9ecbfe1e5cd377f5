"""Free photographs bundled with scikit-image, used as textures."""

from __future__ import annotations

import numpy as np

# Photographs in scikit-image's wheel: public domain, CC0 or without known copyright restrictions.
BUNDLED = (
    "astronaut", "brick", "camera", "cell", "chelsea", "clock", "coffee", "coins",
    "grass", "gravel", "hubble_deep_field", "immunohistochemistry", "retina", "rocket",
)  # fmt: skip


def bundled_photographs() -> list[np.ndarray]:
    """Return the free photographs bundled with scikit-image, each (H, W, 3) uint8 RGB."""
    import skimage.data

    pictures = [getattr(skimage.data, name)() for name in BUNDLED]
    return [np.repeat(p[..., None], 3, 2) if p.ndim == 2 else p[..., :3] for p in pictures]
