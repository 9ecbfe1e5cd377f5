"""Objects are processed in groups, so that memory hardly depends on their number."""

import pytest
import torch
from refiner_cases import FORMS, small

from spn import refiner as refiner_module

SIZE = (37, 50)  # padded to 48 x 64
PIXELS = 48 * 64


@pytest.fixture
def two_objects_at_once(monkeypatch):
    monkeypatch.setattr(refiner_module, "GROUP_PIXELS", 2 * PIXELS)
    monkeypatch.setattr(refiner_module.Direct, "GROUP_FACTOR", 1)


def counting(refiner):
    """Return lists that record the images per guidance call and the objects per propagation call."""
    pictures, objects = [], []
    refiner.guidance.register_forward_pre_hook(lambda _, args: pictures.append(len(args[0])))
    refiner.propagation.register_forward_pre_hook(lambda _, args: objects.append(args[1].shape[:2].numel()))
    return pictures, objects


def inputs(n=1, k=7, size=SIZE):
    generator = torch.Generator().manual_seed(3)
    return tuple(torch.rand(n, channels, *size, generator=generator) for channels in (3, k))


@pytest.mark.parametrize("form", FORMS)
@torch.no_grad()
def test_no_call_sees_more_objects_than_a_group(form, two_objects_at_once):
    refiner = small(form)
    pictures, objects = counting(refiner)
    refiner(*inputs())
    assert objects == [2, 2, 2, 1]
    # Features that depend only on the image are computed once for all groups.
    assert pictures == ([2, 2, 2, 1] if "sees" in form else [1])


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("tile", [None, 256])
@torch.no_grad()
def test_groups_equal_all_objects_at_once(form, tile, monkeypatch):
    refiner = small(form, tile=tile)
    size = (60, 300) if tile else SIZE
    image, coarse = inputs(n=2, k=5, size=size)
    whole = refiner(image, coarse), refiner(image, coarse, logits=True)
    monkeypatch.setattr(refiner_module, "GROUP_PIXELS", 1)
    _, objects = counting(refiner)
    groups = refiner(image, coarse), refiner(image, coarse, logits=True)
    assert set(objects) <= {1, 2, 2 * 4} and len(objects) >= 4
    # Convolutions may round differently for other batch sizes.
    for actual, expected, tolerance in zip(groups, whole, (2e-6, 1e-4), strict=True):
        torch.testing.assert_close(actual, expected, rtol=0, atol=tolerance)


@torch.no_grad()
def test_a_large_batch_is_worked_object_by_object(two_objects_at_once):
    refiner = small()
    _, objects = counting(refiner)
    refiner(*inputs(n=3, k=2))
    assert objects == [3, 3]


@torch.no_grad()
def test_small_pictures_with_many_objects_stay_one_group():
    refiner = small()
    _, objects = counting(refiner)
    refiner(*inputs(k=40, size=(64, 64)))
    assert objects == [40]


@torch.no_grad()
def test_480p_is_worked_two_objects_at_once():
    assert [group.shape[1] for group in small()._groups(*inputs(k=5, size=(480, 864)))] == [2, 2, 1]


@pytest.mark.parametrize("form", FORMS)
def test_one_group_where_a_gradient_is_recorded(form, two_objects_at_once):
    refiner = small(form)
    _, objects = counting(refiner)
    refiner(*inputs())
    refiner.requires_grad_(False)
    image, coarse = inputs()
    refiner(image, coarse.requires_grad_())
    assert objects == [7, 7]
    refiner(image, coarse.detach())
    assert objects == [7, 7, 2, 2, 2, 1]


@pytest.mark.parametrize("part", ["guidance", "propagation"])
@torch.no_grad()
def test_one_group_in_training_where_batch_normalisation_sees_all_objects(part, two_objects_at_once):
    refiner = small()
    getattr(refiner, part).train()
    _, objects = counting(refiner)
    refiner(*inputs())
    assert objects == [7]


@torch.no_grad()
def test_a_traced_program_takes_all_objects(two_objects_at_once):
    refiner = small()
    _, objects = counting(refiner)
    torch.jit.trace(refiner, inputs(), check_trace=False)
    assert objects == [7]
