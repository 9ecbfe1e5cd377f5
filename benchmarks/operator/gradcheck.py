"""Check first and second derivatives of every combination of options against central differences, in float64.

    python -m benchmarks.operator.gradcheck [--device cpu|cuda]

Each row is one combination of form, normalize, merge and number of channel groups. Errors are those of a random
projection of the derivative, the largest over all elements of all inputs: absolute, and relative to the largest
derivative. "ok" and "FAILED" come from torch.autograd.gradcheck and gradgradcheck on the same inputs. The exit status
is 1 if one of them fails.
"""

from __future__ import annotations

import argparse
import sys
import time

import torch

import spn

from ..tables import markdown_head, markdown_row

SHAPE = (1, 4, 2, 3)
DIRECTIONS = ("left_to_right", "right_to_left", "top_to_bottom", "bottom_to_top")
NORMALIZATIONS = ("none", "abs", "unit", "sigmoid")
MERGES = ("max", "mean", "sum", None, *DIRECTIONS)
GROUPS = (1, 2, 4)
STEP = 1e-6
HEADER = ("form", "normalize", "merge", "G", "gradcheck", "abs", "rel", "gradgradcheck", "abs", "rel", "s")


def make_call(normalize, merge):
    """Return the call of one row; with a direction instead of a merge it is spn.propagate."""
    if merge in DIRECTIONS:
        return lambda x, gates, source=None: spn.propagate(
            x, gates, merge, source=source, normalize=normalize
        )
    return lambda x, gates, source=None: spn.propagate_four_way(
        x, gates, source=source, normalize=normalize, merge=merge
    )


def make_inputs(form, merge, normalize, groups, device):
    """Return inputs away from kinks: gates at 0, sum|g| at 1, and nearly equal directions under the maximum."""
    n, _, height, width = SHAPE
    lead = () if merge in DIRECTIONS else (4,)
    for seed in range(1000):
        generator = torch.Generator().manual_seed(seed)
        options = {"generator": generator, "dtype": torch.float64}
        inputs = [
            torch.randn(SHAPE, **options),
            torch.randn(n, *lead, 3, groups, height, width, **options) / 2,
        ]
        if form == "source":
            inputs.append(torch.rand(n, *lead, 2, height, width, **options) + 0.5)
        smooth = inputs[1].abs().min() > 1e-3 and ((inputs[1].abs().sum(-4) - 1).abs() > 1e-3).all()
        if merge == "max":
            best, second = make_call(normalize, None)(*inputs).topk(2, dim=1).values.unbind(1)
            # Bitwise equality is harmless: both are x where two sweeps start.
            smooth = smooth and not ((best - second < 1e-3) & (best != second)).any()
        if smooth:
            return [t.to(device).requires_grad_() for t in inputs]
    raise RuntimeError(f"no smooth inputs for {form}, {normalize}, {merge}, G = {groups}")


def worst_errors(function, inputs):
    """Return the largest absolute and relative error of a random projection of function's derivative."""
    out = function(*inputs)
    weight = torch.randn(out.shape, generator=torch.Generator().manual_seed(0), dtype=out.dtype).to(out)
    analytic = torch.autograd.grad((out * weight).sum(), inputs)
    worst, largest = 0.0, 0.0
    for tensor, grad in zip(inputs, analytic, strict=True):
        flat = tensor.data.view(-1)
        for i, exact in enumerate(grad.flatten().tolist()):
            value = flat[i].item()
            flat[i] = value + STEP
            above = (function(*inputs) * weight).sum().item()
            flat[i] = value - STEP
            below = (function(*inputs) * weight).sum().item()
            flat[i] = value
            worst = max(worst, abs((above - below) / (2 * STEP) - exact))
            largest = max(largest, abs(exact))
    return worst, worst / largest


def derivative_of(call, inputs):
    """Return call's derivative for a fixed incoming gradient, as a function that returns one flat vector."""
    out = call(*inputs)
    weight = torch.randn(out.shape, generator=torch.Generator().manual_seed(1), dtype=out.dtype).to(out)

    def derivative(*inputs):
        grads = torch.autograd.grad(call(*inputs), inputs, weight, create_graph=True)
        return torch.cat([g.flatten() for g in grads])

    return derivative


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    device = parser.parse_args().device

    print(f"shape {SHAPE}, float64, step {STEP:g}\n{spn.show_config()}\n", file=sys.stderr)
    print(markdown_head(HEADER))
    failed, started = 0, time.perf_counter()
    for form in ("SPN", "source"):
        for normalize in NORMALIZATIONS:
            for merge in MERGES:
                for groups in GROUPS:
                    start = time.perf_counter()
                    call = make_call(normalize, merge)
                    inputs = make_inputs(form, merge, normalize, groups, device)
                    first = torch.autograd.gradcheck(call, inputs, raise_exception=False)
                    second = torch.autograd.gradgradcheck(call, inputs, raise_exception=False, fast_mode=True)
                    failed += not (first and second)
                    cells = []
                    for passed, function in ((first, call), (second, derivative_of(call, inputs))):
                        absolute, relative = worst_errors(function, inputs)
                        cells += ["ok" if passed else "FAILED", f"{absolute:.0e}", f"{relative:.0e}"]
                    seconds = time.perf_counter() - start
                    row = [form, normalize, merge, groups, *cells, f"{seconds:.2f}"]
                    print(markdown_row(row), flush=True)
    print(f"{failed} failed, {time.perf_counter() - started:.0f} s", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
