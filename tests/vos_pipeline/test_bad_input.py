"""Whatever is wrong with the input or the machine: one clear line, exit code 1, and finished work is kept.

What only looks odd (ids with gaps, many objects, objects that appear later) must simply work.
"""

import errno
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import tiny
from cases import labels_with
from PIL import Image

from vos_pipeline import __main__ as cli
from vos_pipeline import images, pipeline
from vos_pipeline.data import load_davis
from vos_pipeline.files import replacing
from vos_pipeline.images import read_labels, write_labels
from vos_pipeline.presets import PRESETS

SIZE = (40, 64)


@pytest.fixture(autouse=True)
def tiny_preset(monkeypatch):
    monkeypatch.setitem(PRESETS, "tiny", tiny.TINY)
    monkeypatch.setattr(pipeline, "load_refiner", lambda preset, device: tiny.Unrefined())


@pytest.fixture
def root(tmp_path):
    """A DAVIS root whose val set has the sequences single (one object) and pair (two)."""
    root = tiny.write_root(tmp_path / "davis")
    (root / "ImageSets/2017/val.txt").write_text("single\npair\n")
    return root


def davis(root, out, *options):
    return [str(a) for a in ("davis", "--data", root, "--out", out, "--preset", "tiny", *options)]


def write_sequence_masks(root, masks, name="pair"):
    for t, labels in enumerate(masks):
        write_labels(root / f"Annotations/480p/{name}/{t:05d}.png", labels)


def files_in(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# --- input that can not be used: noticed before any work ---------------------------------------------------


def remove_frame(root):
    (root / "JPEGImages/480p/pair/00002.jpg").unlink()


def cut_frame(root):
    path = root / "JPEGImages/480p/pair/00002.jpg"
    path.write_bytes(path.read_bytes()[:-100])


def shrink_mask(root):
    write_labels(root / "Annotations/480p/pair/00000.png", labels_with(1, 2))


def empty_mask(root):
    write_labels(root / "Annotations/480p/pair/00000.png", np.zeros(SIZE, np.uint8))


def deepen_mask(root):
    Image.fromarray(labels_with(1, size=SIZE).astype(np.uint16)).save(
        root / "Annotations/480p/pair/00000.png"
    )


def colour_mask(root):
    Image.new("RGB", SIZE[::-1], "red").save(root / "Annotations/480p/pair/00000.png")


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (remove_frame, "pair/00002.jpg: this frame is missing"),
        (cut_frame, "pair/00002.jpg: is damaged or cut short"),
        (shrink_mask, "pair/00000.png: is 30x20, but 00000.jpg is 64x40"),
        (empty_mask, "pair/00000.png: the first mask is empty"),
        (
            deepen_mask,
            "pair/00000.png: a mask must be an indexed (palette) or 8-bit grey PNG, got a 16-bit image",
        ),
        (
            colour_mask,
            "pair/00000.png: a mask must be an indexed (palette) or 8-bit grey PNG, got a RGB colour",
        ),
    ],
)
def test_bad_input_stops_before_any_work(fails, root, tmp_path, spoil, why):
    spoil(root)
    assert why in fails(davis(root, tmp_path / "out"))
    assert not (tmp_path / "out").exists()

    if "Annotations" not in why and spoil is not remove_frame:
        frames, mask = root / "JPEGImages/480p/pair", root / "Annotations/480p/pair/00000.png"
        assert why in fails(
            ["segment", frames, "--mask", mask, "--out", tmp_path / "out", "--preset", "tiny"]
        )
        assert not (tmp_path / "out").exists()


def test_a_folder_that_may_not_be_read(fails, root, tmp_path, monkeypatch):
    listdir, folder = os.listdir, root / "JPEGImages/480p/pair"

    def refuse(path):  # permissions do not stop root, who runs many tests
        if Path(path) == folder:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return listdir(path)

    monkeypatch.setattr(os, "listdir", refuse)
    why = f"{folder}: can not be read as a folder (Permission denied)"
    assert why in fails(davis(root, tmp_path / "out"))
    segment = ["segment", folder, "--mask", root / "Annotations/480p/pair/00000.png", "--out", tmp_path]
    assert why in fails(segment)


