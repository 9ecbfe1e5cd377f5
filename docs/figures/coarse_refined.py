"""Write docs/_static/coarse_refined.jpg, the image in the README: the figure of the gallery's first example.

python -m docs.figures.coarse_refined
"""

from __future__ import annotations

import runpy
from pathlib import Path

import matplotlib

DOCS = Path(__file__).parents[1]

if __name__ == "__main__":
    matplotlib.use("agg")
    example = runpy.run_path(str(DOCS / "gallery" / "plot_refine_mask.py"))
    example["figure"].savefig(
        DOCS / "_static" / "coarse_refined.jpg", dpi=100, pil_kwargs={"quality": 88, "optimize": True}
    )
