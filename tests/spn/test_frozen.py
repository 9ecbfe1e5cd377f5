"""Frozen inputs: unrequested gradients need no memory, and the requested gradients stay the same."""

import pytest
import torch
from functorch.compile import make_boxed_func
from operator_cases import (
    DEVICES,
    DIRECTIONS,
    DTYPES,
    MERGES,
    NORMALIZATIONS,
    WANTED,
    Case,
    assert_close,
    divisors,
    gradients,
    kernels_on,
    relative_rms,
)
from test_gradients import smooth_inputs
from test_library import operator_arguments
from test_memory import bytes_of, expected_bytes, saved_by
from torch._dynamo.backends.common import aot_autograd
from torch.autograd import gradcheck, gradgradcheck
from torch.func import grad, vmap

import spn

pytestmark = pytest.mark.parametrize("device", DEVICES)

forward = torch.ops.spn.propagate.default
backward = torch.ops.spn.propagate_backward.default
masks = pytest.mark.parametrize("wanted", WANTED, ids=str)

# All merges, rules, forms and numbers of channel groups, on several blocks of 16 lines.
CASES = [
    Case((2, 4, 20, 37), groups, source_groups, "four_way", NORMALIZATIONS[(i + groups) % 4], merge)
    for i, merge in enumerate(MERGES)
    for groups in divisors(4)
    for source_groups in (0, 1, 4)
]
CASES += [
    Case((1, 2, 33, 18), 1, source_groups, direction, normalize)
    for source_groups in (0, 2)
    for direction, normalize in zip(DIRECTIONS, NORMALIZATIONS, strict=True)
]


def freeze(inputs, wanted):
    """Return inputs, some of which require a gradient; the source may be missing."""
    return [t.detach().requires_grad_(asked) for t, asked in zip(inputs, wanted, strict=False)]


def masks_of(case):
    """Return the combinations of gradients that a case can request."""
    return [wanted for wanted in WANTED if case.source_groups or not wanted[2]]


def with_masks(cases):
    """Parametrise a test over all cases and combinations of gradients."""
    pairs = [(case, wanted) for case in cases for wanted in masks_of(case)]
    return pytest.mark.parametrize(("case", "wanted"), pairs, ids=str)


# ---- The operator ----------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_each_gradient_is_the_same_bit_for_bit(case, dtype, device):
    arguments = operator_arguments(case, case.inputs(dtype, device))
    tensors, options = arguments[:3], arguments[3:6]
    out, winner, checkpoints = forward(*arguments)
    grad_out = torch.randn(out.shape, generator=torch.Generator().manual_seed(1)).to(out)
    given, restart = (grad_out, *tensors, winner, checkpoints, *options), arguments[8]
    full = backward(*given, True, True, case.source_groups > 0, restart)
    for wanted in masks_of(case):
        some = backward(*given, *wanted, restart)
        for asked, result, expected in zip(wanted, some, full, strict=True):
            assert torch.equal(result, expected) if asked else result.shape == (0,), wanted


@masks
def test_the_number_of_threads_changes_nothing(wanted, device):
    case = Case((1, 3, 40, 37), 3, 1)
    inputs = freeze(case.inputs(torch.float32, device), wanted)
    leaves = [t for t in inputs if t.requires_grad]
    threads = torch.get_num_threads()
    results = []
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            results.append(torch.autograd.grad(case(*inputs).square().sum(), leaves))
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(a, b) for other in results[1:] for a, b in zip(other, results[0], strict=True))


@pytest.mark.parametrize("case", [CASES[0], CASES[2], CASES[-1]], ids=str)
def test_unneeded_inputs_are_not_read(case, device):
    """States are read only for the gates' gradient, and x only for gradients of gates or source; NaN replaces them."""
    if not kernels_on(device):
        pytest.skip("the reference does not use checkpoints")
    arguments = operator_arguments(case, case.inputs(torch.float32, device))
    (x, gates, source), options = arguments[:3], arguments[3:6]
    out, winner, checkpoints = forward(*arguments)
    no_x, no_states = (torch.full_like(t, torch.nan) for t in (x, checkpoints))
    full = backward(out, x, gates, source, winner, checkpoints, *options, True, True, source is not None)
    grad_x = backward(out, no_x, gates, source, winner, no_states, *options, True, False, False)[0]
    assert torch.equal(grad_x, full[0])
    if source is not None:
        grad_source = backward(out, x, gates, source, winner, no_states, *options, False, False, True)[2]
        assert torch.equal(grad_source, full[2])


