"""Every command of the pipeline in README.md runs, in the order and with the options written there, on small data."""

import re
import shlex
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import tiny

from vos_pipeline import __main__ as cli
from vos_pipeline.settings import PRESETS

README = (Path(__file__).parents[3] / "README.md").read_text()
COMMANDS = re.findall(r"^ +python -m vos_pipeline (.*)", README, re.MULTILINE)


@pytest.fixture
def folder(tmp_path, clips_root, monkeypatch):
    """The files that the README names; the default preset trains for seconds."""
    sequence = "val-00"
    frames, masks = (clips_root / kind / "480p" / sequence for kind in ("JPEGImages", "Annotations"))
    shutil.copytree(clips_root, tmp_path / "DAVIS")
    shutil.copytree(frames, tmp_path / "VIDEO_OR_FRAMES")
    shutil.copy(masks / "00000.png", tmp_path / "FIRST.png")
    shutil.copytree(frames, tmp_path / "FRAMES")
    shutil.copytree(masks, tmp_path / "MASKS")
    monkeypatch.setitem(PRESETS, "small", replace(tiny.TINY, name="small"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_every_command_runs(folder, capsys):
    assert {command.split()[0] for command in COMMANDS} == {
        "segment",
        "refine",
        "davis",
        "evaluate",
        "export",
    }
    for command in COMMANDS:
        # "DIR" stands for three folders of the user.
        command = command.replace("--frames DIR", "--frames FRAMES").replace("--masks DIR", "--masks MASKS")
        command = command.replace("--out DIR", "--out REFINED")
        if "--out OUT" in command:
            shutil.rmtree("OUT", ignore_errors=True)
        assert cli.main(shlex.split(command, comments=True)) == 0, capsys.readouterr().err
    assert Path("OUT/report.html").is_file() and Path("refiner.onnx").is_file()
    assert len(list(Path("REFINED").rglob("*.png"))) == 5
