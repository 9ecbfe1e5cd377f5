"""The processes of one run: which of them this is, and what they do together. Without ``torchrun`` there is one."""

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

# Ranks that are done with their sequences wait for the others, for hours if need be.
PATIENCE = timedelta(days=7)


@dataclass(frozen=True)
class Ranks:
    """Ranks that train one net together, each on an equal share of every batch.

    Args:
        rank: the place of this process among them.
        size: how many they are.
        group: their process group, None for all ranks of the run or for one.
    """

    rank: int = 0
    size: int = 1
    group: Any = None


def check_device(device: str) -> None:
    """PipelineError unless it is "auto", "cpu" or a CUDA device of this machine."""
    if device in ("auto", "cpu"):
        return
    if not isinstance(device, str) or not re.fullmatch(r"cuda(:\d{1,3})?", device, re.ASCII):
        raise PipelineError(f"device must be 'auto', 'cpu', 'cuda' or 'cuda:N', got {device!r}")
    if not torch.cuda.is_available():
        raise PipelineError(f"no CUDA device for {device} on this machine or in this torch: give device cpu")
    index, count = torch.device(device).index or 0, torch.cuda.device_count()
    if index >= count:
        raise PipelineError(f"no device {device}: this machine has {count}, from cuda:0 to cuda:{count - 1}")


def join_process_group(device: str) -> str:
    """Join the ranks that ``torchrun`` started, if it did.

    Returns:
        The device of this rank: "cpu", "cuda:N" with the local rank for N, or, without ``torchrun``, the device given.
        "auto" is CUDA where there is a GPU.

    Raises:
        PipelineError: no such device, or more ranks than GPUs.
    """
    check_device(device)
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if "RANK" not in os.environ:
        return device
    cuda, local = device.startswith("cuda"), int(os.environ.get("LOCAL_RANK", "0"))
    if cuda and local >= torch.cuda.device_count():
        raise PipelineError(
            f"process {local} of this machine has no GPU of its own, there are {torch.cuda.device_count()}: "
            "start as many processes, or give --device cpu"
        )
    if not dist.is_initialized():
        dist.init_process_group("nccl" if cuda else "gloo", timeout=PATIENCE)
    if not cuda:
        return device
    device = f"cuda:{local}"
    torch.cuda.set_device(device)
    return device


def process_rank() -> tuple[int, int]:
    """(rank, number of ranks), (0, 1) where ``torchrun`` started none."""
    return (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)


def all_ranks() -> Ranks:
    """All ranks of the run."""
    return Ranks(*process_rank())


def ranks_for_batch(batch: int) -> Ranks | None:
    """The first ranks, as many as share a batch evenly; None on a rank that is left over. Every rank must call it.

    A net sees the same batches whatever the number of ranks: of eight, four share a batch of 4, and the first one
    trains with a batch of 1 alone.
    """
    rank, world = process_rank()
    size = max(count for count in range(1, world + 1) if batch % count == 0)
    group = dist.new_group(list(range(size)), timeout=PATIENCE) if 1 < size < world else None
    return Ranks(rank, size, group) if rank < size else None


def my_share(work: Sequence[Work]) -> Sequence[Work]:
    """What this rank does of work that all ranks see in the same order."""
    rank, world = process_rank()
    return work[rank::world]


def wait_for_all() -> None:
    """Return once every rank has come here."""
    if dist.is_initialized():
        dist.barrier()


@contextmanager
def first_rank_first() -> Iterator[bool]:
    """Rank 0 runs the block, then the others do; gives whether this is rank 0.

    Where rank 0 fails, the others exit with code 1 and without a word: rank 0 says why, and nothing that it refused to
    do is done by them.

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
    """What rank 0 gives, in all ranks; every rank must call it."""
    answer = [done]
    if dist.is_initialized():
        dist.broadcast_object_list(answer)
        wait_for_all()  # rank 0 must not exit before the others have heard it
    return answer[0]


def mean_over_ranks(value: Tensor) -> Tensor:
    """The mean of a tensor that every rank has one of."""
    if not dist.is_initialized():
        return value
    total = value.clone()
    dist.all_reduce(total)
    return total / dist.get_world_size()


def take_from_first_rank(values: Iterable[Tensor], ranks: Ranks) -> None:
    """Overwrite the tensors of all these ranks with those of rank 0."""
    if ranks.size > 1:
        for value in values:
            dist.broadcast(value, 0, group=ranks.group)
