"""Repeated commands: no result of the first command and no file of the user is lost or mistaken for new results."""

from pathlib import Path

import numpy as np
import pytest
from davis_cases import files_in
from PIL import Image
from spn_cases import masked_folder, tiny_refiner

from vos_pipeline import __main__ as cli
from vos_pipeline.cli import commands
from vos_pipeline.data import load_davis, read_image, write_image, write_labels, write_video

pytestmark = pytest.mark.usefixtures("tiny_preset")


def davis(root, out):
    return ["davis", "--data", root, "--out", out, "--preset", "tiny", "--sequences", "single"]


def segment(root, out):
    frames, mask = root / "JPEGImages/480p/single", root / "Annotations/480p/single/00000.png"
    return ["segment", frames, "--mask", mask, "--out", out, "--preset", "tiny"]


def train_foreground(root, out):
    return ["train", "foreground", "--data", root, "--year", "2016", "--out", out, "--preset", "tiny"]


def train_spn(root, out):
    if not (root / "images").exists():
        masked_folder(root)
        tiny_refiner().save_pretrained(root / "start.safetensors")
    folders = ["--images", root / "images", "--masks", root / "masks", "--init", root / "start.safetensors"]
    numbers = ["--steps", "1", "--batch", "1", "--size", "32", "--workers", "0"]
    return ["train", "spn", "--out", out, *folders, *numbers]


def refine(root, out):
    frames, masks = (root / kind / "480p/single" for kind in ("JPEGImages", "Annotations"))
    return ["refine", "--frames", frames, "--masks", masks, "--out", out]


COMMANDS = pytest.mark.parametrize("command", [davis, segment, train_foreground, train_spn, refine])


def succeeds(argv):
    assert cli.main([str(a) for a in argv]) == 0


@COMMANDS
def test_a_repeated_command_is_refused_and_changes_nothing(tiny_root, tmp_path, fails, command):
    out = tmp_path / "out"
    succeeds(command(tiny_root, out))
    before = files_in(out)
    why = fails(command(tiny_root, out))
    assert f"{out} holds a run: pass --resume to continue it, --overwrite to replace it" in why
    assert files_in(out) == before


@COMMANDS
def test_a_finished_command_resumes_to_the_same_files(tiny_root, tmp_path, command):
    out = tmp_path / "out"
    succeeds(command(tiny_root, out))
    before = files_in(out)
    succeeds([*command(tiny_root, out), "--resume"])
    kept = {path for path in before if path.suffix in (".png", ".pt", ".safetensors", ".csv", ".npz")}
    assert kept and all(files_in(out)[path] == before[path] for path in kept)


def test_the_filter_may_change_after_evaluate(tiny_root, tmp_path):
    out = tmp_path / "out"
    succeeds(davis(tiny_root, out))
    labels = {path: data for path, data in files_in(out).items() if path.suffix in (".png", ".pt")}
    for name, folder in (("craf", "craf"), ("none", "spn")):
        scores = ["evaluate", "--data", tiny_root, "--results", out / "labels" / folder]
        succeeds([*scores, "--sequences", "single"])
        succeeds([*davis(tiny_root, out), "--resume", "--filter", name])
        assert {path: files_in(out)[path] for path in labels} == labels
    succeeds([*davis(tiny_root, out), "--overwrite"])
    assert {path.parent.name for path in files_in(out) if path.suffix == ".csv"} == {"flow"}


@pytest.mark.parametrize("other", [segment, train_foreground, train_spn, refine])
@COMMANDS
def test_resume_refuses_the_results_of_another_command(tiny_root, tmp_path, fails, command, other):
    if other is command or {other, command} == {segment, davis}:  # both write segmentations
        return
    out = tmp_path / "out"
    succeeds(command(tiny_root, out))
    before = files_in(out)
    assert f"{out} holds another run (different kind of results)" in fails(
        [*other(tiny_root, out), "--resume"]
    )
    assert files_in(out) == before


@COMMANDS
def test_files_of_the_user_are_kept_and_reported(tiny_root, tmp_path, fails, command):
    out = tmp_path / "out"
    for name in ("nets/thesis.pt", "seconds/notes.txt", "labels/mine.png", "thesis.tex"):
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).write_text(name)
    mine = files_in(out)
    why = fails(command(tiny_root, out))
    assert (
        f"{out} holds files that belong to no run (labels, nets, seconds, ...): choose a new or empty folder"
        in why
    )
    assert files_in(out) == mine
    for leave in ("--overwrite", "--resume", "--overwrite"):
        succeeds([*command(tiny_root, out), leave])
        assert {name: content for name, content in files_in(out).items() if name in mine} == mine


@COMMANDS
def test_inputs_never_change(tiny_root, tmp_path, command):
    argv = command(tiny_root, tmp_path / "out")
    before = files_in(tiny_root)
    for leave in ((), ("--resume",), ("--overwrite",)):
        succeeds([*argv, *leave])
        assert files_in(tiny_root) == before


# --- the demo -----------------------------------------------------------------------------------------------


@pytest.fixture
def short_demo(monkeypatch):
    monkeypatch.setattr(commands, "DEMO_FRAMES", 3)
    monkeypatch.setattr(commands, "DEMO_CLIPS", 1)
    monkeypatch.setattr(commands, "DEMO_TRAIN_CLIPS", 1)


