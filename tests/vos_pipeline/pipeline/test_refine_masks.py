"""Command refine: refines masks of any other tool."""

import numpy as np
import pytest
import torch
from davis_cases import files_in
from PIL import Image

import spn
from vos_pipeline import __main__ as cli
from vos_pipeline.data import load_davis, read_labels, write_image, write_labels
from vos_pipeline.pipeline import refine_masks


class Identity(torch.nn.Module):
    def forward(self, image, coarse):
        assert image.shape[1] == 3 and image.min() >= 0 and image.max() <= 1
        assert coarse.dtype == torch.float32 and image.shape[2:] == coarse.shape[2:]
        return coarse


@pytest.fixture
def identity_refiner(monkeypatch):
    monkeypatch.setattr(spn.SPNRefiner, "from_pretrained", staticmethod(lambda name, tile: Identity()))


def refine(frames, masks, out, *options):
    return ["refine", *(str(a) for a in ("--frames", frames, "--masks", masks, "--out", out, *options))]


def with_false_alarm(labels):
    labels = labels.copy()
    labels[:4, :4] = 1
    return labels


def drifting_squares(root, frames=6):
    """Two moving objects that overlap after smoothing, and later a false region at the start of the first object."""
    for t in range(frames):
        labels = np.zeros((40, 64), np.uint8)
        labels[10:24, 6 + 7 * t : 20 + 7 * t], labels[16:34, 18 + 7 * t : 30 + 7 * t] = 1, 2
        if t >= 4:
            labels[10:24, 6:20] = 1
        write_image(root / f"frames/{t}.png", np.full((40, 64, 3), 40 * t, np.uint8))
        write_labels(root / f"masks/{t}.png", labels)
    return root / "frames", root / "masks"


# --- results --------------------------------------------------------------------------------------------------


def test_a_folder(identity_refiner, clips_root, tmp_path):
    (clip, _) = load_davis(clips_root)
    frames, masks = clip.frame_paths[0].parent, tmp_path / "masks"
    for t, path in enumerate(clip.mask_paths):
        write_labels(masks / path.name, with_false_alarm(clip.read_mask(t)) if t == 3 else clip.read_mask(t))
    runs = {
        "default": [],
        "flow": ["--filter", "flow"],
        "craf": ["--filter", "craf"],
        "none": ["--filter", "none"],
    }
    for name, options in {**runs, "older": ["--no-craf"]}.items():
        assert cli.main(refine(frames, masks, tmp_path / name, *options)) == 0
    corner = {name: read_labels(tmp_path / name / clip.mask_paths[3].name)[0, 0] for name in (*runs, "older")}
    assert corner == {"default": 0, "flow": 0, "craf": 0, "none": 1, "older": 1}
    assert len(results(tmp_path / "default")) == 5
    assert results(tmp_path / "default") == results(tmp_path / "flow")


def test_an_unknown_filter_does_not_claim_the_folder(identity_refiner, tmp_path):
    frames, masks = drifting_squares(tmp_path, frames=2)
    with pytest.raises(ValueError, match=r"filter_name must be one of .*'flow'.*, got 'median'"):
        refine_masks(frames, masks, tmp_path / "out", filter_name="median")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("height", "said"), [(6, True), (1, False)])
def test_a_filter_that_removes_much_is_reported(identity_refiner, tmp_path, capsys, height, said):
    frames, masks = drifting_squares(tmp_path, frames=3)
    labels = read_labels(masks / "2.png")
    labels[40 - height :, :14] = 1  # far from the first object
    write_labels(masks / "2.png", labels)
    assert cli.main(refine(frames, masks, tmp_path / "out")) == 0
    before, after = (
        [np.count_nonzero(read_labels(folder / f"{t}.png")) for t in range(3)]
        for folder in (masks, tmp_path / "out")
    )
    assert before[:2] == after[:2] and after[2] == before[2] - 14 * height
    message = (
        f"the flow filter removed {14 * height / sum(before):.0%} of the refined masks, most in frame 2 "
        f"({14 * height / before[2]:.0%}); --filter none keeps everything"
    )
    assert removed_of(capsys) == [message] * said
    assert cli.main(refine(frames, masks, tmp_path / "all", "--filter", "none")) == 0
    assert removed_of(capsys) == []