def test_segmenting_one_frame_makes_no_sense(fails, root, tmp_path):
    frames = root / "JPEGImages/480p/pair"
    for t in range(1, tiny.FRAMES):
        (frames / f"{t:05d}.jpg").unlink()
    segment = [
        "segment",
        frames,
        "--mask",
        root / "Annotations/480p/pair/00000.png",
        "--out",
        tmp_path / "out",
    ]
    assert "pair: holds one frame; its mask is given, so there is nothing to segment" in fails(segment)


# --- input that is odd but good -----------------------------------------------------------------------------


def test_ids_with_gaps(root, tmp_path, capsys):
    truth = [
        np.uint8([0, 3, 254])[read_labels(p)] for p in load_davis(root, sequences=["pair"])[0].mask_paths
    ]
    write_sequence_masks(root, truth)
    assert cli.main(davis(root, tmp_path / "out", "--sequences", "pair")) == 0
    masks = tmp_path / "out/labels/craf"
    np.testing.assert_array_equal(read_labels(masks / "pair/00000.png"), truth[0])
    assert all(set(np.unique(read_labels(p))) <= {0, 3, 254} for p in masks.glob("pair/*.png"))
    rows = (masks / "per-sequence_results-val.csv").read_text().splitlines()
    assert [row.split(",")[0] for row in rows[1:]] == ["pair_3", "pair_254"]
    assert cli.main(["evaluate", "--data", str(root), "--results", str(masks), "--sequences", "pair"]) == 0


def test_an_object_that_the_first_frame_lacks_is_not_asked_for(root, tmp_path):
    (pair,) = load_davis(root, sequences=["pair"])
    truth = [pair.read_mask(t) for t in range(len(pair))]
    truth[0][truth[0] == 2] = 0
    write_sequence_masks(root, truth)
    assert cli.main(davis(root, tmp_path / "out", "--sequences", "pair")) == 0
    masks = tmp_path / "out/labels/craf"
    assert all(2 not in read_labels(path) for path in masks.glob("pair/*.png"))
    assert "pair_2" not in (masks / "per-sequence_results-val.csv").read_text()


def test_one_frame_of_a_set_is_its_own_result(root, tmp_path):
    for folder, suffix in (("JPEGImages", "jpg"), ("Annotations", "png")):
        for t in range(1, tiny.FRAMES):
            (root / f"{folder}/480p/pair/{t:05d}.{suffix}").unlink()
    assert cli.main(davis(root, tmp_path / "out")) == 0
    (result,) = (tmp_path / "out/labels/craf/pair").iterdir()
    np.testing.assert_array_equal(read_labels(result), read_labels(root / "Annotations/480p/pair/00000.png"))


@pytest.mark.parametrize("model", ["per-object", "per-video"])
def test_forty_objects(root, tmp_path, monkeypatch, model):
    import dataclasses

    monkeypatch.setitem(PRESETS, "tiny", dataclasses.replace(tiny.TINY, model=model))
    labels = np.zeros(SIZE, np.uint8)
    for k in range(40):
        y, x = divmod(k, 8)
        labels[8 * y : 8 * y + 7, 8 * x : 8 * x + 7] = k + 1
    write_sequence_masks(root, [labels] * tiny.FRAMES)
    assert cli.main(davis(root, tmp_path / "out", "--sequences", "pair")) == 0
    rows = (tmp_path / "out/labels/craf/per-sequence_results-val.csv").read_text().splitlines()
    assert len(rows) == 41 and rows[40].startswith("pair_40,")
    np.testing.assert_array_equal(read_labels(tmp_path / "out/labels/craf/pair/00000.png"), labels)


# --- results that can not be scored -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("result", "why"),
    [
        (None, "no such file"),
        (labels_with(1), "is 30x20, but the ground truth is 64x40"),
        (labels_with(1, 3, size=SIZE), "holds label 3, but the objects of this sequence are (1, 2)"),
        (np.zeros((*SIZE, 3), np.uint8), "a mask must be an indexed (palette) or 8-bit grey PNG"),
        (np.zeros(SIZE, np.uint16), "a mask must be an indexed (palette) or 8-bit grey PNG, got a 16-bit"),
    ],
)
def test_evaluate_names_a_bad_result(fails, root, tmp_path, result, why):
    for sequence in load_davis(root):
        for t, path in enumerate(sequence.mask_paths):
            write_labels(tmp_path / "results" / sequence.name / path.name, sequence.read_mask(t))
    bad = tmp_path / "results/pair/00001.png"
    bad.unlink()
    if result is not None:
        Image.fromarray(result).save(bad)
    assert f"{bad}: {why}" in fails(["evaluate", "--data", root, "--results", tmp_path / "results"])
    assert not list((tmp_path / "results").glob("*.csv"))


