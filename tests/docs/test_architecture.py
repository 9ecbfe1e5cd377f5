"""docs/architecture.md and the tree agree: every file it names exists, and every source file is named."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "architecture.md"
PACKAGES = ("csrc", "spn", "vos_pipeline", "benchmarks")
SUFFIXES = {".py", ".h", ".cpp", ".cu", ".cuh", ".sh", ".html"}

NAMED = sorted(set(re.findall(rf"`((?:{'|'.join(PACKAGES)}|docs|tests)/[\w./-]+)`", PAGE.read_text())))
SOURCES = sorted(
    str(path.relative_to(ROOT))
    for package in PACKAGES
    for path in (ROOT / package).rglob("*")
    if path.suffix in SUFFIXES and path.stat().st_size > 0
)


def test_there_is_something_to_compare():
    assert len(NAMED) > 50 and len(SOURCES) > 50


@pytest.mark.parametrize("name", NAMED)
def test_what_the_page_names_exists(name):
    assert (ROOT / name).exists(), (
        f"docs/architecture.md names {name}, which is gone: remove or rename it there"
    )


@pytest.mark.parametrize("name", SOURCES)
def test_every_source_file_is_named(name):
    first = next((line for line in (ROOT / name).read_text().splitlines() if len(line.split()) > 3), "")
    assert name in NAMED, (
        f"docs/architecture.md does not name {name}: add a row  | `{name}` | the one thing it knows |  "
        f"(the file begins: {first.strip()!r})"
    )


@pytest.mark.parametrize(
    ("name", "file"),
    [
        (name, file)
        for names, file in re.findall(r"((?:`\w+`(?:, )?)+) in `([\w./]+)`", PAGE.read_text())
        for name in re.findall(r"\w+", names)
    ],
)
def test_functions_are_where_the_page_says(name, file):
    assert re.search(rf"\b{name}\b", (ROOT / file).read_text()), f"no {name} in {file}"
