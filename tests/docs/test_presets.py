"""The pipeline page's table of presets holds the constants of vos_pipeline/settings/presets.py."""

import re
from pathlib import Path

import pytest

from vos_pipeline.settings import PRESETS

PAGE = (Path(__file__).parents[2] / "docs" / "pipeline.md").read_text()
HEADER, *ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in PAGE.partition("## Presets")[2].split("\n\n")[1].splitlines()
]
TABLE = {row[0]: dict(zip(HEADER[1:], row[1:], strict=True)) for row in ROWS}


def numbers(text):
    return [int(number.replace(" ", "")) for number in re.findall(r"\d[\d ]*\d", text)]


@pytest.mark.parametrize("name", PRESETS)
def test_steps(name):
    preset = PRESETS[name]
    assert numbers(TABLE["foreground net"][f"`{name}`"]) == [
        preset.foreground.steps,
        preset.first_frames.steps,
    ]
    nets = TABLE["instance nets"][f"`{name}`"]
    assert numbers(nets) == [preset.instance.steps]
    assert {"per-object": "one an object", "per-video": "one a video"}[preset.model] in nets


@pytest.mark.parametrize("name", PRESETS)
def test_working_height(name):
    height = PRESETS[name].height
    assert TABLE["working height"][f"`{name}`"] == ("the frame's" if height is None else str(height))
