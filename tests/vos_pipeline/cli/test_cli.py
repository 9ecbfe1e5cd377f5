"""Command line: help, usage errors, exit codes, errors in one line."""

import errno
import re
import subprocess
import sys

import pytest

import spn
import vos_pipeline
from vos_pipeline import __main__ as cli
from vos_pipeline import pipeline
from vos_pipeline.data import load_davis, read_labels, write_labels
from vos_pipeline.errors import PipelineError
from vos_pipeline.settings import SMALLEST_TILE

NETS = "--preset --device --precision --compile --shorten --resume --overwrite"
RUN = f"{NETS} --refiner --filter"
COMMANDS = {
    "": "--version demo davis segment refine export tables train evaluate",
    "demo": f"--out {RUN}",
    "davis": f"--data --out --year --set --sequences --train-sets {RUN}",
    "segment": f"VIDEO_OR_FRAMES --mask --first-frame --out --train-data --train-sets {RUN}",
    "refine": "--frames --masks --out --masks-hold --refiner --filter --no-craf --tile --device --resume --overwrite",
    "export": "--onnx --refiner --opset --overwrite",
    "tables": f"models ablation timing challenge --data --out --year --set --sequences --train-sets {RUN}",
    "train": "foreground spn",
    "train foreground": f"--data --out --year --set --sequences {NETS}",
    "train spn": "--preset --out --images --masks --photos --voc --sbd --download --fcn --coarse-masks --init "
    "--guidance --vgg-weights --form --convex --precision --steps --batch --seed --size --learning-rate "
    "--boundary-weight --checkpoint-every --workers --device --resume --overwrite",
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


def test_help_shows_the_defaults(capsys):
    assert cli.main(["train", "spn", "--help"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "side of the crops; 256 with --voc (default: 160; 256 with preset paper)" in text
    assert "extra weight near boundaries; 0 with --voc (default: 3.0; 0.0 with preset paper)" in text
    assert "guidance network (default: lite; vgg16 with preset paper)" in text
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
def test_wrong_usage_exits_with_2(fails, argv):
    assert re.fullmatch(r"error: .* \(spn-vos.* --help lists the options\)\n", fails(argv, code=2))


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


def test_the_module_returns_the_exit_code():
    for argv, code in ((["--help"], 0), (["evaluate", "--data", "/none", "--results", "/none"], 1), ([], 2)):
        result = subprocess.run([sys.executable, "-m", "vos_pipeline", *argv], capture_output=True, text=True)
        assert result.returncode == code, result.stderr


TRAIN = ["train", "spn", "--out", "OUT"]
REFINE = ["refine", "--frames", "f", "--masks", "m", "--out", "OUT"]
DAVIS = ["davis", "--data", "d", "--out", "OUT"]


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        ([*TRAIN, "--batch", "0"], "argument --batch: must be a whole number from 1 to 65536, got '0'"),
        (
            [*TRAIN, "--steps", "-3"],
            "argument --steps: must be a whole number from 1 to 1000000000, got '-3'",
        ),
        ([*TRAIN, "--size", "1"], "argument --size: must be a whole number from 32 to 4096, got '1'"),
        ([*TRAIN, "--workers", "-1"], "argument --workers: must be a whole number from 0 to 1024, got '-1'"),
        (
            [*TRAIN, "--seed", "-1"],
            "argument --seed: must be a whole number from 0 to 9223372036854775807, got",
        ),
        ([*TRAIN, "--steps", "1.5"], "argument --steps: must be a whole number from 1"),
        ([*TRAIN, "--learning-rate", "nan"], "argument --learning-rate: must be a number > 0, got 'nan'"),
        ([*TRAIN, "--learning-rate", "inf"], "argument --learning-rate: must be a number > 0, got 'inf'"),
        ([*TRAIN, "--learning-rate", "0"], "argument --learning-rate: must be a number > 0, got '0'"),
        ([*TRAIN, "--boundary-weight", "-1"], "argument --boundary-weight: must be a number >= 0, got '-1'"),
        (
            [*TRAIN, "--init", "none.pt"],
            "argument --init: must be 'lite' or an existing file, got 'none.pt'",
        ),
        ([*TRAIN, "--fcn", "none.pt"], "argument --fcn: must be 'coco' or an existing file, got 'none.pt'"),
        (
            [*TRAIN, "--vgg-weights", "x"],
            "argument --vgg-weights: must be 'imagenet', 'none' or an existing file",
        ),
        ([*TRAIN, "--guidance", "x"], "argument --guidance: invalid choice: 'x'"),
        (
            [*REFINE, "--tile", "100"],
            "argument --tile: must be a whole number from 256 to 1048576, got '100'",
        ),
        (
            [*REFINE, "--refiner", "large"],
            "argument --refiner/--weights: must be 'lite' or an existing file, got 'large'",
        ),
        ([*DAVIS, "--preset", "huge"], "argument --preset: invalid choice: 'huge' (choose from "),
        *(
            (
                [*DAVIS, "--device", name],
                f"argument --device: must be auto, cpu, cuda or cuda:N, got '{name}'",
            )
            for name in ("mps", "xpu", "tpu9000", "cuda:", "cuda:-1", "meta", "")
        ),
        (
            [*DAVIS, "--set", "../val"],
            "argument --set/--sets: must be SET or YEAR/SET such as val or 2016/val, got '../val'",
        ),
        ([*DAVIS, "--year", ".."], "argument --year: must be a plain name, got '..'"),
        ([*DAVIS, "--out", ""], "argument --out: must be a path, got ''"),
        ([*DAVIS, "--out", "a\0b"], "argument --out: must be a path, got 'a\\x00b'"),
        (
            [*DAVIS, "--data", "caf\udce9"],
            "argument --data: must be a name in UTF-8, got caf\\xe9: rename it",
        ),
        ([*DAVIS, "--resume", "--overwrite"], "argument --overwrite: not allowed with argument --resume"),
        (
            ["tables", "timing", "--data", "d", "--out", "OUT", "--set", "a/b/c"],
            "argument --set/--sets: must be SET or YEAR/SET such as val or 2016/val, got 'a/b/c'",
        ),
        ([*DAVIS, "--refiner", "none.pt"], "argument --refiner: must be 'lite' or an existing file"),
        ([*DAVIS, "--shorten", "0"], "argument --shorten: must be a whole number from 1"),
    ],
)
def test_the_parser_checks_every_value(fails, tmp_path, monkeypatch, argv, expected):
    monkeypatch.chdir(tmp_path)
    assert expected in fails(argv, code=2)
    assert not list(tmp_path.iterdir())


def test_the_smallest_tile_is_that_of_the_refiner():
    guidance = spn.LiteGuidance((1, 1, 1, 1))
    spn.SPNRefiner(guidance, tile=SMALLEST_TILE)
    with pytest.raises(ValueError, match="tile"):
        spn.SPNRefiner(guidance, tile=SMALLEST_TILE - 1)


# --- errors -------------------------------------------------------------------------------------------------


def test_a_user_error_is_one_line(fails, tmp_path):
    assert "is not a DAVIS root" in fails(["davis", "--data", tmp_path, "--out", tmp_path])
    assert "no such file" in fails(["segment", tmp_path / "v.mp4", "--mask", "m.png", "--out", tmp_path])
    assert not list(tmp_path.iterdir())


def test_a_bad_device_is_one_line(fails, clips_root, tmp_path):
    import torch

    if not torch.cuda.is_available():
        why = fails(["davis", "--data", clips_root, "--out", tmp_path, "--device", "cuda"])
        assert "no GPU for device 'cuda'" in why and "use device 'cpu'" in why


@pytest.mark.parametrize(
    ("raised", "why"),
    [
        (PipelineError("two\nlines"), "error: two lines"),
        (KeyboardInterrupt(), "error: interrupted: finished work is kept, --resume continues it"),
        (
            PermissionError(13, "Permission denied", "/x"),
            "error: /x: permission denied",
        ),
        (
            OSError(errno.ENOSPC, "No space left on device", "/x"),
            "error: the disk is full, free some space (/x: no space left on device): finished work is kept, "
            "--resume continues it",
        ),
        (OSError("no number"), "error: no number"),
        (MemoryError(), "error: out of memory"),
        (
            RuntimeError("CUDA out of memory. Tried"),
            "error: the device ran out of memory: choose --preset small",
        ),
    ],
)
def test_an_error_in_a_run_is_one_line(monkeypatch, fails, clips_root, tmp_path, raised, why):
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


def test_a_missing_device_is_named(fails, clips_root, tmp_path, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    why = fails(["davis", "--data", clips_root, "--out", tmp_path / "out", "--device", "cuda:7"])
    assert why == "error: no device cuda:7: this machine has 2, from cuda:0 to cuda:1"
    assert not (tmp_path / "out").exists()


WITHOUT = """
import sys

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == {module!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Missing())
from vos_pipeline.__main__ import main
sys.exit(main({argv!r}))
"""


@pytest.mark.parametrize("module", ["numpy", "cv2", "PIL", "av", "scipy", "tqdm"])
@pytest.mark.parametrize("command", ["segment x --mask y --out z", "evaluate --data x --results y"])
def test_without_the_extra_one_line_names_it(tmp_path, module, command):
    code = WITHOUT.format(module=module, argv=command.split())
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert result.returncode == 1
    # A command does not report a module that it does not need.
    assert re.fullmatch(
        rf"error: ({module}\S* is not installed: run pip install 'spatial-propagation\[vos\]' .*|x: .*)\n",
        result.stderr,
    )


def test_a_missing_module_of_the_package_is_a_defect(monkeypatch, clips_root, tmp_path):
    def run(*args, **options):
        raise ModuleNotFoundError("No module named 'vos_pipeline.none'", name="vos_pipeline.none")

    monkeypatch.setattr(pipeline, "run", run)
    with pytest.raises(ModuleNotFoundError):
        cli.main(["davis", "--data", str(clips_root), "--out", str(tmp_path)])


def test_version(capsys):
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"spn-vos {spn.__version__}\n"
    assert vos_pipeline.__version__ == spn.__version__
    with pytest.raises(AttributeError, match="nothing"):
        _ = vos_pipeline.nothing
