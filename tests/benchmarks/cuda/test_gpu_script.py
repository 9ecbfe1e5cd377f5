"""benchmarks/gpu.sh with stubs for compilers and measurements: time limits, order, and results after a stop."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from importlib.util import find_spec
from pathlib import Path

import pytest

from benchmarks import machine
from benchmarks.cuda import summary as gpu_summary

ROOT = Path(__file__).resolve().parents[3]

pytestmark = [
    pytest.mark.skipif(
        not (shutil.which("bash") and shutil.which("timeout") and find_spec("xdist")),
        reason="needs bash, timeout of coreutils and pytest-xdist",
    ),
    pytest.mark.slow,
]

STUBS = """
called() { echo "called $*"; }
export -f called
machine() { called machine; }
build() { called build; }
compile_sanitize() {
  called compile_sanitize
  echo 'echo 12 of 12 problems ran' >"$WORK/sanitize"
  chmod +x "$WORK/sanitize"
}
compile_planner() { called compile_planner; }
compile_per_column() { called compile_per_column; }
sanitizer() { called sanitizer "$@"; echo "ERROR SUMMARY: 0 errors"; "$WORK/sanitize"; }
timings() { called timings "$@"; }
"""
STAGES = (
    *("machine", "build", "import", "tests", "headline", "plain"),
    *gpu_summary.SANITIZERS,
    *("more_tests", "rest"),
)
TESTS_STUB = """
run_tests() { called run_tests "$@"; }
"""

# `timeout` is the leader of its process group, and this signal ends its time limit, however slow the machine is.
RESULTS = """
import os
import signal
import time

def test_passes():
    pass

def test_fails():
    assert 1 == 2, "planted"

def test_sleeps():
    os.kill(os.getpgrp(), signal.SIGALRM)
    while True:  # a single long sleep could start just after the interrupt
        time.sleep(0.1)
"""


# The part of torch that the pytest plugin uses, because the real one takes seconds to import.
TORCH = """
device = str


class cuda:
    is_available = staticmethod(lambda: True)
    is_initialized = staticmethod(lambda: True)
    synchronize = staticmethod(lambda: None)
"""
OPS = """
def why_reference(device):
    return None
