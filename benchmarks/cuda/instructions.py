"""Count the instructions that the CUDA kernels execute per position of a line.

    python -m benchmarks.cuda.instructions

The command compiles instructions.cu in this folder and counts instructions in the disassembly. A loop over lines has
one barrier per line. The other instructions of the loop around it are shared by the lines of a tile. The command needs
nvcc, and nvdisasm from CUDA or Triton.
"""

from __future__ import annotations

import argparse
import importlib.util
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from ..tables import print_table
from .check import find_nvcc
from .schedule import BLOCK_LINES

SOURCE = Path(__file__).with_name("instructions.cu")


def find_nvdisasm() -> str | None:
    triton = importlib.util.find_spec("triton")
    found = shutil.which("nvdisasm")
    if found is None and triton is not None and triton.origin is not None:
        bundled = Path(triton.origin).parent / "backends" / "nvidia" / "bin" / "nvdisasm"
        found = str(bundled) if bundled.exists() else None
    return found


def disassemble(nvcc: str, nvdisasm: str, architecture: int) -> str:
    import torch

    include = Path(torch.__file__).parent / "include"
    with tempfile.TemporaryDirectory() as folder:
        cubin = str(Path(folder) / "instructions.cubin")
        command = [nvcc, f"-arch=sm_{architecture}", "-std=c++17", "-O3", "-DUSE_CUDA", f"-I{include}"]
        subprocess.run([*command, "-cubin", str(SOURCE), "-o", cubin], check=True)
        return subprocess.run([nvdisasm, "-c", cubin], capture_output=True, text=True, check=True).stdout


def kernels(listing: str) -> dict[str, tuple[list[str], dict[str, int]]]:
    """Return, for each kernel name, its instructions and the position of each label."""
    found: dict[str, tuple[list[str], dict[str, int]]] = {}
    instructions: list[str] = []
    labels: dict[str, int] = {}
    for line in listing.splitlines():
        if name := re.match(r"\.text\.(\S+):", line):
            instructions, labels = found.setdefault(name.group(1), ([], {}))
        elif label := re.match(r"\s*(\.L_x_\d+):", line):
            labels[label.group(1)] = len(instructions)
        elif instruction := re.match(r"\s*/\*[0-9a-f]{4,}\*/\s+(.*?);", line):
            instructions.append(instruction.group(1))
    return found


def loops(instructions: list[str], labels: dict[str, int]) -> list[tuple[int, int]]:
    """Return (first, last) of each loop with a barrier: from a label to the last jump back to it."""
    ends: dict[int, int] = {}
    for i, instruction in enumerate(instructions):
        jump = re.search(r"\bBRA\b.*?(\.L_x_\d+)", instruction)
        if jump and labels.get(jump.group(1), i + 1) <= i:
            ends[labels[jump.group(1)]] = i
    return [
        (begin, end)
        for begin, end in ends.items()
        if any("BAR.SYNC" in instruction for instruction in instructions[begin : end + 1])
    ]


def count(instructions: list[str], labels: dict[str, int]) -> tuple[float, float]:
    """Return instructions per line in loops over lines, and the other instructions of a tile per line."""
    found = loops(instructions, labels)
    inner = [(a, b) for a, b in found if not any(a <= c and d <= b and (a, b) != (c, d) for c, d in found)]
    outer = set(found) - set(inner)
    around = min(b - a + 1 for a, b in outer if all(a <= c and d <= b for c, d in inner))
    lines = 0.0
    for a, b in inner:
        lines += (b - a + 1) / sum("BAR.SYNC" in i for i in instructions[a : b + 1])
    return lines, (around - sum(b - a + 1 for a, b in inner)) / BLOCK_LINES


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--architecture", type=int, default=90)
    parser.add_argument(
        "--markdown", action="store_true", help="print a Markdown table, as in docs/cuda_kernels.md"
    )
    arguments = parser.parse_args()
    nvcc, nvdisasm = find_nvcc(), find_nvdisasm()
    if nvcc is None or nvdisasm is None:
        print("SKIPPED: nvcc or nvdisasm was not found")
        return 0
    rows = []
    for name, (instructions, labels) in kernels(disassemble(nvcc, nvdisasm, arguments.architecture)).items():
        lines, tiles = count(instructions, labels)
        horizontal, *resident = (flag == "1" for flag in re.findall(r"Lb([01])E", name))
        piece = int(re.search(r"Li(\d)E", name).group(1))
        rows.append(
            {
                "pass": ("backward" if "backward" in name else "forward") + " on chip" * any(resident),
                "dtype": "bfloat16" if "BFloat16" in name else "float32",
                "values per piece": piece,
                "sweep": "horizontal" if horizontal else "vertical",
                "line loops": round(lines, 1),
                "tile, per line": round(tiles, 1),
                "total": round(lines + tiles),
            }
        )
    order = ("pass", "dtype", "values per piece", "sweep")
    print_table(sorted(rows, key=lambda row: [str(row[name]) for name in order]), arguments.markdown)
    return 0


if __name__ == "__main__":
    sys.exit(main())
