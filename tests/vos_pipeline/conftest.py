"""Shared fixtures: a synthetic DAVIS root, and a pipeline that repeats the first mask."""

from types import SimpleNamespace

import pytest
import tiny

from vos_pipeline import __main__ as cli
from vos_pipeline import pipeline
from vos_pipeline.data import make_clips, write_labels
from vos_pipeline.pipeline import STAGES, RunFolder, RunResult, stages
from vos_pipeline.pipeline.stage_names import FINAL
from vos_pipeline.settings import PRESETS


@pytest.fixture(scope="session")
def clips_root(tmp_path_factory):
    root = tmp_path_factory.mktemp("davis")
    make_clips(root, clips=2, frames=5, size=(64, 96))
    make_clips(root, clips=1, frames=3, size=(64, 96), set_name="train")
    return root


@pytest.fixture
def fake_run(monkeypatch):
    """Replace the pipeline by one whose stages all repeat the first mask."""
    calls = []

    def run(data_root, sequences, out, **options):
        calls.append(SimpleNamespace(data_root=data_root, sequences=sequences, out=out, **options))
        label_dirs = RunFolder(out).label_dirs
        for folder in label_dirs.values():
            for sequence in sequences:
                for path in sequence.frame_paths:
                    write_labels(folder / sequence.name / f"{path.stem}.png", sequence.read_mask(0))
        final = FINAL[options["preset"].filter]
        return RunResult(label_dirs, dict.fromkeys(STAGES, 0.25), sequences, final)

    monkeypatch.setattr(pipeline, "run", run)
    return calls


@pytest.fixture
def tiny_preset(monkeypatch):
    """Register a preset that runs in seconds, without the SPN."""
    monkeypatch.setitem(PRESETS, "tiny", tiny.TINY)
    monkeypatch.setattr(stages, "load_refiner", lambda name, device: tiny.Unrefined())


@pytest.fixture
def tiny_root(tmp_path):
    """A DAVIS root whose val set has the sequences single (one object) and pair (two objects)."""
    root = tiny.write_root(tmp_path / "davis")
    (root / "ImageSets/2017/val.txt").write_text("single\npair\n")
    return root


@pytest.fixture
def fails(capsys):
    """Run a command that must fail and return its error: the last line on stderr, after progress bars."""

    def run(argv, code=1):
        assert cli.main([str(a) for a in argv]) == code
        captured = capsys.readouterr()
        assert "Traceback" not in captured.err
        lines = [line for line in captured.err.splitlines() if line.startswith("error:")]
        if code == 1:
            assert len(lines) == 1 and captured.err.splitlines()[-1] == lines[0]
            return lines[0]
        return captured.err

    return run
