"""System failures and interruptions: one clear line, exit code 1, and finished work is kept."""

import errno
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
import tiny
from davis_cases import files_in

from vos_pipeline import __main__ as cli
from vos_pipeline.data import masks
from vos_pipeline.files import replacing

pytestmark = pytest.mark.usefixtures("tiny_preset")


def davis(root, out, *options):
    return [str(a) for a in ("davis", "--data", root, "--out", out, "--preset", "tiny", *options)]


def test_a_full_disk_keeps_finished_work(fails, tiny_root, tmp_path, monkeypatch):
    assert cli.main(davis(tiny_root, tmp_path / "unbroken")) == 0

    @contextmanager
    def full(path):
        with replacing(path) as file:
            if path.match("pair/00002.png"):
                file.write(b"some of it")
                raise OSError(errno.ENOSPC, "No space left on device")
            yield file

    monkeypatch.setattr(masks, "replacing", full)
    out = tmp_path / "out"
    why = fails(davis(tiny_root, out))
    assert why == (
        f"error: the disk is full, free some space ({out}/labels/first-mask/pair/00002.png: no space left on "
        "device): finished work is kept, --resume continues it"
    )
    finished = files_in(out)
    assert all(len(finished[Path(f"labels/flow/single/{t:05d}.png")]) for t in range(tiny.FRAMES))
    assert not [path for path in finished if path.name.startswith(".")]

    monkeypatch.setattr(masks, "replacing", replacing)
    assert cli.main(davis(tiny_root, out, "--resume")) == 0
    assert files_in(out / "labels") == files_in(tmp_path / "unbroken/labels")


# Background processes of a shell ignore Ctrl-C, and so would the child processes of these tests.
PROGRAM = """
import dataclasses, signal, sys, time, tiny, torch
from vos_pipeline.pipeline import stages
from vos_pipeline.settings import PRESETS
from vos_pipeline.__main__ import main

class Slow(tiny.Unrefined):
    def forward(self, image, coarse):
        time.sleep(0.2)
        return super().forward(image, coarse)

signal.signal(signal.SIGINT, signal.default_int_handler)
torch.set_num_threads(1)
stages.load_refiner = lambda name, device: Slow()
long = dataclasses.replace(tiny.BRIEF, steps=10**6)
PRESETS["tiny"] = tiny.TINY
PRESETS["long"] = dataclasses.replace(tiny.TINY, instance=long)
sys.exit(main())
"""


def start(arguments, **options):
    paths = os.pathsep.join((str(Path(tiny.__file__).parent), *sys.path))
    return subprocess.Popen(
        [sys.executable, "-c", options.pop("before", "") + PROGRAM, *arguments],
        env={**os.environ, "PYTHONPATH": paths},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for(path, process):
    while not path.exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)


def last_line(process):
    """Return the last line on stderr of a process that must exit with 1 and without a traceback."""
    _, text = process.communicate()
    assert process.returncode == 1 and "Traceback" not in text, text
    return text.splitlines()[-1]


INTERRUPTED = "error: interrupted: finished work is kept, --resume continues it"


@pytest.mark.slow
def test_ctrl_c_while_segmenting(tiny_root, tmp_path):
    out = tmp_path / "out"
    process = start(davis(tiny_root, out))
    wait_for(out / "labels/flow/pair/00001.png", process)
    process.send_signal(signal.SIGINT)
    assert last_line(process) == INTERRUPTED
    finished = files_in(out)
    assert Path("seconds/single.json") in finished and Path("seconds/pair.json") not in finished
    assert not [path for path in finished if path.name.startswith(".")]

    assert cli.main(davis(tiny_root, out, "--resume")) == 0
    after = files_in(out)
    assert all(after[path] == content for path, content in finished.items())
    assert Path("labels/flow/pair/00003.png") in after


@pytest.mark.slow
def test_ctrl_c_while_training(tiny_root, tmp_path):
    out = tmp_path / "out"
    arguments = davis(tiny_root, out)
    arguments[arguments.index("tiny")] = "long"
    process = start(arguments)
    wait_for(out / "nets/single/foreground.pt", process)
    time.sleep(
        0.5
    )  # until the progress bar is closed; an interruption before that leaves its line unfinished
    process.send_signal(signal.SIGINT)
    assert last_line(process) == INTERRUPTED


@pytest.mark.slow
def test_a_failed_write_leaves_no_partial_file(tiny_root, tmp_path):
    # Like a full disk, but with another error: no file may grow beyond this size.
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))\n"
    process = start(davis(tiny_root, tmp_path / "out"), before=limit)
    assert last_line(process) == f"error: {tmp_path}/out/nets/foreground.pt: file too large"
    assert set(files_in(tmp_path / "out")) == {Path("run.json")}
