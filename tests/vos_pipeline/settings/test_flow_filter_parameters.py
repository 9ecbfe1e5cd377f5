"""Constants of the flow filter."""

import dataclasses
import math

import pytest

from vos_pipeline.settings import FlowFilterParameters

INCLUSIVE = ("own", "other", "complete", "found", "rate")


@pytest.mark.parametrize(
    ("name", "values", "says"),
    [
        *((name, (-0.1, 1.1, math.nan), r"must be in \[0, 1\]") for name in INCLUSIVE),
        ("threshold", (-0.1, 0, 1.1, math.nan), r"must be in \(0, 1\]"),
        ("missing", (-0.1, 0, 1.1, math.nan), r"must be in \(0, 1\]"),
        ("reach", (-0.1, math.inf, math.nan), "must be finite and at least 0"),
        ("growth", (-0.1, math.inf, math.nan), "must be finite and at least 0"),
        ("connectivity", (0, 6, 8.5), r"must be one of \(4, 8\)"),
        ("side", (0, 0.5, -1, math.nan), "must be at least 1"),
    ],
)
def test_a_bad_constant_is_named(name, values, says):
    for value in values:
        with pytest.raises(ValueError, match=f"^{name} {says}, got {value}$"):
            FlowFilterParameters(**{name: value})


def test_the_limits_of_each_range_are_allowed():
    for name in INCLUSIVE:
        for value in (0, 1):
            assert getattr(FlowFilterParameters(**{name: value}), name) == value
    FlowFilterParameters(threshold=1, missing=1, reach=0, growth=0, connectivity=4, side=1)


def test_the_constants_cannot_change():
    with pytest.raises(dataclasses.FrozenInstanceError):
        FlowFilterParameters().reach = 1
