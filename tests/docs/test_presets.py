"""The documentation shows the constants of vos_pipeline/settings/presets.py and the results of the paper."""

import re
from pathlib import Path

import pytest

from vos_pipeline.pipeline import paper_figures
from vos_pipeline.settings import PRESETS, FlowFilterParameters

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "pipeline.md").read_text()
RESULTS = (DOCS / "pipeline_results.md").read_text()
HEADER, *ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in PAGE.partition("## Presets")[2].split("\n\n")[1].splitlines()
]
TABLE = {row[0]: dict(zip(HEADER[1:], row[1:], strict=True)) for row in ROWS}


def numbers(text):
    return [int(number.replace(",", "")) for number in re.findall(r"\d[\d,]*\d", text)]


@pytest.mark.parametrize("name", PRESETS)
def test_steps(name):
    preset = PRESETS[name]
    assert numbers(TABLE["foreground net"][f"`{name}`"]) == [
        preset.foreground.steps,
        preset.first_frames.steps,
    ]
    nets = TABLE["instance nets"][f"`{name}`"]
    assert numbers(nets) == [preset.instance.steps]
    assert {"per-object": "one per object", "per-video": "one per video"}[preset.model] in nets


@pytest.mark.parametrize("name", PRESETS)
def test_working_height(name):
    height = PRESETS[name].height
    assert TABLE["working height"][f"`{name}`"] == ("the frame's" if height is None else str(height))


def test_the_differences_from_the_paper_are_those_of_the_preset():
    page, craf = (DOCS / "differences.md").read_text(), PRESETS["paper"].craf
    chosen = dict(re.findall(r'`(\w+)="(\w+)"`', page))
    assert set(chosen) == {"small_best", "mutual_cover", "gamma_reference", "previous"}
    assert chosen == {name: getattr(craf, name) for name in chosen}
    schedule = PRESETS["paper"].instance
    assert f"| momentum | {schedule.momentum} |" in page and (schedule.weight_decay, "5e-4" in page) == (
        5e-4,
        True,
    )
    assert f"| connectivity | {craf.connectivity} |" in page
    assert (craf.alpha, craf.beta, craf.gamma, craf.delta) == (0.2, 0.9, 0.1, 0.4)
    assert "CRAF with 0.2, 0.9, 0.1 and 0.4" in page


def test_the_challenges_figures():
    section = " ".join(RESULTS.partition("**Table 4**")[2].split("\n#")[0].split())
    figures = [float(number) for number in re.findall(r"(?<!\d)\.\d{3}", section)]
    without, full = paper_figures.CHALLENGE["-CRAF"], paper_figures.CHALLENGE["full"]
    assert figures[:5] == [without.j, without.f, full.j, full.f, full.j_and_f]
    assert tuple(figures[5:]) == paper_figures.CHALLENGE_RANKING


def test_the_description_of_the_flow_filter_has_its_constants():
    section = " ".join(
        PAGE.partition("What the flow filter does")[2].partition("CRAF keeps one region")[0].split()
    )
    flow = FlowFilterParameters()
    assert f"within a distance of {flow.reach} √A" in section
    assert f"at least {flow.other:.0%}".replace("%", " %") in section
    assert (
        (flow.own, flow.missing) == (0.25, 0.5)
        and "less than a quarter" in section
        and "less than half of A" in section
    )
    assert f"make up {flow.complete:.0%} of A".replace("%", " %") in section
    assert f"has {flow.found:.0%} of A".replace("%", " %") in section
    assert {preset.flow for preset in PRESETS.values()} == {flow}
    assert {name: preset.filter for name, preset in PRESETS.items()} == {
        "paper": "craf",
        "small": "flow",
        "demo": "flow",
    }
