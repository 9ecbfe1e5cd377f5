"""Write the tables of the temporal filters in docs/_generated from benchmarks/results/temporal_filters*.json.

python -m docs.figures.temporal_filters
"""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks.tables import markdown

ROOT = Path(__file__).parents[2]
RECORDS = [ROOT / "benchmarks" / "results" / f"temporal_filters{part}.json" for part in ("", "_sparse")]
TIMES = ROOT / "benchmarks" / "results" / "filter_times.json"
PAGES = ROOT / "docs" / "_generated"
FILTERS = ("no filter", "CRAF", "flow filter")
# How the tables name the sources of scores; other names are shown as they are.
SOURCES = {
    "nets": "instance nets",
    "nets of the first frame alone, every fifth frame": "instance nets, first frame only; every fifth frame",
}


def rows() -> list[dict]:
    """Return the rows of all records: sequences with every frame, and sequences with every fifth frame."""
    return [row for record in RECORDS for row in json.loads(record.read_text())["rows"]]


def of_sequences(rows: list[dict]) -> str:
    """Return a table of J&F: one row per source of scores and sequence, one column per filter."""
    found = {(row["scores"], row["choice"]): row for row in rows}
    lines: list[list[str]] = []
    for source in dict.fromkeys(row["scores"] for row in rows):
        chosen = [found[source, name] for name in FILTERS]
        for sequence in chosen[0]["J&F of sequences"]:
            values = (row["J&F of sequences"][sequence] for row in chosen)
            first = (
                SOURCES.get(source, source) if sequence == next(iter(chosen[0]["J&F of sequences"])) else ""
            )
            lines.append([first, sequence, *(f"{value:.3f}" for value in values)])
        lines.append(["", "mean over objects", *(f"{row['J&F']:.3f}" for row in chosen)])
    return markdown(("source of scores", "sequence", *FILTERS), lines, words=2) + "\n"


def of_choices(rows: list[dict], name: str) -> str:
    """Return a table of J&F: one row per choice of a filter's constants, one column per source of scores."""
    sources = list(dict.fromkeys(row["scores"] for row in rows))
    found = {(row["scores"], row["choice"]): row for row in rows}
    choices = [c for c in dict.fromkeys(row["choice"] for row in rows) if c.startswith(name)]
    lines = []
    for choice in choices:
        shown = choice.removeprefix(name).lstrip(", ") or "none (default)"
        shown = f"`{shown}`" if " = " in shown else shown
        lines.append([shown, *(f"{found[source, choice]['J&F']:.3f}" for source in sources)])
    header = ("changed parameter", *(f"J&F, {SOURCES.get(source, source)}" for source in sources))
    return markdown(header, lines, words=1) + "\n"


def of_times(rows: list[dict]) -> str:
    """Return a table of milliseconds per frame for each number of objects."""
    names = ("flow filter, ms", "CRAF, ms")
    header = ("objects", *(f"{name} per frame" for name in names))
    lines = ([str(row["objects"]), *(f"{row[name]:.0f}" for name in names)] for row in rows)
    return markdown(header, lines, words=0) + "\n"


def tables(rows: list[dict]) -> dict[str, str]:
    """Return each table by the name of its file."""
    return {
        "filter_times.md": of_times(json.loads(TIMES.read_text())["rows"]),
        "temporal_filters.md": of_sequences(rows),
        "craf_choices.md": of_choices(rows, "CRAF"),
        "flow_choices.md": of_choices(rows, "flow filter"),
    }


if __name__ == "__main__":
    for name, table in tables(rows()).items():
        (PAGES / name).write_text(table)
