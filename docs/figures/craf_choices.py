"""Writes docs/_generated/craf_choices.md from benchmarks/results/craf_choices.json.

python -m docs.figures.craf_choices
"""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks.tables import markdown

ROOT = Path(__file__).parents[2]
RECORD = ROOT / "benchmarks" / "results" / "craf_choices.json"
TABLE = ROOT / "docs" / "_generated" / "craf_choices.md"
MEANS = ("J&F", "J", "F")


def table(rows: list[dict]) -> str:
    """A row a choice; one that sets a parameter is set as code."""
    cells = (
        [f"`{row['choice']}`" if " = " in row["choice"] else row["choice"], *(f"{row[m]:.3f}" for m in MEANS)]
        for row in rows
    )
    return markdown(("", *MEANS), cells, words=1) + "\n"


if __name__ == "__main__":
    TABLE.write_text(table(json.loads(RECORD.read_text())["rows"]))
