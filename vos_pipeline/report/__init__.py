"""Visualise results: masks drawn over frames, overlay videos, and one web page per run."""

from vos_pipeline.report.overlays import label_contours, overlay, write_overlay_video
from vos_pipeline.report.page import ReportData, SequenceReport, write_report

__all__ = [
    "ReportData",
    "SequenceReport",
    "label_contours",
    "overlay",
    "write_overlay_video",
    "write_report",
]
