"""What the frame before says about this one: filters of score maps over time."""

from vos_pipeline.settings import CRAFParameters
from vos_pipeline.temporal.craf import ConnectedRegionFilter, craf_step

__all__ = ["CRAFParameters", "ConnectedRegionFilter", "craf_step"]
