"""Ranks of a distributed run started by ``torchrun``; without it, the run has one rank."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from vos_pipeline.errors import PipelineError

Work = TypeVar("Work")

# Ranks that have finished their sequences wait for the others, possibly for hours.
PATIENCE = timedelta(days=7)


@dataclass(frozen=True)
class Ranks:
    """Ranks that train one network together, each on an equal share of every batch.

    Args:
        rank: index of this process among these ranks.
        size: number of ranks.
        group: their process group; None for all ranks of the run, or for a single rank.
    """

    rank: int = 0
    size: int = 1
    group: Any = None


def check_device(device: str) -> None:
    """Raise PipelineError unless ``device`` is "auto", "cpu" or a CUDA device of this machine."""
    if device in ("auto", "cpu"):
        return
    if not isinstance(device, str) or not re.fullmatch(r"cuda(:\d{1,3})?", device, re.ASCII):
        raise PipelineError(f"device must be 'auto', 'cpu', 'cuda' or 'cuda:N', got {device!r}")
    if not torch.cuda.is_available():
        raise PipelineError(
            f"torch finds no GPU for device {device!r}: use device 'cpu', or install a CUDA build of torch "
            "and the GPU's driver"
        )
    index, count = torch.device(device).index or 0, torch.cuda.device_count()
    if index >= count:
        raise PipelineError(f"no device {device}: this machine has {count}, from cuda:0 to cuda:{count - 1}")


def join_process_group(device: str) -> str:
    """Join the process group if ``torchrun`` started this process.

    Returns:
        The device of this rank: "cpu" or "cuda:N" with N the local rank; without ``torchrun``, the given device.
        "auto" selects CUDA if a GPU is available.

    Raises:
        PipelineError: the device does not exist, or there are more ranks than GPUs.
    """
    check_device(device)
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if "RANK" not in os.environ:
        return device
    cuda, local = device.startswith("cuda"), int(os.environ.get("LOCAL_RANK", "0"))
    if cuda and local >= torch.cuda.device_count():
        raise PipelineError(
            f"process {local} has no GPU, because this machine has only {torch.cuda.device_count()}: "
            "start one process per GPU, or give --device cpu"
        )
    if not dist.is_initialized():
        dist.init_process_group("nccl" if cuda else "gloo", timeout=PATIENCE)
    if not cuda:
        return device
    device = f"cuda:{local}"
    torch.cuda.set_device(device)
    return device


def process_rank() -> tuple[int, int]:
    """Return (rank, number of ranks), which is (0, 1) without ``torchrun``."""
    return (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)


def all_ranks() -> Ranks:
    """Return all ranks of the run."""
    return Ranks(*process_rank())


def ranks_for_batch(batch: int) -> Ranks | None:
    """Return the first ranks, as many as can share a batch evenly; None on the other ranks. Every rank must call it.

    A network sees the same batches for any number of ranks. Of eight ranks, for example, four share a batch of 4, and
    the first rank alone trains with a batch of 1.
    """
    rank, world = process_rank()
    size = max(count for count in range(1, world + 1) if batch % count == 0)
    group = dist.new_group(list(range(size)), timeout=PATIENCE) if 1 < size < world else None
    return Ranks(rank, size, group) if rank < size else None


def my_share(work: Sequence[Work]) -> Sequence[Work]:
    """Return this rank's share of ``work``, which must have the same order on all ranks."""
    rank, world = process_rank()
    return work[rank::world]


def wait_for_all() -> None:
    """Block until every rank has called this function."""
    if dist.is_initialized():
        dist.barrier()


@contextmanager
def first_rank_first() -> Iterator[bool]:
    """Run the block on rank 0, then on the other ranks; yields whether this is rank 0.

    If rank 0 fails, the others exit with code 1 without running the block and without a message, because rank 0
    reports the error.

    Example:
        >>> with first_rank_first() as first:
        ...     print("fetches" if first else "finds")
        fetches
    """
    first = process_rank()[0] == 0
    if not first and not _first_rank_is_done():
        raise SystemExit(1)
    done = False
    try:
        yield first
        done = True
    finally:
        if first:
            _first_rank_is_done(done)


def _first_rank_is_done(done: bool = False) -> bool:
    """Broadcast ``done`` from rank 0 and return it; every rank must call it."""
    answer = [done]
    if dist.is_initialized():
        dist.broadcast_object_list(answer)
        wait_for_all()  # rank 0 must not exit before the others have received it
    return answer[0]


def mean_over_ranks(value: Tensor) -> Tensor:
    """Return the mean of a tensor over all ranks."""
    if not dist.is_initialized():
        return value
    total = value.clone()
    dist.all_reduce(total)
    return total / dist.get_world_size()


def take_from_first_rank(values: Iterable[Tensor], ranks: Ranks) -> None:
    """Overwrite the tensors of all these ranks with the tensors of rank 0."""
    if ranks.size > 1:
        for value in values:
            dist.broadcast(value, 0, group=ranks.group)
