"""The calls that commands make to the pipeline, and the files that they write."""

import errno
import zipfile
from contextlib import nullcontext

import cv2
import numpy as np
import pytest
import torch
from davis_cases import files_in
from PIL import Image
from spn_cases import tiny_refiner

from vos_pipeline import __main__ as cli
from vos_pipeline import nets, pipeline, training
from vos_pipeline.cli import commands
from vos_pipeline.data import (
    davis_palette,
    frame_rate,
    load_davis,
    make_clips,
    read_image,
    read_labels,
    write_labels,
    write_video,
)
from vos_pipeline.evaluation import scores
from vos_pipeline.output_folder import KIND, REFINER, TABLES, OutputFolder

# --- demo, davis, segment -----------------------------------------------------------------------------------


def frame_count(video):
    capture, count = cv2.VideoCapture(str(video)), 0
    while capture.read()[0]:
        count += 1
    return count


def assert_palette_masks(folder, sequence):
    files = sorted((folder / sequence.name).iterdir())
    assert [file.stem for file in files] == [path.stem for path in sequence.frame_paths]
    for file in files:
        with Image.open(file) as image:
            assert image.mode == "P" and image.size == sequence.size[::-1]
            assert image.getpalette()[: 3 * 3] == davis_palette()[:3].ravel().tolist()


def assert_outputs(out, sequences, text):
    for sequence in sequences:
        assert frame_count(out / "overlays" / f"{sequence.name}.mp4") == len(sequence)
        assert_palette_masks(out / "labels/flow", sequence)
    page = (out / "report.html").read_text()
    for stage in ("first mask repeated", "instance nets", "+ SPN", "+ CRAF", "+ flow filter"):
        assert stage in text and stage in page
    assert str(out / "overlays") in text and str(out / "report.html") in text
    assert "0.250" in text


