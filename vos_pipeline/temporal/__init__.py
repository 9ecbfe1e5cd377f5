"""Filters over time, which use the previous frame to remove false alarms from score maps."""

from vos_pipeline.settings import CRAFParameters, FlowFilterParameters
from vos_pipeline.temporal.craf import ConnectedRegionFilter, craf_step
from vos_pipeline.temporal.filters import NoFilter, TemporalFilter, make_filter
from vos_pipeline.temporal.flow_filter import FlowFilter

__all__ = [
    "CRAFParameters",
    "ConnectedRegionFilter",
    "FlowFilter",
    "FlowFilterParameters",
    "NoFilter",
    "TemporalFilter",
    "craf_step",
    "make_filter",
]
