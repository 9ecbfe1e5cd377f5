"""torch.compile, torch.export and torch.jit.trace of the refiner."""

import io

import pytest
import torch
from refiner_cases import FORMS, small

from spn.guidance import VGG16Guidance
from spn.refiner import SPNRefiner

SEES = "embedded, guidance sees the mask"  # as in the shipped refiner
# An odd size, a size without padding, and a size smaller than a cell of the guidance.
SIZES = [(45, 67), (64, 80), (7, 9)]


def inputs(size, n=1, k=2):
    return torch.rand(n, 3, *size), torch.rand(n, k, *size)


def assert_same(actual, expected):
    torch.testing.assert_close(actual, expected, rtol=0, atol=2e-6)


@pytest.mark.slow
@torch.no_grad()
def test_compiled_equals_eager_at_every_size():
    """Compiles for one size first, then for any size; the training test compiles the direct form."""
    torch._dynamo.reset()
    refiner = small(SEES)
    compiled = torch.compile(refiner, fullgraph=True, backend="aot_eager")
    for size in SIZES:
        arguments = inputs(size)
        assert_same(compiled(*arguments), refiner(*arguments))


@pytest.mark.slow
def test_compiled_training_gives_the_gradients_of_eager():
    torch._dynamo.reset()
    refiner = small("direct")
    compiled = torch.compile(refiner, dynamic=True, fullgraph=True, backend="aot_eager")
    for size in SIZES[:2]:
        arguments = [tensor.requires_grad_() for tensor in inputs(size)]
        actual = torch.autograd.grad(compiled(*arguments).square().sum(), arguments)
        expected = torch.autograd.grad(refiner(*arguments).square().sum(), arguments)
        torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(("form", "strict"), [(SEES, True), ("VGG-16", False)])
@torch.no_grad()
def test_exported_equals_eager_at_every_size(form, strict):
    refiner = small(form) if form in FORMS else SPNRefiner(VGG16Guidance(None), form="direct").eval()
    size = {2: torch.export.Dim("h"), 3: torch.export.Dim("w")}
    program = torch.export.export(refiner, inputs(SIZES[0]), dynamic_shapes=(size, size), strict=strict)
    file = io.BytesIO()
    torch.export.save(program, file)
    file.seek(0)
    loaded = torch.export.load(file).module()
    for other in [*SIZES, (1, 1), (100, 3)]:
        arguments = inputs(other)
        assert_same(loaded(*arguments), refiner(*arguments))


@pytest.mark.slow
@pytest.mark.parametrize("form", ["embedded", "direct"])
@torch.no_grad()
def test_export_with_any_number_of_pictures_and_objects(form):
    refiner = small(form)
    n, k, h, w = (torch.export.Dim(name) for name in "nkhw")
    shapes = ({0: n, 2: h, 3: w}, {0: n, 1: k, 2: h, 3: w})
    program = torch.export.export(refiner, inputs(SIZES[0], n=2, k=3), dynamic_shapes=shapes).module()
    for size, n, k in [(SIZES[1], 3, 2), (SIZES[2], 1, 4)]:
        arguments = inputs(size, n, k)
        assert_same(program(*arguments), refiner(*arguments))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("traced_at", [(45, 67), (64, 80)])  # the second size needs no padding
@torch.no_grad()
def test_traced_equals_eager(form, traced_at):
    refiner = small(form)
    traced = torch.jit.trace(refiner, inputs(traced_at))
    for size in SIZES:
        arguments = inputs(size)
        assert_same(traced(*arguments), refiner(*arguments))
