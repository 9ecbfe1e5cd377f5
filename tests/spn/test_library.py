"""Integration of the operator with torch: opcheck, autocast, meta tensors, inference, activation checkpointing."""

import warnings

import pytest
import torch
from operator_cases import CASES, DEVICES, WANTED, gradients

pytestmark = pytest.mark.parametrize("device", DEVICES)


def operator_arguments(case, inputs, save=True):
    """Return the arguments that the public functions pass to torch.ops.spn.propagate."""
    x, gates, *source = inputs
    if case.direction != "four_way":
        gates, source = gates.unsqueeze(1), [s.unsqueeze(1) for s in source]
    merge = case.merge or "none" if case.direction == "four_way" else "none"
    options = case.direction, case.normalize, merge
    return x, gates, (source or [None])[0], *options, save, save, case.restart_every or 0


# ---- opcheck ---------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("save", [True, False])
def test_opcheck_forward(case, save, device):
    inputs = case.inputs(torch.float32, device, requires_grad=save)
    arguments = operator_arguments(case, inputs, save)
    results = torch.library.opcheck(torch.ops.spn.propagate.default, arguments)
    assert set(results.values()) == {"SUCCESS"}


ALL_OF_OPCHECK = ("test_schema", "test_autograd_registration", "test_faketensor", "test_aot_dispatch_dynamic")
EVERY_GRADIENT = [(case, (True, True, case.source_groups > 0)) for case in CASES]
ONE_GRADIENT = [(CASES[1], wanted) for wanted in WANTED if sum(wanted) == 1]


@pytest.mark.slow
@pytest.mark.parametrize(("case", "wanted"), EVERY_GRADIENT + ONE_GRADIENT, ids=str)
def test_opcheck_backward(case, wanted, device):
    # The requested gradients change the results of the operator, but not how it is traced.
    utilities = ALL_OF_OPCHECK if (case, wanted) in EVERY_GRADIENT else ("test_schema", "test_faketensor")
    arguments = operator_arguments(case, case.inputs(torch.float32, device))
    out, winner, checkpoints = torch.ops.spn.propagate(*arguments)
    tensors = [torch.randn_like(out), *arguments[:3]]
    tensors = [t if t is None else t.requires_grad_() for t in tensors]
    results = torch.library.opcheck(
        torch.ops.spn.propagate_backward.default,
        (*tensors, winner, checkpoints, *arguments[3:6], *wanted, arguments[8]),
        test_utils=utilities,
    )
    assert set(results.values()) == {"SUCCESS"}


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_opcheck_of_other_dtypes(dtype, device):
    inputs = CASES[0].inputs(dtype, device, requires_grad=True)
    arguments = operator_arguments(CASES[0], inputs)
    results = torch.library.opcheck(torch.ops.spn.propagate.default, arguments)
    assert set(results.values()) == {"SUCCESS"}


# ---- Autocast, meta, inference ---------------------------------------------------------------------


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_casts_every_tensor_to_its_dtype(case, dtype, device):
    inputs = case.inputs(torch.float32, device, requires_grad=True)
    narrow = [t.detach().to(dtype).requires_grad_() for t in inputs]
    inputs[1] = narrow[1]  # a convolution under autocast returns gates in the autocast dtype
    with torch.autocast(device, dtype):
        out = case(*inputs)
    assert out.dtype == dtype and torch.equal(out, case(*narrow))
    grad = torch.randn_like(out)
    for t, g, e in zip(
        inputs, torch.autograd.grad(out, inputs, grad), gradients(case, narrow, grad)[1], strict=True
    ):
        assert g.dtype == t.dtype and torch.equal(g.to(dtype), e)


def test_autocast_leaves_float64_alone(device):
    inputs = CASES[0].inputs(torch.float64, device)
    with torch.autocast(device, torch.bfloat16):
        out = CASES[0](*inputs)
    assert out.dtype == torch.float64 and torch.equal(out, CASES[0](*inputs))


def test_autocast_compiles(device):
    torch._dynamo.reset()
    inputs = CASES[0].inputs(torch.float32, device)
    compiled = torch.compile(lambda *t: CASES[0](*t), fullgraph=True, backend="aot_eager")
    with torch.autocast(device, torch.bfloat16):
        assert torch.equal(compiled(*inputs), CASES[0](*inputs))


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_meta_tensors_have_the_right_shapes_and_dtypes(case, dtype, device):
    inputs = case.inputs(dtype, device)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        meta = [t.to("meta").requires_grad_() for t in inputs]
        out = case(*meta)
        out.sum().backward()
    expected = case(*inputs)
    assert (out.shape, out.dtype, out.device.type) == (expected.shape, dtype, "meta")
    assert [t.grad.shape for t in meta] == [t.shape for t in inputs]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_inference_mode_equals_training(case, device):
    inputs = case.inputs(torch.float32, device, requires_grad=True)
    expected = case(*inputs)
    with torch.inference_mode():
        out = case(*inputs)
        assert out.is_inference() and torch.equal(out, expected)
        assert torch.equal(case(*(t.clone() for t in inputs)), expected)
    with torch.no_grad():
        assert torch.equal(case(*inputs), expected) and not case(*inputs).requires_grad


def test_activation_checkpointing_gives_the_same_gradients(device):
    case = CASES[0]
    inputs = case.inputs(torch.float32, device, requires_grad=True)
    expected = torch.autograd.grad(case(*inputs).square().sum(), inputs)
    out = torch.utils.checkpoint.checkpoint(case, *inputs, use_reentrant=False)
    assert all(
        torch.equal(a, e)
        for a, e in zip(torch.autograd.grad(out.square().sum(), inputs), expected, strict=True)
    )


def test_tensor_subclasses_and_parameters_are_accepted(device):
    x, gates = CASES[0].inputs(torch.float32, device)
    expected = CASES[0](x, gates)
    out = CASES[0](torch.nn.Parameter(x), torch.nn.Parameter(gates))
    assert torch.equal(out, expected)
