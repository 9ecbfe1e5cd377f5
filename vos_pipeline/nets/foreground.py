"""The foreground net: trained on a set of videos, then on first frames (paper sections 3.1 and 3.2)."""

from __future__ import annotations

import copy
from collections.abc import Sequence as SequenceOf
from pathlib import Path

import torch

from vos_pipeline.data import MaskedVideo, Sequence
from vos_pipeline.errors import PipelineError
from vos_pipeline.nets.batches import Batches, MaskedFrame
from vos_pipeline.nets.model import ForegroundNet
from vos_pipeline.nets.training import train_net
from vos_pipeline.settings import Preset
from vos_pipeline.training import Compute, Ranks, load_average


def initial_foreground(preset: Preset, pretrained: bool = True) -> ForegroundNet:
    """Return the untrained foreground net; ``pretrained=False`` omits ImageNet weights whatever the preset says."""
    torch.manual_seed(preset.seed)
    return ForegroundNet(preset.backbone, pretrained=preset.pretrained and pretrained)


def load_foreground(checkpoint: Path, preset: Preset, compute: Compute = Compute()) -> ForegroundNet:
    """Load the trained foreground net from ``checkpoint``."""
    return load_average(initial_foreground(preset, pretrained=False), checkpoint, compute)


def train_foreground(
    sequences: list[Sequence],
    preset: Preset,
    checkpoint: Path,
    compute: Compute,
    resume: bool = False,
    ranks: Ranks = Ranks(),
) -> ForegroundNet:
    """Train the foreground net on every mask of the training sequences.

    Args:
        sequences: the training sequences; all objects of a frame are foreground.
        preset: constants.
        checkpoint: checkpoint file of the net.
        compute: device and precision of the net.
        resume: continue from ``checkpoint`` if it exists.
        ranks: ranks that train the net together, see :func:`vos_pipeline.training.ranks_for_batch`.

    Raises:
        PipelineError: there is no sequence, or the ImageNet weights cannot be downloaded.

    Source: paper, section 3.1; schedule: section 3.3.
    """
    if not sequences:
        raise PipelineError("there are no frames to train on: choose at least one sequence with masks")
    frames = [
        MaskedFrame(sequence, t, preset.height)
        for sequence in sequences
        for t, path in enumerate(sequence.mask_paths)
        if path is not None
    ]
    batches = Batches(
        frames,
        preset.foreground_augmentation,
        preset.foreground.batch,
        preset.seed,
        ranks=ranks,
        device=compute.device,
    )
    return train_net(
        # A resumed training replaces all weights.
        initial_foreground(preset, pretrained=not (resume and checkpoint.exists())),
        batches,
        preset.foreground,
        checkpoint,
        compute,
        resume=resume,
        ranks=ranks,
        title="foreground",
    )


def tune_foreground(
    net: ForegroundNet,
    sequences: SequenceOf[MaskedVideo],
    preset: Preset,
    checkpoint: Path | None,
    compute: Compute,
    resume: bool = False,
    ranks: Ranks = Ranks(),
) -> ForegroundNet:
    """Fine-tune a copy of the foreground net on the first frames of the test sequences.

    Args:
        net: the net returned by :func:`train_foreground`.
        sequences: the test sequences. Only their first frame and mask are read.
        preset: constants.
        checkpoint: checkpoint file of the fine-tuned net, or None to write none.
        compute: device and precision of the net.
        resume: continue from ``checkpoint`` if it exists.
        ranks: ranks that train the net together.

    Source: paper, section 3.2.
    """
    batches = Batches(
        [MaskedFrame(sequence, 0, preset.height) for sequence in sequences],
        preset.first_frames_augmentation,
        preset.first_frames.batch,
        preset.seed + 1,
        ranks=ranks,
        device=compute.device,
    )
    return train_net(
        copy.deepcopy(net),
        batches,
        preset.first_frames,
        checkpoint,
        compute,
        resume=resume,
        ranks=ranks,
        title=f"{sequences[0].name} foreground" if len(sequences) == 1 else "first frames",
    )
