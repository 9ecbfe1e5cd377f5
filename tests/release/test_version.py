"""The version is defined in a single place."""

import re
from pathlib import Path

import spn

ROOT = Path(__file__).parents[2]


def test_the_version_is_well_formed():
    assert re.fullmatch(r"\d+\.\d+\.\d+(\.dev\d+|rc\d+)?", spn.__version__)


def test_only_one_file_contains_it():
    files = [
        ROOT / "pyproject.toml",
        ROOT / "setup.py",
        ROOT / "docs" / "conf.py",
        *(ROOT / "spn").glob("*.py"),
    ]
    assert [file.name for file in files if spn.__version__ in file.read_text()] == ["_version.py"]


def test_the_changelog_contains_it():
    assert f"## [{spn.__version__}]" in (ROOT / "CHANGELOG.md").read_text()
