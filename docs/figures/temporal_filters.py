"""Writes the tables of filters over time in docs/_generated from benchmarks/results/temporal_filters*.json.

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
MEANS = ("J&F", "J", "F")


def rows() -> list[dict]:
    """Those of all records: the whole sequences, and the ones of which every fifth frame is at hand."""
    return [row for record in RECORDS for row in json.loads(record.read_text())["rows"]]


def of_sequences(rows: list[dict]) -> str:
    """J&F of each sequence with each filter; a line for each source of scores and sequence."""
    found = {(row["scores"], row["choice"]): row for row in rows}
    lines: list[list[str]] = []
    for source in dict.fromkeys(row["scores"] for row in rows):
        chosen = [found[source, name] for name in FILTERS]
        for sequence in chosen[0]["J&F of sequences"]:
            values = (row["J&F of sequences"][sequence] for row in chosen)
            lines.append([source, sequence, *(f"{value:.3f}" for value in values)])
        lines.append([source, "mean over objects", *(f"{row['J&F']:.3f}" for row in chosen)])
    return markdown(("scores of", "sequence", *FILTERS), lines, words=2) + "\n"


def of_choices(rows: list[dict], name: str) -> str:
    """A row for each choice of a filter's constants: J&F from each source of scores."""
    sources = list(dict.fromkeys(row["scores"] for row in rows))
    found = {(row["scores"], row["choice"]): row for row in rows}
    choices = [c for c in dict.fromkeys(row["choice"] for row in rows) if c.startswith(name)]
    lines = []
    for choice in choices:
        shown = choice.removeprefix(name).lstrip(", ") or "as it is"
        shown = f"`{shown}`" if " = " in shown else shown
        lines.append([shown, *(f"{found[source, choice]['J&F']:.3f}" for source in sources)])
    return markdown(("", *(f"J&F, {source}" for source in sources)), lines, words=1) + "\n"


def of_times(rows: list[dict]) -> str:
    """Milliseconds per frame for each number of objects."""
    names = ("flow filter, ms", "CRAF, ms")
    lines = ([str(row["objects"]), *(f"{row[name]:.0f}" for name in names)] for row in rows)
    return markdown(("objects", *names), lines, words=0) + "\n"


def tables(rows: list[dict]) -> dict[str, str]:
    """Name of each page to its table."""
    return {
        "filter_times.md": of_times(json.loads(TIMES.read_text())["rows"]),
        "temporal_filters.md": of_sequences(rows),
        "craf_choices.md": of_choices(rows, "CRAF"),
        "flow_choices.md": of_choices(rows, "flow filter"),
    }


if __name__ == "__main__":
    for name, table in tables(rows()).items():
        (PAGES / name).write_text(table)
