"""Command refine with soft scores of several objects: folders that contain them, and results."""

import json

import numpy as np
import pytest
import torch
from davis_cases import files_in
from PIL import Image

import spn
from vos_pipeline import __main__ as cli
from vos_pipeline.data import read_labels, write_image, write_labels

SIZE = (10, 12)
FRAMES = 3


class Seeing(torch.nn.Module):
    """Return the input, and record it."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def forward(self, image, coarse):
        assert image.shape[2:] == coarse.shape[2:] and coarse.dtype == torch.float32
        self.seen.append(coarse[0].numpy())
        return coarse


@pytest.fixture(autouse=True)
def refiner(monkeypatch):
    refiner = Seeing()
    monkeypatch.setattr(spn.SPNRefiner, "from_pretrained", staticmethod(lambda name, tile: refiner))
    return refiner


def refine(root, *options, out="out"):
    paths = ("--frames", root / "frames", "--masks", root / "masks", "--out", root / out)
    return ["refine", *map(str, paths), *options]


def write_frames(folder):
    for t in range(FRAMES):
        write_image(folder / f"{t}.png", np.full((*SIZE, 3), 20 * t, np.uint8))


def scores(t, shift=0):
    """Scores of two objects as bytes, with soft boundaries that overlap."""
    rows, columns = np.mgrid[: SIZE[0], : SIZE[1]]
    first = 255 - 40 * np.hypot(rows - 4, columns - 4 - t)
    second = 230 - 30 * np.hypot(rows - 6, columns - 7 - t + shift)
    return np.stack([first, second]).clip(0, 255).astype(np.uint8)


def write_arrays(folder, ids=(1, 2), as_stored=lambda values: values):
    folder.mkdir(parents=True, exist_ok=True)
    for t in range(FRAMES):
        np.savez(folder / f"{t}.npz", scores=as_stored(scores(t)), ids=ids)


def grey(path, values):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(values, np.uint8)).save(path)


def write_folders(folder, ids=(1, 2)):
    for t in range(FRAMES):
        for k, values in zip(ids, scores(t), strict=False):
            grey(folder / f"{k}/{t}.png", values)


WRITE = {"arrays": write_arrays, "folders": write_folders}
KINDS = pytest.mark.parametrize("kind", WRITE)


def labels(t, ids=(1, 2)):
    """The expected labels: the object with the largest score, if that is at least one half."""
    values = scores(t)
    return np.where(values.max(0) >= 128, np.array(ids)[values.argmax(0)], 0)


def check_results(folder, ids=(1, 2)):
    assert {path.name for path in folder.glob("*.png")} == {f"{t}.png" for t in range(FRAMES)}
    for t in range(FRAMES):
        np.testing.assert_array_equal(read_labels(folder / f"{t}.png"), labels(t, ids))


# --- results ------------------------------------------------------------------------------------------------


@KINDS
@pytest.mark.parametrize("hold", ["auto", "scores"])
def test_one_sequence(tmp_path, refiner, kind, hold):
    write_frames(tmp_path / "frames")
    WRITE[kind](tmp_path / "masks", ids=(5, 200))
    assert set(np.unique(labels(1))) == {0, 1, 2}
    assert cli.main(refine(tmp_path, "--masks-hold", hold, "--no-craf")) == 0
    check_results(tmp_path / "out", ids=(5, 200))
    for t, seen in enumerate(refiner.seen):
        np.testing.assert_array_equal(seen, scores(t).astype(np.float32) / 255)


@KINDS
def test_with_craf(tmp_path, kind):
    write_frames(tmp_path / "frames")
    WRITE[kind](tmp_path / "masks")
    assert cli.main(refine(tmp_path)) == 0
    assert set(np.unique(read_labels(tmp_path / "out/2.png"))) == {0, 1, 2}


def test_floats_and_frames_of_any_order(tmp_path):
    write_frames(tmp_path / "frames")
    write_arrays(tmp_path / "masks", as_stored=lambda values: values / np.float64(255))
    np.savez(tmp_path / "masks/1.npz", scores=scores(1)[::-1], ids=[2, 1])
    assert cli.main(refine(tmp_path, "--no-craf")) == 0
    check_results(tmp_path / "out")


@KINDS
def test_several_sequences_of_several_kinds(tmp_path, kind):
    for name in ("a", "b", "1"):
        write_frames(tmp_path / "frames" / name)
    for name in ("a", "1"):  # sequence 1 has its own frames, and objects
        WRITE[kind](tmp_path / "masks" / name)
    for t in range(FRAMES):
        write_labels(tmp_path / f"masks/b/{t}.png", labels(t).astype(np.uint8))
    assert cli.main(refine(tmp_path, "--no-craf")) == 0
    for name in ("a", "b", "1"):
        check_results(tmp_path / "out" / name)


# --- roles of folders ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("picture_among_sequences", [False, True])
def test_sequences_may_have_names_of_objects(tmp_path, picture_among_sequences):
    for k in (1, 2):
        write_frames(tmp_path / f"frames/{k}")
        for t in range(FRAMES):
            write_labels(tmp_path / f"masks/{k}/{t}.png", labels(t).astype(np.uint8))
    if picture_among_sequences:
        write_image(tmp_path / "frames/all.png", np.zeros((5, 5, 3), np.uint8))
    assert cli.main(refine(tmp_path, "--no-craf")) == 0
    for k in (1, 2):
        check_results(tmp_path / f"out/{k}")


@KINDS
def test_results_among_the_masks(tmp_path, capsys, kind):
    write_frames(tmp_path / "frames")
    WRITE[kind](tmp_path / "masks")
    for leave in ([], ["--resume"], ["--overwrite"]):
        assert cli.main(refine(tmp_path, "--no-craf", *leave, out="masks/refined")) == 0
    check_results(tmp_path / "masks/refined")
    assert "skipped" not in capsys.readouterr().err


@pytest.mark.parametrize("sequence", ["", "a"])
def test_folders_next_to_object_folders_are_named(tmp_path, capsys, sequence):
    write_frames(tmp_path / "frames" / sequence)
    masks = tmp_path / "masks" / sequence
    write_folders(masks)
    grey(masks / "person/0.png", scores(0)[0])
    grey(masks / ".thumbnails/0.png", scores(0)[0])
    (masks / "logs").mkdir()
    assert cli.main(refine(tmp_path, "--no-craf")) == 0
    check_results(tmp_path / "out" / sequence)
    skipped = [line for line in capsys.readouterr().err.splitlines() if "skipped" in line]
    assert skipped == [
        f"warning: {masks / 'person'}: skipped, the folder of an object must be named by its label, 1 to 254"
    ]


def test_folders_next_to_masks_are_ignored(tmp_path):
    """Both next to images and next to archives."""
    for name, write in WRITE.items():
        root = tmp_path / name
        write_frames(root / "frames")
        write_folders(root / "masks")
        if write is write_arrays:
            write_arrays(root / "masks", ids=(3, 4))
        else:
            for t in range(FRAMES):
                write_labels(root / f"masks/{t}.png", labels(t, (3, 4)).astype(np.uint8))
        assert cli.main(refine(root, "--no-craf")) == 0
        check_results(root / "out", ids=(3, 4))


def test_an_archive_next_to_sequences_is_ignored(tmp_path):
    write_frames(tmp_path / "frames/a")
    write_folders(tmp_path / "masks/a")
    np.savez(tmp_path / "masks/statistics.npz", mean=0.5)
    assert cli.main(refine(tmp_path, "--no-craf")) == 0
    check_results(tmp_path / "out/a")


def test_results_can_be_refined_again(tmp_path):
    """The state file next to the results is not read as scores."""
    write_frames(tmp_path / "frames")
    write_arrays(tmp_path / "masks")
    assert cli.main(refine(tmp_path, "--no-craf")) == 0
    (tmp_path / "masks").rename(tmp_path / "scores")
    (tmp_path / "out").rename(tmp_path / "masks")
    assert list((tmp_path / "masks").glob(".*.npz"))
    assert cli.main(refine(tmp_path, "--no-craf")) == 0
    check_results(tmp_path / "out")


def test_folders_without_frames(tmp_path, fails, capsys):
    write_frames(tmp_path / "frames/a")
    write_arrays(tmp_path / "masks/a")
    write_folders(tmp_path / "masks/older")
    (tmp_path / "masks/features").mkdir()
    np.savez(tmp_path / "masks/features/0.npz", features=scores(0))
    assert cli.main(refine(tmp_path, "--no-craf")) == 0
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a", "run.json"]
    said = capsys.readouterr().err
    for name in ("features", "older"):
        frames = tmp_path / "frames" / name
        assert (
            f"warning: {tmp_path / 'masks' / name}: skipped, its files may not be masks, "
            f"and the folder of frames {frames} does not exist" in said
        )
    write_arrays(tmp_path / "masks/b")
    message = fails(refine(tmp_path, out="other"))
    assert f"{tmp_path / 'frames/b'}: no such folder of frames for the masks in" in message
    assert not (tmp_path / "other").exists()


def test_object_folders_with_other_names_are_refused(tmp_path, fails):
    write_frames(tmp_path / "frames")
    write_folders(tmp_path / "masks", ids=("cat", "dog"))
    message = fails(refine(tmp_path))
    assert f"{tmp_path / 'frames/cat'}: no such folder of frames" in message
    assert "name the folder of an object by its label, 1 to 254" in message


@KINDS
def test_no_frames_at_all(tmp_path, fails, kind):
    WRITE[kind](tmp_path / "masks")
    assert f"{tmp_path / 'frames'}" in fails(refine(tmp_path))
    (tmp_path / "frames").mkdir()
    assert f"{tmp_path / 'frames'}" in fails(refine(tmp_path))


# --- errors before any work ---------------------------------------------------------------------------------


def lose_a_frame(masks):
    next(masks.rglob("1.*")).unlink()


def damage(masks):
    next(masks.rglob("2.*")).write_bytes(b"junk")


@KINDS
@pytest.mark.parametrize("several", [False, True])
@pytest.mark.parametrize("spoil", [lose_a_frame, damage])
def test_errors_are_reported_before_any_work(tmp_path, refiner, fails, kind, several, spoil):
    """Errors of the last sequence, too."""
    for name in ("a", "b") if several else ("",):
        write_frames(tmp_path / "frames" / name)
        WRITE[kind](tmp_path / "masks" / name)
    masks = tmp_path / "masks" / ("b" if several else "")
    spoil(masks)
    assert f"error: {masks}" in fails(refine(tmp_path))
    assert not refiner.seen and not (tmp_path / "out").exists()


@KINDS
def test_scores_are_refused_as_labels(tmp_path, fails, kind):
    write_frames(tmp_path / "frames")
    WRITE[kind](tmp_path / "masks")
    message = fails(refine(tmp_path, "--masks-hold", "labels"))
    assert "not labels; omit --masks-hold" in message
    assert not (tmp_path / "out").exists()


# --- inputs are safe ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("sequence", ["", "a"])
@pytest.mark.parametrize("leave", [[], ["--resume"], ["--overwrite"]])
def test_results_never_replace_scores(tmp_path, fails, sequence, leave):
    write_frames(tmp_path / "frames" / sequence)
    write_folders(tmp_path / "masks" / sequence)
    (tmp_path / "out").mkdir()
    (tmp_path / "out/a").symlink_to(tmp_path / "masks" / sequence / "1")
    before = files_in(tmp_path)
    out = "out" if sequence else "out/a"
    source = tmp_path / "masks" / sequence / "1"
    assert f"the results would replace files of {source}: choose another --out" in fails(
        refine(tmp_path, *leave, out=out)
    )
    assert files_in(tmp_path) == before


def test_results_in_the_folder_of_an_object_are_refused(tmp_path, fails):
    write_frames(tmp_path / "frames")
    write_folders(tmp_path / "masks")
    assert "the next run would read the results as masks of an object" in fails(
        refine(tmp_path, out="masks/3")
    )
    assert not (tmp_path / "masks/3").exists()


@pytest.mark.parametrize("linked", ["folder", "files"])
def test_overwrite_keeps_linked_results(tmp_path, fails, linked):
    """The results of one sequence are linked as the masks of an object in another sequence."""
    for name in ("a", "b"):
        write_frames(tmp_path / "frames" / name)
    write_folders(tmp_path / "masks/a", ids=(4,))
    assert cli.main(refine(tmp_path, "--no-craf")) == 0
    (tmp_path / "masks/a").rename(tmp_path / "masks/b")
    if linked == "folder":
        (tmp_path / "masks/b/3").symlink_to(tmp_path / "out/a")
    else:
        (tmp_path / "masks/b/3").mkdir()
        for t in range(FRAMES):
            (tmp_path / f"masks/b/3/{t}.png").symlink_to(tmp_path / f"out/a/{t}.png")
    before = files_in(tmp_path)
    assert "is read by this command, and --overwrite would remove it" in fails(
        refine(tmp_path, "--overwrite")
    )
    assert files_in(tmp_path) == before


# --- resume -------------------------------------------------------------------------------------------------


def other_scores(masks):
    if (masks / "1.npz").exists():
        np.savez(masks / "1.npz", scores=scores(1, shift=1), ids=(1, 2))
    else:
        grey(masks / "2/1.png", scores(1, shift=1)[1])


def other_ids(masks):
    if (masks / "1.npz").exists():
        write_arrays(masks, ids=(1, 3))
    else:
        (masks / "2").rename(masks / "3")


@KINDS
@pytest.mark.parametrize("change", [other_scores, other_ids])
def test_resuming_with_other_masks_is_refused(tmp_path, refiner, fails, kind, change):
    write_frames(tmp_path / "frames")
    WRITE[kind](tmp_path / "masks")
    assert cli.main(refine(tmp_path)) == 0
    assert cli.main(refine(tmp_path, "--resume")) == 0
    assert len(refiner.seen) == FRAMES
    before = files_in(tmp_path / "out")
    change(tmp_path / "masks")
    assert "another run (different masks)" in fails(refine(tmp_path, "--resume"))
    assert files_in(tmp_path / "out") == before


@KINDS
def test_the_note_records_ids_and_scores(tmp_path, kind):
    write_frames(tmp_path / "frames/a")
    WRITE[kind](tmp_path / "masks/a", ids=(2, 4))
    assert cli.main(refine(tmp_path)) == 0
    noted = json.loads((tmp_path / "out/run.json").read_text())["work"]["masks of a"]
    assert noted["ids"] == [2, 4] and noted["scores"] is True
