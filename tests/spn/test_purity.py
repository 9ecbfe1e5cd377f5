"""A call and its backward pass are deterministic, bit for bit, and never modify their inputs."""

import pytest
import torch
from operator_cases import CASES, DEVICES, Case, gradients, kernels_on

pytestmark = pytest.mark.parametrize("device", DEVICES)

THREADED = [
    Case((1, 1, 33, 40), 1, 0, "four_way", "abs", "max"),
    Case((1, 1, 33, 40), 1, 1, "four_way", "sigmoid", "sum"),
    Case((1, 3, 20, 20), 3, 3, "four_way", "unit", "mean"),
    Case((3, 9, 17, 12), 1, 3, "four_way", "abs", None),
    Case((2, 8, 16, 31), 2, 0, "left_to_right", "abs"),
    Case((1, 20, 7, 9), 20, 20, "four_way", "sigmoid", "sum"),  # sets of planes, one of them incomplete
    Case((1, 40, 7, 9), 1, 0, "four_way", "abs", "mean"),  # one channel group over several sets of planes
]


@pytest.mark.parametrize("case", THREADED, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_results_are_the_same_bits_on_every_run_and_for_any_number_of_threads(case, dtype, device):
    inputs = case.inputs(dtype, device)
    grad = torch.randn_like(case(*inputs))
    before = torch.get_num_threads()
    try:
        runs = []
        for threads in (1, 2, 2, 3):
            torch.set_num_threads(threads)
            runs.append(gradients(case, inputs, grad))
            with torch.no_grad():
                runs[-1] = (*runs[-1], case(*inputs))
    finally:
        torch.set_num_threads(before)
    for out, grads, inference in runs:
        assert torch.equal(out, runs[0][0]) and torch.equal(inference, runs[0][0])
        assert all(torch.equal(a, e) for a, e in zip(grads, runs[0][1], strict=True))


def test_deterministic_algorithms_are_respected(device):
    torch.use_deterministic_algorithms(True)
    try:
        gradients(CASES[0], CASES[0].inputs(torch.float32, device))
    finally:
        torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize("case", [*CASES, *THREADED], ids=str)
def test_inputs_and_incoming_gradients_are_never_written(case, device):
    inputs = case.inputs(torch.float32, device, requires_grad=True)
    copies = [t.detach().clone() for t in inputs]
    out = case(*inputs)
    kept = out.detach().clone()
    grad = torch.randn_like(out)
    grad_copy = grad.clone()
    versions = [t._version for t in (*inputs, grad)]
    results = torch.autograd.grad(out, inputs, grad)
    assert [t._version for t in (*inputs, grad)] == versions
    assert all(
        torch.equal(t, c) for t, c in zip((*inputs, grad, out), (*copies, grad_copy, kept), strict=True)
    )
    storages = {t.untyped_storage().data_ptr() for t in (*inputs, grad, out)}
    assert not storages & {g.untyped_storage().data_ptr() for g in results}, (
        "results share memory with inputs"
    )


def test_backward_twice_needs_and_obeys_retain_graph(device):
    inputs = CASES[0].inputs(torch.float32, device, requires_grad=True)
    out = CASES[0](*inputs).sum()
    first = torch.autograd.grad(out, inputs, retain_graph=True)
    second = torch.autograd.grad(out, inputs)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    with pytest.raises(RuntimeError, match="backward through the graph a second time"):
        torch.autograd.grad(out, inputs)


def test_an_input_changed_before_the_backward_pass_is_an_error(device):
    x, gates = CASES[0].inputs(torch.float32, device)
    gates.requires_grad_()
    out = CASES[0](x, gates)
    x.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        out.sum().backward()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_cuda_graph_replays_on_new_values(device):
    if device == "cpu" or not kernels_on(device):
        pytest.skip("needs the CUDA kernels")
    inputs = CASES[0].inputs(torch.float32, device)
    CASES[0](*inputs)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = CASES[0](*inputs)
    for t, other in zip(inputs, CASES[0].inputs(torch.float32, device, seed=5), strict=True):
        t.copy_(other)
    graph.replay()
    assert torch.equal(out, CASES[0](*inputs))
