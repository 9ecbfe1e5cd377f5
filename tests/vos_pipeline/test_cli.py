"""The command line: commands, exit codes, one line for an error, and what it leaves behind."""

import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from vos_pipeline import __main__ as cli
from vos_pipeline import pipeline
from vos_pipeline.data import load_davis, read_labels, write_image, write_labels
from vos_pipeline.errors import PipelineError
from vos_pipeline.metrics import Evaluation, score_sequence
from vos_pipeline.synthetic import make_clips

COMMANDS = ("demo", "davis", "segment", "refine", "train", "evaluate")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("davis")
    make_clips(root, clips=2, frames=5, size=(64, 96))
    make_clips(root, clips=1, frames=3, size=(64, 96), set_name="train")
    return root


@pytest.fixture
def fake_run(monkeypatch):
    """A pipeline whose every stage repeats the first mask."""
    calls = []

    def run(data_root, sequences, out, **options):
        calls.append(SimpleNamespace(data_root=data_root, sequences=sequences, out=out, **options))
        label_dirs = {stage: out / "labels" / folder for stage, folder in pipeline.FOLDERS.items()}
        evaluations = dict.fromkeys(pipeline.STAGES)
        for stage, folder in label_dirs.items():
            for sequence in sequences:
                for path in sequence.frame_paths:
                    write_labels(folder / sequence.name / f"{path.stem}.png", sequence.read_mask(0))
            scored = [s for s in sequences if s.has_all_masks]
            if scored:
                objects = {k: v for s in scored for k, v in score_sequence(s, folder).items()}
                evaluations[stage] = Evaluation(objects)
        return pipeline.RunResult(label_dirs, dict.fromkeys(pipeline.STAGES, 0.25), evaluations)

    monkeypatch.setattr(pipeline, "run", run)
    return calls


def fails(capsys, argv, code=1):
    """Run a command that must fail; returns its error: one line, the last on stderr after progress bars."""
    assert cli.main([str(a) for a in argv]) == code
    captured = capsys.readouterr()
    assert "Traceback" not in captured.err
    lines = [line for line in captured.err.splitlines() if line.startswith("error:")]
    if code == 1:
        assert len(lines) == 1 and captured.err.splitlines()[-1] == lines[0]
        return lines[0]
    return captured.err


# --- help and usage -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", [[], *([c] for c in COMMANDS), ["train", "foreground"], ["train", "spn"]])
def test_help(capsys, command):
    assert cli.main([*command, "--help"]) == 0
    text = capsys.readouterr().out
    assert text.startswith("usage: spn-vos")
    if not command:
        assert all(name in text for name in COMMANDS)


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
def test_wrong_usage_is_2(capsys, argv):
    assert "usage:" in fails(capsys, argv, code=2)


