"""Write the measurements of benchmarks/results/refine*.json into docs/refiner.md, between marks.

python -m docs.figures.refiner_table
"""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks.tables import markdown

from .marks import between_marks

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks/results"
RECORDS = tuple(
    RESULTS / f"{name}.json" for name in ("refine_quality", "refine_quality_train", "refiner_times")
)
PAGE = ROOT / "docs/refiner.md"
KINDS = {
    "1/16": "1/16 of the resolution",
    "1/32": "1/32 of the resolution",
    "predictions": "predictions of a network",
}
NAMES = {"coarse": "not refined"}
OPERATORS = {"operator": "propagation", "rest": "other operators"}


def table(record: dict, with_seconds: bool = True) -> str:
    """Return a Markdown table: one column per method; J, F and F2 of each kind of coarse mask, the best in bold.

    With ``with_seconds``, the last row holds seconds per frame.
    """
    means = {(r["kind"], r["method"]): r for r in record["table"] if r["sequence"] == "mean"}
    methods = list(dict.fromkeys(method for _, method in means))
    rows = []
    for kind in KINDS:
        for measure in ("J", "F", "F2") if (kind, methods[0]) in means else ():
            values = [means[kind, method][measure] for method in methods]
            best = max(round(value, 3) for value in values)
            rows.append(
                [KINDS[kind] if measure == "J" else "", measure, *(_cell(value, best) for value in values)]
            )
    if with_seconds:
        fastest = [min(kind["seconds"][method] for kind in record["kinds"].values()) for method in methods]
        rows.append(["seconds per frame", "", *map(_seconds, fastest)])
    header = ("coarse mask", "measure", *(NAMES.get(method, method) for method in methods))
    return markdown(header, rows, words=2)


def _cell(value: float, best: float) -> str:
    text = f"{value:.3f}"
    return f"**{text}**" if round(value, 3) == best else text


def _seconds(seconds: float) -> str:
    if seconds < 1e-6:
        return "0"
    return f"{seconds:.2f}" if seconds >= 0.005 else "< 0.01"


def times(record: dict) -> str:
    """Return a Markdown table: seconds per frame and share of each kind of work, per number of objects and way."""
    kinds = [name for name in record["rows"][0] if name.endswith(", ms")]
    lines = []
    for row in record["rows"]:
        total = sum(row[kind] for kind in kinds)
        shares = (f"{row[kind] / total:.0%}" for kind in kinds)
        lines.append([row["objects"], row["way"], f"{row['seconds']:.2f}", *shares])
    names = (kind.removesuffix(", ms") for kind in kinds)
    header = ("objects", "evaluated in", "seconds per frame", *(OPERATORS.get(name, name) for name in names))
    facts = record["machine"]
    where = f"{facts['cpu']}, {facts['threads']} threads, torch {facts['torch']}, masks: {facts['masks']}."
    return f"{markdown(header, lines, words=2)}\n\n{where}"


def filled(page: str, quality: dict, train_quality: dict, speed: dict) -> str:
    """Return the page with the tables of these records between the marks."""
    legend = "The last row is the runtime. The best value of each other row is bold."
    page = between_marks(page, "refine_table", f"{legend}\n\n{table(quality)}")
    page = between_marks(page, "refine_table_train", table(train_quality, with_seconds=False))
    return between_marks(page, "refiner_times", times(speed))


if __name__ == "__main__":
    records = (json.loads(file.read_text()) for file in RECORDS)
    PAGE.write_text(filled(PAGE.read_text(), *records))
