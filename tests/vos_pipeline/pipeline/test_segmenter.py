"""Segmenter: the labels of the commands, the scores of every stage, invalid arguments."""

import copy
import dataclasses
import pickle

import numpy as np
import pytest
import tiny
import torch

import vos_pipeline
from vos_pipeline import pipeline
from vos_pipeline.data import load_davis, read_labels
from vos_pipeline.errors import PipelineError
from vos_pipeline.pipeline import Segmenter, VideoNets, segmenter, stages
from vos_pipeline.training.checkpoint import load_checkpoint

TINY = tiny.TINY


@pytest.fixture(autouse=True)
def unrefined(monkeypatch):
    for module in (stages, segmenter):
        monkeypatch.setattr(module, "load_refiner", lambda name, device: tiny.Unrefined())


@pytest.fixture
def pair(tmp_path):
    (sequence,) = load_davis(tiny.write_root(tmp_path / "davis"), "2017", "val")
    return sequence


def frames_of(sequence):
    return [sequence.read_frame(t) for t in range(len(sequence))]


def a_net(sequence, preset=TINY, **options):
    return Segmenter(sequence.read_frame(0), sequence.read_mask(0), preset, "cpu", **options)


@pytest.mark.parametrize(
    ("chosen", "model"), [("none", "per-video"), ("craf", "per-object"), ("flow", "per-object")]
)
def test_labels_equal_those_of_a_run(tmp_path, pair, chosen, model):
    preset = dataclasses.replace(TINY, filter=chosen, model=model)
    result = pipeline.run(tmp_path, [pair], tmp_path / "out", preset=preset, train_sequences=[])
    one = a_net(pair, preset)
    assert one.final == result.final and one.object_ids == (1, 2)
    for t, frame in enumerate(frames_of(pair)[1:], 1):
        expected = read_labels(result.label_dirs[result.final] / "pair" / f"{t:05d}.png")
        labels = one.step(frame)
        assert labels.dtype == np.uint8 and np.array_equal(labels, expected)


def test_scores_of_every_stage(tmp_path, pair):
    one, other = a_net(pair), a_net(pair)
    for frame in frames_of(pair)[1:]:
        scores = one.step_scores(frame)
        assert list(scores) == ["instance nets", "+ SPN", "+ CRAF", "+ flow filter"]
        for maps in scores.values():
            assert maps.dtype == np.float32 and maps.shape == (2, 40, 64)
            assert 0 <= maps.min() <= maps.max() <= 1
        assert np.array_equal(one.labels(scores[one.final]), other.step(frame))
    assert all(one.seconds[stage] > 0 for stage in (*scores, "foreground net"))


@pytest.mark.parametrize(
    ("change", "ids"),
    [
        (lambda mask: mask.astype(np.int64), (1, 2)),
        (lambda mask: mask > 0, (1,)),
        (lambda mask: np.where(mask == 2, 254, mask), (1, 254)),
        (lambda mask: np.where(mask == 1, 255, mask), (2,)),  # void
    ],
)
def test_labels_have_the_values_of_the_first_mask(pair, change, ids):
    one = Segmenter(pair.read_frame(0), change(pair.read_mask(0)), TINY, "cpu")
    assert one.object_ids == ids
    assert set(np.unique(one.step(pair.read_frame(1)))) <= {0, *ids}


def test_starts_from_a_trained_foreground_net(tmp_path, pair):
    train = load_davis(tmp_path / "davis", "2016", "train")
    pipeline.run(tmp_path, [pair], tmp_path / "out", preset=TINY, train_sequences=train)
    net = tmp_path / "out" / "nets" / "foreground.pt"
    untuned = dataclasses.replace(TINY, first_frames=dataclasses.replace(TINY.first_frames, steps=0))
    weights = a_net(pair, untuned, foreground=net).nets.foreground.state_dict()
    assert all(torch.equal(weights[name], value) for name, value in load_checkpoint(net)["average"].items())


def test_an_invalid_foreground_file_is_named(tmp_path, pair):
    damaged, other = tmp_path / "damaged.pt", tmp_path / "other.pt"
    damaged.write_bytes(b"no net")
    torch.save({"average": {"weight": torch.ones(1)}}, other)
    for path, why in (
        (tmp_path / "none.pt", "no such file"),
        (tmp_path, "no such file"),
        (damaged, "is damaged or is not a foreground net of preset tiny"),
        (other, "is damaged or is not a foreground net of preset tiny"),
    ):
        with pytest.raises(PipelineError) as raised:
            a_net(pair, foreground=path)
        message = str(raised.value)
        assert message.startswith(f"{path}: {why}; give the foreground.pt of ")
        assert "delete" not in message  # the file belongs to the caller


