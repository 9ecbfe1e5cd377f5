"""Set the seed and the hypothesis profile of all tests, and report the device of the CUDA tests."""

import sys
from pathlib import Path

import pytest
import torch
from hypothesis import settings

# The default draws the same examples on every run. `--hypothesis-profile explore` draws new ones; `few` is for runs
# that repeat other tests.
settings.register_profile("repeatable", deadline=None, derandomize=True, max_examples=40)
settings.register_profile("few", deadline=None, derandomize=True, max_examples=10)
settings.register_profile("explore", deadline=None, max_examples=200)
settings.load_profile("repeatable")


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def pytest_report_header() -> str:
    sys.path.append(str(Path(__file__).parent / "spn"))
    from gpu_or_stand_in import GPU

    return f"CUDA tests: {GPU.description}"
