"""Train networks: training loop, checkpoints, device and precision, and distribution over processes."""

from vos_pipeline.training.compute import Compute
from vos_pipeline.training.process_group import (
    Ranks,
    all_ranks,
    check_device,
    first_rank_first,
    join_process_group,
    mean_over_ranks,
    my_share,
    process_rank,
    ranks_for_batch,
    wait_for_all,
)
from vos_pipeline.training.trainer import Trainer, is_finished, load_average, training_seconds

__all__ = [
    "Compute",
    "Ranks",
    "Trainer",
    "all_ranks",
    "check_device",
    "first_rank_first",
    "is_finished",
    "join_process_group",
    "load_average",
    "mean_over_ranks",
    "my_share",
    "process_rank",
    "ranks_for_batch",
    "training_seconds",
    "wait_for_all",
]