def test_help_and_evaluate_do_not_import_torch(root, tmp_path):
    for sequence in load_davis(root):
        for path in sequence.mask_paths:
            write_labels(tmp_path / sequence.name / path.name, read_labels(path))
    code = (
        "import sys; from vos_pipeline.__main__ import main; sys.argv[0] = 'spn-vos'\n"
        f"assert main(['--help']) == 0; assert main(['evaluate', '--data', {str(root)!r}, "
        f"'--results', {str(tmp_path)!r}]) == 0\n"
        "assert 'torch' not in sys.modules"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def test_the_module_passes_its_exit_code_on():
    for argv, code in ((["--help"], 0), (["evaluate", "--data", "/none", "--results", "/none"], 1), ([], 2)):
        result = subprocess.run([sys.executable, "-m", "vos_pipeline", *argv], capture_output=True, text=True)
        assert result.returncode == code, result.stderr


# --- demo, davis, segment -----------------------------------------------------------------------------------


def assert_outputs(out, sequences, text):
    for sequence in sequences:
        for path in sequence.frame_paths:
            assert (out / "overlays" / sequence.name / f"{path.stem}.jpg").is_file()
    page = (out / "report.html").read_text()
    for stage in pipeline.STAGES:
        assert stage in text and stage in page
    assert str(out / "overlays") in text and str(out / "report.html") in text
    assert "0.250" in text


def test_demo(fake_run, tmp_path, capsys):
    assert cli.main(["demo", "--out", str(tmp_path)]) == 0
    (call,) = fake_run
    assert call.preset == "demo" and call.data_root == tmp_path / "clips" and call.train_sequences is None
    assert len(load_davis(tmp_path / "clips", set_name="train")) == cli.DEMO_TRAIN_CLIPS
    assert_outputs(tmp_path, call.sequences, capsys.readouterr().out)


def test_davis(fake_run, root, tmp_path, capsys):
    argv = [
        "davis",
        "--data",
        root,
        "--out",
        tmp_path,
        "--sequences",
        "val-01",
        "--preset",
        "paper",
        "--resume",
    ]
    assert cli.main([str(a) for a in argv]) == 0
    (call,) = fake_run
    assert [s.name for s in call.sequences] == ["val-01"] and call.data_root == root
    assert call.preset == "paper" and call.resume and call.train_sequences is None
    text = capsys.readouterr().out
    assert_outputs(tmp_path, call.sequences, text)
    final = tmp_path / "labels/craf"
    assert (final / "global_results-val.csv").read_text().startswith("J&F-Mean,")
    assert "val-01_3," in (final / "per-sequence_results-val.csv").read_text()
    # What was printed is what the files say.
    mean = (final / "global_results-val.csv").read_text().splitlines()[1].split(",")
    assert text.splitlines()[4].split()[-4:] == [mean[1], mean[4], mean[0], "0.250"]


def test_davis_without_masks_to_compare_with(fake_run, root, tmp_path, capsys):
    copy = tmp_path / "test-set"
    make_clips(copy, clips=1, frames=4, size=(64, 96))
    for path in (copy / "Annotations/480p/val-00").glob("0000[1-9].png"):
        path.unlink()
    assert cli.main(["davis", "--data", str(copy), "--out", str(tmp_path / "out")]) == 0
    assert capsys.readouterr().out.splitlines()[1].split()[-4:] == ["-", "-", "-", "0.250"]
    assert not list((tmp_path / "out").rglob("*.csv"))
    assert "<svg" not in (tmp_path / "out/report.html").read_text()


def test_segment(fake_run, root, tmp_path, capsys):
    (clip, _) = load_davis(root)
    folder = clip.frame_paths[0].parent
    argv = ["segment", folder, "--mask", clip.mask_paths[0], "--out", tmp_path]
    assert cli.main([str(a) for a in argv]) == 0
    (call,) = fake_run
    assert call.sequences[0].name == "val-00" and len(call.sequences[0]) == 5
    assert call.train_sequences == []  # nothing to train on but the first frame
    assert_outputs(tmp_path, call.sequences, capsys.readouterr().out)

    assert cli.main([str(a) for a in (*argv, "--train-data", root)]) == 0
    assert fake_run[1].data_root == root and fake_run[1].train_sequences is None


# --- refine -------------------------------------------------------------------------------------------------


@pytest.fixture
def identity_refiner(monkeypatch):
    import torch

    import spn

    class Identity(torch.nn.Module):
        def forward(self, image, coarse):
            assert image.shape[1] == 3 and image.min() >= 0 and image.max() <= 1
            assert coarse.dtype == torch.float32 and image.shape[2:] == coarse.shape[2:]
            return coarse

    monkeypatch.setattr(spn.SPNRefiner, "from_pretrained", staticmethod(lambda name: Identity()))


def with_false_alarm(labels):
    labels = labels.copy()
    labels[:4, :4] = 1
    return labels


def test_refine_a_folder(identity_refiner, root, tmp_path):
    (clip, _) = load_davis(root)
    frames, masks = clip.frame_paths[0].parent, tmp_path / "masks"
    for t, path in enumerate(clip.mask_paths):
        write_labels(masks / path.name, with_false_alarm(clip.read_mask(t)) if t == 3 else clip.read_mask(t))
    argv = ["refine", "--frames", str(frames), "--masks", str(masks), "--out"]
    assert cli.main([*argv, str(tmp_path / "craf")]) == 0
    assert cli.main([*argv, str(tmp_path / "plain"), "--no-craf"]) == 0
    name = clip.mask_paths[3].name
    assert read_labels(tmp_path / "plain" / name)[0, 0] == 1
    assert read_labels(tmp_path / "craf" / name)[0, 0] == 0
    assert len(list((tmp_path / "craf").glob("*.png"))) == 5


def test_refine_many_sequences_and_late_objects(identity_refiner, root, tmp_path):
    frames, masks = root / "JPEGImages/480p", tmp_path / "masks"
    for clip in load_davis(root):
        for t, path in enumerate(clip.mask_paths):
            labels = clip.read_mask(t)
            if t == 0:
                labels[labels == 2] = 0  # the tool finds the second object later
            write_labels(masks / clip.name / path.name, labels)
    argv = ["refine", "--frames", frames, "--masks", masks, "--out", tmp_path / "out"]
    assert cli.main([str(a) for a in argv]) == 0
    for clip in load_davis(root):
        assert 2 in read_labels(tmp_path / "out" / clip.name / "00002.png")


def test_refine_names_a_missing_mask(identity_refiner, root, tmp_path, capsys):
    (clip, _) = load_davis(root)
    write_labels(tmp_path / "masks/00000.png", clip.read_mask(0))
    argv = [
        "refine",
        "--frames",
        clip.frame_paths[0].parent,
        "--masks",
        tmp_path / "masks",
        "--out",
        tmp_path / "out",
    ]
    assert "no mask 00001.png for frame 00001 (4 missing)" in fails(capsys, argv)


def test_refine_empty_masks(identity_refiner, tmp_path, capsys):
    write_image(tmp_path / "frames/0.png", np.zeros((32, 32, 3), np.uint8))
    write_labels(tmp_path / "masks/0.png", np.zeros((32, 32), np.uint8))
    argv = ["refine", "--frames", tmp_path / "frames", "--masks", tmp_path / "masks", "--out", tmp_path]
    assert "masks: these masks mark no object" in fails(capsys, argv)


# --- train, evaluate ----------------------------------------------------------------------------------------


def test_train_foreground(root, tmp_path, monkeypatch, capsys):
    from vos_pipeline import train

    calls = []
    monkeypatch.setattr(train, "train_foreground", lambda *args, **options: calls.append((args, options)))
    assert (
        cli.main(["train", "foreground", "--data", str(root), "--out", str(tmp_path), "--preset", "demo"])
        == 0
    )
    (sequences, *rest), options = calls[0]
    assert [s.name for s in sequences] == ["train-00"]
    assert rest == ["demo", "cpu", tmp_path] and options == {"resume": False}


def test_train_spn(tmp_path, monkeypatch):
    from vos_pipeline import train_spn

    calls = []
    monkeypatch.setattr(train_spn, "main_train", calls.append)
    assert cli.main(["train", "spn", "--out", str(tmp_path)]) == 0
    assert calls[0].out == str(tmp_path) and calls[0].device == "cpu"


def test_evaluate(root, tmp_path, capsys):
    for sequence in load_davis(root):
        for path in sequence.mask_paths:
            write_labels(tmp_path / sequence.name / path.name, read_labels(path))
    assert cli.main(["evaluate", "--data", str(root), "--results", str(tmp_path)]) == 0
    text = capsys.readouterr().out
    assert "J&F-Mean" in text and "val-01_3" in text and "1.000" in text
    assert (tmp_path / "global_results-val.csv").is_file()
    (tmp_path / "val-00/00002.png").unlink()
    why = fails(capsys, ["evaluate", "--data", root, "--results", tmp_path])
    assert why == f"error: {tmp_path}/val-00/00002.png: no such file"


# --- errors -------------------------------------------------------------------------------------------------


def test_a_user_error_is_one_line(capsys, tmp_path):
    assert "is no DAVIS root" in fails(capsys, ["davis", "--data", tmp_path, "--out", tmp_path])
    assert "no such file" in fails(
        capsys, ["segment", tmp_path / "v.mp4", "--mask", "m.png", "--out", tmp_path]
    )


def test_a_bad_device_is_one_line(capsys, root, tmp_path):
    import torch

    assert "no device 'tpu9000'" in fails(
        capsys, ["davis", "--data", root, "--out", tmp_path, "--device", "tpu9000"]
    )
    if not torch.cuda.is_available():
        why = fails(capsys, ["davis", "--data", root, "--out", tmp_path, "--device", "cuda"])
        assert "give --device cpu" in why


@pytest.mark.parametrize(
    ("raised", "why"),
    [
        (PipelineError("two\nlines"), "error: two lines"),
        (KeyboardInterrupt(), "error: interrupted: finished work is kept, --resume goes on with it"),
        (
            PermissionError(13, "Permission denied", "/x"),
            "error: PermissionError: [Errno 13] Permission denied: '/x'",
        ),
        (
            RuntimeError("CUDA out of memory. Tried"),
            "error: the device ran out of memory: choose --preset small",
        ),
    ],
)
def test_what_goes_wrong_in_a_run_is_one_line(monkeypatch, capsys, root, tmp_path, raised, why):
    def run(*args, **options):
        raise raised

    monkeypatch.setattr(pipeline, "run", run)
    assert fails(capsys, ["davis", "--data", root, "--out", tmp_path]).startswith(why)


def test_a_defect_keeps_its_traceback(monkeypatch, root, tmp_path):
    def run(*args, **options):
        raise RuntimeError("a defect")

    monkeypatch.setattr(pipeline, "run", run)
    with pytest.raises(RuntimeError, match="a defect"):
        cli.main(["davis", "--data", str(root), "--out", str(tmp_path)])


def test_version():
    import spn
    import vos_pipeline

    assert vos_pipeline.__version__ == spn.__version__
    with pytest.raises(AttributeError, match="nothing"):
        _ = vos_pipeline.nothing
