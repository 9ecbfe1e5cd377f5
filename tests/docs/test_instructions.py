"""The planner uses the instruction counts of the table in docs/cuda_kernels.md."""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import Path
from statistics import mean

ROOT = Path(__file__).resolve().parents[2]
PASSES = ("forward", "backward", "backward on chip")
DTYPES = ("float32", "bfloat16")
PIECES = ("4", "2", "1")


def test_the_planner_counts_what_the_page_says():
    page = (ROOT / "docs" / "cuda_kernels.md").read_text()
    table = page[page.index("<!-- instructions: begin -->") : page.index("<!-- instructions: end -->")]
    counted = defaultdict(list)
    for row in re.findall(
        r"^\| (\w[^|]*) \| (\w+) \| (\d) \| \w+ \| ([\d.]+) \| ([\d.]+) \|", table, re.MULTILINE
    ):
        counted[row[:3]].append(float(row[3]) + float(row[4]))
    expected = [round(mean(counted[p, d, n])) for p in PASSES for d in DTYPES for n in PIECES]
    source = (ROOT / "csrc" / "cuda" / "cost.h").read_text()
    numbers = re.search(r"kCounted\[3\]\[2\]\[3\] = \{([^;]*)\};", source).group(1)
    assert [int(n) for n in re.findall(r"\d+", numbers)] == expected
