"""Writes the tables of docs/cuda.md: ``python -m benchmarks.cuda_docs [NAME ...]``, all of them without a name.

A table stands between ``<!-- begin NAME -->`` and ``<!-- end NAME -->``; the command that prints it is said there.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "cuda.md"
COMMANDS = {
    "traffic": ["-m", "benchmarks.traffic", "--markdown"],
    "registers": ["-m", "benchmarks.cuda_check", "--markdown"],
    "instructions": ["-m", "benchmarks.instructions", "--markdown"],
    "model": ["-m", "benchmarks.cuda_model", "--markdown"],
    "mutations": ["tests/emulator/mutations.py", "--markdown"],
}


def region(name: str) -> re.Pattern[str]:
    return re.compile(rf"(<!-- begin {name} -->\n).*?(<!-- end {name} -->)", re.DOTALL)


def written(name: str) -> str:
    """What docs/cuda.md says now."""
    found = region(name).search(PAGE.read_text())
    if found is None:
        raise SystemExit(f"{PAGE.name} has no place for the table {name}")
    return found.group(0)


def printed(name: str) -> str:
    """What the command prints, as it stands in docs/cuda.md."""
    arguments = COMMANDS[name]
    run = subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True
    )
    command = "python " + " ".join(arguments)
    return f"<!-- begin {name} -->\n`{command}`\n\n{run.stdout.strip()}\n<!-- end {name} -->"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("names", nargs="*", help=f"of {', '.join(COMMANDS)}")
    names = parser.parse_args().names or list(COMMANDS)
    if unknown := set(names) - set(COMMANDS):
        parser.error(f"no such table: {', '.join(sorted(unknown))}")
    for name in names:
        table = printed(name)
        PAGE.write_text(region(name).sub(lambda _, table=table: table, PAGE.read_text()))
        print(f"{PAGE.name}: {name}", flush=True)


if __name__ == "__main__":
    main()