"""


class Script:
    """A folder with the script and its stubs."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.out = folder, folder / "out"
        (folder / "benchmarks" / "cuda").mkdir(parents=True)
        cuda = ("__init__.py", "summary.py", "pytest_plugin.py")
        for name in ("__init__.py", "gpu.sh", *(f"cuda/{name}" for name in cuda)):
            shutil.copy(ROOT / "benchmarks" / name, folder / "benchmarks" / name)
        for name in ("csrc", "spn", "tests", "tests/emulator", "tests/spn"):
            (folder / name).mkdir()
        (folder / "torch.py").write_text(TORCH)
        (folder / "spn" / "__init__.py").touch()
        (folder / "spn" / "_ops.py").write_text(OPS)
        for name in ("setup.py", "build_kernels.py"):
            (folder / name).touch()
        (folder / "bin").mkdir()
        nvcc = folder / "bin" / "nvcc"
        nvcc.write_text("#!/bin/sh\n")
        nvcc.chmod(0o755)
        python = folder / "bin" / "python"
        python.write_text(
            f'#!/bin/sh\ncase "$2" in *capability*) echo 2.11.0 /include 9.0 ;; *) exec {sys.executable} "$@" ;; esac\n'
        )
        python.chmod(0o755)

    def start(self, stubs: str = "", **variables: str) -> subprocess.Popen:
        (self.folder / "stubs.sh").write_text(STUBS + (stubs or TESTS_STUB))
        environment = {
            # These tests may run in a worker of pytest-xdist, which the script must not see.
            **{name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")},
            "PYTHON": str(self.folder / "bin" / "python"),
            "CUDA_HOME": str(self.folder),
            "SPN_GPU_STUBS": str(self.folder / "stubs.sh"),
            "TEST_PROCESSES": "0",
            "LIMITS": " ".join(f"{stage}=3600" for stage in ("whole", *STAGES)),
            # Other plugins take seconds to import.
            "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
            "PYTEST_PLUGINS": "xdist.plugin",
            **variables,
        }
        return subprocess.Popen(
            ["bash", str(self.folder / "benchmarks" / "gpu.sh"), str(self.out)],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, stubs: str = "", **variables: str) -> tuple[int, str]:
        process = self.start(stubs, **variables)
        printed, _ = process.communicate()
        return process.returncode, printed

    def text(self, name: str) -> str:
        return (self.out / name).read_text()

    @property
    def stages(self) -> list[str]:
        return list(gpu_summary.verdicts(self.text("log.txt")))

    def calls(self) -> str:
        return self.text("log.txt") + self.text("compiles.log")


@pytest.fixture
def script(tmp_path: Path) -> Script:
    return Script(tmp_path)


def test_stages_run_in_order(script: Script):
    status, printed = script.run()
    assert status == 0, printed
    assert script.stages == list(STAGES)
    summary = script.text("summary.txt")
    assert printed.endswith(summary)
    assert "racecheck 0 found in 12 of 12 problems" in summary
    assert {path.name for path in script.out.iterdir()} == {"log.txt", "compiles.log", "summary.txt"}


def test_a_failed_stage_does_not_stop_the_next(script: Script):
    stubs = (
        TESTS_STUB
        + """
timings() { echo planted; return 3; }
sanitizer() { echo "Error: Device not supported"; return 1; }
"""
    )
    status, printed = script.run(stubs)
    assert status == 3, printed  # import, headline and rest
    assert "headline FAILED (3)" in script.text("summary.txt")
    assert "racecheck NOT POSSIBLE" in script.text("summary.txt")
    assert script.stages[-1] == "rest"


def test_nothing_is_tested_or_timed_without_a_build(script: Script):
    status, _ = script.run(TESTS_STUB + "build() { return 1; }")
    assert status == 1
    assert script.stages == ["machine", "build", "plain", *gpu_summary.SANITIZERS]


@pytest.mark.parametrize(
    "stage, needs, leaves",
    [
        ("tests", ["build", "run_tests"], ["compile_", "timings"]),
        ("headline", ["build", "compile_planner", "timings --part headline"], ["sanitize", "run_tests"]),
        ("racecheck", ["compile_sanitize", "sanitizer racecheck"], ["build", "memcheck", "planner"]),
        ("rest", ["build", "compile_planner", "compile_per_column", "--part rest"], ["run_tests"]),
    ],
)
def test_a_single_stage_runs_its_dependencies(
    script: Script, stage: str, needs: list[str], leaves: list[str]
):
    status, printed = script.run(STAGES=stage)
    assert status == 0, printed
    calls = script.calls()
    assert all(f"called {call}" in calls or call in calls for call in needs), calls
    assert not any(f"called {call}" in calls or f"== {call}" in calls for call in leaves), calls


def test_interrupted_tests_keep_their_failures(script: Script):
    (script.folder / "tests" / "spn" / "test_cuda.py").write_text(RESULTS)
    status, printed = script.run("true", STAGES="tests")
    assert status == 1, printed
    log, summary = script.text("log.txt"), script.text("summary.txt")
    assert log.index("!! tests/spn/test_cuda.py::test_fails") < log.index("KeyboardInterrupt")
    assert "= FAILURES =" in log  # the report of pytest
    assert "tests: 1 passed, 1 failed, 0 skipped, 1 unfinished (test_sleeps)" in summary
    assert "failed: test_fails" in summary
    assert "first: AssertionError: planted" in summary
    assert "tests CUT" in summary


def test_a_killed_script_leaves_its_results(script: Script):
    process = script.start(TESTS_STUB + 'timings() { echo "copy: 3 TB/s"; sleep 30; }', STAGES="headline")
    log = script.out / "log.txt"
    while "copy" not in (log.read_text() if log.exists() else ""):
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert "copy: 3 TB/s" in script.text("log.txt")
    assert "build ok" in script.text("summary.txt")


def test_a_result_file_is_complete_at_any_time(tmp_path: Path):
    path = tmp_path / "gpu.json"
    rows = [{"name": "x" * 100}] * 5000
    machine.write_results(path, {}, rows)
    stop = threading.Event()

    def write() -> None:
        while not stop.is_set():
            machine.write_results(path, {}, rows)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for _ in range(30):
            assert len(json.loads(path.read_text())["rows"]) == 5000
    finally:
        stop.set()
        writer.join()


# Only the tests that hang get a short limit, because a slow machine needs seconds to report other failures.
LOST = """
import time
import torch
from benchmarks.cuda import pytest_plugin

def test_before():
    pass

def test_loses_the_gpu():
    def synchronize():
        raise RuntimeError("an illegal memory access")

    torch.cuda.synchronize = synchronize
    assert False, "the true cause"

def test_after_the_loss():
    torch.cuda.synchronize()
    pytest_plugin.SECONDS_A_TEST = 2

def test_hangs():
    time.sleep(300)

def test_leaves_a_kernel_that_hangs():
    pytest_plugin.SECONDS_A_TEST = 2
    torch.cuda.synchronize = lambda: time.sleep(300)
    assert False, "and fails"

def test_after_the_hangs():
    pass
"""


def test_other_tests_run_after_a_lost_gpu_and_a_hang(script: Script):
    (script.folder / "tests" / "spn" / "test_cuda.py").write_text(LOST)
    status, printed = script.run("true", STAGES="tests", TEST_PROCESSES="1", SPN_GPU_SECONDS_A_TEST="1000")
    assert status == 1, printed
    counts, failed, first = gpu_summary.tests(script.text("tests.jsonl"))
    assert counts == "tests: 3 passed, 3 failed, 0 skipped", script.text("log.txt")
    assert failed == "failed: test_loses_the_gpu, test_hangs, test_leaves_a_kernel_that_hangs"
    assert "the true cause" in first
    assert "in test_hangs" in script.text("log.txt")  # where it hung


def test_tests_without_a_gpu_fail(script: Script):
    (script.folder / "torch.py").write_text(TORCH.replace("True", "False"))
    (script.folder / "tests" / "spn" / "test_cuda.py").write_text("def test_passes(): pass")
    status, printed = script.run("true", STAGES="tests")
    assert status == 1, printed
    assert "torch sees no GPU" in script.text("summary.txt")


def test_skipped_tests_alone_do_not_pass(script: Script):
    (script.folder / "tests" / "spn" / "test_cuda.py").write_text(
        "import pytest\n\n@pytest.mark.skip\ndef test_skips(): pass"
    )
    status, printed = script.run("true", STAGES="tests")
    assert status == 1, printed


def test_the_summary_has_at_most_ten_lines(tmp_path: Path):
    (tmp_path / "log.txt").write_text(
        "== build (at most 180 s)\nfine\n== build: ok 80 s\n"
        "== memcheck (at most 30 s)\n  1: a\n 20 of 90 problems ran\n===== ERROR SUMMARY: 2 errors\n"
        "== memcheck: FAILED (1) 20 s\n"
        "== racecheck (at most 30 s)\n  1: a\n  2: b\n== racecheck: CUT 30 s\n"
    )
    results = [
        {"test": "t.py::a", "outcome": "started"},
        {"test": "t.py::a", "outcome": "failed", "message": "true cause\nmore"},
        {"test": "t.py::a", "outcome": "failed", "message": "worker crashed"},
        {"test": "t.py::b", "outcome": "skipped"},
        {"test": "t.py::c", "outcome": "started"},
    ]
    (tmp_path / "tests.jsonl").write_text("\n".join(map(json.dumps, results)) + '\n{"test": "cut o')
    row = {"name": "forward", "dtype": "float32", "part": "headline", "cache": "warm", "median_ms": 1.5}
    rows = [{**row, "shape": shape, "bandwidth_efficiency": 0.9} for shape in ("1x1x480x854", "8x8x8x8")]
    rows.append({**row, "shape": "8x8x8x8", "name": "backward", "error": "out of memory"})
    facts = {"gpu": "A GPU", "copy_bytes_per_second": 3e12, "clocks": {"busy": "1980 MHz"}}
    machine.write_results(tmp_path / "gpu.json", facts, rows)
    text = gpu_summary.summary(tmp_path, "99")
    assert text.split("\n") == [
        "A GPU, torch ?, commit ?, 99 s",
        "stages: build ok 80 s, memcheck FAILED (1) 20 s, racecheck CUT 30 s",
        "tests: 0 passed, 1 failed, 1 skipped, 1 unfinished (c)",
        "failed: a",
        "first: true cause | more",
        "sanitizers: memcheck 2 found in 20 of 90 problems; racecheck CUT 30 s, cut in problem 2",
        "copy 3 TB/s; 3 timings, 1 failed; while busy: 1980 MHz",
        "1x1x480x854: forward float32 1.5 ms bandwidth 0.90",
        "8x8x8x8: forward float32 1.5 ms bandwidth 0.90; backward float32 out of memory",
        "",
    ]
