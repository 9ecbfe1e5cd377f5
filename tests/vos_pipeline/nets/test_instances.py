"""Instance nets and their score maps."""

import dataclasses

import numpy as np
import pytest
import torch

from vos_pipeline.data import Sequence, write_image, write_labels
from vos_pipeline.nets import (
    ForegroundNet,
    foreground_mask,
    instance_checkpoint,
    instance_jobs,
    labels_from_scores,
    object_probabilities,
    object_scores,
    resize_scores,
    train_instance,
)
from vos_pipeline.settings import PRESETS, NetSchedule
from vos_pipeline.training import Compute
from vos_pipeline.training.checkpoint import load_checkpoint


class ColorNet(torch.nn.Module):
    """The logit of object k is 8 c - 4, where c is its channel of the image; background has logit 0."""

    def __init__(self, channels):
        super().__init__()
        self.channels = channels

    def forward(self, image):
        logits = 8 * image[:, self.channels] - 4
        return torch.cat([torch.zeros_like(logits[:, :1]), logits], 1)


def test_scores_are_zero_outside_the_foreground():
    image = torch.rand(3, 12, 15, generator=torch.Generator().manual_seed(0))
    inside = foreground_mask(ColorNet([2]), image)
    assert torch.equal(inside, image[2] >= 0.5)
    scores = object_scores([ColorNet([0]), ColorNet([1])], inside, image)
    assert scores.shape == (2, 12, 15)
    assert (scores[:, ~inside] == 0).all()
    torch.testing.assert_close(scores[:, inside], torch.sigmoid(8 * image[:2, inside] - 4))


def test_labels_of_a_per_video_net_are_the_argmax_of_its_channels():
    image, everywhere = torch.rand(3, 40, 50), torch.ones(40, 50, dtype=torch.bool)
    net = ColorNet([0, 1, 2])
    scores = object_scores([net], everywhere, image)
    argmax = net(image[None])[0].argmax(0)
    assert torch.equal(labels_from_scores(scores, [1, 2, 3]), argmax.to(torch.uint8))
    # The largest channel may be below 1/2, where the rule of per-object nets gives background.
    largest = net(image[None])[0].softmax(0).amax(0)
    assert ((argmax > 0) & (largest < 0.5)).any()


def test_scores_of_a_per_video_net_match_a_hand_computation():
    class Fixed(torch.nn.Module):
        def forward(self, image):
            p = torch.tensor([[0.3, 0.0, 0.25], [0.5, 0.9, 0.25], [0.2, 0.1, 0.5]])  # (channel, pixel)
            return p.log()[None, :, None]

    scores = object_probabilities(Fixed(), torch.rand(3, 1, 3))
    expected = [[0.5 / 0.8, 0.9, 0.25 / 0.75], [0.2 / 0.7, 0.1, 0.5 / 0.75]]
    torch.testing.assert_close(scores[:, 0], torch.tensor(expected))


def test_flip_test_averages_both_views():
    class LeftHalf(torch.nn.Module):
        def forward(self, image):
            logits = torch.zeros(len(image), 2, *image.shape[-2:])
            logits[:, 1, :, : image.shape[-1] // 2] = 40
            return logits

    probability = object_probabilities(LeftHalf(), torch.rand(3, 4, 8), flip_test=True)[0]
    torch.testing.assert_close(probability, torch.full((4, 8), 0.75))


def test_labels_take_the_largest_score_above_the_threshold():
    scores = torch.tensor([[[0.9, 0.4, 0.6, 0.5]], [[0.2, 0.45, 0.7, 0.5]]])
    labels = labels_from_scores(scores, [3, 7])
    assert labels.dtype == torch.uint8
    assert labels.tolist() == [[3, 0, 7, 3]]


def test_resize_scores():
    scores = torch.rand(2, 10, 12)
    assert resize_scores(scores, (10, 12)) is scores
    larger = resize_scores(scores, (20, 25))
    assert larger.shape == (2, 20, 25) and larger.min() >= 0 and larger.max() <= 1


@pytest.fixture
def sequence(tmp_path):
    labels = np.zeros((48, 64), np.uint8)
    labels[8:32, 6:26], labels[16:40, 36:58] = 2, 5
    frame = np.full((48, 64, 3), 90, np.uint8)
    frame[labels == 2], frame[labels == 5] = (230, 40, 40), (40, 40, 230)
    write_image(tmp_path / "0.png", frame)
    write_labels(tmp_path / "mask.png", labels)
    return Sequence("two", (tmp_path / "0.png",), (tmp_path / "mask.png",))


@pytest.mark.parametrize(("model", "channels"), [("per-object", [2, 2]), ("per-video", [3])])
def test_nets_learn_to_distinguish_objects(sequence, tmp_path, model, channels):
    schedule = NetSchedule(steps=30, batch=2, learning_rate=5e-3, head_factor=10.0)
    preset = dataclasses.replace(PRESETS["small"], height=None, instance=schedule, model=model)
    torch.manual_seed(0)
    foreground = ForegroundNet("small")
    nets = [
        train_instance(
            foreground,
            sequence,
            objects,
            preset,
            instance_checkpoint(tmp_path, objects, preset),
            Compute(),
        )
        for objects in instance_jobs(sequence, preset)
    ]
    assert [net.head.out_channels for net in nets] == channels
    image = torch.from_numpy(sequence.read_frame(0).copy()).permute(2, 0, 1) / 255
    scores = object_scores(nets, torch.ones(48, 64, dtype=torch.bool), image)
    labels = sequence.read_mask(0)
    for index, k in enumerate(sequence.object_ids):
        own, others = scores[index][labels == k].mean(), scores[index][labels != k].mean()
        assert own > others + 0.3


def test_one_object_has_the_same_net_in_every_model(sequence, tmp_path):
    labels = sequence.read_mask(0)
    write_labels(tmp_path / "mask.png", np.where(labels == 2, 2, 0).astype(np.uint8))
    alone = Sequence("one", sequence.frame_paths, sequence.mask_paths)
    schedule = NetSchedule(steps=2, batch=1, learning_rate=1e-3)
    weights = []
    for model in ("per-object", "per-video"):
        preset = dataclasses.replace(PRESETS["small"], height=32, instance=schedule, model=model)
        torch.manual_seed(0)
        (objects,) = instance_jobs(alone, preset)
        checkpoint = instance_checkpoint(tmp_path / model, objects, preset)
        train_instance(ForegroundNet("small"), alone, objects, preset, checkpoint, Compute())
        weights.append(load_checkpoint(tmp_path / model / "object-2.pt")["net"])
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())
