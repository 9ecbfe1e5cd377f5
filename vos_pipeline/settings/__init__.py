"""All constants of the pipeline and of its trainings. Does not import torch, so that the command line starts fast."""

from vos_pipeline.settings.augmentation import Affine, Augmentation
from vos_pipeline.settings.craf import CRAFParameters
from vos_pipeline.settings.flow_filter import FlowFilterParameters
from vos_pipeline.settings.masks import MASKS_HOLD, SMALLEST_SCORE
from vos_pipeline.settings.presets import FILTERS, MODELS, PRESETS, TABLES, Preset, get_preset
from vos_pipeline.settings.refiner import FORMS, GUIDANCES, SMALLEST_TILE, SPN_PRESETS, SPNTraining
from vos_pipeline.settings.schedule import PRECISIONS, NetSchedule, Schedule

__all__ = [
    "FILTERS",
    "FORMS",
    "GUIDANCES",
    "MASKS_HOLD",
    "MODELS",
    "PRECISIONS",
    "PRESETS",
    "SMALLEST_SCORE",
    "SMALLEST_TILE",
    "SPN_PRESETS",
    "TABLES",
    "Affine",
    "Augmentation",
    "CRAFParameters",
    "FlowFilterParameters",
    "NetSchedule",
    "Preset",
    "SPNTraining",
    "Schedule",
    "get_preset",
]
