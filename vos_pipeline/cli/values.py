"""Types of the options: each function converts an argument to a value, or raises an error with what was expected."""

from __future__ import annotations

import math
import re
from argparse import ArgumentTypeError
from collections.abc import Callable
from pathlib import Path

from vos_pipeline.errors import readable


def path(word: str) -> Path:
    """Convert to a path that messages and reports can display."""
    if not word or "\0" in word:
        raise ArgumentTypeError(f"must be a path, got {word!r}")
    if readable(word) != word:
        raise ArgumentTypeError(f"must be a name in UTF-8, got {readable(word)}: rename it")
    return Path(word)


def name_or_file(*names: str) -> Callable[[str], str]:
    """Return a type that accepts one of ``names`` or the path of an existing file."""

    def check(word: str) -> str:
        if word not in names and not path(word).is_file():
            known = ", ".join(map(repr, names))
            raise ArgumentTypeError(f"must be {known} or an existing file, got {word!r}")
        return word

    return check


def whole_number(low: int, high: int = 2**63 - 1) -> Callable[[str], int]:
    """Return a type that accepts the integers from ``low`` to ``high``."""

    def check(word: str) -> int:
        try:
            value = int(word)
        except ValueError:
            value = low - 1
        if not low <= value <= high:
            raise ArgumentTypeError(f"must be a whole number from {low} to {high}, got {word!r}")
        return value

    return check


def positive(word: str) -> float:
    """Convert to a finite number greater than zero."""
    value = _number(word)
    if not 0 < value < math.inf:
        raise ArgumentTypeError(f"must be a number > 0, got {word!r}")
    return value


def not_negative(word: str) -> float:
    """Convert to a finite number that is zero or greater."""
    value = _number(word)
    if not 0 <= value < math.inf:
        raise ArgumentTypeError(f"must be a number >= 0, got {word!r}")
    return value


def device(word: str) -> str:
    """Check the name of a device that the kernels and nets support."""
    if not re.fullmatch(r"auto|cpu|cuda(:\d{1,3})?", word, re.ASCII):
        raise ArgumentTypeError(f"must be auto, cpu, cuda or cuda:N, got {word!r}")
    return word


def plain_name(word: str) -> str:
    """Check a name that becomes part of a file name."""
    if word in ("", ".", "..") or re.search(r"[/\\\0]", word) or word != path(word).name:
        raise ArgumentTypeError(f"must be a plain name, got {word!r}")
    return word


def set_name(word: str) -> str:
    """Check the name of a set, SET or YEAR/SET."""
    parts = word.split("/")
    try:
        names = [plain_name(part) for part in parts]
    except ArgumentTypeError:
        names = []
    if len(names) not in (1, 2):
        raise ArgumentTypeError(f"must be SET or YEAR/SET such as val or 2016/val, got {word!r}")
    return word


def _number(word: str) -> float:
    try:
        return float(word)
    except ValueError:
        return math.nan
