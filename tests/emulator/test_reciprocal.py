"""The one piece of the kernels' arithmetic that differs on a GPU: 1 / value, refined from the device's estimate."""

from __future__ import annotations

import numpy as np
import pytest
from kernel_emulator import can_build, load

pytestmark = pytest.mark.skipif(not can_build(), reason="no C++ compiler for the emulator")


@pytest.mark.parametrize("ulps", [-1, 0, 1])  # rcp.approx.ftz.f32 may be one off, says the PTX manual
@pytest.mark.parametrize("exponent", [-13, 0, 125])
def test_half_an_ulp_from_exact(exponent: int, ulps: int):
    """Every 5th float of a binade; 1e-4 is the least that kernels divide by, 2^126 the most."""
    mantissas = np.arange(1 << 23, 1 << 24, 5, dtype=np.float64)
    values = np.ldexp(mantissas, exponent - 23).astype(np.float32)
    exact = 1 / values.astype(np.float64)
    rounded = exact.astype(np.float32)
    ulp = np.spacing(rounded)
    refined = load().refined_reciprocal(values, rounded + np.float32(ulps) * ulp)
    # Half an ulp is the least error that rounding allows.
    assert np.abs((refined - exact) / ulp).max() < 0.51