@pytest.mark.slow
def test_the_demo_is_repeated_on_request(short_demo, tmp_path, fails):
    argv = ["demo", "--out", tmp_path / "out", "--preset", "tiny"]
    succeeds(argv)
    before = files_in(tmp_path / "out")
    assert "holds a run" in fails(argv)
    (tmp_path / "out/mine.txt").write_text("mine")
    succeeds([*argv, "--overwrite"])
    after = files_in(tmp_path / "out")
    assert after.keys() - before.keys() == {(tmp_path / "mine.txt").relative_to(tmp_path)}
    assert all(after[name] == content for name, content in before.items() if name.suffix in (".png", ".jpg"))


def test_the_clips_of_the_demo_replace_no_file_of_the_user(short_demo, tmp_path, fails):
    mine = tmp_path / "clips/JPEGImages/480p/val-00/00000.jpg"
    mine.parent.mkdir(parents=True)
    mine.write_text("mine")
    for leave in ("--overwrite", "--resume"):
        why = fails(["demo", "--out", tmp_path, "--preset", "tiny", leave])
        assert f"{mine}: exists already" in why and mine.read_text() == "mine"


# --- other data under the same names --------------------------------------------------------------------------


def video(path, color):
    frames = np.zeros((4, 40, 64, 3), np.uint8)
    frames[:, 4:18, 6:24] = color
    write_video(path, frames)


def test_other_files_among_the_frames_of_a_video_are_kept(tiny_root, tmp_path):
    labels = np.zeros((48, 64), np.uint8)
    labels[8:28, 8:28] = 1
    write_video(tmp_path / "clip.mp4", [100 * np.stack([labels] * 3, axis=-1)] * 3)
    write_labels(tmp_path / "first.png", labels)
    command = ["segment", tmp_path / "clip.mp4", "--mask", tmp_path / "first.png", "--preset", "tiny"]
    command += ["--out", tmp_path / "out"]
    succeeds(command)
    (folder,) = (tmp_path / "out/frames").iterdir()
    frames = files_in(folder)
    (folder / "notes.txt").write_text("mine")
    for option in ("--resume", "--overwrite", "--resume"):
        succeeds([*command, option])
        assert files_in(folder) == {**frames, Path("notes.txt"): b"mine"}


def test_another_video_of_the_same_name(tiny_root, tmp_path, fails):
    (single,) = [s for s in load_davis(tiny_root) if s.name == "single"]
    video(tmp_path / "a/clip.mp4", (200, 0, 0))
    video(tmp_path / "b/clip.mp4", (0, 200, 0))
    argv = ["--mask", single.mask_paths[0], "--out", tmp_path / "out", "--preset", "tiny"]
    succeeds(["segment", tmp_path / "a/clip.mp4", *argv])
    why = fails(["segment", tmp_path / "b/clip.mp4", *argv, "--resume"])
    assert "out holds another run (different first frame or mask of clip)" in why
    succeeds(["segment", tmp_path / "a/clip.mp4", *argv, "--resume"])
    # --overwrite replaces the decoded frames with those of the other video.
    succeeds(["segment", tmp_path / "b/clip.mp4", *argv, "--overwrite"])
    (frames,) = (tmp_path / "out/frames").iterdir()
    assert read_image(frames / "00000.jpg")[10, 10].argmax() == 1


def test_a_mask_of_another_video_does_not_claim_the_folder(tiny_root, tmp_path, fails):
    video(tmp_path / "clip.mp4", (200, 0, 0))
    write_labels(tmp_path / "small.png", np.ones((20, 32), np.uint8))
    argv = ["segment", tmp_path / "clip.mp4", "--out", tmp_path / "out", "--preset", "tiny", "--mask"]
    assert "small.png: is 32x20" in fails([*argv, tmp_path / "small.png"])
    succeeds([*argv, tiny_root / "Annotations/480p/single/00000.png"])


def test_other_training_videos(tiny_root, tmp_path, fails):
    argv = train_foreground(tiny_root, tmp_path / "out")
    succeeds(argv)
    path = tiny_root / "JPEGImages/480p/other/00002.jpg"
    write_image(path, read_image(path)[::-1])
    assert "another run (different training data)" in fails([*argv, "--resume"])


@pytest.mark.parametrize("kind", ["images", "masks"])
def test_other_training_images(tmp_path, fails, kind):
    argv = train_spn(tmp_path, tmp_path / "out")
    succeeds(argv)
    path = tmp_path / kind / "0.png"
    Image.fromarray(np.asarray(Image.open(path))[::-1]).save(path)
    assert "another run (different training data)" in fails([*argv, "--resume"])
    assert fails(argv).startswith(f"error: {tmp_path / 'out'} holds a run")


def test_another_start(tmp_path, fails):
    argv = train_spn(tmp_path, tmp_path / "out")
    succeeds(argv)
    refiner = tiny_refiner()
    next(refiner.parameters()).data.add_(1)
    refiner.save_pretrained(tmp_path / "start.safetensors")
    assert "another run (different start)" in fails([*argv, "--resume"])


def test_results_are_not_removed_while_they_are_read(tiny_root, tmp_path, fails):
    out = tmp_path / "out"
    succeeds(segment(tiny_root, out))
    before = files_in(out)
    mask = out / "labels/flow/single/00000.png"
    argv = segment(tiny_root, out)
    argv[argv.index("--mask") + 1] = mask
    why = fails([*argv, "--overwrite"])
    assert f"{mask}: is read by this command, and --overwrite would remove it" in why
    assert files_in(out) == before
