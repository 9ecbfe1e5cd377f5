"""Invalid input: one clear line and exit code 1 before any work is done.

Unusual but valid input (ids with gaps, many objects, objects that appear later) must work.
"""

import dataclasses
import errno
import os
from pathlib import Path

import numpy as np
import pytest
import tiny
import video_files
from davis_cases import labels_with
from PIL import Image

from vos_pipeline import __main__ as cli
from vos_pipeline.data import load_davis, read_labels, write_labels
from vos_pipeline.settings import PRESETS

SIZE = (40, 64)
pytestmark = pytest.mark.usefixtures("tiny_preset")


def davis(root, out, *options):
    return [str(a) for a in ("davis", "--data", root, "--out", out, "--preset", "tiny", *options)]


def write_sequence_masks(root, masks, name="pair"):
    for t, labels in enumerate(masks):
        write_labels(root / f"Annotations/480p/{name}/{t:05d}.png", labels)


# --- invalid input, reported before any work ----------------------------------------------------------------


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
            "pair/00000.png: a mask must be an indexed (palette) or 8-bit grey PNG, got a colour image (RGB)",
        ),
    ],
)
def test_bad_input_stops_before_any_work(fails, tiny_root, tmp_path, spoil, why):
    spoil(tiny_root)
    assert why in fails(davis(tiny_root, tmp_path / "out"))
    assert not (tmp_path / "out").exists()

    if "Annotations" not in why and spoil is not remove_frame:
        frames, mask = tiny_root / "JPEGImages/480p/pair", tiny_root / "Annotations/480p/pair/00000.png"
        assert why in fails(
            ["segment", frames, "--mask", mask, "--out", tmp_path / "out", "--preset", "tiny"]
        )
        assert not (tmp_path / "out").exists()


def test_a_folder_without_read_permission_is_named(fails, tiny_root, tmp_path, monkeypatch):
    listdir, folder = os.listdir, tiny_root / "JPEGImages/480p/pair"

    def refuse(path):  # permissions do not stop the superuser, who often runs the tests
        if Path(path) == folder:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return listdir(path)

    monkeypatch.setattr(os, "listdir", refuse)
    why = f"{folder}: cannot be read as a folder (Permission denied)"
    assert why in fails(davis(tiny_root, tmp_path / "out"))
    segment = ["segment", folder, "--mask", tiny_root / "Annotations/480p/pair/00000.png", "--out", tmp_path]
    assert why in fails(segment)


def test_segmenting_one_frame_is_refused(fails, tiny_root, tmp_path):
    frames = tiny_root / "JPEGImages/480p/pair"
    for t in range(1, tiny.FRAMES):
        (frames / f"{t:05d}.jpg").unlink()
    segment = [
        "segment",
        frames,
        "--mask",
        tiny_root / "Annotations/480p/pair/00000.png",
        "--out",
        tmp_path / "out",
    ]
    assert "pair: contains only one frame, whose mask is given; there is nothing to segment" in fails(segment)


@pytest.mark.parametrize(
    ("lists", "why"),
    [
        (None, "nowhere: is not a DAVIS root (ImageSets, JPEGImages, Annotations); it contains nothing"),
        ({}, "ImageSets/2017/train.txt: no such set; this root has none"),
        ({"2017/val": "pair"}, "ImageSets/2017/train.txt: no such set; this root has 2017/val"),
        ({"2017/train": "# none yet"}, "2017/train.txt: lists no sequence"),
        ({"2017/train": "ghost"}, "JPEGImages/480p/ghost: no such folder"),
    ],
)
def test_invalid_training_data_is_named(fails, tiny_root, tmp_path, lists, why):
    root = tmp_path / "nowhere"
    for name, text in (lists or {}).items():
        (root / "ImageSets" / name).parent.mkdir(parents=True, exist_ok=True)
        (root / "ImageSets" / f"{name}.txt").write_text(text)
    if lists is not None:
        (root / "ImageSets").mkdir(parents=True, exist_ok=True)
    frames, mask = tiny_root / "JPEGImages/480p/pair", tiny_root / "Annotations/480p/pair/00000.png"
    out = tmp_path / "out"
    assert why in fails(["segment", frames, "--mask", mask, "--out", out, "--train-data", root])
    assert not out.exists()


@pytest.mark.parametrize("option", ["--out", "--train-data", "--mask"])
def test_a_name_that_is_not_utf_8_is_a_usage_error(fails, tmp_path, option):
    given = {"--out": tmp_path / "out", "--mask": tmp_path / "m.png", option: os.fsdecode(b"caf\xe9")}
    argv = ["segment", tmp_path / "clip", *(word for pair in given.items() for word in pair)]
    assert f"argument {option}: must be a name in UTF-8, got caf\\xe9: rename it" in fails(argv, code=2)


