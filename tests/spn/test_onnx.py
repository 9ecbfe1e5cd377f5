"""Models exported to ONNX have the same results in onnxruntime as in torch, for all options and sizes."""

import inspect
import sys
from dataclasses import dataclass

import pytest
import torch
from operator_cases import DIRECTIONS, MERGES, NORMALIZATIONS, Case, assert_close
from refiner_cases import small
from torch import nn

import spn

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")


@dataclass(frozen=True)
class Call:
    """A call of the operator with float64 inputs and results, as onnxruntime supports, computed in any dtype."""

    case: Case
    dtype: torch.dtype = torch.float32
    scale: float = 1  # factor of the gates
    offset: float = 0

    def inputs(self):
        x, gates, *source = self.case.inputs()
        return x, self.scale * gates + self.offset, *source

    def __call__(self, *inputs):
        return self.case(*(tensor.to(self.dtype) for tensor in inputs)).double()


CALLS = [
    *(Call(Case((2, 4, 5, 7), 2, 0, "four_way", normalize, "max")) for normalize in NORMALIZATIONS),
    *(Call(Case((1, 4, 6, 3), 4, 2, "four_way", "abs", merge)) for merge in MERGES),
    *(
        Call(Case((2, 6, 5, 3), groups, source_groups, direction, "sigmoid"))
        for direction, groups, source_groups in zip(DIRECTIONS, (1, 2, 3, 6), (0, 3, 1, 6), strict=True)
    ),
    Call(Case((1, 1, 1, 6), 1, 0, "four_way", "sigmoid", "max")),  # a single line, and lines of one position
    Call(Case((1, 2, 5, 7), 1, 0, "four_way", "sigmoid", "mean"), offset=-200),  # the sigmoid underflows
    Call(Case((1, 2, 5, 7), 1, 0, "four_way", "unit", "mean"), scale=1e-5),  # the sum is below UNIT_FLOOR
    Call(Case((1, 4, 9, 8), 2, 1, "four_way", "sigmoid", "mean"), torch.float64),
    Call(Case((1, 4, 9, 8), 2, 0, "four_way", "abs", "max"), torch.float16),
    Call(Case((1, 4, 9, 8), 2, 0, "four_way", "unit", "sum"), torch.bfloat16),
]


class Calls(nn.Module):
    """Many calls in one model, because an export takes seconds. The parameter makes them save tensors for training."""

    def __init__(self, calls):
        super().__init__()
        self.calls = calls
        self.one = nn.Parameter(torch.ones((), dtype=torch.float64))

    def forward(self, inputs):
        return [call(x * self.one, *rest) for call, (x, *rest) in zip(self.calls, inputs, strict=True)]


def exported(calls):
    """Return the results of calls in onnxruntime and in torch."""
    model, inputs = Calls(calls).eval(), [call.inputs() for call in calls]
    table = spn.onnx.translations()
    program = torch.onnx.export(model, (inputs,), dynamo=True, verbose=False, custom_translation_table=table)
    actual = run(session_of(program.model_proto), *(tensor for tensors in inputs for tensor in tensors))
    with torch.no_grad():
        return zip(actual, model(inputs), strict=True)


def session_of(model):
    """Load the model; the checker and the runtime accept only standard operators."""
    onnx.checker.check_model(model, full_check=True)
    assert {entry.domain for entry in model.opset_import} == {""} and not model.functions
    return onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])


def run(session, *inputs):
    names = [value.name for value in session.get_inputs()]
    feed = {name: tensor.numpy() for name, tensor in zip(names, inputs, strict=True)}
    return [torch.from_numpy(result) for result in session.run(None, feed)]


@pytest.mark.slow
def test_every_option():
    for call, (actual, expected) in zip(CALLS, exported(CALLS), strict=True):
        assert_close(actual, expected, call.dtype, str(call))
        if call.dtype.itemsize == 2:  # results are rounded once, so only a few values differ
            assert (actual == expected).double().mean() > 0.98, str(call)


@pytest.mark.slow
@pytest.mark.skipif(
    "restart_every" not in inspect.signature(spn.propagate).parameters, reason="has no restart_every"
)
def test_restarts():
    @dataclass(frozen=True)
    class Restarted(Call):
        def __call__(self, x, gates):
            options = {"normalize": self.case.normalize, "restart_every": 3}
            if self.case.direction == "four_way":
                return spn.propagate_four_way(x, gates, **options)
            return spn.propagate(x, gates, self.case.direction, **options)

    @dataclass(frozen=True)
    class Poisoned(Restarted):
        def inputs(self):
            x, gates = super().inputs()
            x[0, 0, 4, 4] = torch.nan  # must stay in its piece
            return x, gates

        def __call__(self, x, gates):
            return super().__call__(x, gates).isnan().double()

    calls = [Restarted(Case((1, 2, 7, 8), direction=name)) for name in (*DIRECTIONS, "four_way")]
    calls += [Poisoned(Case((1, 2, 7, 8), direction=name)) for name in DIRECTIONS]
    for actual, expected in exported(calls):
        assert_close(actual, expected)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["lite", "direct"])
@torch.no_grad()
def test_refiner_at_every_size(name, tmp_path):
    refiner = spn.SPNRefiner.from_pretrained(name) if name == "lite" else small(name)
    file = tmp_path / "refiner.onnx"
    spn.onnx.export_refiner(refiner, file)
    assert list(tmp_path.iterdir()) == [file]  # the file contains the weights
    session = session_of(onnx.load(file))
    refiner.windows = False
    for n, k, *size in [(1, 1, 45, 67), (2, 3, 64, 80), (3, 1, 7, 9), (1, 2, 1, 1), (1, 4, 100, 3)]:
        image = torch.rand(n, 3, *size)
        coarse = (2 * torch.randn(n, k, *size)).clamp(0, 1)
        coarse[:, -1] = 0.25  # a constant mask
        (actual,) = run(session, image, coarse)
        torch.testing.assert_close(actual, refiner(image, coarse), rtol=0, atol=1e-5)


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(
        ModuleNotFoundError, match=r"onnxscript is not installed; .*: pip install '.*\[onnx\]'"
    ):
        spn.onnx.translations()


def test_unsupported_exports_are_refused():
    with pytest.raises(ValueError, match="refiner must be in evaluation mode"):
        spn.onnx.export_refiner(small().train())
    with pytest.raises(ValueError, match="refiner must have tile=None to take any size, got tile=256"):
        spn.onnx.export_refiner(small(tile=256))
    with pytest.raises(ValueError, match="opset_version must be 18 to 23, or None, got 16"):
        spn.onnx.export_refiner(small(), opset_version=16)
    with pytest.raises(TypeError, match="refiner must be an SPNRefiner, got Linear"):
        spn.onnx.export_refiner(torch.nn.Linear(1, 1))
