"""Relative RMS errors of every dtype against the specification in float64, on the same numbers.

`python tests/spn/test_accuracy.py` prints the table of docs/accuracy.md.
"""

import pytest
import torch
from operator_cases import DEVICES, Case, gradients, relative_rms

import spn

CASES = {
    "SPN form, abs, max": Case((1, 1, 1, 1), 1, 0, "four_way", "abs", "max"),
    "SPN form, abs, mean": Case((1, 1, 1, 1), 1, 0, "four_way", "abs", "mean"),
    "source form, sigmoid, sum": Case((1, 1, 1, 1), 1, 1, "four_way", "sigmoid", "sum"),
}
SIZES = (64, 512)
# Narrow results differ from exact ones by their one rounding, up to 2^-11 and 2^-8, in the mean less than half of it;
# a float32 state collects the roundings of the steps that it still remembers.
BOUNDS = {torch.float32: 6e-7, torch.float16: 3e-4, torch.bfloat16: 2.4e-3}


def errors(case, size, dtype, device="cpu"):
    """Relative RMS error of the output and of the gradients for x, gates and (in source form) source."""
    case = case.with_(shape=(1, 1, size, size))
    inputs = case.inputs(dtype, device)
    grad = torch.randn(case.shape, generator=torch.Generator().manual_seed(1)).to(device, dtype)
    out, grads = gradients(case, inputs, grad)
    exact, exact_grads = exact_results(case, inputs, grad)
    return [relative_rms(a, e) for a, e in zip((out, *grads), (exact, *exact_grads), strict=True)]


def exact_results(case, inputs, grad):
    return gradients(case, [t.double() for t in inputs], grad.double(), api=spn.reference)


@pytest.mark.slow
@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("dtype", BOUNDS, ids=str)
@pytest.mark.parametrize("name", CASES)
def test_error_is_a_rounding_of_the_result(name, dtype, size, device):
    for what, error in zip(
        ("output", "x", "gates", "source"), errors(CASES[name], size, dtype, device), strict=False
    ):
        assert 0 < error <= BOUNDS[dtype], f"{what}: {error:.2e}"


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", BOUNDS, ids=str)
def test_the_error_of_long_stable_sweeps_does_not_grow(dtype, device):
    """A row-stochastic sweep over 4096 lines that forgets nothing but what it averages away."""
    case = Case((1, 1, 8, 4096), 1, 0, "left_to_right", "sigmoid")
    x, gates = case.inputs(dtype, device)
    x = x + 4
    h, exact = case(x, gates), case(x.double(), gates.double(), api=spn.reference)
    assert relative_rms(h[..., 3000:], exact[..., 3000:]) <= 4 * BOUNDS[dtype]


def table(device="cpu"):
    """The markdown table of docs/accuracy.md."""
    lines = [
        "| call | plane | dtype | output | gradient of x | gradient of gates | gradient of source |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, case in CASES.items():
        for size in SIZES:
            for dtype in BOUNDS:
                cells = [f"{error:.1e}" for error in errors(case, size, dtype, device)]
                cells += [""] * (4 - len(cells))
                short = str(dtype).removeprefix("torch.")
                lines.append(f"| {name} | {size} x {size} | {short} | {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(table())
