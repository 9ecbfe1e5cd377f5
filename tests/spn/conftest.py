"""Fixture for the CUDA tests: the GPU, or the CPU as its stand-in."""

import pytest
from gpu_or_stand_in import GPU, Gpu


@pytest.fixture(scope="session", params=[GPU], ids=lambda gpu: gpu.name)
def gpu(request) -> Gpu:
    return request.param
