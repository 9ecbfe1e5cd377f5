"""The operator under the transforms of torch.func."""

import pytest
import torch
from operator_cases import CASES, DEVICES, Case, assert_close, gradients, relative_rms
from torch.func import functional_call, grad, jacrev, vjp, vmap

import spn

pytestmark = pytest.mark.parametrize("device", DEVICES)


@pytest.mark.parametrize("case", CASES[:4], ids=str)
@pytest.mark.parametrize("mapped", ["all", "x", "gates", "last"])
@pytest.mark.parametrize("dim", [0, 1, -1])
def test_vmap_equals_a_loop(case, mapped, dim, device):
    stacks = [
        torch.stack([case.inputs(torch.float32, device, seed=s)[i] for s in range(3)], dim)
        for i in range(3)
        if i < (3 if case.source_groups else 2)
    ]
    keep = {"all": range(3), "x": [0], "gates": [1], "last": [len(stacks) - 1]}[mapped]
    in_dims = tuple(dim if i in keep else None for i in range(len(stacks)))
    tensors = [t if d is not None else t.select(dim, 0) for t, d in zip(stacks, in_dims, strict=True)]

    def pick(s):
        return [t.select(dim, s) if d is not None else t for t, d in zip(tensors, in_dims, strict=True)]

    expected = torch.stack([case(*pick(s)) for s in range(3)])
    assert_close(vmap(case, in_dims)(*tensors), expected)


def test_nested_vmap_equals_a_double_loop(device):
    case = CASES[1]
    tensors = [
        torch.stack([torch.stack([t, 2 * t]), torch.stack([3 * t, -t])]) for t in case.inputs(device=device)
    ]
    expected = torch.stack(
        [torch.stack([case(*(t[i, j] for t in tensors)) for j in range(2)]) for i in range(2)]
    )
    assert_close(vmap(vmap(case))(*tensors), expected)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_func_grad_and_vjp_equal_autograd(case, device):
    inputs = case.inputs(torch.float64, device)
    everything = tuple(range(len(inputs)))
    cotangent = torch.randn_like(case(*inputs))
    out, expected = gradients(case, inputs, cotangent)
    by_grad = grad(lambda *t: (case(*t) * cotangent).sum(), argnums=everything)(*inputs)
    value, pull = vjp(case, *inputs)
    assert torch.equal(value, out)
    for a, b, e in zip(by_grad, pull(cotangent), expected, strict=True):
        assert_close(a, e)
        assert_close(b, e)


@pytest.mark.parametrize(
    "case",
    [
        Case((1, 2, 3, 3), 1, g, d, "abs", m)
        for g in (0, 2)
        for d, m in [("four_way", "max"), ("four_way", None), ("right_to_left", "max")]
    ],
    ids=str,
)
def test_jacrev_equals_autograd_jacobian(case, device):
    inputs = tuple(case.inputs(torch.float64, device))
    expected = torch.autograd.functional.jacobian(case, inputs)
    for actual, reference in zip(jacrev(case, tuple(range(len(inputs))))(*inputs), expected, strict=True):
        assert_close(actual, reference)
    batched = torch.autograd.functional.jacobian(case, inputs, vectorize=True)
    for actual, reference in zip(batched, expected, strict=True):
        assert_close(actual, reference)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_per_sample_gradients(case, device):
    """vmap over grad, as in torch.func's documentation, equals one backward pass per sample."""
    inputs = [torch.stack([t, 2 * t, -t]) for t in case.inputs(torch.float64, device)]
    loss = lambda *t: case(*t).square().sum()  # noqa: E731
    everything = tuple(range(len(inputs)))
    batched = vmap(grad(loss, argnums=everything))(*inputs)
    for s in range(3):
        single = grad(loss, argnums=everything)(*(t[s] for t in inputs))
        for b, e in zip(batched, single, strict=True):
            assert_close(b[s], e)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_grad_of_grad_equals_double_backward(case, device):
    inputs = case.inputs(torch.float64, device)
    everything = tuple(range(len(inputs)))
    first = lambda *t: grad(lambda *u: case(*u).pow(2).sum(), argnums=everything)(*t)  # noqa: E731
    functional = grad(lambda *t: sum(g.pow(2).sum() for g in first(*t)), argnums=everything)(*inputs)
    leaves = [t.detach().requires_grad_() for t in inputs]
    grads = torch.autograd.grad(case(*leaves).pow(2).sum(), leaves, create_graph=True)
    expected = torch.autograd.grad(sum(g.pow(2).sum() for g in grads), leaves)
    for a, e in zip(functional, expected, strict=True):
        assert relative_rms(a, e) < 1e-11


def test_forward_mode_is_refused_rather_than_answered_with_zero(device):
    x, gates = CASES[0].inputs(torch.float64, device)
    with pytest.raises(NotImplementedError, match="jvp"):
        torch.func.jvp(lambda t: CASES[0](t, gates), (x,), (x,))
    with torch.autograd.forward_ad.dual_level(), pytest.raises(NotImplementedError, match="jvp"):
        CASES[0](torch.autograd.forward_ad.make_dual(x, x), gates)


def test_functional_call_of_a_module_that_computes_gates(device):
    class Layer(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.guide = torch.nn.Conv2d(2, 12, 3, padding=1)

        def forward(self, x):
            return spn.propagate_four_way(x, self.guide(x).unflatten(1, (4, 3, 1)), normalize="abs")

    layer, x = Layer().to(device), torch.rand(2, 2, 6, 5, device=device)
    by_func = grad(lambda p: functional_call(layer, p, (x,)).square().sum())(dict(layer.named_parameters()))
    layer(x).square().sum().backward()
    for name, parameter in layer.named_parameters():
        torch.testing.assert_close(by_func[name].detach(), parameter.grad)
