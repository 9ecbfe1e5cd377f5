"""The README: its tables match the result files, its links are valid, its code runs."""

import re
from pathlib import Path

import pytest

from docs.figures import readme

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


def test_tables_match_the_result_files():
    assert readme.filled(README) == README, "run python -m docs.figures.readme"


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"])
def test_links_are_valid(page):
    links = re.findall(r"\]\(([^)#:]+)(?:#[\w-]+)?\)", (ROOT / page).read_text())
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_code_runs_as_it_stands():
    blocks = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    names = {}
    for block in blocks:
        exec(block, names)
    assert names["refined"].shape == names["coarse"].shape == (1, 1, 512, 512)
    assert names["y"].shape == names["x"].shape
    # The background beside the head is removed, the face stays.
    assert (
        names["coarse"][..., 40, 165] == 1
        and names["refined"][..., 40, 165] < 0.5 < names["refined"][..., 130, 225]
    )
