"""The two training stages of the foreground net."""

import dataclasses
from urllib.error import URLError

import numpy as np
import pytest
import torch

from vos_pipeline.data import Sequence, write_image, write_labels
from vos_pipeline.errors import PipelineError
from vos_pipeline.nets import initial_foreground, load_foreground, train_foreground, tune_foreground
from vos_pipeline.settings import PRESETS, Affine, Augmentation, NetSchedule, get_preset
from vos_pipeline.training import Compute

SCHEDULE = NetSchedule(steps=6, batch=2, learning_rate=3e-3, average=0.5, checkpoint_every=2)
TINY = dataclasses.replace(
    PRESETS["small"],
    height=32,
    foreground=SCHEDULE,
    first_frames=SCHEDULE,
    foreground_augmentation=Augmentation(Affine(), color=0.1),
)
PAPER = get_preset("paper")


@pytest.fixture
def sequence(tmp_path):
    labels = np.zeros((48, 64), np.uint8)
    labels[10:30, 20:50] = 1
    frame = np.where(labels[..., None] > 0, np.uint8([230, 60, 30]), np.uint8([40, 90, 60]))
    paths = []
    for t in range(3):
        write_image(tmp_path / f"{t}.png", np.roll(frame, 4 * t, 1))
        write_labels(tmp_path / f"mask{t}.png", np.roll(labels, 4 * t, 1))
        paths.append((tmp_path / f"{t}.png", tmp_path / f"mask{t}.png"))
    frames, masks = zip(*paths, strict=True)
    return Sequence("square", frames, masks)


def same_weights(one, other):
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


def test_foreground_stages(sequence, tmp_path):
    net = train_foreground([sequence], TINY, tmp_path / "foreground.pt", Compute())
    before = [p.clone() for p in net.parameters()]
    tuned = tune_foreground(net, [sequence], TINY, tmp_path / "tuned.pt", Compute())
    assert all(torch.equal(a, b) for a, b in zip(before, net.parameters(), strict=True))
    assert not same_weights(net, tuned)
    for name, trained in (("foreground", net), ("tuned", tuned)):
        assert same_weights(load_foreground(tmp_path / f"{name}.pt", TINY), trained)


def test_training_without_frames_is_an_error(tmp_path):
    with pytest.raises(PipelineError, match="at least one sequence"):
        train_foreground([], TINY, tmp_path / "net.pt", Compute())


@pytest.mark.slow
def test_one_step_of_the_papers_net(sequence, tmp_path):
    preset = dataclasses.replace(
        PAPER, pretrained=False, foreground=dataclasses.replace(PAPER.foreground, steps=1)
    )
    torch.manual_seed(preset.seed)
    before = initial_foreground(preset)
    net = train_foreground([sequence], preset, tmp_path / "net.pt", Compute())
    moved = [not torch.equal(a, b) for a, b in zip(before.parameters(), net.parameters(), strict=True)]
    assert all(moved) and len(moved) == 104 + 4  # convolutions; fusion and head also have biases
    assert all(p.isfinite().all() for p in net.parameters())
    with torch.no_grad():
        assert net(torch.rand(1, 3, 48, 64)).shape == (1, 2, 48, 64)


@pytest.mark.slow
def test_a_trained_net_needs_no_imagenet_weights(sequence, tmp_path, monkeypatch):
    def offline(*args, **kwargs):
        raise URLError("no network")

    monkeypatch.setattr("torchvision.models.ResNet101_Weights.get_state_dict", offline)
    one_step = dataclasses.replace(PAPER, foreground=dataclasses.replace(PAPER.foreground, steps=1))
    with pytest.raises(PipelineError, match="ImageNet weights"):
        train_foreground([sequence], one_step, tmp_path / "net.pt", Compute())
    bare = dataclasses.replace(one_step, pretrained=False)
    net = train_foreground([sequence], bare, tmp_path / "net.pt", Compute())
    assert same_weights(load_foreground(tmp_path / "net.pt", one_step), net)
    resumed = train_foreground([sequence], one_step, tmp_path / "net.pt", Compute(), resume=True)
    assert same_weights(resumed, net)
