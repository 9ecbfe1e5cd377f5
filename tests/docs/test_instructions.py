"""The instruction counts of docs/cuda_kernels.md are those that the planner uses and docs/cuda.md quotes."""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import Path
from statistics import mean

ROOT = Path(__file__).resolve().parents[2]
PASSES = ("forward", "backward", "backward on chip")
DTYPES = ("float32", "bfloat16")
PIECES = ("4", "2", "1")


def counts() -> dict[tuple[str, ...], int]:
    """(pass, dtype, values per piece) -> instructions, the mean of horizontal and vertical sweeps."""
    page = (ROOT / "docs" / "cuda_kernels.md").read_text()
    table = page[page.index("<!-- instructions: begin -->") : page.index("<!-- instructions: end -->")]
    counted = defaultdict(list)
    for row in re.findall(
        r"^\| (\w[^|]*) \| (\w+) \| (\d) \| \w+ \| ([\d.]+) \| ([\d.]+) \|", table, re.MULTILINE
    ):
        counted[row[:3]].append(float(row[3]) + float(row[4]))
    return {key: round(mean(values)) for key, values in counted.items()}


def test_the_planner_uses_the_counts_of_the_page():
    counted = counts()
    expected = [counted[p, d, n] for p in PASSES for d in DTYPES for n in PIECES]
    source = (ROOT / "csrc" / "cuda" / "cost.h").read_text()
    numbers = re.search(r"kCounted\[3\]\[2\]\[3\] = \{([^;]*)\};", source).group(1)
    assert [int(n) for n in re.findall(r"\d+", numbers)] == expected


def test_the_page_for_users_quotes_the_counts():
    counted, page = counts(), (ROOT / "docs" / "cuda.md").read_text()
    for pieces in PIECES:
        quoted = [counted[p, d, pieces] for d in DTYPES for p in ("forward", "backward")]
        name = "1 value" if pieces == "1" else f"{pieces} values"
        assert f"| {name} | {' | '.join(map(str, quoted))} |" in page
