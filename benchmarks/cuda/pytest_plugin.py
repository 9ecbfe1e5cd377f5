"""A pytest plugin for benchmarks/gpu.sh that loses no result: ``python -m pytest -p benchmarks.cuda.pytest_plugin``.

Each result is immediately appended to the file named by SPN_GPU_TESTS, and each failure to the log. A test that hangs,
or after which the GPU no longer responds, ends its process. With several processes (pytest-xdist) the others continue,
and a new process runs the remaining tests.
"""

from __future__ import annotations

import faulthandler
import json
import os
import signal

import pytest
import torch

from spn import _ops

STAND_IN = bool(os.environ.get("SPN_GPU_STAND_IN"))
SECONDS_A_TEST = int(os.environ.get("SPN_GPU_SECONDS_A_TEST", 1000 if STAND_IN else 100))
WORKER = "PYTEST_XDIST_WORKER" in os.environ
STDERR = os.dup(2)  # before pytest captures it

# Python keeps ignoring SIGINT if it was ignored at startup, and would then print nothing at the time limit.
signal.signal(signal.SIGINT, signal.default_int_handler)


def record(**facts: object) -> None:
    path = os.environ.get("SPN_GPU_TESTS")
    if path:
        with open(path, "a") as file:
            file.write(json.dumps({"stage": os.environ.get("SPN_GPU_STAGE", ""), **facts}) + "\n")


def gpu_is_lost() -> bool:
    """Return whether the GPU no longer responds; after some errors every later call fails."""
    if not torch.cuda.is_initialized():
        return False
    try:
        torch.cuda.synchronize()
    except RuntimeError:
        return True
    return False


def end_process_later() -> None:
    faulthandler.dump_traceback_later(SECONDS_A_TEST, exit=True, file=STDERR)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    if STAND_IN:
        return
    reason = _ops.why_reference(torch.device("cuda")) if torch.cuda.is_available() else "torch sees no GPU"
    if reason:
        pytest.fail(f"no kernels: {reason}", pytrace=False)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item):
    end_process_later()
    result = yield
    end_process_later()  # pytest removes the time limit of a failed test
    lost = gpu_is_lost()  # waits for kernels, which may hang
    faulthandler.cancel_dump_traceback_later()
    if lost:
        if WORKER:
            os._exit(1)
        item.session.shouldstop = "the GPU no longer responds"
    return result


# The process that starts the workers receives the reports of all tests.
if not WORKER:
    passed: list[str] = []

    def pytest_runtest_logstart(nodeid: str) -> None:
        record(test=nodeid, outcome="started")

    def pytest_runtest_logreport(report: pytest.TestReport) -> None:
        if report.when == "call" or not report.passed:
            crash = getattr(report.longrepr, "reprcrash", None)
            message = crash.message if crash else str(report.longrepr or "")
            passed.extend([report.nodeid] * report.passed)
            record(test=report.nodeid, outcome=report.outcome, seconds=report.duration, message=message[:500])
        if report.failed:
            os.write(STDERR, f"\n!! {report.nodeid}\n{report.longreprtext}\n".encode())

    def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
        if exitstatus == pytest.ExitCode.OK and not passed:  # all tests were skipped
            session.exitstatus = pytest.ExitCode.NO_TESTS_COLLECTED
