"""Nets of objects and their score maps."""

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


class ColorNet(torch.nn.Module):
    """Object k has the logit 8 (the k-th of these channels of the image) - 4; background has 0."""

    def __init__(self, channels, paired=False):
        super().__init__()
        self.channels, self.paired = channels, paired

    def forward(self, image):
        logits = 8 * image[:, self.channels] - 4
        if self.paired:
            return torch.stack([torch.zeros_like(logits), logits], 2).flatten(1, 2)
        return torch.cat([torch.zeros_like(logits[:, :1]), logits], 1)


def test_scores_are_zero_outside_the_foreground():
    image = torch.rand(3, 12, 15, generator=torch.Generator().manual_seed(0))
    inside = foreground_mask(ColorNet([2]), image)
    assert torch.equal(inside, image[2] >= 0.5)
    scores = object_scores([ColorNet([0]), ColorNet([1])], inside, image)
    assert scores.shape == (2, 12, 15)
    assert (scores[:, ~inside] == 0).all()
    torch.testing.assert_close(scores[:, inside], torch.sigmoid(8 * image[:2, inside] - 4))


def test_one_net_for_all_objects_gives_their_channels():
    image, everywhere = torch.rand(3, 12, 15), torch.ones(12, 15, dtype=torch.bool)
    scores = object_scores([ColorNet([0, 1])], everywhere, image)
    torch.testing.assert_close(scores, object_probabilities(ColorNet([0, 1]), image))
    assert (scores.sum(0) < 1).all()


def test_paired_channels_say_of_each_object_what_its_own_net_would():
    image, everywhere = torch.rand(3, 12, 15), torch.ones(12, 15, dtype=torch.bool)
    paired = object_scores([ColorNet([0, 1], paired=True)], everywhere, image)
    apart = object_scores([ColorNet([0]), ColorNet([1])], everywhere, image)
    torch.testing.assert_close(paired, apart)


def test_flip_test_averages_both_views():
    class LeftHalf(torch.nn.Module):
        paired = False

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


@pytest.mark.parametrize(
    ("model", "channels"), [("per-object", [2, 2]), ("per-video", [3]), ("together", [4])]
)
def test_nets_learn_which_object_is_which(sequence, tmp_path, model, channels):
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
    weights = {}
    for model in ("per-object", "per-video", "together"):
        preset = dataclasses.replace(PRESETS["small"], height=32, instance=schedule, model=model)
        torch.manual_seed(0)
        (objects,) = instance_jobs(alone, preset)
        checkpoint = instance_checkpoint(tmp_path / model, objects, preset)
        train_instance(ForegroundNet("small"), alone, objects, preset, checkpoint, Compute())
        weights[model] = (tmp_path / model / "object-2.pt").read_bytes()
    assert len(set(weights.values())) == 1
