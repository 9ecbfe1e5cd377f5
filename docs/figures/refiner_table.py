"""Puts the figures of benchmarks/results/refine*.json into docs/refiner.md, between marks.

python -m docs.figures.refiner_table
"""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks.tables import markdown

from .marks import between_marks

ROOT = Path(__file__).parents[2]
RECORD = ROOT / "benchmarks/results/refine_quality.json"
TIMES = ROOT / "benchmarks/results/refiner_times.json"
PAGE = ROOT / "docs/refiner.md"
KINDS = {"1/16": "1/16 of the resolution", "1/32": "1/32", "predictions": "predictions of a network"}


def table(record: dict) -> str:
    """Markdown: a row a method, J, F and F2 for each kind of coarse mask, seconds a frame; the best of each bold."""
    means = {(r["kind"], r["method"]): r for r in record["table"] if r["sequence"] == "mean"}
    methods = list(dict.fromkeys(method for _, method in means))
    columns = [(kind, m) for kind in KINDS if (kind, methods[0]) in means for m in ("J", "F", "F2")]
    best = {(k, m): max(round(means[k, method][m], 3) for method in methods) for k, m in columns}
    heads = [f"{KINDS[kind]}: J" if m == "J" else m for kind, m in columns]
    rows = []
    for method in methods:
        cells = [_cell(means[kind, method][m], best[kind, m]) for kind, m in columns]
        seconds = min(kind["seconds"][method] for kind in record["kinds"].values())
        rows.append([method, *cells, f"{seconds:.2f}" if seconds >= 0.005 else "0"])
    return markdown(["", *heads, "s a frame"], rows, words=1)


def _cell(value: float, best: float) -> str:
    text = f"{value:.3f}"
    return f"**{text}**" if round(value, 3) == best else text


def times(record: dict) -> str:
    """Markdown: a row for each number of objects and each way, seconds a frame and the share of each kind of work."""
    kinds = [name for name in record["rows"][0] if name.endswith(", ms")]
    lines = []
    for row in record["rows"]:
        total = sum(row[kind] for kind in kinds)
        shares = (f"{row[kind] / total:.0%}" for kind in kinds)
        lines.append([row["objects"], row["way"], f"{row['seconds']:.2f}", *shares])
    header = ("objects", "", "s a frame", *(kind.removesuffix(", ms") for kind in kinds))
    facts = record["machine"]
    where = f"{facts['cpu']}, {facts['threads']} threads, torch {facts['torch']}, masks: {facts['masks']}."
    return f"{markdown(header, lines, words=2)}\n\n{where}"


def filled(page: str, quality: dict, speed: dict) -> str:
    """The page with the tables of these records between the marks."""
    page = between_marks(page, "refine_table", table(quality))
    return between_marks(page, "refiner_times", times(speed))


if __name__ == "__main__":
    records = (json.loads(file.read_text()) for file in (RECORD, TIMES))
    PAGE.write_text(filled(PAGE.read_text(), *records))