# --- a machine that fails during the work -------------------------------------------------------------------


def test_a_full_disk_keeps_what_is_finished(fails, root, tmp_path, monkeypatch):
    assert cli.main(davis(root, tmp_path / "unbroken")) == 0

    @contextmanager
    def full(path):
        with replacing(path) as file:
            if path.match("pair/00002.png"):
                file.write(b"some of it")
                raise OSError(errno.ENOSPC, "No space left on device")
            yield file

    monkeypatch.setattr(images, "replacing", full)
    out = tmp_path / "out"
    why = fails(davis(root, out))
    assert why == (
        f"error: the disk is full, free some space ({out}/labels/first-mask/pair/00002.png: no space left on "
        "device): finished work is kept, --resume goes on with it"
    )
    finished = files_in(out)
    assert all(len(finished[Path(f"labels/craf/single/{t:05d}.png")]) for t in range(tiny.FRAMES))
    assert not [path for path in finished if path.name.startswith(".")]

    monkeypatch.setattr(images, "replacing", replacing)
    assert cli.main(davis(root, out, "--resume")) == 0
    assert files_in(out / "labels") == files_in(tmp_path / "unbroken/labels")


PROGRAM = """
import dataclasses, sys, time, tiny, torch
from vos_pipeline import pipeline, presets
from vos_pipeline.__main__ import main

class Slow(tiny.Unrefined):
    def forward(self, image, coarse):
        time.sleep(0.2)
        return super().forward(image, coarse)

torch.set_num_threads(1)
pipeline.load_refiner = lambda preset, device: Slow()
long = dataclasses.replace(tiny.BRIEF, steps=10**6)
presets.PRESETS["tiny"] = tiny.TINY
presets.PRESETS["long"] = dataclasses.replace(tiny.TINY, instance=long)
sys.exit(main())
"""


def start(arguments, **options):
    paths = os.pathsep.join((str(Path(__file__).parent), *sys.path))
    return subprocess.Popen(
        [sys.executable, "-c", options.pop("before", "") + PROGRAM, *arguments],
        env={**os.environ, "PYTHONPATH": paths},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for(path, process):
    for _ in range(10_000):
        if path.exists():
            return
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    raise TimeoutError(path)


def last_line(process):
    """The last line on stderr of a process that must end with 1, without a traceback."""
    _, text = process.communicate(timeout=300)
    assert process.returncode == 1 and "Traceback" not in text, text
    return text.splitlines()[-1]


INTERRUPTED = "error: interrupted: finished work is kept, --resume goes on with it"


def test_ctrl_c_while_segmenting(root, tmp_path):
    out = tmp_path / "out"
    process = start(davis(root, out))
    wait_for(out / "labels/craf/pair/00001.png", process)
    process.send_signal(signal.SIGINT)
    assert last_line(process) == INTERRUPTED
    finished = files_in(out)
    assert Path("seconds/single.json") in finished and Path("seconds/pair.json") not in finished
    assert not [path for path in finished if path.name.startswith(".")]

    assert cli.main(davis(root, out, "--resume")) == 0
    after = files_in(out)
    assert all(after[path] == content for path, content in finished.items())
    assert Path("labels/craf/pair/00003.png") in after


def test_ctrl_c_while_training(root, tmp_path):
    out = tmp_path / "out"
    arguments = davis(root, out)
    arguments[arguments.index("tiny")] = "long"
    process = start(arguments)
    wait_for(out / "nets/single/foreground.pt", process)
    process.send_signal(signal.SIGINT)
    assert last_line(process) == INTERRUPTED


def test_a_write_that_fails_half_way_leaves_no_half_file(root, tmp_path):
    # As on a full disk, only that the system's reason is another: no file may become longer than this.
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))\n"
    process = start(davis(root, tmp_path / "out"), before=limit)
    assert last_line(process) == f"error: {tmp_path}/out/nets/foreground.pt: file too large"
    assert set(files_in(tmp_path / "out")) == {Path("run.json")}
