"""Benchmark cases: their notation, and the bytes that they have to move."""

import argparse

import pytest
import torch

from benchmarks.operator.cases import Case, inputs, minimum_traffic, parse_case, parse_shape
from benchmarks.operator.propagate import CASES, small


@pytest.mark.parametrize(
    ("text", "case"),
    [
        ("1x32x512x512", Case((1, 32, 512, 512), 32, False, "abs", None, False)),
        ("4x64x56x56:G=1", Case((4, 64, 56, 56), 1)),
        ("8x384x14x14:source:sigmoid", Case((8, 384, 14, 14), 384, True, "sigmoid")),
        (
            "56x576x56x2:source:left_to_right:forward",
            Case((56, 576, 56, 2), 576, True, "abs", "left_to_right", True),
        ),
    ],
)
def test_parsing_and_printing_a_case_are_inverse(text, case):
    assert parse_case(text) == case
    assert str(case) == text


def test_options_may_have_any_order_and_defaults_are_not_printed():
    assert str(parse_case("1x8x4x4:forward:abs:G=8:source")) == "1x8x4x4:source:forward"


@pytest.mark.parametrize("text", CASES)
def test_the_cases_of_the_page_use_the_shortest_notation(text):
    assert str(parse_case(text)) == text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1x2x3", "a shape is NxCxHxW, got '1x2x3'"),
        ("1x2x3xfour", "a shape is NxCxHxW, got '1x2x3xfour'"),
        ("1x2x0x4:source", "a shape is NxCxHxW, got '1x2x0x4'"),
        ("1x8x4x4:G=3", "G must divide C = 8, got 'G=3'"),
        ("1x8x4x4:G=many", "G must divide C = 8, got 'G=many'"),
        ("1x8x4x4:softmax", "one of G=..., source, none, abs.*got 'softmax' in '1x8x4x4:softmax'"),
    ],
)
def test_a_wrong_case_raises(text, message):
    with pytest.raises(argparse.ArgumentTypeError, match=message):
        parse_case(text)


def test_a_shape_alone_has_no_options():
    assert parse_shape("1x2x3x4") == (1, 2, 3, 4)
    with pytest.raises(argparse.ArgumentTypeError):
        parse_shape("1x2x3x4:source")


X = 2 * 8 * 5 * 7  # elements of x in the following tests


@pytest.mark.parametrize(
    ("options", "gates", "source"),
    [
        ("", 12 * X, 0),
        (":G=1", 12 * X // 8, 0),
        (":G=4", 12 * X // 2, 0),
        (":left_to_right", 3 * X, 0),
        (":source:sigmoid", 12 * X, 4 * X),
        (":source:sigmoid:top_to_bottom:G=2", 3 * X // 4, X),
    ],
)
@pytest.mark.parametrize(("dtype", "size"), [(torch.float32, 4), (torch.bfloat16, 2)])
def test_minimum_bytes(options, gates, source, dtype, size):
    given = inputs(parse_case(f"2x8x5x7{options}"), dtype, "cpu")
    assert [t.numel() for t in given] == [X, gates, source][: len(given)]
    assert minimum_traffic("forward", given) == ((X + gates + source) * size, X * size)
    # The backward pass reads the inputs and the gradient of the result, and writes the inputs' gradients.
    read, written = X + 2 * (X + gates + source), 2 * X + gates + source
    assert minimum_traffic("both", given) == (read * size, written * size)


def test_minimum_bytes_per_pixel():
    """The forward pass moves 14 elements per pixel and channel, the backward pass another 27."""
    given = inputs(parse_case("2x8x5x7"), torch.float32, "cpu")
    assert minimum_traffic("forward", given).total == 14 * 4 * X
    assert minimum_traffic("both", given).total == (14 + 27) * 4 * X


@pytest.mark.parametrize("text", CASES)
def test_the_small_case_has_the_same_options(text):
    case = parse_case(text)
    checked = small(case)
    assert checked[2:] == case[2:]
    assert checked.shape[1] // checked.groups == case.shape[1] // case.groups
    assert all(t.numel() < 2_000_000 for t in inputs(checked, torch.float32, "cpu"))
