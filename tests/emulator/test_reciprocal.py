"""The one piece of the kernels' arithmetic that differs on a GPU: 1 / value, refined from the device's estimate."""

from __future__ import annotations

import numpy as np
import pytest
from kernel_emulator import can_build, load

pytestmark = pytest.mark.skipif(not can_build(), reason="no C++ compiler for the emulator")


def estimate_of(values: np.ndarray, ulps: int) -> np.ndarray:
    """What the device may say of 4 / value: rcp.approx.ftz.f32 may be one off, and knows no subnormal numbers."""
    with np.errstate(over="ignore"):
        rounded = (4 / values.astype(np.float64)).astype(np.float32)
    estimate = rounded + np.float32(ulps) * np.spacing(rounded)
    return np.where(np.abs(estimate) < np.finfo(np.float32).tiny, np.float32(0), estimate)


@pytest.mark.parametrize("ulps", [-1, 0, 1])
@pytest.mark.parametrize("exponent", [-90, -13, 0, 125, 126, 127])
def test_close_to_exact(exponent: int, ulps: int):
    """Every 5th float of a binade, from the least that kernels divide by to the largest; 1 / 2^126 is the least normal
    number."""
    mantissas = np.arange(1 << 23, 1 << 24, 5, dtype=np.float64)
    values = np.ldexp(mantissas, exponent - 23).astype(np.float32)
    exact = 1 / values.astype(np.float64)
    ulp = np.spacing(exact.astype(np.float32))
    refined = load().refined_reciprocal(values, estimate_of(values, ulps))
    # Half an ulp is the least error that rounding allows; subnormal results are rounded twice.
    assert np.abs((refined - exact) / ulp).max() < (0.51 if exponent < 126 else 0.76)


def test_infinity_and_nan():
    """As a division gives them."""
    refine = load().refined_reciprocal
    assert refine(np.float32("inf"), np.float32(0)) == 0
    assert np.isnan(refine(np.float32("nan"), np.float32("nan")))
