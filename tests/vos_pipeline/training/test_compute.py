"""Device, precision and memory format of a network."""

import pytest
import torch

from vos_pipeline.training import Compute


@pytest.mark.parametrize(("precision", "last"), [("float32", True), ("bfloat16", False)])
def test_images_and_weights_use_the_fastest_memory_format(precision, last):
    compute = Compute(precision=precision)
    net = compute.place(torch.nn.Conv2d(4, 8, 3))
    moved = compute.move(torch.rand(2, 4, 6, 6)), net.weight
    assert all(t.is_contiguous(memory_format=torch.channels_last) == last for t in moved)
    labels = torch.zeros(2, 6, 6, dtype=torch.int64)
    assert compute.move(labels) is labels


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
def test_precision(precision):
    with Compute(precision=precision).autocast():
        assert torch.nn.Linear(2, 2)(torch.rand(1, 2)).dtype == getattr(torch, precision)
