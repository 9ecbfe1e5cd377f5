"""Pipeline: labels after every stage, resumed runs, runtimes and scores."""

import dataclasses
import json

import numpy as np
import pytest
import tiny
import torch
from davis_cases import files_in, one_line
from PIL import Image

from vos_pipeline import pipeline
from vos_pipeline.data import load_davis, read_image, read_labels, write_image, write_labels
from vos_pipeline.errors import PipelineError
from vos_pipeline.nets import initial_foreground, labels_from_scores
from vos_pipeline.pipeline import STAGES, run_folder, stages
from vos_pipeline.temporal import ConnectedRegionFilter, FlowFilter
from vos_pipeline.training.checkpoint import load_checkpoint

TINY, FRAMES = tiny.TINY, tiny.FRAMES


@pytest.fixture(autouse=True)
def unrefined(monkeypatch):
    monkeypatch.setattr(stages, "load_refiner", lambda name, device: tiny.Unrefined())


@pytest.fixture
def root(tmp_path):
    root = tiny.write_root(tmp_path / "davis")
    (root / "ImageSets" / "2017" / "train.txt").write_text("single\npair\n")
    return root


def run(root, out, **kwargs):
    return pipeline.run(root, load_davis(root, "2017", "val"), out, **{"preset": TINY, **kwargs})


def test_writes_the_labels_of_every_stage(root, tmp_path):
    result = run(root, tmp_path / "out")
    assert list(result.stages) == ["first mask repeated", "instance nets", "+ SPN", "+ CRAF", "+ flow filter"]
    first = read_labels(root / "Annotations" / "480p" / "pair" / "00000.png")
    for stage in result.stages:
        files = sorted((result.label_dirs[stage] / "pair").glob("*"))
        assert [file.name for file in files] == [f"{t:05d}.png" for t in range(FRAMES)]
        labels = [read_labels(file) for file in files]
        assert all(set(np.unique(x)) <= {0, 1, 2} and x.shape == first.shape for x in labels)
        assert np.array_equal(labels[0], first)
        if stage == "first mask repeated":
            assert all(np.array_equal(x, first) for x in labels)


def test_table_has_the_scores_of_every_stage(root, tmp_path):
    rows = run(root, tmp_path / "out").table().rows
    assert [row[0] for row in rows] == [
        "first mask repeated",
        "instance nets",
        "+ SPN",
        "+ CRAF",
        "+ flow filter",
    ]
    # 18 columns wide, moved by 6 and 12: J = 12 / 24 and 6 / 30. The last frame is not scored.
    _, j, f, both, seconds = rows[0]
    assert j == pytest.approx((12 / 24 + 6 / 30) / 2)
    assert both == pytest.approx((j + f) / 2)
    assert seconds == 0
    assert all(row[4] > 0 for row in rows[1:])


def test_seconds_are_means_over_frames_and_objects(root, tmp_path):
    (root / "ImageSets" / "2017" / "val.txt").write_text("single\npair\n")
    result = run(root, tmp_path / "out", train_sequences=[])
    files = {
        name: json.loads((tmp_path / "out" / "seconds" / f"{name}.json").read_text())
        for name in ("single", "pair")
    }
    counts = {"single": (FRAMES - 1) * 1, "pair": (FRAMES - 1) * 2}
    for part in (
        "foreground net",
        "first mask repeated",
        "instance nets",
        "+ SPN",
        "+ CRAF",
        "+ flow filter",
    ):
        total = sum(file["seconds"][part] for file in files.values())
        assert result.seconds[part] == pytest.approx(total / sum(counts.values()))
    assert 0 < result.seconds["foreground net"] < result.seconds["instance nets"]


@pytest.mark.parametrize("joint", [True, False])
def test_refined_scores_equal_the_input_of_the_filters(root, tmp_path, joint):
    preset = dataclasses.replace(TINY, joint=joint)
    result = run(root, tmp_path / "out", preset=preset)
    (sequence,) = load_davis(root, "2017", "val")
    first = np.stack([sequence.read_mask(0) == k for k in sequence.object_ids])
    craf, flow = ConnectedRegionFilter(first), FlowFilter(sequence.read_frame(0), first)
    seen = []
    for t, scores in pipeline.refined_scores(tmp_path / "out", sequence, preset):
        followed = flow.step(scores, sequence.read_frame(t))
        for stage, maps in (("+ SPN", scores), ("+ CRAF", craf.step(scores)), ("+ flow filter", followed)):
            labels = labels_from_scores(torch.from_numpy(maps), list(sequence.object_ids))
            assert np.array_equal(labels, read_labels(result.label_dirs[stage] / "pair" / f"{t:05d}.png"))
        seen.append(t)
    assert seen == list(range(1, FRAMES))


