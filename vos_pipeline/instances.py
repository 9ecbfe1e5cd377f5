"""A score map an object: nets fine-tuned on the first frame, held inside the foreground (section 3.3)."""

from __future__ import annotations

import copy
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vos_pipeline.data import Sequence
from vos_pipeline.model import ForegroundNet
from vos_pipeline.presets import Preset
from vos_pipeline.train import Batches, MaskedFrame, train


def train_instances(
    foreground: ForegroundNet,
    sequence: Sequence,
    preset: Preset,
    device: str,
    out: Path,
    resume: bool = False,
) -> list[ForegroundNet]:
    """Fine-tune copies of the foreground net on the first frame of one sequence.

    Args:
        foreground: the net they start from.
        sequence: nothing but its first frame and mask is read.
        preset: ``per_video`` decides between one net of K + 1 channels and K nets of two.
        device: where to train.
        out: folder of the nets.
        resume: go on from what is there.

    Returns:
        K nets of two channels in the order of ``sequence.object_ids``, or one of K + 1.
    """
    ids = list(sequence.object_ids)
    if preset.per_video:
        jobs = [("objects", foreground.with_objects(len(ids)), ids)]
    else:
        jobs = [(f"object-{k}", copy.deepcopy(foreground), [k]) for k in ids]
    frame = MaskedFrame(sequence, 0, preset.height)
    nets = []
    for name, net, objects in jobs:
        batches = Batches(
            [frame], preset.instance_augmentation, preset.instance.batch, preset.seed + 2, objects=objects
        )
        nets.append(
            train(
                net,
                batches,
                preset.instance,
                checkpoint=Path(out) / f"{name}.pt",
                device=device,
                resume=resume,
                title=f"{sequence.name} {name}",
            )
        )
    return nets


@torch.no_grad()
def class_probabilities(net: nn.Module, image: Tensor, flip_test: bool = False) -> Tensor:
    """Softmax of the net's logits, averaged with the mirror image's if asked.

    Args:
        net: (1, 3, H, W) to (1, C, H, W) logits.
        image: (3, H, W) in [0, 1].
        flip_test: see both the image and its mirror image.

    Returns:
        (C, H, W) probabilities.
    """
    views = torch.stack([image, image.flip(-1)]) if flip_test else image[None]
    probabilities = net(views.contiguous(memory_format=torch.channels_last)).softmax(1)
    if flip_test:
        return (probabilities[0] + probabilities[1].flip(-1)) / 2
    return probabilities[0]


def object_scores(
    nets: list[nn.Module],
    foreground: nn.Module,
    image: Tensor,
    *,
    threshold: float = 0.5,
    flip_test: bool = False,
) -> Tensor:
    """Each object's score map: its probability, zero outside the foreground.

    Args:
        nets: what :func:`train_instances` gave.
        foreground: the foreground net, two channels.
        image: (3, H, W) in [0, 1].
        threshold: foreground is where its probability reaches this.
        flip_test: average over the mirror image.

    Returns:
        (K, H, W) scores in [0, 1].

    Source: paper, section 3.3.
    """
    inside = class_probabilities(foreground, image, flip_test)[1] >= threshold
    scores = torch.cat([class_probabilities(net, image, flip_test)[1:] for net in nets])
    return scores * inside


def labels_from_scores(scores: Tensor, object_ids: list[int], threshold: float = 0.5) -> Tensor:
    """The object of the largest score, background (0) where none reaches ``threshold``.

    Args:
        scores: (K, H, W).
        object_ids: label of each channel.
        threshold: see above.

    Returns:
        (H, W) uint8 labels.
    """
    best, index = scores.max(0)
    ids = torch.as_tensor(object_ids, dtype=torch.uint8, device=scores.device)
    return torch.where(best >= threshold, ids[index], 0).to(torch.uint8)


def resize_scores(scores: Tensor, size: tuple[int, int]) -> Tensor:
    """(K, h, w) scores brought to the frame's size."""
    if scores.shape[-2:] == tuple(size):
        return scores
    return F.interpolate(scores[None], size=size, mode="bilinear", align_corners=False)[0].clamp(0, 1)
