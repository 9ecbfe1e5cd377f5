"""Compare the CPU kernels on 64-bit Arm with the reference implementation: ``make arm-check``."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
import torch
from arm_kernels import DTYPES, OBJDUMP, disassembly, propagate, what_is_missing

import spn

sys.path.append(str(Path(__file__).resolve().parents[1] / "spn"))
from operator_cases import Case, assert_close, relative_rms

pytestmark = [
    pytest.mark.arm,
    pytest.mark.skipif(what_is_missing() is not None, reason=f"64-bit Arm: {what_is_missing()}"),
]

CASES = [
    # Interleaved planes: few planes that share gates, many planes, groups larger than a vector, a set that is not full.
    Case((2, 4, 5, 7), 2, 0, "four_way", "abs", "max"),
    Case((2, 4, 6, 5), 2, 2, "four_way", "abs", None),
    Case((1, 12, 64, 64), 12, 0, "four_way", "unit", "max"),
    Case((1, 8, 19, 21), 1, 1, "four_way", "sigmoid", "mean"),
    Case((1, 4, 3, 32), 4, 4, "four_way", "none", None),
    Case((1, 7, 1, 9), 7, 0, "four_way", "abs", "sum"),
    Case((2, 3, 33, 17), 1, 0, "right_to_left", "sigmoid"),
    Case((1, 6, 18, 9), 6, 6, "top_to_bottom", "unit"),
    # One plane at a time: long columns and long rows, few and many lines.
    Case((1, 2, 131, 70), 2, 0, "four_way", "abs", "max"),
    Case((1, 3, 40, 150), 1, 3, "four_way", "sigmoid", "sum"),
    Case((1, 4, 66, 67), 2, 1, "four_way", "none", "mean"),
    Case((1, 2, 135, 33), 1, 2, "left_to_right", "unit"),
    Case((1, 1, 5, 1030), 1, 0, "bottom_to_top", "abs"),
    Case((1, 2, 90, 70), 1, 1, "four_way", "sigmoid", "max", restart_every=8),
]

RESULTS = ("out", "grad_x", "grad_gates", "grad_source")


def drawn(case: Case, dtype: torch.dtype) -> tuple[list[torch.Tensor], torch.Tensor]:
    """Return the inputs, with None for a missing source, and the gradient of the result."""
    inputs = [*case.inputs(dtype), None][:3]
    n, *rest = case.shape
    shape = (n, 4, *rest) if case.direction == "four_way" and case.merge is None else case.shape
    return inputs, torch.randn(shape, generator=torch.Generator().manual_seed(1)).to(dtype)


def on_arm(case: Case, inputs, grad, **options):
    return propagate(*inputs, grad, case.direction, case.normalize, case.merge, case.restart_every, **options)


def expected(case: Case, inputs, grad, winner):
    """Return the float64 results of the reference. Near ties use the direction that the kernel selected."""
    leaves = [t.double().requires_grad_() for t in inputs if t is not None]
    if winner is None:
        out = case(*leaves, api=spn.reference)
    else:
        hidden = case.with_(merge=None)(*leaves, api=spn.reference)
        out = hidden.gather(1, winner.long().unsqueeze(1)).squeeze(1)
        assert_close(out, hidden.amax(1), torch.float32, f"{case} winner")
    return out.detach(), torch.autograd.grad(out, leaves, grad.double())


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_equals_the_reference(dtype):
    worst = 0.0
    for case in CASES:
        inputs, grad = drawn(case, dtype)
        out, winner, grads = on_arm(case, inputs, grad)
        without_gradients = on_arm(case, inputs, grad, wanted=(False, False, False))[0]
        assert torch.equal(without_gradients, out), f"{case} without gradients"
        expected_out, expected_grads = expected(case, inputs, grad, winner)
        reference = (expected_out, *expected_grads)
        for name, got, wanted in zip(RESULTS, (out, *grads), reference, strict=False):
            assert_close(got, wanted, dtype, f"{case} {name}")
            worst = max(worst, relative_rms(got, wanted))
    print(f"{dtype}: {len(CASES)} cases, largest relative RMS error {worst:.1e}")


@pytest.mark.parametrize("case", [CASES[3], CASES[8]], ids=str)
def test_threads_and_other_gradients_do_not_change_results(case):
    inputs, grad = drawn(case, torch.float32)
    out, winner, grads = on_arm(case, inputs, grad)
    again, winner_again, grads_again = on_arm(case, inputs, grad, separate=True)
    assert torch.equal(out, again) and (winner is None or torch.equal(winner, winner_again))
    for got, wanted in zip(grads_again, grads, strict=True):
        assert got is wanted is None or torch.equal(got, wanted)
    for i in range(2 if inputs[2] is None else 3):
        alone = on_arm(case, inputs, grad, wanted=tuple(i == k for k in range(3)))[2]
        assert torch.equal(alone[i], grads[i]), f"gradient {i} alone"


@pytest.mark.skipif(OBJDUMP is None, reason="objdump for 64-bit Arm is not installed")
def test_line_kernels_are_vectorised():
    """All line kernels multiply 4 floats or 2 doubles per instruction. Forward kernels use fused multiply-add."""
    functions = re.findall(r"^\w+ <void spn::baseline::(.*)>:\n((?:.+\n)*)", disassembly(), re.MULTILINE)
    kernels = [f for f in functions if f[0].startswith(("forward_line", "backward_line"))]
    assert len(kernels) > 50
    for name, code in kernels:
        product = "fml[as]" if name.startswith("forward") else "fm(ul|la|ls)"
        lanes = "4s" if "float" in name else "2d"
        assert re.search(rf"\t{product}\tv\d+\.{lanes}, ", code), name
