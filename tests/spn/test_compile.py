"""torch.compile and torch.export of the operator."""

import io

import pytest
import torch
from operator_cases import CASES, DEVICES, Case, gradients
from torch.func import vmap

pytestmark = [pytest.mark.parametrize("device", DEVICES), pytest.mark.slow]


def assert_same(actual, expected):
    (out, grads), (expected_out, expected_grads) = actual, expected
    assert torch.equal(out, expected_out)
    assert all(torch.equal(a, e) for a, e in zip(grads, expected_grads, strict=True))


@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_compiled_equals_eager_forward_and_backward(case, dynamic, device):
    torch._dynamo.reset()
    compiled = torch.compile(case, fullgraph=True, dynamic=dynamic, backend="aot_eager")
    inputs = case.inputs(torch.float32, device)
    assert_same(gradients(compiled, inputs), gradients(case, inputs))


def test_dynamic_shapes_compile_once(device):
    torch._dynamo.reset()
    compilations = []

    def counting(graph, example):
        compilations.append(graph)
        return graph.forward

    base = Case((2, 6, 5, 7), 1, 0, "four_way", "abs", "max")
    compiled = torch.compile(base.__call__, fullgraph=True, dynamic=True, backend=counting)
    for shape in [(2, 6, 5, 7), (3, 6, 9, 11), (5, 6, 40, 33)]:
        inputs = base.with_(shape=shape).inputs(torch.float32, device)
        assert torch.equal(compiled(*inputs), base(*inputs))
    assert len(compilations) == 1


def test_inductor_compiles_the_operator_between_other_operations(device):
    torch._dynamo.reset()
    case = CASES[0]

    def network(x, gates):
        return torch.sigmoid(case(x * 2 + 1, gates - 0.1)).mean()

    inputs = case.inputs(torch.float32, device, requires_grad=True)
    value = torch.compile(network, fullgraph=True)(*inputs)
    expected = network(*inputs)
    torch.testing.assert_close(value, expected)
    for actual, reference in zip(
        torch.autograd.grad(value, inputs), torch.autograd.grad(expected, inputs), strict=True
    ):
        torch.testing.assert_close(actual, reference)


def test_compiles_without_gradients(device):
    torch._dynamo.reset()
    inputs = CASES[0].inputs(torch.float32, device)
    with torch.no_grad():
        compiled = torch.compile(lambda *t: CASES[0](*t), fullgraph=True, backend="aot_eager")
        assert torch.equal(compiled(*inputs), CASES[0](*inputs))


def test_vmap_compiles(device):
    torch._dynamo.reset()
    inputs = [torch.stack([t, 2 * t]) for t in CASES[0].inputs(torch.float32, device)]
    compiled = torch.compile(vmap(lambda *t: CASES[0](*t)), fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(*inputs), vmap(CASES[0])(*inputs))


@pytest.mark.parametrize("case", [CASES[0], CASES[1], CASES[3]], ids=str)
def test_export_saves_loads_and_serves_other_sizes(case, device):
    class Network(torch.nn.Module):
        def forward(self, *inputs):
            return case(*inputs)

    case = case.with_(shape=(2, *case.shape[1:]))  # torch.export treats a batch of 1 as a constant
    inputs = tuple(case.inputs(torch.float32, device))
    n, h, w = (torch.export.Dim(name, min=1, max=4096) for name in ("n", "h", "w"))
    shapes = tuple({0: n, t.dim() - 2: h, t.dim() - 1: w} for t in inputs)
    program = torch.export.export(Network(), inputs, dynamic_shapes=(shapes,))
    file = io.BytesIO()
    torch.export.save(program, file)
    file.seek(0)
    loaded = torch.export.load(file).module()
    other = case.with_(shape=(3, case.shape[1], 21, 34)).inputs(torch.float32, device)
    assert torch.equal(loaded(*inputs), case(*inputs))
    assert torch.equal(loaded(*other), case(*other))
