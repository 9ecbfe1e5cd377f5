"""Write the measurements of benchmarks/results/onnx_times.json into docs/deployment.md, between marks.

python -m docs.figures.deployment
"""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks.tables import markdown

from .marks import between_marks

ROOT = Path(__file__).parents[2]
RECORD = ROOT / "benchmarks/results/onnx_times.json"
PAGE = ROOT / "docs/deployment.md"


def times(record: dict) -> str:
    """Return a Markdown table: one row per case, milliseconds in torch and in onnxruntime, and their ratio."""
    by_case: dict[str, dict[str, dict]] = {}
    for row in record["rows"]:
        by_case.setdefault(row["what"], {})[row["way"]] = row
    lines = []
    for what, ways in by_case.items():
        milliseconds = (
            f"{ways[way]['ms']:.1f}" if way in ways else ""
            for way in ("torch, windows", "torch", "onnxruntime")
        )
        lines.append([what, *milliseconds, f"{ways['onnxruntime']['ratio_to_torch']:.1f}"])
    header = (
        "case",
        "torch, windows: ms",
        "torch, whole frames: ms",
        "onnxruntime: ms",
        "onnxruntime × torch",
    )
    facts = record["machine"]
    versions = f"torch {facts['torch']}, onnxruntime {facts['onnxruntime']}"
    legend = (
        'Milliseconds of processor time per call. "torch, windows" is the refiner as it runs by default.\n'
        "The last column is the runtime of onnxruntime relative to torch in whole frames."
    )
    return f"{legend}\n\n{markdown(header, lines, words=1)}\n\n{facts['cpu']}, one thread, {versions}."


def nodes(record: dict) -> str:
    """Return one sentence: the size of the file and its number of nodes."""
    facts = record["machine"]
    counts = facts["nodes"]
    named = ", ".join(
        f"{count} {kind}" for kind, count in counts.items() if kind in ("Conv", "Scan", "Resize")
    )
    size, total = facts["file, bytes"] / 1e6, sum(counts.values())
    return f"The file takes {size:.1f} MB and has {total} nodes, including {named}."


def filled(page: str, record: dict) -> str:
    """Return the page with the measurements of this record between the marks."""
    page = between_marks(page, "onnx_times", times(record))
    return between_marks(page, "onnx_nodes", nodes(record))


if __name__ == "__main__":
    PAGE.write_text(filled(PAGE.read_text(), json.loads(RECORD.read_text())))
