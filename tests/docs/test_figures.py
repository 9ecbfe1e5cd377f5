"""Drawn figures and generated tables are what their scripts make of what there is now."""

import json
from pathlib import Path

from docs.figures import architecture, benchmarks, four_triangles, refiner_table, temporal_filters

DOCS = Path(__file__).parents[2] / "docs"


def test_rooms_and_the_way_to_the_kernel():
    assert architecture.TARGET.read_text() == architecture.svg(), "run python -m docs.figures.architecture"
    for _, file, _ in (box for line in architecture.CALL for box in line):
        assert (architecture.ROOT / file).is_file()


def test_four_triangles():
    assert four_triangles.TARGET.read_text() == four_triangles.svg(), (
        "run python -m docs.figures.four_triangles"
    )


def test_tables_and_pictures_of_the_benchmarks(tmp_path, monkeypatch):
    monkeypatch.setattr(benchmarks, "ROOT", tmp_path)
    monkeypatch.setattr(benchmarks, "TABLES", tmp_path / "tables")
    monkeypatch.setattr(benchmarks, "PICTURES", tmp_path / "pictures")
    benchmarks.main()

    def texts(folder, pattern):
        return {path.name: path.read_text() for path in folder.glob(pattern)}

    pattern = "benchmarks_*.md"
    assert texts(benchmarks.TABLES, pattern) == texts(DOCS / "_generated", pattern), (
        "run python -m docs.figures.benchmarks"
    )
    # How a picture's lines are written depends on the version of matplotlib.
    drawn, kept = benchmarks.PICTURES.iterdir(), (DOCS / "_static" / "benchmarks").iterdir()
    assert {path.name for path in drawn} == {path.name for path in kept}


def test_tables_of_filters_over_time():
    for name, table in temporal_filters.tables(temporal_filters.rows()).items():
        assert (temporal_filters.PAGES / name).read_text() == table, (
            "run python -m docs.figures.temporal_filters"
        )


def test_table_of_the_refiner():
    page = refiner_table.PAGE.read_text()
    records = [json.loads(file.read_text()) for file in (refiner_table.RECORD, refiner_table.TIMES)]
    assert page == refiner_table.filled(page, *records), "run python -m docs.figures.refiner_table"


def test_table_of_the_refiner_has_a_row_a_method_and_marks_the_best():
    def row(method, j):
        return {"kind": "1/16", "method": method, "sequence": "mean", "J": j, "F": 0.5, "F2": 0.25}

    seconds = {"coarse": 1e-7, "SPN refiner": 0.124}
    rows = [row("coarse", 0.8), row("SPN refiner", 0.9)]
    record = {"table": rows, "kinds": {"1/16": {"seconds": seconds}}}
    lines = refiner_table.table(record).splitlines()
    assert lines[2] == "| coarse | 0.800 | **0.500** | **0.250** | 0 |"
    assert lines[3] == "| SPN refiner | **0.900** | **0.500** | **0.250** | 0.12 |"