@pytest.mark.parametrize("device", ["gpu", "mps", "", None, "cuda:", torch.device("cpu")])
def test_an_unknown_device_is_named(device):
    with pytest.raises(PipelineError, match="device must be 'auto', 'cpu', 'cuda' or 'cuda:N', got "):
        Segmenter(FRAME, MASK, TINY, device)


@pytest.mark.parametrize(
    "copied", [copy.deepcopy, lambda one: pickle.loads(pickle.dumps(one))], ids=["deepcopy", "pickle"]
)
def test_a_copy_continues_independently(pair, copied):
    one = a_net(pair)
    frames = frames_of(pair)
    one.step(frames[1])
    other = copied(one)
    expected = [one.step(frame) for frame in frames[2:]]
    assert all(np.array_equal(other.step(f), e) for f, e in zip(frames[2:], expected, strict=True))


def test_given_nets_are_not_trained(pair, monkeypatch):
    nets = a_net(pair).nets
    monkeypatch.setattr(segmenter, "train_instance", None)
    assert isinstance(nets, VideoNets)
    assert a_net(pair, nets=nets).nets is nets


def test_the_state_of_the_caller_is_unchanged(pair):
    frame, mask, state = pair.read_frame(0), pair.read_mask(0), torch.get_rng_state()
    before = frame.copy(), mask.copy()
    Segmenter(frame, mask, TINY, "cpu").step(frame)
    assert np.array_equal(frame, before[0]) and np.array_equal(mask, before[1])
    assert torch.equal(torch.get_rng_state(), state)


def test_the_package_exports_the_segmenter():
    assert vos_pipeline.Segmenter is Segmenter


FRAME, MASK = np.zeros((40, 64, 3), np.uint8), np.eye(40, 64, dtype=np.uint8)


@pytest.mark.parametrize(
    ("frame", "mask", "message"),
    [
        (FRAME / 255, MASK, "first_frame must be uint8 RGB (H, W, 3), got float64 (40, 64, 3)"),
        (FRAME[..., 0], MASK, "first_frame must be uint8 RGB (H, W, 3), got uint8 (40, 64)"),
        (torch.zeros(40, 64, 3), MASK, "first_frame must be uint8 RGB (H, W, 3), got Tensor"),
        (FRAME[:0], MASK[:0], "first_frame must be uint8 RGB (H, W, 3), got uint8 (0, 64, 3)"),
        (FRAME, MASK.T, "first_mask must be integers or bool (H, W) = (40, 64), got uint8 (64, 40)"),
        (FRAME, MASK / 2, "first_mask must be integers or bool (H, W) = (40, 64), got float64 (40, 64)"),
        (FRAME, MASK.tolist(), "first_mask must be integers or bool (H, W) = (40, 64), got list"),
        (FRAME, MASK * 0, "first_mask must mark at least one object"),
        (FRAME, MASK * np.uint8(255), "first_mask must mark at least one object"),
        (FRAME, -MASK.astype(int), "first_mask must hold labels from 0 to 255, got -1 to 0"),
        (FRAME, MASK.astype(int) * 300, "first_mask must hold labels from 0 to 255, got 0 to 300"),
    ],
)
def test_wrong_arguments_are_named(frame, mask, message):
    with pytest.raises(ValueError) as raised:
        Segmenter(frame, mask, TINY, "cpu")
    assert str(raised.value).startswith(message)


def test_a_frame_of_another_size_is_named(pair):
    one = a_net(pair)
    with pytest.raises(
        ValueError, match=r"frame must be uint8 RGB \(H, W, 3\) = \(40, 64, 3\), got uint8 \(20, 32, 3\)"
    ):
        one.step(pair.read_frame(1)[::2, ::2])
    assert one.step(pair.read_frame(1)).shape == (40, 64)  # the segmenter is still usable


def test_scores_of_another_shape_are_named(pair):
    one = a_net(pair)
    scores = one.step_scores(pair.read_frame(1))["+ SPN"]
    with pytest.raises(
        ValueError, match=r"scores must be \(K, H, W\) = \(2, 40, 64\), got float32 \(1, 40, 64\)"
    ):
        one.labels(scores[:1])
