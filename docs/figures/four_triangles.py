"""Write docs/_static/four_triangles.svg: the response of each of the four sweeps to a single bright pixel.

python -m docs.figures.four_triangles
"""

from __future__ import annotations

from pathlib import Path

import torch

import spn

SIZE, CELL, GAP = 15, 12, 28
TITLES = ("left to right", "right to left", "top to bottom", "bottom to top", "largest of the four")
TARGET = Path(__file__).parents[1] / "_static" / "four_triangles.svg"


def responses() -> torch.Tensor:
    """Return (5, SIZE, SIZE): the response of each sweep to an impulse, with all gates 1/3, and their maximum."""
    impulse = torch.zeros(1, 1, SIZE, SIZE)
    impulse[0, 0, SIZE // 2, SIZE // 2] = 1
    gates = torch.full((1, 4, 3, 1, SIZE, SIZE), 1 / 3)
    # The source form with lambda = 1 adds the unweighted input, so only the reach of the taps shows.
    source = torch.ones(1, 4, 1, SIZE, SIZE)
    maps = spn.propagate_four_way(impulse, gates, source=source, merge=None)[0, :, 0]
    return torch.cat([maps, maps.amax(0, keepdim=True)])


def panel(values: torch.Tensor, title: str, left: int) -> list[str]:
    side = SIZE * CELL
    marks = [
        f'<text x="{left + side / 2:g}" y="16" text-anchor="middle">{title}</text>',
        f'<rect x="{left}" y="26" width="{side}" height="{side}" fill="#fff" stroke="#999"/>',
    ]
    for row, line in enumerate(values.tolist()):
        for column, value in enumerate(line):
            if value > 0:
                # The fourth root keeps distant pixels visible.
                marks.append(
                    f'<rect x="{left + column * CELL}" y="{26 + row * CELL}" width="{CELL}" height="{CELL}"'
                    f' fill="#2962a8" fill-opacity="{value**0.25:.2f}"/>'
                )
    return marks


def svg() -> str:
    width = len(TITLES) * SIZE * CELL + (len(TITLES) - 1) * GAP
    height = SIZE * CELL + 27
    marks = [
        mark
        for i, (values, title) in enumerate(zip(responses(), TITLES, strict=True))
        for mark in panel(values, title, i * (SIZE * CELL + GAP))
    ]
    style = "<style>text{font:15px sans-serif;fill:#888}</style>"
    opening = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="-1 0 {width + 2} {height}">'
    return "\n".join([opening, style, *marks, "</svg>", ""])


if __name__ == "__main__":
    TARGET.write_text(svg())
