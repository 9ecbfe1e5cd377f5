"""Functions of a distributed run, tested on one rank at a time."""

import pytest

from vos_pipeline.errors import PipelineError
from vos_pipeline.training import (
    first_rank_first,
    join_process_group,
    my_share,
    process_group,
    ranks_for_batch,
)


def test_ranks_split_all_work_without_overlap(monkeypatch):
    shares = []
    for rank in range(3):
        monkeypatch.setattr(process_group, "process_rank", lambda rank=rank: (rank, 3))
        shares.append(my_share(range(7)))
    assert sorted(work for share in shares for work in share) == list(range(7))
    assert {len(share) for share in shares} == {2, 3}


@pytest.mark.parametrize(
    ("batch", "world", "sizes"),
    [(1, 2, [1, None]), (4, 3, [2, 2, None]), (4, 8, [4] * 4 + [None] * 4), (8, 8, [8] * 8), (6, 1, [1])],
)
def test_only_ranks_that_can_split_a_batch_evenly_train(monkeypatch, batch, world, sizes):
    groups = []
    monkeypatch.setattr(
        process_group.dist, "new_group", lambda ranks, timeout: groups.append(ranks) or "group"
    )
    shared = []
    for rank in range(world):
        monkeypatch.setattr(process_group, "process_rank", lambda rank=rank: (rank, world))
        shared.append(ranks_for_batch(batch))
    assert [ranks and ranks.size for ranks in shared] == sizes
    assert [ranks.rank for ranks in shared if ranks] == list(range(sizes[0]))
    # PyTorch requires every rank to create the group, even ranks outside it.
    assert groups == [list(range(sizes[0]))] * (world if 1 < sizes[0] < world else 0)


@pytest.mark.parametrize(("gpu", "device"), [(True, "cuda"), (False, "cpu")])
def test_auto_selects_a_gpu_if_available(monkeypatch, gpu, device):
    monkeypatch.setattr(process_group.torch.cuda, "is_available", lambda: gpu)
    assert join_process_group("auto") == device


@pytest.mark.parametrize(
    ("gpus", "device", "why"),
    [
        (
            0,
            "cuda",
            "torch finds no GPU for device 'cuda': use device 'cpu', or install a CUDA build of torch "
            "and the GPU's driver",
        ),
        (2, "cuda:2", "no device cuda:2: this machine has 2, from cuda:0 to cuda:1"),
        (2, "gpu", "device must be 'auto', 'cpu', 'cuda' or 'cuda:N', got 'gpu'"),
    ],
)
def test_missing_devices_are_errors(monkeypatch, gpus, device, why):
    monkeypatch.setattr(process_group.torch.cuda, "is_available", lambda: gpus > 0)
    monkeypatch.setattr(process_group.torch.cuda, "device_count", lambda: gpus)
    with pytest.raises(PipelineError) as raised:
        join_process_group(device)
    assert str(raised.value) == why


def test_more_ranks_than_gpus(monkeypatch):
    for name, value in (("RANK", "2"), ("LOCAL_RANK", "2")):
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(process_group.torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(process_group.torch.cuda, "device_count", lambda: 2)
    with pytest.raises(PipelineError, match="process 2 has no GPU, because this machine has only 2"):
        join_process_group("auto")


def ranks(monkeypatch, rank, told):
    """Make this process one rank of two; broadcasts from rank 0 are recorded in, or taken from, ``told``."""
    monkeypatch.setattr(process_group, "process_rank", lambda: (rank, 2))
    monkeypatch.setattr(process_group.dist, "is_initialized", lambda: True)

    def broadcast(values):
        told.extend(values) if rank == 0 else values.__setitem__(slice(None), told)

    monkeypatch.setattr(process_group.dist, "broadcast_object_list", broadcast)
    monkeypatch.setattr(process_group, "wait_for_all", lambda: None)


def test_first_rank_runs_the_block_first(monkeypatch):
    told = []
    ranks(monkeypatch, 0, told)
    with first_rank_first() as first:
        assert first and not told  # the others wait
    assert told == [True]
    ranks(monkeypatch, 1, told)
    with first_rank_first() as first:
        assert not first


def test_other_ranks_exit_if_the_first_rank_fails(monkeypatch):
    told = []
    ranks(monkeypatch, 0, told)
    with pytest.raises(OSError, match="full"), first_rank_first():
        raise OSError("full")
    assert told == [False]
    ranks(monkeypatch, 1, told)
    with pytest.raises(SystemExit) as stop, first_rank_first():
        raise AssertionError("is not reached")
    assert stop.value.code == 1