def test_correct_masks_are_unchanged(identity_refiner, clips_root, tmp_path, capsys):
    """Objects cross and split into several regions; CRAF loses some of the regions."""
    changed = {"flow": [], "craf": []}
    for clip in load_davis(clips_root):
        frames, masks = clip.frame_paths[0].parent, clip.mask_paths[0].parent
        for chosen, pixels in changed.items():
            out = tmp_path / chosen / clip.name
            assert cli.main(refine(frames, masks, out, "--filter", chosen)) == 0
            pixels += [
                np.count_nonzero(read_labels(out / path.name) != clip.read_mask(t))
                for t, path in enumerate(clip.mask_paths)
            ]
    assert sum(changed["flow"]) <= 10 < 50 <= sum(changed["craf"])
    assert removed_of(capsys) == []


def test_many_sequences_and_late_objects(identity_refiner, clips_root, tmp_path):
    frames, masks = clips_root / "JPEGImages/480p", tmp_path / "masks"
    for clip in load_davis(clips_root):
        for t, path in enumerate(clip.mask_paths):
            labels = clip.read_mask(t)
            if t == 0:
                labels[labels == 2] = 0  # the tool detects the second object later
            write_labels(masks / clip.name / path.name, labels)
    assert cli.main(refine(frames, masks, tmp_path / "out")) == 0
    for clip in load_davis(clips_root):
        assert 2 in read_labels(tmp_path / "out" / clip.name / "00002.png")


def test_the_shipped_weights_refine(tmp_path):
    frames, masks = drifting_squares(tmp_path, frames=1)
    assert cli.main(refine(frames, masks, tmp_path / "out", "--tile", "256")) == 0
    assert set(np.unique(read_labels(tmp_path / "out/0.png"))) == {0, 1, 2}


# --- kinds of masks -------------------------------------------------------------------------------------------


def grey(path, values):
    path.parent.mkdir(exist_ok=True)
    Image.fromarray(np.asarray(values, np.uint8)).save(path)


def refined(tmp_path, masks, *options):
    """Return the refined labels of grey masks."""
    for t, mask in enumerate(masks):
        write_image(tmp_path / f"frames/{t}.png", np.zeros((*np.shape(mask), 3), np.uint8))
        grey(tmp_path / f"masks/{t}.png", mask)
    argv = refine(
        tmp_path / "frames", tmp_path / "masks", tmp_path / "out", "--no-craf", "--overwrite", *options
    )
    assert cli.main(argv) == 0
    return [read_labels(tmp_path / f"out/{t}.png").tolist() for t in range(len(masks))]


def test_binary_masks(identity_refiner, tmp_path):
    assert refined(tmp_path, [[[0, 255], [255, 0]]]) == [[[0, 1], [1, 0]]]


def test_grey_labels(identity_refiner, tmp_path):
    assert refined(tmp_path, [[[0, 3], [7, 63]], [[0, 0], [255, 3]]]) == [[[0, 3], [7, 63]], [[0, 0], [0, 3]]]


def test_scores_are_probabilities_times_255(identity_refiner, tmp_path):
    """One value that is not a label makes all masks of the folder scores, even masks of 0 and 255."""
    assert refined(tmp_path, [[[0, 127], [128, 255]], [[0, 20], [255, 0]]]) == [
        [[0, 0], [1, 1]],
        [[0, 0], [1, 0]],
    ]


