"""Write measurements from benchmarks/results into README.md, between marks.

python -m docs.figures.readme
"""

from __future__ import annotations

import json
from itertools import product
from pathlib import Path

from benchmarks.tables import markdown

from .marks import between_marks

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks" / "results"
KINDS = {
    "1/16": "ground truth at 1/16 of the resolution",
    "1/32": "ground truth at 1/32 of the resolution",
    "predictions": "predictions of OSVOS",
}
CASES = ("1x32x512x512", "1x1x480x854", "1x32x128x128", "1x32x256x256")
METHODS = {"coarse": "not refined", "SPN refiner": "`SPNRefiner`"}


def refinement(unseen: dict, seen: dict) -> str:
    """Return a table of J and F2: coarse masks, the best baseline and the refiner, beginning with unseen data."""
    rows = _refinement_rows("DAVIS 2016 train", unseen) + _refinement_rows("DAVIS val", seen)
    return markdown(("sequences", "coarse mask", "method", "J", "F2"), rows)


def _refinement_rows(data: str, record: dict) -> list[tuple[str, ...]]:
    means: dict[str, dict[str, dict]] = {}
    shown = ""
    for row in record["table"]:
        if row["sequence"] == "mean":
            means.setdefault(row["kind"], {})[row["method"]] = row
    lines = []
    for kind, name in KINDS.items():
        of_kind = means.get(kind, {})
        count = len({row["sequence"] for row in record["table"] if row["kind"] == kind} - {"mean"})
        label = f"{count} of {data}"
        sequences, shown = "" if label == shown else label, label
        baselines = {method: row for method, row in of_kind.items() if method not in METHODS}
        best = max(baselines, key=lambda method: baselines[method]["J"], default=None)
        for method, row in of_kind.items():
            if method in METHODS or method == best:
                cells = (METHODS.get(method, method), f"{row['J']:.3f}", f"{row['F2']:.3f}")
                lines.append((sequences, name, *cells))
                sequences = name = ""
    return lines


def speed(record: dict) -> str:
    """Return a table for float32: milliseconds, the ratios to memory traffic, and relative runtimes of the rivals."""
    rows = {
        (r["case"], r["pass"], r["provider"]): r
        for r in record["rows"]
        if r["dtype"] == "float32" and "median_ms" in r
    }
    lines = []
    for case, name in product(CASES, ("forward", "both")):
        row = rows[case, name, "native"]
        others = [rows.get((case, name, other)) for other in ("eager", "numba")]
        cells = [
            case.replace("x", " x ") if name == "forward" else "",
            {"forward": "forward", "both": "forward + backward"}[name],
            f"{row['median_ms']:.1f}",
            f"{row['ratio_to_copy']:.1f}",
            f"{row['ratio_to_fresh']:.1f}",
            *(f"{other['ratio_to_native']:.0f} x" if other else "" for other in others),
        ]
        lines.append(cells)
    header = ("N x C x H x W, float32", "pass", "ms", "x copy", "x fresh memory", "eager PyTorch", "numba")
    table = markdown(header, lines)
    facts = record["machine"]
    return f"{table}\n\n{facts['cpu']}, {facts['threads']} threads, torch {facts['torch']}, {facts['allocator']}."


FIGURES = {
    "refine": (refinement, "refine_quality_train.json", "refine_quality.json"),
    "speed": (speed, "propagate_cpu.json"),
}


def filled(page: str) -> str:
    """Return the page with the current figures between its marks."""
    for name, (table, *files) in FIGURES.items():
        page = between_marks(page, name, table(*(json.loads((RESULTS / file).read_text()) for file in files)))
    return page


if __name__ == "__main__":
    readme = ROOT / "README.md"
    readme.write_text(filled(readme.read_text()))
