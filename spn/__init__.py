"""Spatial propagation for PyTorch: every pixel mixes its own value with three neighbours of the previous line.

import spn
refine = spn.SPNRefiner.from_pretrained("lite")
refined = refine(image, coarse)                     # a mask that follows the image's edges

y = spn.propagate_four_way(x, gates, normalize="abs")   # the layer itself, for a network of your own
"""

from . import compat, onnx, reference
from ._config import show_config
from ._version import __version__
from .functional import normalize_gates, propagate, propagate_four_way
from .guidance import IMAGENET_MEAN, IMAGENET_STD, LiteGuidance, VGG16Guidance
from .modules import FourWayPropagate, Propagate
from .refiner import SPNRefiner

__all__ = [
    "IMAGENET_MEAN",
    "IMAGENET_STD",
    "FourWayPropagate",
    "LiteGuidance",
    "Propagate",
    "SPNRefiner",
    "VGG16Guidance",
    "__version__",
    "compat",
    "normalize_gates",
    "onnx",
    "propagate",
    "propagate_four_way",
    "reference",
    "show_config",
]
