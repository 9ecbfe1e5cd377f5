"""Builds through the setuptools hooks that pip calls, which do not find modules next to setup.py."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from stand_ins import ROOT

pytestmark = pytest.mark.slow

HOOKS = """
import sys
sys.path = [p for p in sys.path if p not in ("", ".")]
from setuptools import build_meta
print(build_meta.{hook}("dist"))
"""


@pytest.fixture
def sources(tmp_path):
    for name in ("setup.py", "build_kernels.py", "pyproject.toml", "MANIFEST.in", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path / name)
    ignored = shutil.ignore_patterns("__pycache__", "weights", "*.so", "*.left_out")
    shutil.copytree(ROOT / "spn", tmp_path / "spn", ignore=ignored, dirs_exist_ok=True)
    return tmp_path


def call_hook(sources, hook, **variables) -> Path:
    environment = (
        {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | {"SPN_BUILD": "none"} | variables
    )
    command = [sys.executable, "-c", HOOKS.format(hook=hook)]
    (sources / "dist").mkdir(exist_ok=True)
    finished = subprocess.run(command, cwd=sources, env=environment, capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr
    return sources / "dist" / finished.stdout.splitlines()[-1]


def test_wheel_from_sdist(sources, tmp_path):
    shutil.unpack_archive(call_hook(sources, "build_sdist"), tmp_path / "unpacked")
    (unpacked,) = (tmp_path / "unpacked").iterdir()
    with zipfile.ZipFile(call_hook(unpacked, "build_wheel")) as wheel:
        names = wheel.namelist()
    assert {"spn/_native.py", "spn/py.typed"} <= set(names) and not any(
        "build_kernels" in name for name in names
    )


def test_the_wheel_contains_the_reason(sources, project):
    project.put_nvcc(release="0.1")
    toolkit = str(project.root / "cuda")
    with zipfile.ZipFile(call_hook(sources, "build_wheel", SPN_BUILD="auto", CUDA_HOME=toolkit)) as wheel:
        reason = wheel.read("spn/_cuda.left_out").decode()
    assert reason.startswith("not built: ")


def test_editable_without_kernels_leaves_none(sources):
    for name in ("_cpu.abi3.so", "_cuda.abi3.so", "_cuda.left_out"):
        (sources / "spn" / name).touch()
    call_hook(sources, "build_editable")
    assert not list((sources / "spn").glob("_c[pu]*.*o*"))
