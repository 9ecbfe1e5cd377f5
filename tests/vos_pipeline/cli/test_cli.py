"""The command line: usage, exit codes, one line for an error."""

import errno
import re
import subprocess
import sys

import pytest

from vos_pipeline import __main__ as cli
from vos_pipeline import pipeline
from vos_pipeline.data import load_davis, read_labels, write_labels
from vos_pipeline.errors import PipelineError

COMMANDS = {
    "": "demo davis segment refine tables train evaluate",
    "demo": "--out --preset --device --resume",
    "davis": "--data --out --year --set --sequences --preset --device --resume",
    "segment": "VIDEO_OR_FRAMES --mask --first-frame --out --train-data --preset --device --resume",
    "refine": "--frames --masks --out --masks-hold --weights --no-craf --tile --device --resume",
    "tables": "ablation models timing --data --out --sets --sequences --preset --device --precision --compile",
    "train": "foreground spn",
    "train foreground": "--data --out --year --set --sequences --preset --device --resume",
    "train spn": "--out --images --masks --photos --voc --sbd --download --fcn --coarse-masks --init --guidance "
    "--vgg-weights --form --precision --steps --batch --seed --size --learning-rate --boundary-weight --workers "
    "--device --resume",
    "evaluate": "--data --results --year --set --sequences",
}


# --- help and usage -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("command", "words"), COMMANDS.items(), ids=COMMANDS)
def test_help_names_every_command_and_option(capsys, command, words):
    assert cli.main([*command.split(), "--help"]) == 0
    usage, _, text = capsys.readouterr().out.partition("\n\n")
    assert usage.startswith(f"usage: spn-vos {command}".rstrip())
    described = set(re.findall(r"(?:^ +|, |\{|,)([\w.-]+)", text, re.MULTILINE))
    assert set(words.split()) <= described
    options = {word for word in words.split() if word.startswith("--")}
    assert set(re.findall(r"--[\w-]+", usage)) == options


def test_help_says_what_is_taken_by_default(capsys):
    assert cli.main(["train", "spn", "--help"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "side of the crops (default: 160; 256 for VOC)" in text
    assert "extra weight near outlines (default: 3.0; for VOC 0, the paper's loss)" in text
    assert cli.main(["demo", "--help"]) == 0
    assert "paper, small, demo (default: demo)" in capsys.readouterr().out


@pytest.mark.parametrize(
    "argv",
    [
        [],
        ["nonsense"],
        ["davis"],
        ["segment", "x"],
        ["train"],
        ["demo", "--bogus"],
        ["evaluate", "--data", "x"],
    ],
)
def test_wrong_usage_is_2(fails, argv):
    assert "usage:" in fails(argv, code=2)


def test_help_and_evaluate_do_not_import_torch(clips_root, tmp_path):
    for sequence in load_davis(clips_root):
        for path in sequence.mask_paths:
            write_labels(tmp_path / sequence.name / path.name, read_labels(path))
    code = (
        "import sys; from vos_pipeline.__main__ import main; sys.argv[0] = 'spn-vos'\n"
        f"for command in {list(COMMANDS)}: assert main([*command.split(), '--help']) == 0\n"
        "assert not {'torch', 'cv2', 'numpy'} & set(sys.modules)\n"
        f"assert main(['evaluate', '--data', {str(clips_root)!r}, "
        f"'--results', {str(tmp_path)!r}]) == 0\n"
        "assert 'torch' not in sys.modules"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def test_the_module_passes_its_exit_code_on():
    for argv, code in ((["--help"], 0), (["evaluate", "--data", "/none", "--results", "/none"], 1), ([], 2)):
        result = subprocess.run([sys.executable, "-m", "vos_pipeline", *argv], capture_output=True, text=True)
        assert result.returncode == code, result.stderr


# --- errors -------------------------------------------------------------------------------------------------


def test_a_user_error_is_one_line(fails, tmp_path):
    assert "is no DAVIS root" in fails(["davis", "--data", tmp_path, "--out", tmp_path])
    assert "no such file" in fails(["segment", tmp_path / "v.mp4", "--mask", "m.png", "--out", tmp_path])


def test_a_bad_device_is_one_line(fails, clips_root, tmp_path):
    import torch

    assert "no device 'tpu9000'" in fails(
        ["davis", "--data", clips_root, "--out", tmp_path, "--device", "tpu9000"]
    )
    if not torch.cuda.is_available():
        why = fails(["davis", "--data", clips_root, "--out", tmp_path, "--device", "cuda"])
        assert "give --device cpu" in why


@pytest.mark.parametrize(
    ("raised", "why"),
    [
        (PipelineError("two\nlines"), "error: two lines"),
        (KeyboardInterrupt(), "error: interrupted: finished work is kept, --resume goes on with it"),
        (
            PermissionError(13, "Permission denied", "/x"),
            "error: /x: permission denied",
        ),
        (
            OSError(errno.ENOSPC, "No space left on device", "/x"),
            "error: the disk is full, free some space (/x: no space left on device): finished work is kept, "
            "--resume goes on with it",
        ),
        (OSError("no number"), "error: no number"),
        (MemoryError(), "error: out of memory"),
        (
            RuntimeError("CUDA out of memory. Tried"),
            "error: the device ran out of memory: choose --preset small",
        ),
    ],
)
def test_what_goes_wrong_in_a_run_is_one_line(monkeypatch, fails, clips_root, tmp_path, raised, why):
    def run(*args, **options):
        raise raised

    monkeypatch.setattr(pipeline, "run", run)
    assert fails(["davis", "--data", clips_root, "--out", tmp_path]).startswith(why)


def test_a_defect_keeps_its_traceback(monkeypatch, clips_root, tmp_path):
    def run(*args, **options):
        raise RuntimeError("a defect")

    monkeypatch.setattr(pipeline, "run", run)
    with pytest.raises(RuntimeError, match="a defect"):
        cli.main(["davis", "--data", str(clips_root), "--out", str(tmp_path)])


def test_version():
    import spn
    import vos_pipeline

    assert vos_pipeline.__version__ == spn.__version__
    with pytest.raises(AttributeError, match="nothing"):
        _ = vos_pipeline.nothing
