"""The README: its tables match the result files, its links are valid, its code runs."""

import re
from pathlib import Path

import pytest
import torch

from docs.figures import readme

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


def test_tables_match_the_result_files():
    assert readme.filled(README) == README, "run python -m docs.figures.readme"


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"])
def test_links_are_valid(page):
    links = re.findall(r"\]\(([^)#:]+)(?:#[\w-]+)?\)", (ROOT / page).read_text())
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_code_runs():
    (code,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    names = {
        "image": torch.rand(1, 3, 32, 48),
        "coarse": torch.rand(1, 2, 32, 48),
        "guidance": torch.nn.Conv2d(3, 24, 3, padding=1),
        "x": torch.rand(1, 6, 32, 48),
        "G": 2,
    }
    exec(code, names)
    assert names["mask"].shape == (1, 2, 32, 48) and names["y"].shape == (1, 6, 32, 48)
