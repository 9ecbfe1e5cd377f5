"""Fixture: a temporary project for the build tests."""

import pytest
import torch
import torch._inductor.config  # reads CXX at import, so import it before the tests change CXX
from stand_ins import Project, build_kernels
from torch.utils import cpp_extension

from spn import _native


@pytest.fixture
def project(tmp_path, monkeypatch):
    project = Project(tmp_path)
    monkeypatch.chdir(tmp_path)
    for name in ("CC", "LDSHARED", "MAX_JOBS", "SPN_BUILD", "TORCH_CUDA_ARCH_LIST"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    monkeypatch.setenv("CXX", str(tmp_path / "bin" / "g++"))
    monkeypatch.setattr(build_kernels, "ROOT", tmp_path)
    monkeypatch.setattr(cpp_extension, "CUDA_HOME", str(tmp_path / "cuda"))
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(_native, "__file__", str(tmp_path / "spn" / "_native.py"))
    return project
