"""benchmarks/cuda/timings.py without a GPU: its results, its time limit, and the limits for the planner."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from benchmarks.cuda import bench, timers, timings
from benchmarks.cuda.devices import H100


def test_limits_are_read_from_the_library():
    text = (
        "shared_bytes=231808 multiprocessors=132 threads=1024 shared_of_multiprocessor=233472 "
        "shared_reserved=1024 bytes_per_clock=1490.2 least_room=33554432 launch_cycles=5000 kilohertz=1980000"
    )
    machine, gigahertz = timers.limits_of(text)
    expected = replace(H100.machine(), bytes_per_clock=1490.2)
    assert (machine, gigahertz) == (expected, pytest.approx(1.98))
    assert H100.machine().bytes_per_clock == pytest.approx(1490.2, rel=0.01)


@pytest.fixture(autouse=True)
def threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def rehearse(monkeypatch: pytest.MonkeyPatch, path: Path, *options: str) -> dict:
    monkeypatch.setattr(bench, "can_plan", lambda: False)  # compiling the planner takes a minute
    monkeypatch.setattr(timers, "FEWEST", 2)
    arguments = ["timings", "--stand-in", "--seconds", "0", "--json", str(path), *options]
    monkeypatch.setattr(sys, "argv", arguments)
    with pytest.raises(SystemExit) as ended:
        timings.main()
    found = json.loads(path.read_text())
    assert ended.value.code == any("error" in row for row in found["rows"])
    return found


def test_a_rehearsal_is_marked_as_one(monkeypatch, tmp_path, capsys):
    found = rehearse(monkeypatch, tmp_path / "gpu.json", "--part", "headline")
    assert "rehearsal" in found["machine"]["stand_in"]
    assert len(found["rows"]) >= 14
    assert all(row["stand_in"] for row in found["rows"])
    assert all(line.startswith("stand-in ") for line in capsys.readouterr().out.splitlines())


def test_short_calls_are_timed_with_the_cache_warm_and_flushed(monkeypatch, tmp_path):
    monkeypatch.setattr(bench, "SHORT_MS", 1e9)
    rows = rehearse(monkeypatch, tmp_path / "gpu.json", "--part", "headline")["rows"]
    assert {(row["cache"], row["calls_a_run"]) for row in rows} == {("warm", 20), ("flushed", 1)}
    assert len(rows) == 28


def test_a_row_that_fails_does_not_stop_the_others(monkeypatch, tmp_path):
    call_of = bench.call_of

    def fails(work, device):
        if work.backward:
            raise RuntimeError("planted\nand more")
        return call_of(work, device)

    monkeypatch.setattr(bench, "call_of", fails)
    monkeypatch.setattr(bench, "SHORT_MS", 0)
    rows = rehearse(monkeypatch, tmp_path / "gpu.json", "--part", "headline")["rows"]
    assert [row["error"] for row in rows if "backward" in row["name"]] == ["planted"] * 6
    assert len(rows) == 14


def test_after_a_lost_gpu_a_new_process_continues(monkeypatch, tmp_path):
    path = tmp_path / "gpu.json"
    monkeypatch.setattr(bench, "SHORT_MS", 0)
    monkeypatch.setattr(bench, "can_plan", lambda: False)
    monkeypatch.setattr(timers.StandIn, "is_lost", lambda self: True)
    monkeypatch.setattr(
        sys, "argv", ["timings", "--stand-in", "--seconds", "0", "--json", str(path), "--resume"]
    )
    for count in (1, 2):
        with pytest.raises(SystemExit) as ended:
            timings.main()
        assert ended.value.code == timings.GO_ON
        assert len(json.loads(path.read_text())["rows"]) == count
    monkeypatch.undo()
    monkeypatch.setattr(bench, "SHORT_MS", 0)
    assert len(rehearse(monkeypatch, path, "--resume", "--part", "headline")["rows"]) == 14


def test_a_budget_ends_between_rows(monkeypatch, tmp_path, capsys):
    assert rehearse(monkeypatch, tmp_path / "gpu.json", "--part", "rest", "--budget", "0")["rows"] == []
    assert "time is over: 0 of" in capsys.readouterr().out
