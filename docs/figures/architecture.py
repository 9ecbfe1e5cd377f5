"""Write docs/_static/architecture.svg: a frame's path through the pipeline, and a tensor's path to the kernel.

python -m docs.figures.architecture

The arrows between subpackages are the imports found in the code, without those that other arrows imply.
"""

from __future__ import annotations

import ast
import html
from pathlib import Path

ROOT = Path(__file__).parents[2]
ROOMS = ROOT / "vos_pipeline"
TARGET = ROOT / "docs" / "_static" / "architecture.svg"

# Left edge, top and purpose of each subpackage.
PLACES = {
    "cli": (232, 40, "options, commands"),
    "pipeline": (232, 118, "the stages in order"),
    "nets": (10, 196, "frame to score maps"),
    "refiner": (158, 196, "refined score maps"),
    "temporal": (306, 196, "CRAF, flow filter"),
    "report": (454, 196, "overlays, web page"),
    "training": (0, 274, "one training loop"),
    "evaluation": (306, 274, "J and F, tables"),
    "data": (232, 352, "frames, masks, video"),
    "settings": (158, 430, "every constant"),
}
WIDTH, HEIGHT = 138, 46
# The subpackages in the order in which a frame passes through them.
PATH = ("data", "nets", "refiner", "temporal", "evaluation", "report")

# From the call to the step; the boxes of a row stand side by side.
CALL = (
    (("spn.propagate_four_way", "spn/functional.py", "validates"),),
    (("torch.ops.spn.propagate", "spn/_ops.py", "schema, fake, autograd, vmap"),),
    (
        ("CPU", "csrc/cpu/propagate.cpp", "instruction set, memory"),
        ("CUDA", "csrc/cuda/propagate.cu", "plan, memory, stream"),
        ("elsewhere", "spn/reference.py", "plain PyTorch"),
    ),
    (
        ("a pass", "csrc/cpu/forward.h", "planes over threads"),
        ("a pass", "csrc/cuda/forward.h", "planes over blocks"),
    ),
    (
        ("a line", "csrc/cpu/line_kernels.h", "registers of positions"),
        ("a line", "csrc/cuda/forward_lines.h", "a tile of positions"),
    ),
    (("a step and its adjoint", "csrc/recurrence.h", "the equations"),),
)
CALL_LEFT, CALL_WIDTH, CALL_STEP = 650, 172, 78


def imports() -> dict[str, set[str]]:
    """Return, for each subpackage, the subpackages that its files import from."""
    found: dict[str, set[str]] = {room: set() for room in PLACES}
    for room, targets in found.items():
        for path in (ROOMS / room).glob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.ImportFrom) and node.module == "vos_pipeline":
                    targets.update(alias.name for alias in node.names)
                elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("vos_pipeline."):
                    targets.add((node.module or "").split(".")[1])
        targets.intersection_update(PLACES)
        targets.discard(room)
    return found


def direct(graph: dict[str, set[str]]) -> list[tuple[str, str]]:
    """Return the arrows of an acyclic graph that no other arrows imply."""

    def reach(room: str) -> set[str]:
        return graph[room].union(*(reach(other) for other in graph[room]))

    return [
        (room, other)
        for room, others in graph.items()
        for other in sorted(others)
        if not any(other in reach(between) for between in others - {other})
    ]


def box(left: float, top: float, width: float, lines: tuple[str, ...]) -> list[str]:
    marks = [f'<rect x="{left:g}" y="{top:g}" width="{width:g}" height="{HEIGHT}" rx="5"/>']
    step = HEIGHT / (len(lines) + 0.6)
    for k, line in enumerate(lines):
        weight = ' class="name"' if k == 0 else ""
        y = top + step * (k + 1)
        marks.append(f'<text x="{left + width / 2:g}" y="{y:.4g}"{weight}>{html.escape(line)}</text>')
    return marks


def arrow(start: tuple[float, float], end: tuple[float, float]) -> str:
    return (
        f'<line x1="{start[0]:g}" y1="{start[1]:g}" x2="{end[0]:g}" y2="{end[1]:g}" marker-end="url(#tip)"/>'
    )


def rooms() -> list[str]:
    marks = [
        '<text x="10" y="20" class="title">vos_pipeline: subpackages, their imports, and a frame in six steps</text>'
    ]
    for room, other in direct(imports()):
        (left, top, _), (to_left, to_top, _) = PLACES[room], PLACES[other]
        marks.append(arrow((left + WIDTH / 2, top + HEIGHT), (to_left + WIDTH / 2, to_top - 2)))
    for room, (left, top, what) in PLACES.items():
        marks += box(left, top, WIDTH, (room, what))
    for number, room in enumerate(PATH, 1):
        left, top, _ = PLACES[room]
        marks.append(f'<circle cx="{left + 8}" cy="{top + 3}" r="9"/>')
        marks.append(f'<text x="{left + 8}" y="{top + 7}" class="step">{number}</text>')
    return marks


def call() -> list[str]:
    marks = [f'<text x="{CALL_LEFT}" y="20" class="title">spn: from the call to the kernel</text>']
    for depth, line in enumerate(CALL):
        top = 40 + CALL_STEP * depth
        single = len(line) == 1
        for k, (name, file, what) in enumerate(line):
            left = CALL_LEFT + (CALL_WIDTH + 12) * (0.5 if single else k)
            marks += box(left, top, CALL_WIDTH, (name, file, what))
            if depth + 1 < len(CALL):
                below = CALL[depth + 1]
                for to in range(len(below)) if single or len(below) == 1 else [k] * (k < len(below)):
                    to_left = CALL_LEFT + (CALL_WIDTH + 12) * (0.5 if len(below) == 1 else to)
                    start = (left + CALL_WIDTH / 2, top + HEIGHT)
                    marks.append(arrow(start, (to_left + CALL_WIDTH / 2, top + CALL_STEP - 2)))
    return marks


STYLE = """<style>
text{font:11px sans-serif;fill:#777;text-anchor:middle}.name{font-weight:bold}
.title{font-size:13px;text-anchor:start}
rect{fill:#2962a8;fill-opacity:.1;stroke:#2962a8}
line{stroke:#999}circle{fill:#2962a8}.step{fill:#fff;font-weight:bold}
</style>
<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">
<path d="M0 0L8 4L0 8z" fill="#999"/></marker></defs>"""


def svg() -> str:
    opening = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="-2 0 1202 490">'
    return "\n".join([opening, STYLE, *rooms(), *call(), "</svg>", ""])


if __name__ == "__main__":
    TARGET.write_text(svg())