def test_masks_hold_selects_the_kind(identity_refiner, tmp_path):
    assert refined(tmp_path, [[[0, 20], [40, 50]]], "--masks-hold", "scores") == [[[0, 0], [0, 0]]]
    assert refined(tmp_path, [[[0, 20], [128, 200]]], "--masks-hold", "labels") == [[[0, 20], [128, 200]]]


def test_scores_reach_the_refiner_unchanged(monkeypatch, tmp_path):
    seen = []

    class Seeing(torch.nn.Module):
        def forward(self, image, coarse):
            seen.append(coarse)
            return coarse

    monkeypatch.setattr(spn.SPNRefiner, "from_pretrained", staticmethod(lambda name, tile: Seeing()))
    refined(tmp_path, [[[0, 51], [102, 255]]])
    assert torch.equal(seen[0], torch.tensor([[[[0, 0.2], [0.4, 1]]]]))


def test_an_object_missing_from_one_frame_of_grey_labels(identity_refiner, tmp_path):
    """In that frame, 255 is void as in the other frames, and not the object."""
    assert refined(tmp_path, [[[1, 255], [0, 1]], [[0, 255], [255, 0]]]) == [
        [[1, 0], [0, 1]],
        [[0, 0], [0, 0]],
    ]


def test_one_bit_masks_among_scores(identity_refiner, tmp_path):
    frames, masks = drifting_squares(tmp_path, frames=2)
    scores = np.tile(np.arange(0, 240, 8, dtype=np.uint8), (40, 3))[:, :64]
    Image.fromarray(scores).save(masks / "0.png")
    Image.fromarray(scores > 100).save(masks / "1.png")
    assert cli.main(refine(frames, masks, tmp_path / "out", "--no-craf")) == 0
    for t, expected in enumerate((scores >= 128, scores > 100)):
        np.testing.assert_array_equal(read_labels(tmp_path / f"out/{t}.png"), expected)


@pytest.mark.parametrize("hold", ["auto", "scores"])
def test_scores_beside_palette_masks_are_refused(identity_refiner, tmp_path, fails, hold):
    frames, masks = drifting_squares(tmp_path, frames=3)
    grey(masks / "1.png", np.full((40, 64), 130))
    message = fails(refine(frames, masks, tmp_path / "out", "--masks-hold", hold))
    if hold == "auto":
        assert "masks/1.png: contains scores (such as 130), but 0.png is an indexed (palette) mask" in message
    else:
        assert "masks/0.png: scores must be 8-bit grey PNGs, got an indexed (palette) image" in message
    assert not (tmp_path / "out").exists()


def test_scores_that_are_all_0_mark_nothing(identity_refiner, tmp_path, fails):
    frames, masks = drifting_squares(tmp_path, frames=1)
    grey(masks / "0.png", np.zeros((40, 64)))
    message = fails(refine(frames, masks, tmp_path / "out", "--masks-hold", "scores"))
    assert "masks: these masks mark no object" in message


