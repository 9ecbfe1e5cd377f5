"""Run the pipeline: its stages in order, the labels after each stage, and the files that a run writes."""

from vos_pipeline.pipeline.outputs import output_files, write_outputs
from vos_pipeline.pipeline.paper_tables import make_table
from vos_pipeline.pipeline.refine_masks import refine_masks
from vos_pipeline.pipeline.run_folder import RunFolder, RunResult
from vos_pipeline.pipeline.segmenter import Segmenter, VideoNets
from vos_pipeline.pipeline.stage_names import STAGES
from vos_pipeline.pipeline.stages import refined_scores, run

__all__ = [
    "STAGES",
    "RunFolder",
    "RunResult",
    "Segmenter",
    "VideoNets",
    "make_table",
    "output_files",
    "refine_masks",
    "refined_scores",
    "run",
    "write_outputs",
]
