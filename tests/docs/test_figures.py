"""Drawn figures and generated tables are what their scripts make of what there is now."""

import json
import runpy
from pathlib import Path

from benchmarks import craf_choices, plot

DOCS = Path(__file__).parents[2] / "docs"


def test_four_triangles():
    script = runpy.run_path(str(DOCS / "figures" / "four_triangles.py"))
    assert (DOCS / "_static" / "four_triangles.svg").read_text() == script["svg"](), (
        "run python docs/figures/four_triangles.py"
    )


def test_tables_and_pictures_of_the_benchmarks(tmp_path, monkeypatch):
    monkeypatch.setattr(plot, "ROOT", tmp_path)
    monkeypatch.setattr(plot, "TABLES", tmp_path / "tables")
    monkeypatch.setattr(plot, "PICTURES", tmp_path / "pictures")
    plot.main()

    def texts(folder, pattern):
        return {path.name: path.read_text() for path in folder.glob(pattern)}

    pattern = "benchmarks_*.md"
    assert texts(plot.TABLES, pattern) == texts(DOCS / "_generated", pattern), "run python -m benchmarks.plot"
    # How a picture's lines are written depends on the version of matplotlib.
    drawn, kept = plot.PICTURES.iterdir(), (DOCS / "_static" / "benchmarks").iterdir()
    assert {path.name for path in drawn} == {path.name for path in kept}


def test_table_of_crafs_choices():
    record = json.loads((plot.RESULTS / "craf_choices.json").read_text())
    assert craf_choices.TABLE.read_text() == craf_choices.table(record["rows"])
