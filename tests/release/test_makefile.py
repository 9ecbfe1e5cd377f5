"""The setup by make: the packages per target, the output that users see, and the state after a failure."""

import os
import re
import shutil
import subprocess
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DEMO = [
    "Creating .venv",
    "Installing PyTorch and the dependencies of the pipeline (several gigabytes; takes minutes)",
    "Compiling the kernels (a minute or two)",
]
REST = "Installing the dependencies of tests and style checks and documentation"

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")

# Replaces python3 and the python of the environment: logs its calls, and fails if fails.txt matches a call.
PYTHON = """#!/bin/sh
echo "$@" >> calls.txt
case "$*" in
    "-m venv "*) mkdir -p "$3/bin" && cp "$0" "$3/bin/python" ;;
    *"$(cat fails.txt 2>/dev/null || echo nothing fails)"*) echo "the reason why"; exit 3 ;;
esac
case "$*" in *" install "*|*build_ext*) echo "a line that nobody needs" ;; esac
"""


@pytest.fixture
def checkout(tmp_path):
    for name in ("Makefile", "pyproject.toml", "setup.py", "build_kernels.py"):
        shutil.copy(ROOT / name, tmp_path)
    (tmp_path / "csrc").mkdir()
    (tmp_path / "csrc" / "sweep.h").touch()
    stub = tmp_path / "python"
    stub.write_text(PYTHON)
    stub.chmod(0o755)
    return tmp_path


def make(checkout, *arguments):
    """Run make and return (exit status, lines printed, calls of python)."""
    calls = checkout / "calls.txt"
    calls.unlink(missing_ok=True)
    environment = {
        k: v for k, v in os.environ.items() if k not in ("MAKEFLAGS", "MAKELEVEL", "VENV", "PYTHON")
    }
    done = subprocess.run(
        ["make", "PYTHON=./python", "SPN_BUILD=cpu", *arguments],
        cwd=checkout, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    made = calls.read_text().splitlines() if calls.exists() else []
    return done.returncode, done.stdout.splitlines(), made


def installs(calls):
    return [call for call in calls if " install " in call]


def test_demo_installs_only_the_pipeline_dependencies(checkout):
    status, lines, calls = make(checkout, "demo")
    assert status == 0
    assert lines == [*DEMO, ".venv/bin/python -m vos_pipeline demo --out demo --overwrite"]
    assert len(installs(calls)) == 2
    text = " ".join(installs(calls))
    assert ".[vos] torch torchvision" in text
    assert re.findall(r"\[(.*?)\]", text) == ["vos"]


@pytest.mark.parametrize("first", ["demo", "test"])
def test_demo_and_test_run_in_either_order(checkout, first):
    second = {"demo": "test", "test": "demo"}[first]
    assert make(checkout, first)[0] == 0
    status, lines, calls = make(checkout, second)
    assert status == 0
    # The package is not installed again, because that would remove its kernels.
    assert installs(calls) == (
        ["-m pip install --no-compile spatial-propagation[all]"] if first == "demo" else []
    )
    assert (REST in lines) == (first == "demo")
    assert not set(DEMO) & set(lines)


@pytest.mark.parametrize(
    "target", ["test", "test-fast", "lint", "docs", "figures", "release-check", "cuda-check", "arm-check"]
)
def test_other_targets_install_all_extras(checkout, target):
    _, lines, _ = make(checkout, "-n", target)
    assert any("spatial-propagation[all]" in line for line in lines)


def test_targets_that_run_in_parallel_after_lint_set_nothing_up(checkout):
    """.ci/run starts with make lint, so that parallel targets do not set up the environment at the same time."""
    make(checkout, "lint")  # fails, because ruff is not installed
    for target in ("docs", "release-check", "cuda-check", "arm-check", "test"):
        status, _, calls = make(checkout, target)
        assert status == 0
        assert not [call for call in calls if "install" in call or "build_ext" in call], target


def test_setup_steps_run_in_order_with_parallel_make(checkout):
    status, _, calls = make(checkout, "-j", "8", "test", "demo")
    assert status == 0
    steps = [call for call in calls if "install" in call or "build_ext" in call or "venv" in call]
    assert ["venv" in steps[0], ".[vos]" in steps[2], "build_ext" in steps[3], "[all]" in steps[4]] == [
        True
    ] * 4
    assert len(steps) == 5


@pytest.mark.parametrize(("fails", "message"), [(".[vos]", DEMO[1]), ("build_ext", DEMO[2])])
def test_failure_prints_the_reason(checkout, fails, message):
    (checkout / "fails.txt").write_text(fails)
    status, lines, calls = make(checkout, "demo")
    assert status != 0
    assert "the reason why" in lines
    assert f"Failed: {message}. Full log: .venv/log.txt" in lines
    assert not any("vos_pipeline" in call for call in calls)
    assert "the reason why" in (checkout / ".venv" / "log.txt").read_text()
    (checkout / "fails.txt").unlink()
    status, lines, _ = make(checkout, "demo")
    assert status == 0 and message in lines


def test_incomplete_environment_is_recreated(checkout):
    (checkout / "fails.txt").write_text(".[vos]")
    assert make(checkout, "demo")[0] != 0
    half = checkout / ".venv" / "half of a package"
    half.touch()
    (checkout / "fails.txt").unlink()
    assert make(checkout, "demo")[1][:3] == DEMO
    assert not half.exists()


def test_environment_created_by_the_user_is_never_removed(checkout):
    mine = checkout / ".venv" / "mine"
    mine.parent.mkdir()
    mine.touch()
    (checkout / "fails.txt").write_text(".[vos]")
    assert make(checkout, "demo")[0] != 0 and make(checkout, "demo")[0] != 0
    (checkout / "fails.txt").unlink()
    assert make(checkout, "demo")[0] == 0
    assert mine.exists()


def test_only_changed_steps_run_again(checkout):
    assert make(checkout, "test")[0] == 0
    for changed, steps in (("csrc/sweep.h", [DEMO[2]]), ("pyproject.toml", [*DEMO, REST]), ("README.md", [])):
        earlier = time.time() - 100
        for path in checkout.rglob("*"):
            os.utime(path, (earlier, earlier))
        (checkout / changed).touch()
        assert make(checkout, "test")[1][:-1] == steps, changed
