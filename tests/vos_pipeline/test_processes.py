"""Runs that are killed, and runs of several processes: the same labels as one that nobody disturbs."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import tiny
import torch

from vos_pipeline.train import load_checkpoint

PROGRAM = Path(tiny.__file__)
# One thread for each, and the same packages as here, installed or not.
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}


def start(*arguments, ranks=0):
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks)]
    command = [sys.executable, *(torchrun if ranks else ()), str(PROGRAM), *map(str, arguments)]
    return subprocess.Popen(
        command, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def finish(process):
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output


def results(out):
    return {path.relative_to(out): path.read_bytes() for path in sorted((out / "labels").rglob("*.png"))}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tiny.write_root(tmp_path_factory.mktemp("root") / "davis")


def test_killed_in_the_middle_of_training_it_resumes_to_the_same_labels(root, tmp_path):
    steps = 60
    unbroken = start(root, tmp_path / "unbroken", "--steps", steps)
    killed = start(root, tmp_path / "killed", "--steps", steps)
    checkpoint = tmp_path / "killed" / "nets" / "pair" / "object-2.pt"
    while not checkpoint.exists():
        assert killed.poll() is None, killed.communicate()
        time.sleep(0.002)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    assert 0 < load_checkpoint(checkpoint, "cpu")["step"] < steps
    assert not (tmp_path / "killed" / "labels").exists()

    finish(start(root, tmp_path / "killed", "--steps", steps, "--resume"))
    finish(unbroken)
    assert len(results(tmp_path / "unbroken")) == 4 * 2 * tiny.FRAMES
    assert results(tmp_path / "killed") == results(tmp_path / "unbroken")


def test_two_ranks_write_the_labels_of_one_process(root, tmp_path):
    one = start(root, tmp_path / "one", "--steps", 6)
    finish(start(root, tmp_path / "two", "--steps", 6, ranks=2))
    finish(one)
    assert len(results(tmp_path / "one")) == 4 * 2 * tiny.FRAMES
    assert results(tmp_path / "two") == results(tmp_path / "one")
    nets = {path.relative_to(tmp_path / "two") for path in (tmp_path / "two" / "nets").rglob("*.pt")}
    assert nets == {path.relative_to(tmp_path / "one") for path in (tmp_path / "one" / "nets").rglob("*.pt")}


def test_nets_that_two_ranks_train_together_differ_by_rounding(root, tmp_path):
    one = start(root, tmp_path / "one", "--steps", 4, "--train", "--joint")
    finish(start(root, tmp_path / "two", "--steps", 4, "--train", "--joint", ranks=2))
    finish(one)
    for name in ("foreground.pt", "first-frames.pt"):
        first, second = (load_checkpoint(tmp_path / out / "nets" / name, "cpu") for out in ("one", "two"))
        for key, weights in first["net"].items():
            torch.testing.assert_close(second["net"][key], weights, rtol=1e-3, atol=1e-4)
