"""Nets that tell the objects of one video apart, fine-tuned on its first frame (paper section 3.2)."""

from __future__ import annotations

import copy
from pathlib import Path

from vos_pipeline.data import MaskedVideo
from vos_pipeline.nets.batches import Batches, MaskedFrame
from vos_pipeline.nets.model import ForegroundNet
from vos_pipeline.nets.training import train_net
from vos_pipeline.settings import Preset
from vos_pipeline.training import Compute, load_average


def instance_jobs(sequence: MaskedVideo, preset: Preset) -> list[tuple[int, ...]]:
    """The object ids of each net that the sequence needs: one each, or all of them."""
    ids = sequence.object_ids
    return [(k,) for k in ids] if preset.model == "per-object" else [ids]


def instance_checkpoint(folder: Path, objects: tuple[int, ...], preset: Preset) -> Path:
    """File of the net of some objects of one sequence."""
    return folder / f"{instance_name(objects, preset)}.pt"


def instance_name(objects: tuple[int, ...], preset: Preset) -> str:
    """What the net of some objects is called."""
    # For one object both models are the same net, which runs of different models may share.
    return f"object-{objects[0]}" if len(objects) == 1 else preset.model


def train_instance(
    foreground: ForegroundNet,
    sequence: MaskedVideo,
    objects: tuple[int, ...],
    preset: Preset,
    checkpoint: Path | None,
    compute: Compute,
    resume: bool = False,
) -> ForegroundNet:
    """Fine-tune a copy of the foreground net on some objects of the first frame of one sequence.

    Args:
        foreground: the net it starts from.
        sequence: nothing but its first frame and mask is read.
        objects: one of :func:`instance_jobs`; all other objects are background.
        preset: constants; ``model`` decides how several objects share a net.
        checkpoint: file of the net, see :func:`instance_checkpoint`; None keeps none.
        compute: where and how the net computes.
        resume: go on from what is there.

    Returns:
        a net of two channels for one object, of K + 1 for K objects.

    Source: paper, section 3.2; its schedule, section 3.3.
    """
    batches = Batches(
        [MaskedFrame(sequence, 0, preset.height)],
        preset.instance_augmentation,
        preset.instance.batch,
        preset.seed + 2,
        objects=list(objects),
        device=compute.device,
    )
    return train_net(
        _initial_instance(foreground, objects),
        batches,
        preset.instance,
        checkpoint,
        compute,
        resume=resume,
        title=f"{sequence.name} {instance_name(objects, preset)}",
    )


def load_instance(
    foreground: ForegroundNet, objects: tuple[int, ...], checkpoint: Path, compute: Compute
) -> ForegroundNet:
    """The net of some objects that :func:`train_instance` left in ``checkpoint``."""
    return load_average(_initial_instance(foreground, objects), checkpoint, compute)


def _initial_instance(foreground: ForegroundNet, objects: tuple[int, ...]) -> ForegroundNet:
    return copy.deepcopy(foreground) if len(objects) == 1 else foreground.with_objects(len(objects))
