"""What the ranks of a run do, one of them at a time."""

import pytest

from vos_pipeline.training import first_rank_first, my_share, process_group


def test_ranks_share_out_all_work_once(monkeypatch):
    shares = []
    for rank in range(3):
        monkeypatch.setattr(process_group, "process_rank", lambda rank=rank: (rank, 3))
        shares.append(my_share(range(7)))
    assert sorted(work for share in shares for work in share) == list(range(7))
    assert {len(share) for share in shares} == {2, 3}


def test_the_first_rank_goes_first(monkeypatch):
    for rank, order in ((0, ["works", "waits"]), (1, ["waits", "works"])):
        done = []
        monkeypatch.setattr(process_group, "process_rank", lambda rank=rank: (rank, 2))
        monkeypatch.setattr(process_group, "wait_for_all", lambda done=done: done.append("waits"))
        with first_rank_first() as first:
            done.append("works")
        assert done == order and first == (rank == 0)


def test_the_others_go_on_where_the_first_rank_fails(monkeypatch):
    waited = []
    monkeypatch.setattr(process_group, "process_rank", lambda: (0, 2))
    monkeypatch.setattr(process_group, "wait_for_all", lambda: waited.append(True))
    with pytest.raises(OSError), first_rank_first():
        raise OSError
    assert waited