def test_impossible_gradients_are_refused(device):
    if not kernels_on(device):
        pytest.skip("only kernels check these arguments")
    case = CASES[0]
    arguments = operator_arguments(case, case.inputs(torch.float32, device))
    out, winner, checkpoints = forward(*arguments)
    with pytest.raises(RuntimeError, match="source is None"):
        backward(out, *arguments[:3], winner, checkpoints, *arguments[3:6], True, True, True)
    nothing = torch.empty(0, device=device)
    with pytest.raises(RuntimeError, match="needs the checkpoints"):
        backward(out, *arguments[:3], winner, nothing, *arguments[3:6], True, True, False)
    with pytest.raises(RuntimeError, match="needs winner"):
        backward(out, *arguments[:3], nothing.byte(), checkpoints, *arguments[3:6], True, False, False)


# ---- Memory ----------------------------------------------------------------------------------------


class Results:
    """Wraps an operator of spn._ops and records its results."""

    def __init__(self, monkeypatch, name):
        self.of_calls = []
        self._original = getattr(spn._ops, name)
        monkeypatch.setattr(spn._ops, name, self)

    def __call__(self, *arguments):
        self.of_calls.append(self._original(*arguments))
        return self.of_calls[-1]


@with_masks([case.with_(shape=(1, 4, 40, 50)) for case in CASES[:12]])
def test_only_requested_gradients_are_allocated(case, wanted, device, monkeypatch):
    forwards, backwards = Results(monkeypatch, "propagate"), Results(monkeypatch, "propagate_backward")
    inputs = freeze(case.inputs(torch.float32, device), wanted)
    case(*inputs).sum().backward()
    ((_, winner, checkpoints),) = forwards.of_calls  # one call, so nothing is recomputed
    assert winner.numel() == (inputs[0].numel() if case.merge == "max" else 0)
    states = expected_bytes(case, torch.float32) - winner.numel()
    assert bytes_of([checkpoints]) == (states if wanted[1] else 0)
    (results,) = backwards.of_calls
    assert bytes_of(results) == bytes_of([t for t in inputs if t.requires_grad])


def kilobytes_of(case, wanted, device):
    """Return the peak of torch's memory in a training step, in addition to the inputs."""
    inputs = freeze(case.inputs(torch.float32, device), wanted)
    held = most = 0
    with torch.profiler.profile(profile_memory=True) as profile:
        case(*inputs).sum().backward()
    for event in sorted(profile.profiler.kineto_results.events(), key=lambda e: e.start_ns()):
        if event.name() == "[memory]":
            held += event.nbytes()
            most = max(most, held)
    return most / 1024


@pytest.mark.parametrize("groups", [1, 4])
def test_the_peak_of_a_step_with_frozen_gates(groups, device):
    if device != "cpu":
        pytest.skip("the CUDA tests measure the GPU's memory")
    case = Case((1, 4, 128, 128), groups)
    plane = 128 * 128 * 4 / 1024
    full, frozen = kilobytes_of(case, (True, True), device), kilobytes_of(case, (True, False), device)
    checkpoints = 4 * 4 * 7 * 128 * 4 / 1024
    assert full - frozen >= 12 * groups * plane
    assert full - frozen == pytest.approx(12 * groups * plane + checkpoints, rel=0.02)


@pytest.mark.parametrize("case", [CASES[0], CASES[1], CASES[3], CASES[-1]], ids=str)
def test_a_step_with_frozen_gates_saves_no_state(case, device):
    inputs = freeze(case.inputs(torch.float32, device), (True, False, True))
    _, saved = saved_by(lambda: case(*inputs))
    own = bytes_of([t for t in saved if all(t.data_ptr() != i.data_ptr() for i in inputs)])
    winner = inputs[0].numel() if case.direction == "four_way" and case.merge == "max" else 0
    assert own == winner


def test_missing_states_are_recomputed(device):
    """The backward pass recomputes what the forward pass did not save."""
    case = CASES[1]
    arguments = operator_arguments(case, case.inputs(torch.float32, device, requires_grad=True))
    inputs = arguments[:3]
    expected = torch.autograd.grad(forward(*arguments)[0].square().sum(), inputs)
    for saved in [(False, False), (True, False), (False, True)]:
        out = forward(*arguments[:6], *saved)[0]
        grads = torch.autograd.grad(out.square().sum(), inputs)
        assert all(torch.equal(a, b) for a, b in zip(grads, expected, strict=True))


