"""Figures and generated tables are up to date."""

import json
from pathlib import Path

from benchmarks.operator.cases import parse_case
from benchmarks.operator.propagate import CASES
from docs.figures import architecture, benchmarks, deployment, four_triangles, refiner_table, temporal_filters

DOCS = Path(__file__).parents[2] / "docs"


def test_architecture():
    assert architecture.TARGET.read_text() == architecture.svg(), "run python -m docs.figures.architecture"
    for _, file, _ in (box for line in architecture.CALL for box in line):
        assert (architecture.ROOT / file).is_file()


def test_four_triangles():
    assert four_triangles.TARGET.read_text() == four_triangles.svg(), (
        "run python -m docs.figures.four_triangles"
    )


def test_tables_and_figures_of_the_benchmarks(tmp_path, monkeypatch):
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
    # The content of an SVG file depends on the version of matplotlib.
    drawn, kept = benchmarks.PICTURES.iterdir(), (DOCS / "_static" / "benchmarks").iterdir()
    assert {path.name for path in drawn} == {path.name for path in kept}


def test_tables_of_temporal_filters():
    for name, table in temporal_filters.tables(temporal_filters.rows()).items():
        assert (temporal_filters.PAGES / name).read_text() == table, (
            "run python -m docs.figures.temporal_filters"
        )


def test_table_of_the_refiner():
    page = refiner_table.PAGE.read_text()
    records = [json.loads(file.read_text()) for file in refiner_table.RECORDS]
    assert page == refiner_table.filled(page, *records), "run python -m docs.figures.refiner_table"


def test_figures_of_onnx():
    page = deployment.PAGE.read_text()
    record = json.loads(deployment.RECORD.read_text())
    assert page == deployment.filled(page, record), "run python -m docs.figures.deployment"


def test_table_of_the_refiner_has_a_column_per_method_and_marks_the_best():
    def row(method, j):
        return {"kind": "1/16", "method": method, "sequence": "mean", "J": j, "F": 0.5, "F2": 0.25}

    seconds = {"coarse": 1e-7, "SPN refiner": 0.124}
    rows = [row("coarse", 0.8), row("SPN refiner", 0.9)]
    record = {"table": rows, "kinds": {"1/16": {"seconds": seconds}}}
    lines = refiner_table.table(record).splitlines()
    assert lines[0] == "| coarse mask | measure | not refined | SPN refiner |"
    assert lines[2:] == [
        "| 1/16 of the resolution | J | 0.800 | **0.900** |",
        "|  | F | **0.500** | **0.500** |",
        "|  | F2 | **0.250** | **0.250** |",
        "| seconds per frame |  | 0 | 0.12 |",
    ]


def test_table_of_the_operator_has_a_row_per_case_and_pass_and_three_columns_per_allocator(
    tmp_path, monkeypatch
):
    def row(case, name, milliseconds):
        shape = case.split(":")[0]
        same = {"case": case, "shape": shape, "dtype": "float32", "provider": "native", "pass": name}
        ratios = {"ratio_to_copy": milliseconds / 4, "ratio_to_fresh": milliseconds / 5}
        return {**same, "minimum_bytes": 3e6, "median_ms": milliseconds, **ratios}

    def run(allocator, milliseconds):
        facts = {
            "cpu": "a",
            "threads": 1,
            "kernels": ["CPU capability x"],
            "python": "b",
            "torch": "c",
            "commit": "d",
            "allocator": allocator,
        }
        cases = [
            ("1x8x4x4", "forward"),
            ("1x8x4x4", "both"),
            ("2x8x4x4:G=2:source:unit:top_to_bottom", "forward"),
        ]
        return {"machine": facts, "rows": [row(*case, milliseconds) for case in cases]}

    monkeypatch.setattr(benchmarks, "TABLES", tmp_path)
    benchmarks.write_propagate("name", "float32", [run("glibc", 20), run("jemalloc", 10)])
    header, _, *rows = (tmp_path / "benchmarks_name.md").read_text().splitlines()
    assert "glibc: ms | × copy | × fresh memory | jemalloc: ms | × copy | × fresh memory" in header
    assert rows[:3] == [
        "| 1 × 8 × 4 × 4 | forward | 20.0 | 5.0 | 4.0 | 10.0 | 2.5 | 2.0 |",
        "|  | forward + backward | 20.0 | 5.0 | 4.0 | 10.0 | 2.5 | 2.0 |",
        "| 2 × 8 × 4 × 4, G = 2, source, unit, one direction | forward | 20.0 | 5.0 | 4.0 | 10.0 | 2.5 | 2.0 |",
    ]


def test_the_result_files_of_the_operator_have_two_allocators_and_the_same_cases():
    runs = [benchmarks.load(name) for name in ("propagate_cpu.json", "propagate_cpu_tcmalloc.json")]
    assert [run["machine"]["allocator"] for run in runs] == ["glibc", "tcmalloc"]
    measured = [
        [(r["case"], r["pass"]) for r in benchmarks.finished(run["rows"], provider="native")] for run in runs
    ]
    assert measured[0] == measured[1] == measured_cases()


def measured_cases():
    cases = [parse_case(text) for text in CASES]
    return [(str(case), name) for _ in ("float32", "bfloat16") for case in cases for name in case.passes]
