"""Puts measured figures from benchmarks/results into README.md, between the marks there.

python docs/figures/readme_figures.py
"""

from __future__ import annotations

import json
from pathlib import Path

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks" / "results"
BEGIN, END = "<!-- figures: begin -->", "<!-- figures: end -->"
KINDS = {
    "1/16": "the true mask at 1/16 of the resolution",
    "1/32": "the true mask at 1/32",
    "predictions": "a network's predictions (OSVOS)",
}
METHODS = {"coarse": "as it is", "refiner": "`SPNRefiner`", "SPN refiner": "`SPNRefiner`"}


def refinement(record: dict) -> list[str]:
    """J and F2 of coarse masks before and after the refiner, and of the best that else there is."""
    means = {}
    for row in record["table"]:
        if row["sequence"] == "mean":
            means.setdefault(row.get("kind") or row["case"], {})[row["method"]] = row
    lines = ["| coarse mask | | J | F2 |", "|---|---|---|---|"]
    for kind, name in KINDS.items():
        others = {method: row for method, row in means[kind].items() if method not in METHODS}
        best = max(others, key=lambda method: others[method]["J"])
        for method, row in means[kind].items():
            if method in METHODS or method == best:
                cells = (name, METHODS.get(method, method), f"{row['J']:.3f}", f"{row['F2']:.3f}")
                lines.append(f"| {' | '.join(cells)} |")
                name = ""
    return lines


def filled(page: str) -> str:
    """The page with the present figures between its marks."""
    before, rest = page.split(BEGIN)
    lines = refinement(json.loads((RESULTS / "refine_quality.json").read_text()))
    return "\n".join([f"{before}{BEGIN}", *lines, f"{END}{rest.split(END)[1]}"])


if __name__ == "__main__":
    readme = ROOT / "README.md"
    readme.write_text(filled(readme.read_text()))