def test_jpegs_hold_scores_or_one_object(identity_refiner, tmp_path):
    frames, masks = drifting_squares(tmp_path, frames=1)
    (masks / "0.png").unlink()
    mask = np.zeros((40, 64), np.uint8)
    mask[10:30, 16:48] = 255
    Image.fromarray(mask).save(masks / "0.JPG", quality=80)
    for hold in ("auto", "labels", "scores"):
        argv = refine(frames, masks, tmp_path / hold, "--no-craf", "--masks-hold", hold)
        assert cli.main(argv) == 0
        np.testing.assert_array_equal(read_labels(tmp_path / hold / "0.png"), mask // 255)


def test_suffixes_of_any_case(identity_refiner, tmp_path):
    frames, masks = drifting_squares(tmp_path, frames=2)
    for path in masks.iterdir():
        path.rename(path.with_suffix(".PNG"))
    assert cli.main(refine(frames, masks, tmp_path / "out")) == 0
    assert {path.name for path in (tmp_path / "out").glob("*.png")} == {"0.png", "1.png"}


def test_colour_masks_are_refused(identity_refiner, tmp_path, fails):
    frames, masks = drifting_squares(tmp_path, frames=1)
    Image.new("RGB", (64, 40), "red").save(masks / "0.png")
    for hold in ("auto", "labels", "scores"):
        message = fails(refine(frames, masks, tmp_path / "out", "--masks-hold", hold))
        assert "indexed (palette) or 8-bit grey PNG, got a colour image (RGB)" in message


# --- which folders are sequences ----------------------------------------------------------------------------


def two_sequences(root):
    for name in ("a", "b"):
        frames, masks = drifting_squares(root / name, frames=1)
        for path, kind in ((frames, "frames"), (masks, "masks")):
            (root / kind).mkdir(exist_ok=True)
            path.rename(root / kind / name)
    return root / "frames", root / "masks"


def overlay(folder):
    folder.mkdir(parents=True)
    Image.new("RGB", (64, 40), "red").save(folder / "0.png")


def test_folders_without_masks_are_not_sequences(identity_refiner, tmp_path, capsys):
    frames, masks = two_sequences(tmp_path)
    for name in ("@eaDir", "__MACOSX", ".thumbnails"):
        write_labels(masks / name / "0.png", np.ones((40, 64), np.uint8))
    (masks / "empty").mkdir()
    (masks / "logs").mkdir()
    (masks / "logs/0.txt").write_text("no picture")
    overlay(masks / "vis")
    assert cli.main(refine(frames, masks, tmp_path / "out")) == 0
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a", "b", "run.json"]
    skipped = [line for line in capsys.readouterr().err.splitlines() if "skipped" in line]
    assert skipped == [f"warning: {masks / 'vis'}: skipped, these images are not masks and have no frames"]


def test_folders_next_to_masks_are_ignored(identity_refiner, tmp_path):
    frames, masks = drifting_squares(tmp_path, frames=1)
    overlay(masks / "vis")
    write_labels(masks / "older/0.png", np.ones((40, 64), np.uint8))
    assert cli.main(refine(frames, masks, tmp_path / "out")) == 0
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [".refine.npz", "0.png", "run.json"]


@pytest.mark.parametrize("linked", [False, True])
def test_results_among_the_masks_are_not_a_sequence(identity_refiner, tmp_path, linked):
    frames, masks = two_sequences(tmp_path)
    out = masks / "refined"
    write_labels(out / "left.png", np.ones((40, 64), np.uint8))
    if linked:
        (tmp_path / "link").symlink_to(out)
        out = tmp_path / "link"
    for leave in (
        "--overwrite",
        "--resume",
    ):  # left.png is in the folder, but does not belong to the run
        assert cli.main(refine(frames, masks, out, leave)) == 0
    assert read_labels(masks / "refined/left.png").all()
    assert (masks / "refined/a/0.png").is_file() and (masks / "refined/b/0.png").is_file()


def test_masks_without_frames_are_named(identity_refiner, tmp_path, fails):
    frames, masks = two_sequences(tmp_path)
    (frames / "b").rename(frames / "c")
    message = fails(refine(frames, masks, tmp_path / "out"))
    assert f"{frames / 'b'}: no such folder of frames for the masks in {masks / 'b'}" in message
    assert not (tmp_path / "out").exists()


def test_a_folder_without_masks_is_named(identity_refiner, tmp_path, fails):
    overlay(tmp_path / "masks/vis")
    (tmp_path / "masks/notes.txt").write_text("no picture")
    message = fails(refine(tmp_path / "frames", tmp_path / "masks", tmp_path / "out"))
    assert "masks: contains no masks and no folders of masks; it contains notes.txt, vis" in message


@pytest.mark.parametrize("kind", ["frames", "masks"])
@pytest.mark.parametrize("several", [False, True])
def test_results_never_replace_frames_or_masks(identity_refiner, tmp_path, fails, kind, several):
    frames, masks = two_sequences(tmp_path) if several else drifting_squares(tmp_path, frames=1)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.png")}
    message = fails(refine(frames, masks, tmp_path / kind))
    assert f"the results would replace files of {tmp_path / kind}" in message
    assert {path: path.read_bytes() for path in tmp_path.rglob("*.png")} == before


# --- resume ---------------------------------------------------------------------------------------------------


class Smoothing(torch.nn.Module):
    """Smooth the scores, so that neighbouring objects overlap, and stop at a chosen call like Ctrl-C."""

    def __init__(self, stop_at=None):
        super().__init__()
        self.calls, self.stop_at = 0, stop_at

    def forward(self, image, coarse):
        if self.calls == self.stop_at:
            raise KeyboardInterrupt
        self.calls += 1
        return torch.nn.functional.avg_pool2d(coarse, 5, 1, 2).mul(1.6).clamp(0, 1)


def use(monkeypatch, refiner):
    monkeypatch.setattr(spn.SPNRefiner, "from_pretrained", staticmethod(lambda name, tile: refiner))
    return refiner


def removed_of(capsys):
    """Return the warning of the command about removed pixels."""
    return [
        line.partition(": ")[2].partition(": ")[2]
        for line in capsys.readouterr().err.splitlines()
        if "removed" in line
    ]


def results(folder):
    return {path.name: path.read_bytes() for path in folder.glob("*.png")}


@pytest.mark.parametrize("stop_at", [1, 4, 5])
@pytest.mark.parametrize("chosen", ["craf", "flow"])
def test_a_stopped_run_resumes_to_the_same_masks(monkeypatch, tmp_path, stop_at, chosen, fails, capsys):
    frames, masks = drifting_squares(tmp_path)
    use(monkeypatch, Smoothing())
    assert cli.main(refine(frames, masks, tmp_path / "whole", "--filter", chosen)) == 0
    warned = removed_of(capsys)

    use(monkeypatch, Smoothing(stop_at))
    assert "--resume continues" in fails(refine(frames, masks, tmp_path / "parts", "--filter", chosen))
    assert len(results(tmp_path / "parts")) == stop_at
    rest = use(monkeypatch, Smoothing())
    assert cli.main(refine(frames, masks, tmp_path / "parts", "--resume", "--filter", chosen)) == 0
    assert rest.calls == 6 - stop_at
    assert results(tmp_path / "parts") == results(tmp_path / "whole")
    assert warned and removed_of(capsys) == warned


def test_a_finished_run_resumes_without_work(monkeypatch, tmp_path):
    frames, masks = drifting_squares(tmp_path)
    refiner = use(monkeypatch, Smoothing())
    for expected in (6, 6):
        assert cli.main(refine(frames, masks, tmp_path / "out", "--resume")) == 0
        assert refiner.calls == expected


def test_overwrite_computes_everything_again(monkeypatch, tmp_path, fails):
    frames, masks = drifting_squares(tmp_path)
    refiner = use(monkeypatch, Smoothing())
    assert cli.main(refine(frames, masks, tmp_path / "out")) == 0
    whole = files_in(tmp_path / "out")
    assert "holds a run: pass --resume to continue it, --overwrite" in fails(
        refine(frames, masks, tmp_path / "out")
    )
    assert refiner.calls == 6 and files_in(tmp_path / "out") == whole
    (frames / "5.png").unlink()
    (masks / "5.png").unlink()
    assert cli.main(refine(frames, masks, tmp_path / "out", "--overwrite")) == 0
    assert refiner.calls == 11
    assert sorted(results(tmp_path / "out")) == [
        f"{t}.png" for t in range(5)
    ]  # no file of the longer video remains


def other_frame(frames, masks):
    write_image(frames / "4.png", np.full((40, 64, 3), 7, np.uint8))


def other_mask(frames, masks):
    write_labels(masks / "4.png", np.ones((40, 64), np.uint8))


def one_frame_more(frames, masks):
    write_image(frames / "6.png", np.full((40, 64, 3), 7, np.uint8))
    write_labels(masks / "6.png", np.ones((40, 64), np.uint8))


@pytest.mark.parametrize(
    ("change", "part"), [(other_frame, "video"), (other_mask, "masks"), (one_frame_more, "video")]
)
def test_resuming_with_other_files_is_refused(identity_refiner, tmp_path, fails, change, part):
    frames, masks = drifting_squares(tmp_path)
    assert cli.main(refine(frames, masks, tmp_path / "out")) == 0
    before = files_in(tmp_path / "out")
    change(frames, masks)
    assert f"another run (different {part})" in fails(refine(frames, masks, tmp_path / "out", "--resume"))
    assert files_in(tmp_path / "out") == before


def test_resuming_with_other_weights_is_refused(tmp_path, fails):
    frames, masks = drifting_squares(tmp_path, frames=1)
    weights = tmp_path / "weights.safetensors"
    argv = refine(frames, masks, tmp_path / "out", "--weights", weights)
    spn.SPNRefiner(spn.LiteGuidance((4, 4, 4, 4))).save_pretrained(weights)
    assert cli.main(argv) == 0
    assert cli.main([*argv, "--resume"]) == 0
    spn.SPNRefiner(spn.LiteGuidance((4, 4, 4, 4))).save_pretrained(weights)
    assert "another run (different settings)" in fails([*argv, "--resume"])


@pytest.mark.parametrize("link", [False, True])
@pytest.mark.parametrize("which", ["frames", "masks"])
@pytest.mark.parametrize("leave", [(), ("--resume",), ("--overwrite",)])
def test_results_never_replace_inputs(identity_refiner, tmp_path, fails, which, link, leave):
    frames, masks = drifting_squares(tmp_path)
    before = files_in(frames), files_in(masks)
    out = frames if which == "frames" else masks
    if link:
        (tmp_path / "link").symlink_to(out)
        out = tmp_path / "link"
    why = fails(refine(frames, masks, out, *leave))
    assert f"{out}: the results would replace files of {tmp_path / which}: choose another --out" in why
    assert (files_in(frames), files_in(masks)) == before


def test_results_never_replace_the_inputs_of_one_sequence(identity_refiner, clips_root, tmp_path, fails):
    frames, masks = tmp_path / "frames", tmp_path / "masks"
    for clip in load_davis(clips_root):
        for t in range(len(clip)):
            write_image(frames / clip.name / f"{t}.png", clip.read_frame(t))
            write_labels(masks / clip.name / f"{t}.png", clip.read_mask(t))
    (tmp_path / "out").mkdir()
    (tmp_path / "out/val-01").symlink_to(masks / "val-01")
    before = files_in(tmp_path)
    for leave in ((), ("--resume",), ("--overwrite",)):
        why = fails(refine(frames, masks, tmp_path / "out", *leave))
        assert f"out/val-01: the results would replace files of {masks / 'val-01'}" in why
    assert files_in(tmp_path) == before


def test_results_are_not_removed_while_they_are_read(identity_refiner, tmp_path, fails):
    frames, masks = drifting_squares(tmp_path)
    assert cli.main(refine(frames, masks, tmp_path / "out")) == 0
    before = files_in(tmp_path / "out")
    (tmp_path / "out/again").mkdir()
    why = fails(refine(frames, tmp_path / "out", tmp_path / "out", "--overwrite"))
    assert "the results would replace files of" in why
    assert files_in(tmp_path / "out") == before


@pytest.mark.parametrize("content", [b"", b"junk", b"PK\x03\x04junk"])
def test_a_damaged_state_is_named(identity_refiner, tmp_path, fails, content):
    frames, masks = drifting_squares(tmp_path)
    assert cli.main(refine(frames, masks, tmp_path / "out")) == 0
    (tmp_path / "out/.refine.npz").write_bytes(content)
    why = fails(refine(frames, masks, tmp_path / "out", "--resume"))
    assert "out/.refine.npz: is damaged" in why and "delete it and run again with --resume" in why


def test_a_deleted_result_is_computed_again(monkeypatch, tmp_path):
    frames, masks = drifting_squares(tmp_path)
    use(monkeypatch, Smoothing())
    assert cli.main(refine(frames, masks, tmp_path / "out")) == 0
    whole = results(tmp_path / "out")
    (tmp_path / "out/2.png").unlink()
    assert cli.main(refine(frames, masks, tmp_path / "out", "--resume")) == 0
    assert results(tmp_path / "out") == whole


def test_resuming_with_other_settings_is_refused(identity_refiner, tmp_path, fails):
    frames, masks = drifting_squares(tmp_path, frames=2)
    assert cli.main(refine(frames, masks, tmp_path / "out")) == 0
    for other in (["--no-craf"], ["--filter", "none"], ["--filter", "craf"]):
        message = fails(refine(frames, masks, tmp_path / "out", "--resume", *other))
        assert "out holds another run (different settings)" in message


def test_the_results_are_only_masks_and_notes(identity_refiner, tmp_path):
    frames, masks = drifting_squares(tmp_path, frames=2)
    assert cli.main(refine(frames, masks, tmp_path / "out")) == 0
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        ".refine.npz",
        "0.png",
        "1.png",
        "run.json",
    ]