def test_demo(fake_run, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(commands, "DEMO_FRAMES", 3)
    monkeypatch.setattr(commands, "DEMO_TRAIN_CLIPS", 2)
    assert cli.main(["demo", "--out", str(tmp_path)]) == 0
    (call,) = fake_run
    assert (
        call.preset.name == "demo" and call.data_root == tmp_path / "clips" and call.train_sequences is None
    )
    assert len(load_davis(tmp_path / "clips", set_name="train")) == 2
    assert_outputs(tmp_path, call.sequences, capsys.readouterr().out)


def test_davis(fake_run, clips_root, tmp_path, capsys):
    argv = [
        "davis",
        "--data",
        clips_root,
        "--out",
        tmp_path,
        "--sequences",
        "val-01",
        "--preset",
        "paper",
        "--refiner",
        "lite",
        "--resume",
    ]
    assert cli.main([str(a) for a in argv]) == 0
    (call,) = fake_run
    assert [s.name for s in call.sequences] == ["val-01"] and call.data_root == clips_root
    assert (call.preset.name, call.preset.refiner) == ("paper", "lite")
    assert call.resume and call.train_sequences is None
    text = capsys.readouterr().out
    assert_outputs(tmp_path, call.sequences, text)
    final = tmp_path / "labels/craf"  # the last stage of the preset
    assert "submission-val.zip" in text and "global_results-val.csv" in text
    assert (final / "global_results-val.csv").read_text().startswith("J&F-Mean,")
    assert "val-01_3," in (final / "per-sequence_results-val.csv").read_text()
    # The printed scores are those in the files.
    mean = (final / "global_results-val.csv").read_text().splitlines()[1].split(",")
    assert text.splitlines()[4].split()[-4:] == [mean[1], mean[4], mean[0], "0.250"]


def test_the_paper_preset_requires_an_spn(fake_run, fails, clips_root, tmp_path):
    why = fails(["davis", "--data", clips_root, "--out", tmp_path / "out", "--preset", "paper"])
    assert "preset paper needs an SPN" in why and "train spn --preset paper" in why
    assert not fake_run and not (tmp_path / "out").exists()


@pytest.mark.parametrize("command", ["davis", "tables timing", "refine", "segment"])
def test_overwrite_keeps_the_refiner_in_use(fails, clips_root, tmp_path, command):
    file = tmp_path / "spn" / "spn.safetensors"
    file.parent.mkdir()
    tiny_refiner().save_pretrained(file)
    folder = OutputFolder(file.parent)
    folder.claim(resume=True, overwrite=True)
    folder.identify(KIND, TABLES if "tables" in command else REFINER)
    folder.add([file.name], written=True)
    images, masks = (clips_root / kind / "480p/val-00" for kind in ("JPEGImages", "Annotations"))
    data = {
        "refine": ["--frames", images, "--masks", masks],
        "segment": [images, "--mask", masks / "00000.png"],
    }.get(command, ["--data", clips_root])
    why = fails([*command.split(), *data, "--out", file.parent, "--refiner", file, "--overwrite"])
    assert "spn.safetensors: is read by this command, and --overwrite would remove it" in why
    assert file.is_file()


def test_a_damaged_refiner_is_reported_before_an_older_run_is_removed(fails, clips_root, tmp_path):
    folder, bad = OutputFolder(tmp_path / "out"), tmp_path / "bad.safetensors"
    folder.claim()
    folder.add(["report.html"])
    (tmp_path / "out/report.html").write_text("mine"), bad.write_text("no refiner")
    argv = ["davis", "--data", clips_root, "--out", tmp_path / "out", "--overwrite", "--refiner", bad]
    assert "bad.safetensors" in fails(argv)
    assert (tmp_path / "out/report.html").read_text() == "mine"


def test_only_one_rank_evaluates(clips_root, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("RANK", "1")
    assert cli.main(["evaluate", "--data", str(clips_root), "--results", str(tmp_path)]) == 0
    assert capsys.readouterr().out == "" and not list(tmp_path.iterdir())


def test_options_change_the_preset_and_the_data(fake_run, clips_root, tmp_path, fails):
    options = (
        "--set 2017/val --train-sets train val --sequences val-01 --precision bfloat16 --compile --shorten 7"
    )
    argv = ["davis", "--data", str(clips_root), "--out", str(tmp_path / "out")]
    assert cli.main([*argv, *options.split()]) == 0
    (call,) = fake_run
    assert (call.preset.precision, call.preset.compile) == ("bfloat16", True)
    assert [s.steps for s in (call.preset.foreground, call.preset.instance)] == [286, 86]  # 2000 / 7, 600 / 7
    assert [s.name for s in call.train_sequences] == ["train-00", "val-00"]  # without the sequence under test
    why = fails([*argv, "--train-sets", "val", "--overwrite"])
    assert "--train-sets val: all sequences are under test: give other sets" in why
    why = fails(["segment", tmp_path, "--mask", tmp_path, "--out", tmp_path / "x", "--train-sets", "val"])
    assert "--train-sets selects sets of a DAVIS root: give the root as --train-data ROOT" in why


def test_davis_without_ground_truth(fake_run, clips_root, tmp_path, capsys):
    copy = tmp_path / "test-set"
    make_clips(copy, clips=1, frames=4, size=(64, 96))
    for path in (copy / "Annotations/480p/val-00").glob("0000[1-9].png"):
        path.unlink()
    assert cli.main(["davis", "--data", str(copy), "--out", str(tmp_path / "out")]) == 0
    assert capsys.readouterr().out.splitlines()[1].split() == ["first", "mask", "repeated", "0.250"]
    assert not list((tmp_path / "out").rglob("*.csv"))
    assert (tmp_path / "out/submission-val.zip").is_file()  # submissions are meant for test sets
    assert "<svg" not in (tmp_path / "out/report.html").read_text()


def test_the_submission_contains_only_palette_masks(fake_run, clips_root, tmp_path):
    argv = ["davis", "--data", str(clips_root), "--out", str(tmp_path)]
    assert cli.main(argv) == 0
    path, sequences = tmp_path / "submission-val.zip", load_davis(clips_root)
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        expected = [f"{s.name}/{frame.stem}.png" for s in sequences for frame in s.frame_paths]
        assert archive.namelist() == expected
        archive.extractall(tmp_path / "unpacked")
    for sequence in sequences:
        assert_palette_masks(tmp_path / "unpacked", sequence)
        first = read_labels(tmp_path / "unpacked" / sequence.name / "00003.png")
        np.testing.assert_array_equal(first, sequence.read_mask(0))
    before = path.read_bytes()
    assert cli.main(argv) == 0
    assert path.read_bytes() == before


def test_a_submission_requires_every_mask(fake_run, fails, clips_root, tmp_path, monkeypatch):
    run = pipeline.run

    def leave_one_out(*args, **options):
        result = run(*args, **options)
        (result.label_dirs[result.final] / "val-01/00004.png").unlink()  # the last frame is not scored
        return result

    monkeypatch.setattr(pipeline, "run", leave_one_out)
    why = fails(["davis", "--data", clips_root, "--out", tmp_path])
    assert "val-01/00004.png: no such file; a submission needs a mask for every frame" in why
    assert not list(tmp_path.glob("*.zip"))


def test_segment_a_folder(fake_run, clips_root, tmp_path, capsys):
    (clip, _) = load_davis(clips_root)
    folder = clip.frame_paths[0].parent
    argv = ["segment", folder, "--mask", clip.mask_paths[0], "--out", tmp_path]
    assert cli.main([str(a) for a in argv]) == 0
    (call,) = fake_run
    assert call.sequences[0].name == "val-00" and len(call.sequences[0]) == 5
    assert call.train_sequences == []  # only the first frame is available for training
    assert_outputs(tmp_path, call.sequences, capsys.readouterr().out)
    assert frame_rate(tmp_path / "overlays/val-00.mp4") == 24
    assert not list(tmp_path.rglob("*.zip"))

    assert cli.main([str(a) for a in (*argv, "--train-data", clips_root)]) == 0
    assert [s.name for s in fake_run[1].train_sequences] == ["train-00"]


def test_segment_from_a_later_frame(fake_run, clips_root, tmp_path, fails):
    (clip, _) = load_davis(clips_root)
    segment = ["segment", clip.frame_paths[0].parent, "--mask", clip.mask_paths[2], "--out", tmp_path]
    assert "has the name of frame 00002, but the video begins at 00000" in fails(segment)
    assert not fake_run
    assert cli.main([str(a) for a in (*segment, "--first-frame", "2")]) == 0
    assert fake_run[0].sequences[0].frame_paths == clip.frame_paths[2:]
    assert [path.name for path in sorted((tmp_path / "labels/flow/val-00").iterdir())] == [
        "00002.png",
        "00003.png",
        "00004.png",
    ]


def test_segment_a_video(fake_run, clips_root, tmp_path, capsys):
    (clip, _) = load_davis(clips_root)
    write_video(tmp_path / "in/holiday.mp4", (clip.read_frame(t) for t in range(len(clip))), rate=12.5)
    argv = ["segment", tmp_path / "in/holiday.mp4", "--mask", clip.mask_paths[0], "--out", tmp_path / "out"]
    assert cli.main([str(a) for a in argv]) == 0
    text = capsys.readouterr().out
    assert_outputs(tmp_path / "out", fake_run[0].sequences, text)
    assert (
        "J&F" not in text and "J&amp;F" not in (tmp_path / "out/report.html").read_text()
    )  # no ground truth
    assert frame_rate(tmp_path / "out/overlays/holiday.mp4") == pytest.approx(12.5)
    # The segmented frames are those of the video.
    seen = fake_run[0].sequences[0]
    for t in range(len(clip)):
        assert np.abs(seen.read_frame(t).astype(int) - read_image(clip.frame_paths[t])).mean() < 15


# --- train, evaluate ----------------------------------------------------------------------------------------


def test_train_foreground_joins_the_ranks(clips_root, tmp_path, monkeypatch, capsys):
    computes = []
    monkeypatch.setattr(training, "join_process_group", lambda device: f"{device}:3")
    monkeypatch.setattr(training, "first_rank_first", lambda: nullcontext(False))
    monkeypatch.setattr(training, "process_rank", lambda: (1, 2))
    monkeypatch.setattr(training, "ranks_for_batch", lambda batch: training.Ranks(1, 2))
    monkeypatch.setattr(nets, "train_foreground", lambda *args, **options: computes.append(args[3]))
    assert cli.main(["train", "foreground", "--data", str(clips_root), "--out", str(tmp_path)]) == 0
    assert computes[0].device == "auto:3" and capsys.readouterr().out == ""
    monkeypatch.setattr(
        training, "ranks_for_batch", lambda batch: None
    )  # a rank without a share of the batch
    argv = ["train", "foreground", "--data", str(clips_root), "--out", str(tmp_path), "--resume"]
    assert cli.main(argv) == 0 and len(computes) == 1


def test_train_foreground(clips_root, tmp_path, monkeypatch, capsys):
    calls = []
    monkeypatch.setattr(nets, "train_foreground", lambda *args, **options: calls.append((args, options)))
    argv = ["train", "foreground", "--data", str(clips_root), "--out", str(tmp_path), "--preset", "demo"]
    assert cli.main(argv) == 0
    (sequences, preset, checkpoint, compute), options = calls[0]
    assert [s.name for s in sequences] == ["train-00"] and preset.name == "demo"
    assert checkpoint == tmp_path / "foreground.pt" and str(checkpoint) in capsys.readouterr().out
    assert options == {"resume": True, "ranks": training.Ranks()}  # the folder was claimed
    assert compute.device == ("cuda" if torch.cuda.is_available() else "cpu")


def test_evaluate_writes_nothing_among_the_ground_truth(clips_root, capsys):
    before = files_in(clips_root)
    truth = clips_root / "JPEGImages/../Annotations/480p"
    assert cli.main(["evaluate", "--data", str(clips_root), "--results", str(truth)]) == 0
    shown = capsys.readouterr()
    assert "J&F-Mean" in shown.out and "no CSV files are written" in shown.err
    assert files_in(clips_root) == before


def test_evaluate(clips_root, tmp_path, capsys, fails, monkeypatch):
    for sequence in load_davis(clips_root):
        for path in sequence.mask_paths:
            write_labels(tmp_path / sequence.name / path.name, read_labels(path))
    assert cli.main(["evaluate", "--data", str(clips_root), "--results", str(tmp_path)]) == 0
    text = capsys.readouterr().out
    assert "J&F-Mean" in text and "val-01_3" in text and "1.000" in text
    assert (tmp_path / "global_results-val.csv").is_file()

    def refuse(path):
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    # Permissions do not stop the superuser, who often runs the tests.
    monkeypatch.setattr(scores, "replacing", refuse)
    assert cli.main(["evaluate", "--data", str(clips_root), "--results", str(tmp_path)]) == 1
    shown = capsys.readouterr()
    assert shown.out == text  # the scores are still printed
    assert shown.err.splitlines()[-1] == f"error: {tmp_path}/global_results-val.csv: permission denied"

    (tmp_path / "val-00/00002.png").unlink()
    why = fails(["evaluate", "--data", clips_root, "--results", tmp_path])
    assert why == f"error: {tmp_path}/val-00/00002.png: no such file"
