"""Format tables as plain text, Markdown, HTML or CSV."""

from __future__ import annotations

import csv
import html
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass

Cell = str | int | float | None


@dataclass(frozen=True)
class Table:
    """Rows under a header. The first column contains names; None and NaN stand for unknown values.

    Args:
        title: one line above the table.
        header: names of the columns.
        rows: one cell per column.
    """

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[Cell]]

    def text(self) -> str:
        """Return plain text columns without the title: names left-aligned, numbers right-aligned."""
        return "\n".join("  ".join(row) for row in self._aligned())

    def markdown(self) -> str:
        """Return the title and a Markdown table with aligned columns."""
        header, *rows = (f"| {' | '.join(row)} |" for row in self._aligned())
        first, *others = (len(cell) for cell in self._aligned()[0])
        rule = " | ".join((f":{'-' * (first - 1)}", *(f"{'-' * (width - 1)}:" for width in others)))
        return "\n".join((f"{self.title}\n", header, f"| {rule} |", *rows, ""))

    def html(self) -> str:
        """Return an HTML ``<table>`` with the title as its caption."""
        head = "".join(f"<th>{html.escape(name)}</th>" for name in self.header)
        cells = (("".join(f"<td>{html.escape(_shown(cell, '–'))}</td>" for cell in row)) for row in self.rows)
        body = "".join(f"<tr>{row}</tr>" for row in cells)
        return (
            f'<div class="table"><table><caption>{html.escape(self.title)}</caption>'
            f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>\n"
        )

    def csv(self, digits: int | None = None) -> str:
        """Return comma-separated values; floats have the given number of decimals, or all digits by default."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(self.header)
        for row in self.rows:
            writer.writerow([_exact(cell, digits) for cell in row])
        return text.getvalue()

    def _aligned(self) -> list[list[str]]:
        cells = [list(self.header), *([_shown(cell, "-") for cell in row] for row in self.rows)]
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        return [
            [name.ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row, widths[1:], strict=True))]
            for name, *row in cells
        ]


def _shown(cell: Cell, unknown: str) -> str:
    if cell is None or (isinstance(cell, float) and math.isnan(cell)):
        return unknown
    return f"{cell:.3f}" if isinstance(cell, float) else str(cell)


def _exact(cell: Cell, digits: int | None) -> str | int | float:
    if cell is None:
        return ""
    return f"{cell:.{digits}f}" if isinstance(cell, float) and digits is not None else cell