# --- errors -----------------------------------------------------------------------------------------------------


def test_a_missing_mask_is_named(identity_refiner, clips_root, tmp_path, fails):
    (clip, _) = load_davis(clips_root)
    write_labels(tmp_path / "masks/00000.png", clip.read_mask(0))
    argv = refine(clip.frame_paths[0].parent, tmp_path / "masks", tmp_path / "out")
    assert "no mask 00001.png for frame 00001 (4 missing)" in fails(argv)


def test_a_missing_frame_is_named(identity_refiner, tmp_path, fails):
    frames, masks = drifting_squares(tmp_path)
    for t in (3, 4):
        (frames / f"{t}.png").unlink()
    assert "no frame for mask 3.png (2 missing)" in fails(refine(frames, masks, tmp_path / "out"))


@pytest.mark.parametrize("folder", ["frames", "masks"])
def test_other_sizes_are_named_before_any_work(identity_refiner, tmp_path, fails, folder):
    frames, masks = drifting_squares(tmp_path)
    if folder == "frames":
        write_image(frames / "5.png", np.zeros((30, 64, 3), np.uint8))
    else:
        write_labels(masks / "5.png", np.ones((30, 64), np.uint8))
    message = fails(refine(frames, masks, tmp_path / "out"))
    assert f"{folder}/5.png: is 64x30, but 0.png is 64x40" in message
    assert not (tmp_path / "out").exists()


def test_empty_masks(identity_refiner, tmp_path, fails):
    write_image(tmp_path / "frames/0.png", np.zeros((32, 32, 3), np.uint8))
    write_labels(tmp_path / "masks/0.png", np.zeros((32, 32), np.uint8))
    message = fails(refine(tmp_path / "frames", tmp_path / "masks", tmp_path / "out"))
    assert "masks: these masks mark no object" in message


def test_no_folder_of_masks(identity_refiner, tmp_path, fails):
    assert "no such folder of masks" in fails(refine(tmp_path, tmp_path / "masks", tmp_path / "out"))


def test_a_file_without_weights_is_named(tmp_path, fails):
    frames, masks = drifting_squares(tmp_path, frames=1)
    (tmp_path / "large").write_text("no weights")
    argv = refine(frames, masks, tmp_path / "out", "--weights", tmp_path / "large")
    assert f"refiner '{tmp_path}/large': " in fails(argv)
