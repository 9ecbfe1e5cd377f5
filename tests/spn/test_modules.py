"""The modules equal the functions with fixed options, and are layers without parameters."""

import copy
import pickle

import pytest
import torch
from operator_cases import DEVICES, DIRECTIONS, MERGES, NORMALIZATIONS, Case, gradients
from torch import nn

import spn

MODULES = [
    (spn.Propagate("top_to_bottom", normalize="abs"), Case(direction="top_to_bottom")),
    (spn.Propagate("right_to_left"), Case(source_groups=2, direction="right_to_left", normalize="none")),
    (spn.FourWayPropagate(normalize="unit", merge="mean"), Case(normalize="unit", merge="mean")),
    (
        spn.FourWayPropagate(normalize="sigmoid", merge=None),
        Case(source_groups=1, normalize="sigmoid", merge=None),
    ),
]
IDS = [repr(module) for module, _ in MODULES]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("normalize", NORMALIZATIONS)
@pytest.mark.parametrize("source_groups", [0, 2])
def test_propagate_equals_the_function(direction, normalize, source_groups, device):
    inputs = Case(source_groups=source_groups, direction=direction).inputs(torch.float32, device)
    source = inputs[2] if source_groups else None
    expected = spn.propagate(*inputs[:2], direction, source=source, normalize=normalize)
    assert torch.equal(spn.Propagate(direction, normalize=normalize)(*inputs), expected)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("merge", MERGES)
@pytest.mark.parametrize("normalize", NORMALIZATIONS)
@pytest.mark.parametrize("source_groups", [0, 2])
def test_four_way_equals_the_function(merge, normalize, source_groups, device):
    inputs = Case(source_groups=source_groups).inputs(torch.float32, device)
    source = inputs[2] if source_groups else None
    expected = spn.propagate_four_way(*inputs[:2], source=source, normalize=normalize, merge=merge)
    assert torch.equal(spn.FourWayPropagate(normalize=normalize, merge=merge)(*inputs), expected)


def test_defaults_are_those_of_the_functions():
    assert spn.Propagate("left_to_right").normalize == "none"
    assert (spn.FourWayPropagate().normalize, spn.FourWayPropagate().merge) == ("none", "max")


def test_repr_reads_like_the_call():
    module = spn.Propagate("left_to_right", normalize="abs")
    assert repr(module) == "Propagate(direction='left_to_right', normalize='abs')"
    assert repr(spn.FourWayPropagate(merge=None)) == "FourWayPropagate(normalize='none', merge=None)"
    assert "(0): FourWayPropagate(normalize='none', merge='max')" in repr(
        nn.ModuleList([spn.FourWayPropagate()])
    )


@pytest.mark.parametrize(("module", "case"), MODULES, ids=IDS)
class TestLayer:
    def test_holds_no_state(self, module, case):
        assert module.state_dict() == {}
        assert not list(module.parameters()) and not list(module.buffers())

    @pytest.mark.parametrize("copied", [copy.deepcopy, copy.copy, lambda m: pickle.loads(pickle.dumps(m))])
    def test_copies_and_pickles(self, module, case, copied):
        inputs = case.inputs(torch.float32)
        assert repr(copied(module)) == repr(module)
        assert torch.equal(copied(module)(*inputs), module(*inputs))

    def test_moving_and_training_mode_change_nothing(self, module, case):
        inputs = case.inputs(torch.float64)
        expected = module(*inputs)
        assert torch.equal(copy.deepcopy(module).double().train()(*inputs), expected)
        assert torch.equal(copy.deepcopy(module).eval()(*inputs), expected)

    def test_gradients(self, module, case):
        inputs = case.inputs(torch.float64)
        _, grads = gradients(lambda *t, api: module(*t), inputs)
        _, expected = gradients(case, inputs)
        assert all(torch.equal(a, b) for a, b in zip(grads, expected, strict=True))

    @pytest.mark.parametrize("dynamic", [False, True])
    def test_compiles(self, module, case, dynamic):
        torch._dynamo.reset()
        inputs = case.inputs(torch.float32)
        compiled = torch.compile(module, fullgraph=True, dynamic=dynamic, backend="aot_eager")
        assert torch.equal(compiled(*inputs), module(*inputs))

    def test_hooks_see_the_call(self, module, case):
        seen = []
        handle = module.register_forward_hook(lambda m, args, out: seen.append(out.shape))
        out = module(*case.inputs(torch.float32))
        handle.remove()
        assert seen == [out.shape]


def test_a_module_is_compared_by_identity_and_sits_in_a_network():
    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            self.guide = nn.Conv2d(3, 24, 3, padding=1)
            self.spread = spn.FourWayPropagate(normalize="abs")

        def forward(self, x):
            return self.spread(x[:, :2], self.guide(x).unflatten(1, (4, 3, 2)))

    network = Network()
    assert set(network.state_dict()) == {"guide.weight", "guide.bias"}
    x = torch.rand(2, 3, 6, 7)
    network(x).sum().backward()
    assert network.guide.weight.grad.abs().sum() > 0
    loaded = Network()
    loaded.load_state_dict(network.state_dict())
    assert torch.equal(loaded(x), network(x))
