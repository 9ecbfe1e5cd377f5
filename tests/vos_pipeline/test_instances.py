import dataclasses

import numpy as np
import pytest
import torch

from vos_pipeline.data import Sequence, write_image, write_labels
from vos_pipeline.instances import (
    class_probabilities,
    labels_from_scores,
    object_scores,
    resize_scores,
    train_instances,
)
from vos_pipeline.model import ForegroundNet
from vos_pipeline.presets import PRESETS, Schedule


class ColorNet(torch.nn.Module):
    """Class c has the logit 8 (channel c - 1 of the image) - 4; background has 0."""

    def __init__(self, channels):
        super().__init__()
        self.channels = channels

    def forward(self, image):
        logits = 8 * image[:, self.channels] - 4
        return torch.cat([torch.zeros_like(logits[:, :1]), logits], 1)


def test_scores_are_zero_outside_the_foreground():
    image = torch.rand(3, 12, 15, generator=torch.Generator().manual_seed(0))
    foreground = ColorNet([2])
    scores = object_scores([ColorNet([0]), ColorNet([1])], foreground, image)
    inside = image[2] >= 0.5
    assert scores.shape == (2, 12, 15)
    assert (scores[:, ~inside] == 0).all()
    torch.testing.assert_close(scores[:, inside], torch.sigmoid(8 * image[:2, inside] - 4))


def test_one_net_for_all_objects_gives_their_channels():
    image = torch.rand(3, 12, 15)
    scores = object_scores([ColorNet([0, 1])], ColorNet([2]), image, threshold=0.0)
    torch.testing.assert_close(scores, class_probabilities(ColorNet([0, 1]), image)[1:])
    assert (scores.sum(0) < 1).all()


def test_flip_test_averages_both_views():
    class LeftHalf(torch.nn.Module):
        def forward(self, image):
            logits = torch.zeros(len(image), 2, *image.shape[-2:])
            logits[:, 1, :, : image.shape[-1] // 2] = 40
            return logits

    probability = class_probabilities(LeftHalf(), torch.rand(3, 4, 8), flip_test=True)[1]
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


@pytest.mark.parametrize("per_video", [True, False])
def test_nets_learn_which_object_is_which(sequence, tmp_path, per_video):
    schedule = Schedule(steps=30, batch=2, learning_rate=5e-3, head_factor=10.0)
    preset = dataclasses.replace(PRESETS["small"], height=None, instance=schedule, per_video=per_video)
    torch.manual_seed(0)
    foreground = ForegroundNet("small")
    nets = train_instances(foreground, sequence, preset, "cpu", tmp_path / "nets")
    assert [net.head.out_channels for net in nets] == ([3] if per_video else [2, 2])
    image = torch.from_numpy(sequence.read_frame(0).copy()).permute(2, 0, 1) / 255
    scores = object_scores(nets, foreground, image, threshold=0.0)
    labels = sequence.read_mask(0)
    for index, k in enumerate(sequence.object_ids):
        own, others = scores[index][labels == k].mean(), scores[index][labels != k].mean()
        assert own > others + 0.3