def test_a_missing_net_is_not_replaced_by_an_untrained_one(root, tmp_path):
    run(root, tmp_path / "out")
    net = tmp_path / "out" / "nets" / "pair" / "per-video.pt"
    net.unlink()
    (sequence,) = load_davis(root, "2017", "val")
    with pytest.raises(PipelineError, match=r"per-video\.pt: does not exist: run again with --resume"):
        next(pipeline.refined_scores(tmp_path / "out", sequence, TINY))
    assert not net.exists()
    run(root, tmp_path / "out", resume=True).table()  # finished sequences need no nets


def test_scores_are_computed_by_the_rank_that_reads_them(root, tmp_path, monkeypatch):
    scored = []
    real = run_folder.score_sequences
    monkeypatch.setattr(run_folder, "score_sequences", lambda *args: scored.append(1) or real(*args))
    result = run(root, tmp_path / "out")
    assert not scored
    result.table(), result.table()
    assert len(scored) == len(STAGES)


def test_a_preset_without_a_refiner_is_refused_before_any_work(root, tmp_path):
    with pytest.raises(PipelineError, match="preset tiny needs an SPN: give --refiner FILE"):
        run(root, tmp_path / "out", preset=dataclasses.replace(TINY, refiner=None))
    assert not (tmp_path / "out").exists()


def test_without_ground_truth_there_are_no_scores(root, tmp_path):
    for t in range(1, FRAMES):
        (root / "Annotations" / "480p" / "pair" / f"{t:05d}.png").unlink()
    result = run(root, tmp_path / "out", train_sequences=[])
    assert result.table().header == ("stage", "s/frame/object")
    assert (result.label_dirs["+ CRAF"] / "pair" / "00003.png").exists()


@pytest.mark.parametrize("joint", [True, False])
def test_first_frames_are_tuned_from_the_trained_net(root, tmp_path, joint):
    untuned = dataclasses.replace(
        TINY, joint=joint, first_frames=dataclasses.replace(TINY.first_frames, steps=0)
    )
    run(root, tmp_path / "out", preset=untuned)
    nets = tmp_path / "out" / "nets"
    trained = load_checkpoint(nets / "foreground.pt")["average"]
    tuned = load_checkpoint(nets / ("first-frames.pt" if joint else "pair/foreground.pt"))["average"]
    assert all(torch.equal(tuned[name], value) for name, value in trained.items())
    start = initial_foreground(TINY).state_dict()
    assert not all(torch.equal(start[name], value) for name, value in trained.items())


def test_a_run_of_a_version_without_the_flow_filter_is_resumed_from_its_nets(root, tmp_path):
    out = tmp_path / "out"
    run(root, out)
    whole = files_in(out / "labels")
    note = json.loads((out / "run.json").read_text())
    del note["work"]["flow filter"]
    (out / "run.json").write_text(json.dumps(note))
    for file in (out / "labels" / "flow" / "pair").iterdir():
        file.unlink()
    nets = files_in(out / "nets")
    run(root, out, resume=True)
    assert files_in(out / "labels") == whole and files_in(out / "nets") == nets
    other = dataclasses.replace(TINY, flow=dataclasses.replace(TINY.flow, reach=1.0))
    with pytest.raises(PipelineError, match=r"holds another run \(different flow filter\)"):
        run(root, out, resume=True, preset=other)


@pytest.mark.parametrize("stage", ["foreground", "first_frames", "instance"])
@pytest.mark.parametrize("joint", [True, False])
def test_a_training_of_zero_steps(root, tmp_path, stage, joint):
    none = dataclasses.replace(TINY.instance, steps=0)
    result = run(root, tmp_path / "out", preset=dataclasses.replace(TINY, joint=joint, **{stage: none}))
    assert all(0 <= value <= 1 for value in result.evaluations["+ CRAF"].summary().values() if value >= 0)


def test_nets_compute_as_the_preset_says(tmp_path):
    preset = dataclasses.replace(TINY, precision="bfloat16", compile=True)
    compute = stages.nets_of(run_folder.RunFolder(tmp_path), preset, "cpu").compute
    assert (compute.device, compute.precision, compute.compiled) == ("cpu", "bfloat16", True)


