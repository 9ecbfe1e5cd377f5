"""Spatial propagation for PyTorch: each pixel mixes its own value with three neighbours on the previous line.

import spn
refine = spn.SPNRefiner.from_pretrained("lite")
refined = refine(image, coarse)                     # masks that follow the edges of the image

y = spn.propagate_four_way(x, gates, normalize="abs")   # the layer, for your own network
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
