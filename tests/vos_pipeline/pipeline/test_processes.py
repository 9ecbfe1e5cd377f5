"""Killed runs and runs of several processes produce the same labels as an uninterrupted run of one process."""

import os
import signal
import subprocess
import sys
import time

import pytest
import tiny
import torch
from davis_cases import files_in

from vos_pipeline import __main__ as cli
from vos_pipeline.pipeline import STAGES, stages
from vos_pipeline.training.checkpoint import load_checkpoint

# One thread per process, and the same import path as this process.
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}


STEPS = 30

pytestmark = pytest.mark.slow


def start(*arguments, ranks=0):
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks)]
    command = [sys.executable, *(torchrun if ranks else ()), tiny.__file__, *map(str, arguments)]
    return subprocess.Popen(
        command, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def finish(process):
    output, _ = process.communicate()
    assert process.returncode == 0, output


def run_here(*arguments):
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(stages, "load_refiner", lambda name, device: tiny.Unrefined())
            tiny.main([*map(str, arguments)])
    finally:
        torch.set_num_threads(threads)


def labels(out):
    return {path.relative_to(out): path.read_bytes() for path in sorted((out / "labels").rglob("*.png"))}


def nets(out):
    return {path.relative_to(out) for path in (out / "nets").rglob("*.pt")}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tiny.write_root(tmp_path_factory.mktemp("root") / "davis")


@pytest.fixture(scope="module")
def undisturbed(root, tmp_path_factory):
    """The results of one process that starts from a foreground net with random weights."""
    out = tmp_path_factory.mktemp("undisturbed")
    run_here(root, out, "--steps", STEPS)
    assert len(labels(out)) == len(STAGES) * 2 * tiny.FRAMES
    return out


def test_a_run_killed_during_training_resumes_to_the_same_labels(root, undisturbed, tmp_path):
    out = tmp_path / "out"
    process = start(root, out, "--steps", STEPS)
    checkpoint = out / "nets" / "pair" / "object-2.pt"
    while not checkpoint.exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert 0 < load_checkpoint(checkpoint)["step"] < STEPS
    assert not (out / "labels").exists()

    run_here(root, out, "--steps", STEPS, "--resume")
    assert labels(out) == labels(undisturbed)


def joint(batch):
    return "--steps", 4, "--train", "--joint", "--batch", batch


@pytest.fixture(scope="module")
def two_ranks(root, tmp_path_factory):
    """Runs of two ranks: per object, and with shared nets on batches of 2 and 1. They share one slow start."""
    out = tmp_path_factory.mktemp("two")
    runs = [("per-object", ("--steps", STEPS)), ("batch-2", joint(2)), ("batch-1", joint(1))]
    arguments = [word for name, options in runs for word in (root, out / name, *options, "then")]
    finish(start(*arguments, ranks=2))
    return out


def test_two_ranks_write_the_labels_of_one_process(two_ranks, undisturbed):
    assert labels(two_ranks / "per-object") == labels(undisturbed)
    assert nets(two_ranks / "per-object") == nets(undisturbed)


@pytest.mark.parametrize("batch", [2, 1])
def test_two_ranks_train_shared_nets_on_the_batches_of_one_process(root, two_ranks, tmp_path, batch):
    """Ranks share a batch of 2, so nets differ by rounding. The first rank alone trains a batch of 1, bit for bit."""
    two = two_ranks / f"batch-{batch}"
    run_here(root, tmp_path, *joint(batch))
    tolerance = {"rtol": 1e-3, "atol": 1e-4} if batch == 2 else {"rtol": 0, "atol": 0}
    for name in ("foreground.pt", "first-frames.pt"):
        ours, theirs = (load_checkpoint(out / "nets" / name)["net"] for out in (tmp_path, two))
        for key in ours:
            torch.testing.assert_close(theirs[key], ours[key], **tolerance)
    if batch == 1:
        assert labels(two) == labels(tmp_path)


def test_two_ranks_refine_the_masks_of_one_process(root, tmp_path):
    folders = [str(root / kind / "480p") for kind in ("JPEGImages", "Annotations")]
    options = ["refine", "--frames", folders[0], "--masks", folders[1], "--out"]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    subprocess.run([*torchrun, "-m", "vos_pipeline", *options, tmp_path / "two"], env=ENVIRONMENT, check=True)
    assert cli.main([*options, str(tmp_path / "one")]) == 0
    masks = [files_in(tmp_path / out) for out in ("one", "two")]
    assert masks[0] == masks[1] and len(masks[0]) == 3 * (tiny.FRAMES + 1) + 1