def test_the_run_learns_from_the_train_set_without_the_sequences_under_test(root, tmp_path):
    run(root, tmp_path / "out")
    work = json.loads((tmp_path / "out" / "run.json").read_text())["work"]
    assert list(work["training data"]) == ["single"]


def test_resume_repeats_no_work(root, tmp_path, monkeypatch):
    before = run(root, tmp_path / "out")

    def never(*args, **kwargs):
        raise AssertionError

    monkeypatch.setattr(stages, "_segment", never)
    after = run(root, tmp_path / "out", resume=True)
    assert after.table() == before.table()


def test_resume_after_a_kill_ends_in_the_same_labels(root, tmp_path, monkeypatch):
    (root / "ImageSets" / "2017" / "val.txt").write_text("single\npair\n")
    unbroken = run(root, tmp_path / "unbroken", train_sequences=[])
    write = run_folder.write_labels

    def killed(path, labels):
        if "pair" in str(path) and "00002" in str(path):
            raise KeyboardInterrupt
        write(path, labels)

    monkeypatch.setattr(run_folder, "write_labels", killed)
    with pytest.raises(KeyboardInterrupt):
        run(root, tmp_path / "out", train_sequences=[])
    monkeypatch.setattr(run_folder, "write_labels", write)
    resumed = run(root, tmp_path / "out", train_sequences=[], resume=True)
    for stage in STAGES:
        for path in sorted(unbroken.label_dirs[stage].rglob("*.png")):
            other = resumed.label_dirs[stage] / path.relative_to(unbroken.label_dirs[stage])
            assert path.read_bytes() == other.read_bytes()


def test_resume_refuses_another_run(root, tmp_path):
    run(root, tmp_path / "out")
    with pytest.raises(PipelineError, match=r"holds another run \(different preset\)"):
        run(root, tmp_path / "out", preset=dataclasses.replace(TINY, seed=1), resume=True)


def spoil_frame(pair):
    path = pair.frame_paths[2]
    write_image(path, read_image(path)[::-1])


def spoil_first_frame(pair):
    path = pair.frame_paths[0]
    write_image(path, read_image(path)[::-1])


def spoil_mask(pair):
    write_labels(pair.mask_paths[0], pair.read_mask(0)[::-1])


def lengthen(pair):
    write_image(pair.frame_paths[0].with_name("00004.jpg"), pair.read_frame(0))
    write_labels(pair.mask_paths[0].with_name("00004.png"), pair.read_mask(0))


def spoil_training_mask(pair):
    path = pair.mask_paths[0].parents[1] / "single/00003.png"
    write_labels(path, read_labels(path)[::-1])


@pytest.mark.parametrize("joint", [True, False])
@pytest.mark.parametrize(
    ("spoil", "part"),
    [
        (spoil_frame, "video pair"),
        (lengthen, "video pair"),
        (spoil_first_frame, "first frame or mask of pair"),
        (spoil_mask, "first frame or mask of pair"),
        (spoil_training_mask, "training data"),
    ],
)
def test_resume_refuses_other_data_under_the_same_names(root, tmp_path, spoil, part, joint):
    preset = dataclasses.replace(TINY, joint=joint)
    run(root, tmp_path / "out", preset=preset)
    before = files_in(tmp_path / "out")
    spoil(load_davis(root, "2017", "val")[0])
    if joint and part.startswith("first"):
        part = "set of first frames"
    with pytest.raises(PipelineError, match=rf"holds another run \(different {part}\)"):
        run(root, tmp_path / "out", preset=preset, resume=True)
    assert files_in(tmp_path / "out") == before


def test_resume_accepts_masks_in_another_format(root, tmp_path):
    """Masks that become available later are accepted too, because the results do not depend on them."""
    (pair,) = load_davis(root, "2017", "val")
    pair.mask_paths[3].unlink()
    run(root, tmp_path / "out", train_sequences=[])
    labels = pair.read_mask(0)
    Image.fromarray(labels).save(pair.mask_paths[0])  # grey instead of a palette
    write_labels(pair.mask_paths[3], labels)
    run(root, tmp_path / "out", train_sequences=[], resume=True)


def test_a_run_is_replaced_only_on_request(root, tmp_path):
    run(root, tmp_path / "out")
    before = files_in(tmp_path / "out")
    with pytest.raises(
        PipelineError, match="holds a run: pass --resume to continue it, --overwrite to replace it"
    ):
        run(root, tmp_path / "out")
    assert files_in(tmp_path / "out") == before


