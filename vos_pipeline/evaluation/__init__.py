"""Score masks with J and F as defined by DAVIS, for frames, videos and sets, and format tables of the results."""

from vos_pipeline.evaluation.davis import evaluate
from vos_pipeline.evaluation.measures import boundary, f_measure, jaccard
from vos_pipeline.evaluation.scores import (
    Evaluation,
    ObjectScores,
    score_files,
    score_frame,
    score_sequence,
    score_sequences,
    scores_of_objects,
    statistics,
)
from vos_pipeline.evaluation.tables import Cell, Table

__all__ = [
    "Cell",
    "Evaluation",
    "ObjectScores",
    "Table",
    "boundary",
    "evaluate",
    "f_measure",
    "jaccard",
    "score_files",
    "score_frame",
    "score_sequence",
    "score_sequences",
    "scores_of_objects",
    "statistics",
]
