"""Networks that find objects in a frame: model, loss, augmented batches, training on first frames and score maps."""

from vos_pipeline.nets.augment import ComposedFrame, color_jitter, sampling_grid, warp
from vos_pipeline.nets.batches import Batches, MaskedFrame, working_image
from vos_pipeline.nets.foreground import (
    initial_foreground,
    load_foreground,
    train_foreground,
    tune_foreground,
)
from vos_pipeline.nets.instances import instance_checkpoint, instance_jobs, load_instance, train_instance
from vos_pipeline.nets.losses import class_balanced_loss
from vos_pipeline.nets.model import ForegroundNet
from vos_pipeline.nets.score_maps import (
    foreground_mask,
    labels_from_scores,
    object_probabilities,
    object_scores,
    resize_scores,
)
from vos_pipeline.nets.training import train_net

__all__ = [
    "Batches",
    "ComposedFrame",
    "ForegroundNet",
    "MaskedFrame",
    "class_balanced_loss",
    "color_jitter",
    "foreground_mask",
    "initial_foreground",
    "instance_checkpoint",
    "instance_jobs",
    "labels_from_scores",
    "load_foreground",
    "load_instance",
    "object_probabilities",
    "object_scores",
    "resize_scores",
    "sampling_grid",
    "train_foreground",
    "train_instance",
    "train_net",
    "tune_foreground",
    "warp",
    "working_image",
]
