"""The drawn figures are what their scripts draw."""

import runpy
from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs"


def test_four_triangles():
    script = runpy.run_path(str(DOCS / "figures" / "four_triangles.py"))
    assert (DOCS / "_static" / "four_triangles.svg").read_text() == script["svg"](), (
        "run python docs/figures/four_triangles.py"
    )
