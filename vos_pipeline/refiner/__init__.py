"""Train and load refiners: training samples (composites, your own images, VOC), training, validation and export."""

from vos_pipeline.refiner.composites import Composites
from vos_pipeline.refiner.degrade import confuse, degrade, hardness, lose_resolution, smooth_noise, snap
from vos_pipeline.refiner.loading import initial_refiner, load_refiner, network_of, refiner_identity
from vos_pipeline.refiner.loss import refinement_loss
from vos_pipeline.refiner.masked_pictures import MaskedPictures, PictureFolders
from vos_pipeline.refiner.onnx_file import OnnxFile, export_onnx
from vos_pipeline.refiner.photographs import bundled_photographs
from vos_pipeline.refiner.samples import Sample
from vos_pipeline.refiner.training import train_refiner, training_files
from vos_pipeline.refiner.validation import VALIDATION_SAMPLES, validate
from vos_pipeline.refiner.voc import CoarseMasks, VOCObjects, VOCPictures, load_fcn

__all__ = [
    "VALIDATION_SAMPLES",
    "CoarseMasks",
    "Composites",
    "MaskedPictures",
    "OnnxFile",
    "PictureFolders",
    "Sample",
    "VOCObjects",
    "VOCPictures",
    "bundled_photographs",
    "confuse",
    "degrade",
    "export_onnx",
    "hardness",
    "initial_refiner",
    "load_fcn",
    "load_refiner",
    "lose_resolution",
    "network_of",
    "refinement_loss",
    "refiner_identity",
    "smooth_noise",
    "snap",
    "train_refiner",
    "training_files",
    "validate",
]
