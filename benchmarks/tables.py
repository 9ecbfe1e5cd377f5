"""Format rows as Markdown or as aligned text for a terminal."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence


def markdown_row(cells: Iterable[object]) -> str:
    """Return a row; "<" before a letter is escaped, because Markdown would read ``kernel<Half>`` as an HTML tag."""
    return f"| {' | '.join(re.sub(r'<(?=[A-Za-z])', r'&lt;', str(cell)) for cell in cells)} |"


def markdown_head(header: Sequence[object], words: int | None = None) -> str:
    """Return the first two lines, with the first `words` columns (default: all) left-aligned and the others right."""
    words = len(header) if words is None else words
    rule = "|".join("---" if column < words else "---:" for column in range(len(header)))
    return f"{markdown_row(header)}\n|{rule}|"


def markdown(header: Sequence[object], rows: Iterable[Iterable[object]], words: int | None = None) -> str:
    return "\n".join([markdown_head(header, words), *map(markdown_row, rows)])


def aligned(header: Sequence[object], rows: Iterable[Iterable[object]]) -> str:
    """Return the rows with each column padded to its widest cell."""
    cells = [[str(cell) for cell in row] for row in [header, *rows]]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in cells
    )


def print_table(rows: Sequence[dict[str, object]], as_markdown: bool) -> None:
    """Print rows with equal keys; the keys are the header."""
    text = markdown if as_markdown else aligned
    print(text(list(rows[0]), [row.values() for row in rows]))
