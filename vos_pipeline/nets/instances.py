"""Instance nets, which tell the objects of one video apart, fine-tuned on its first frame (paper section 3.2)."""

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
    """Return the object ids of each instance net of a sequence: one id per net, or all ids for one net."""
    ids = sequence.object_ids
    return [(k,) for k in ids] if preset.model == "per-object" else [ids]


def instance_checkpoint(folder: Path, objects: tuple[int, ...], preset: Preset) -> Path:
    """Return the checkpoint file of the instance net for ``objects`` of one sequence."""
    return folder / f"{instance_name(objects, preset)}.pt"


def instance_name(objects: tuple[int, ...], preset: Preset) -> str:
    """Return the name of the instance net for ``objects``."""
    # For one object both models are the same net, so runs with different models can share it.
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
    """Fine-tune a copy of the foreground net on ``objects`` in the first frame of one sequence.

    Args:
        foreground: the net to start from.
        sequence: the video. Only its first frame and mask are read.
        objects: an item of :func:`instance_jobs`. All other objects are background.
        preset: constants; ``model`` decides whether the objects of a video share a net.
        checkpoint: checkpoint file of the net, see :func:`instance_checkpoint`, or None to write none.
        compute: device and precision of the net.
        resume: continue from ``checkpoint`` if it exists.

    Returns:
        A net with two channels for one object, or K + 1 channels for K objects.

    Source: paper, section 3.2; schedule: section 3.3.
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
    """Load the instance net for ``objects`` that :func:`train_instance` wrote to ``checkpoint``."""
    return load_average(_initial_instance(foreground, objects), checkpoint, compute)


def _initial_instance(foreground: ForegroundNet, objects: tuple[int, ...]) -> ForegroundNet:
    return copy.deepcopy(foreground) if len(objects) == 1 else foreground.with_objects(len(objects))