def test_overwrite_removes_only_the_files_of_the_run(root, tmp_path):
    (pair,) = load_davis(root, "2017", "val")
    lengthen(pair)
    run(root, tmp_path / "out")
    theirs = [
        tmp_path / "out" / name for name in ("nets/mine.pt", "labels/craf/pair/note.txt", "mine/nets/a.pt")
    ]
    for path in theirs:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("mine")
    for path in (pair.frame_paths[0].with_name("00004.jpg"), pair.mask_paths[0].with_name("00004.png")):
        path.unlink()
    preset = dataclasses.replace(TINY, seed=1)
    run(root, tmp_path / "out", preset=preset, overwrite=True)
    assert all(path.read_text() == "mine" for path in theirs)
    assert not list((tmp_path / "out").rglob("00004.png"))  # no labels of the longer clip remain

    run(root, tmp_path / "fresh", preset=preset)
    for path in theirs:
        path.unlink()
    (tmp_path / "out/mine/nets").rmdir()
    (tmp_path / "out/mine").rmdir()
    kept, fresh = files_in(tmp_path / "out"), files_in(tmp_path / "fresh")
    assert kept.keys() == fresh.keys()
    assert all(kept[name] == fresh[name] for name in kept if name.suffix == ".png")


def test_a_folder_of_nets_of_the_user_is_unchanged(root, tmp_path):
    mine = tmp_path / "out/nets/foreground.pt"
    mine.parent.mkdir(parents=True)
    mine.write_text("mine")
    with pytest.raises(PipelineError, match=r"out holds files that belong to no run \(nets\)"):
        run(root, tmp_path / "out")
    for leave in ({"resume": True}, {"overwrite": True}):
        with pytest.raises(
            PipelineError, match=r"nets/foreground.pt: exists already and does not belong to this run"
        ):
            run(root, tmp_path / "out", **leave)
    assert mine.read_text() == "mine"


def test_a_sequence_with_deleted_labels_is_segmented_again(root, tmp_path):
    result = run(root, tmp_path / "out")
    before = files_in(tmp_path / "out")
    (result.label_dirs["+ SPN"] / "pair/00002.png").unlink()
    run(root, tmp_path / "out", resume=True)
    after = files_in(tmp_path / "out")
    assert all(after[name] == content for name, content in before.items() if name.suffix == ".png")


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("run.json", "{"),
        ("run.json", "[]"),
        ("run.json", '{"work": {}, "files": {"../davis": ["x"]}, "patterns": []}'),
        ("nets/foreground.pt", "junk"),
        ("nets/pair/per-video.pt", "junk"),
    ],
)
def test_a_damaged_file_of_a_run_is_named(root, tmp_path, file, content):
    run(root, tmp_path / "out")
    path = tmp_path / "out" / file
    path.write_text(content)
    (tmp_path / "out/labels/craf/pair/00003.png").unlink()  # so that the run needs the nets
    with pytest.raises(PipelineError, match=rf"{path}\b.*: (move|delete) ") as error:
        run(root, tmp_path / "out", resume=True)
    one_line(error)


@pytest.mark.parametrize("content", ["", '{"frames": 3}', '{"frames": {}, "objects": 1, "seconds": {}}'])
def test_damaged_seconds_are_named(root, tmp_path, content):
    run(root, tmp_path / "out")
    path = tmp_path / "out/seconds/pair.json"
    path.write_text(content)
    with pytest.raises(PipelineError, match=rf"{path}: is damaged .*: delete it and run again with --resume"):
        run(root, tmp_path / "out", resume=True)
    path.unlink()
    run(root, tmp_path / "out", resume=True)


def test_a_joint_foreground_net_and_one_net_per_object(root, tmp_path):
    run(root, tmp_path / "out", preset=dataclasses.replace(TINY, joint=True, model="per-object"))
    nets = sorted(str(path.relative_to(tmp_path / "out" / "nets")) for path in tmp_path.rglob("*.pt"))
    assert nets == ["first-frames.pt", "foreground.pt", "pair/object-1.pt", "pair/object-2.pt"]


def test_no_sequence_is_refused(root, tmp_path):
    with pytest.raises(PipelineError, match="no sequence"):
        pipeline.run(root, [], tmp_path / "out", preset=TINY)
