"""Writes the tables of docs/cuda.md: ``python -m docs.figures.cuda [NAME ...]``, all of them without a name.

The command that prints a table is said above it.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

from .marks import between_marks

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "cuda.md"
COMMANDS = {
    "traffic": ["-m", "benchmarks.cuda.traffic", "--markdown"],
    "registers": ["-m", "benchmarks.cuda.check", "--markdown"],
    "instructions": ["-m", "benchmarks.cuda.instructions", "--markdown"],
    "model": ["-m", "benchmarks.cuda.model", "--markdown"],
    "mutations": ["tests/emulator/mutations.py", "--markdown"],
}


def printed(name: str) -> str:
    """What the command prints, as it stands in docs/cuda.md."""
    arguments = COMMANDS[name]
    run = subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True
    )
    command = "python " + " ".join(arguments)
    return f"`{command}`\n\n{run.stdout.strip()}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("names", nargs="*", help=f"of {', '.join(COMMANDS)}")
    names = parser.parse_args().names or list(COMMANDS)
    if unknown := set(names) - set(COMMANDS):
        parser.error(f"no such table: {', '.join(sorted(unknown))}")
    for name in names:
        PAGE.write_text(between_marks(PAGE.read_text(), name, printed(name)))
        print(f"{PAGE.name}: {name}", flush=True)


if __name__ == "__main__":
    main()
