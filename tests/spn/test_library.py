"""The operator as a citizen of torch: opcheck, compile, export, torch.func, autocast, determinism."""

import io
import warnings

import pytest
import torch
from operator_cases import DEVICES, WANTED, Case, assert_close, gradients, kernels_on, relative_rms
from torch.func import functional_call, grad, jacrev, vjp, vmap

import spn

pytestmark = pytest.mark.parametrize("device", DEVICES)

CASES = [
    Case((2, 4, 5, 7), 2, 0, "four_way", "abs", "max"),
    Case((1, 2, 18, 3), 1, 2, "four_way", "sigmoid", "mean"),
    Case((1, 4, 3, 32), 4, 1, "four_way", "none", None),
    Case((2, 3, 4, 17), 3, 0, "left_to_right", "unit"),
    Case((1, 2, 16, 4), 1, 2, "bottom_to_top", "sigmoid"),
]


def operator_arguments(case, inputs, save=True):
    """What the public functions hand to torch.ops.spn.propagate."""
    x, gates, *source = inputs
    if case.direction != "four_way":
        gates, source = gates.unsqueeze(1), [s.unsqueeze(1) for s in source]
    merge = case.merge or "none" if case.direction == "four_way" else "none"
    return x, gates, (source or [None])[0], case.direction, case.normalize, merge, save, save


# ---- opcheck ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("save", [True, False])
def test_opcheck_forward(case, save, device):
    inputs = case.inputs(torch.float32, device, requires_grad=save)
    arguments = operator_arguments(case, inputs, save)
    results = torch.library.opcheck(torch.ops.spn.propagate.default, arguments)
    assert set(results.values()) == {"SUCCESS"}


@pytest.mark.parametrize("wanted", WANTED, ids=str)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_opcheck_backward(case, wanted, device):
    for_x, for_gates, for_source = wanted
    wanted = (for_x, for_gates, for_source and case.source_groups > 0)
    arguments = operator_arguments(case, case.inputs(torch.float32, device))
    out, winner, checkpoints = torch.ops.spn.propagate(*arguments)
    tensors = [torch.randn_like(out), *arguments[:3]]
    tensors = [t if t is None else t.requires_grad_() for t in tensors]
    results = torch.library.opcheck(
        torch.ops.spn.propagate_backward.default, (*tensors, winner, checkpoints, *arguments[3:6], *wanted)
    )
    assert set(results.values()) == {"SUCCESS"}


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_opcheck_of_other_dtypes(dtype, device):
    inputs = CASES[0].inputs(dtype, device, requires_grad=True)
    arguments = operator_arguments(CASES[0], inputs)
    results = torch.library.opcheck(torch.ops.spn.propagate.default, arguments)
    assert set(results.values()) == {"SUCCESS"}


# ---- compile and export ----------------------------------------------------------------------------


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

    case = case.with_(shape=(2, *case.shape[1:]))  # an example of batch 1 would be exported as a constant
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


# ---- torch.func ------------------------------------------------------------------------------------


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
    """vmap over grad, as torch.func users write it; equals one backward pass per sample."""
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


# ---- Autocast, meta, inference ---------------------------------------------------------------------


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_casts_every_tensor_to_its_dtype(case, dtype, device):
    inputs = case.inputs(torch.float32, device, requires_grad=True)
    narrow = [t.detach().to(dtype).requires_grad_() for t in inputs]
    inputs[1] = narrow[1]  # gates may come out of a convolution that ran in the autocast dtype
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
def test_meta_tensors_tell_shapes_and_dtypes(case, dtype, device):
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


# ---- Determinism, read-only inputs -----------------------------------------------------------------

THREADED = [
    Case((1, 1, 33, 40), 1, 0, "four_way", "abs", "max"),
    Case((1, 1, 33, 40), 1, 1, "four_way", "sigmoid", "sum"),
    Case((1, 3, 20, 20), 3, 3, "four_way", "unit", "mean"),
    Case((3, 9, 17, 12), 1, 3, "four_way", "abs", None),
    Case((2, 8, 16, 31), 2, 0, "left_to_right", "abs"),
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
    assert not storages & {g.untyped_storage().data_ptr() for g in results}, "results are memory of their own"


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