def test_a_video_that_is_cut_short(fails, tmp_path):
    video = video_files.cut(video_files.write(tmp_path / "clip.mkv"))
    write_labels(tmp_path / "first.png", labels_with(1, size=video_files.SIZE))
    why = fails(["segment", video, "--mask", tmp_path / "first.png", "--out", tmp_path / "out"])
    assert "clip.mkv: is damaged or cut short: " in why and " of 30 frames could be decoded" in why
    assert [path.name for path in (tmp_path / "out").rglob("*.*")] == ["run.json"]


# --- unusual but valid input --------------------------------------------------------------------------------


def test_ids_with_gaps(tiny_root, tmp_path, capsys):
    truth = [
        np.uint8([0, 3, 254])[read_labels(p)] for p in load_davis(tiny_root, sequences=["pair"])[0].mask_paths
    ]
    write_sequence_masks(tiny_root, truth)
    assert cli.main(davis(tiny_root, tmp_path / "out", "--sequences", "pair")) == 0
    masks = tmp_path / "out/labels/flow"
    np.testing.assert_array_equal(read_labels(masks / "pair/00000.png"), truth[0])
    assert all(set(np.unique(read_labels(p))) <= {0, 3, 254} for p in masks.glob("pair/*.png"))
    rows = (masks / "per-sequence_results-val.csv").read_text().splitlines()
    assert [row.split(",")[0] for row in rows[1:]] == ["pair_3", "pair_254"]
    assert (
        cli.main(["evaluate", "--data", str(tiny_root), "--results", str(masks), "--sequences", "pair"]) == 0
    )


def test_an_object_missing_from_the_first_frame_is_not_required(tiny_root, tmp_path):
    (pair,) = load_davis(tiny_root, sequences=["pair"])
    truth = [pair.read_mask(t) for t in range(len(pair))]
    truth[0][truth[0] == 2] = 0
    write_sequence_masks(tiny_root, truth)
    assert cli.main(davis(tiny_root, tmp_path / "out", "--sequences", "pair")) == 0
    masks = tmp_path / "out/labels/flow"
    assert all(2 not in read_labels(path) for path in masks.glob("pair/*.png"))
    assert "pair_2" not in (masks / "per-sequence_results-val.csv").read_text()


def test_one_frame_of_a_set_is_its_own_result(tiny_root, tmp_path):
    for folder, suffix in (("JPEGImages", "jpg"), ("Annotations", "png")):
        for t in range(1, tiny.FRAMES):
            (tiny_root / f"{folder}/480p/pair/{t:05d}.{suffix}").unlink()
    assert cli.main(davis(tiny_root, tmp_path / "out")) == 0
    (result,) = (tmp_path / "out/labels/flow/pair").iterdir()
    np.testing.assert_array_equal(
        read_labels(result), read_labels(tiny_root / "Annotations/480p/pair/00000.png")
    )


@pytest.mark.parametrize(("model", "count"), [("per-object", 11), ("per-video", 40)])
def test_many_objects(tiny_root, tmp_path, monkeypatch, model, count):
    monkeypatch.setitem(PRESETS, "tiny", dataclasses.replace(tiny.TINY, model=model))
    labels = np.zeros(SIZE, np.uint8)
    for k in range(count):
        y, x = divmod(k, 8)
        labels[8 * y : 8 * y + 7, 8 * x : 8 * x + 7] = k + 1
    write_sequence_masks(tiny_root, [labels] * tiny.FRAMES)
    assert cli.main(davis(tiny_root, tmp_path / "out", "--sequences", "pair")) == 0
    rows = (tmp_path / "out/labels/flow/per-sequence_results-val.csv").read_text().splitlines()
    assert len(rows) == count + 1 and rows[count].startswith(f"pair_{count},")
    np.testing.assert_array_equal(read_labels(tmp_path / "out/labels/flow/pair/00000.png"), labels)


# --- results that cannot be scored --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("result", "why"),
    [
        (None, "no such file"),
        (labels_with(1), "is 30x20, but the ground truth is 64x40"),
        (labels_with(1, 3, size=SIZE), "contains label 3, but the objects of this sequence are (1, 2)"),
        (
            np.eye(3, dtype=np.uint8)[np.zeros(SIZE, int)],
            "a mask must be an indexed (palette) or 8-bit grey PNG",
        ),
        (np.zeros(SIZE, np.uint16), "a mask must be an indexed (palette) or 8-bit grey PNG, got a 16-bit"),
    ],
)
def test_evaluate_names_a_bad_result(fails, tiny_root, tmp_path, result, why):
    for sequence in load_davis(tiny_root):
        for t, path in enumerate(sequence.mask_paths):
            write_labels(tmp_path / "results" / sequence.name / path.name, sequence.read_mask(t))
    bad = tmp_path / "results/pair/00001.png"
    bad.unlink()
    if result is not None:
        Image.fromarray(result).save(bad)
    assert f"{bad}: {why}" in fails(["evaluate", "--data", tiny_root, "--results", tmp_path / "results"])
    assert not list((tmp_path / "results").glob("*.csv"))