# ---- Derivatives -----------------------------------------------------------------------------------

SMOOTH = [
    Case((1, 2, 3, 4), groups, source_groups, direction, normalize, merge)
    for groups in (1, 2)
    for source_groups in (0, 1)
    for direction, normalize, merge in [
        ("four_way", "abs", "max"),
        ("four_way", "sigmoid", "mean"),
        ("right_to_left", "unit", None),
    ]
]


@pytest.mark.slow
@with_masks(SMOOTH)
def test_first_and_second_derivatives(case, wanted, device):
    inputs = freeze(smooth_inputs(case, device), wanted)
    assert gradcheck(case, inputs)
    assert gradgradcheck(case, inputs, fast_mode=True)


@masks
def test_second_derivatives_equal_those_of_the_specification(wanted, device):
    case = Case((1, 4, 5, 19), 2, 2)

    def second(api):
        inputs = freeze(case.inputs(torch.float64, device), wanted)
        leaves = [t for t in inputs if t.requires_grad]
        first = torch.autograd.grad(case(*inputs, api=api).pow(3).sum(), leaves, create_graph=True)
        return torch.autograd.grad(sum(g.pow(2).sum() for g in first), leaves)

    for actual, expected in zip(second(spn), second(spn.reference), strict=True):
        assert relative_rms(actual, expected) < 1e-12


# ---- compile and torch.func ------------------------------------------------------------------------


@masks
@pytest.mark.parametrize("case", [CASES[1], Case((2, 2, 18, 5), 1, 2, "bottom_to_top")], ids=str)
def test_compiled(case, wanted, device):
    torch._dynamo.reset()
    graphs = []

    def keep(graph, example):
        graphs.append(graph)
        return make_boxed_func(graph.forward)

    backend = aot_autograd(fw_compiler=keep, bw_compiler=keep)
    compiled = torch.compile(case, fullgraph=True, backend=backend)
    inputs = freeze(case.inputs(torch.float32, device), wanted)
    leaves = [t for t in inputs if t.requires_grad]
    expected = torch.autograd.grad(case(*inputs).square().sum(), leaves)
    actual = torch.autograd.grad(compiled(*inputs).square().sum(), leaves)
    assert all(torch.equal(a, b) for a, b in zip(actual, expected, strict=True))
    nodes = {n.target: n.args for graph in graphs for n in graph.graph.nodes}
    assert nodes[forward][-2:] == (True, wanted[1])
    assert nodes[backward][-3:] == wanted


@masks
@pytest.mark.parametrize("case", [CASES[1], Case((2, 2, 18, 5), 1, 2, "bottom_to_top")], ids=str)
def test_func_grad_of_some_inputs(case, wanted, device, monkeypatch):
    results = Results(monkeypatch, "propagate_backward")
    inputs = case.inputs(torch.float64, device)
    _, expected = gradients(case, inputs, torch.ones_like(case(*inputs)))
    indices = [i for i, asked in enumerate(wanted) if asked]

    def total(*chosen):
        tensors = list(inputs)
        for i, value in zip(indices, chosen, strict=True):
            tensors[i] = value
        return case(*tensors).sum()

    results.of_calls.clear()
    grads = grad(total, argnums=tuple(range(len(indices))))(*(inputs[i] for i in indices))
    for i, actual in zip(indices, grads, strict=True):
        assert_close(actual, expected[i])
    (call,) = results.of_calls
    assert [g.numel() > 0 for g in call] == list(wanted)


def test_gradients_of_each_sample_with_frozen_gates(device):
    case = CASES[1].with_(shape=(1, 4, 20, 37))
    x, gates, source = case.inputs(torch.float64, device)
    several = torch.stack([x, 2 * x, -x])
    of_each = vmap(grad(lambda v: case(v, gates, source).square().sum()))(several)
    for value, actual in zip(several, of_each, strict=True):
        leaf = value.detach().requires_grad_()
        (expected,) = torch.autograd.grad(case(leaf, gates, source).square().sum(), leaf)
        assert_close(actual, expected)
