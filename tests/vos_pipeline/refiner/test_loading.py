"""Loading refiners by name and creating new ones."""

import pytest
import torch

from vos_pipeline.errors import PipelineError
from vos_pipeline.refiner import initial_refiner, load_refiner, loading
from vos_pipeline.settings import SPNTraining


def test_the_same_seed_gives_the_same_refiner():
    first, again = (initial_refiner(SPNTraining(seed=3)).state_dict() for _ in range(2))
    other = initial_refiner(SPNTraining(seed=4)).state_dict()
    assert all(torch.equal(value, again[name]) for name, value in first.items())
    assert not all(torch.equal(value, other[name]) for name, value in first.items())


def test_a_trained_refiner_is_ready_for_use():
    refiner = load_refiner("lite", tile=256)
    assert not refiner.training and refiner.tile == 256


def test_invalid_refiners_are_errors():
    with pytest.raises(PipelineError, match=r"refiner 'large': name must be one of \['lite'\]"):
        load_refiner("large")
    with pytest.raises(PipelineError, match="refiner 'lite': tile must be"):
        load_refiner("lite", tile=1)


def test_out_of_memory_is_not_reported_as_a_bad_refiner(monkeypatch):
    class Full(torch.nn.Module):
        def to(self, device):
            raise RuntimeError("CUDA out of memory")

    monkeypatch.setattr(loading.SPNRefiner, "from_pretrained", lambda name, tile: Full())
    with pytest.raises(RuntimeError, match="out of memory"):
        load_refiner("lite")
