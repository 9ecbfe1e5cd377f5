"""Write the tables of docs/cuda.md and docs/cuda_kernels.md: ``python -m docs.figures.cuda [NAME ...]``.

Without a name it writes all tables. The command that prints a table stands above the table.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

from .marks import between_marks

ROOT = Path(__file__).resolve().parents[2]
USERS, DEVELOPERS = ROOT / "docs" / "cuda.md", ROOT / "docs" / "cuda_kernels.md"
# Name -> the page and the command.
TABLES = {
    "times": (USERS, ["-m", "benchmarks.cuda.model", "--brief", "--markdown"]),
    "traffic": (DEVELOPERS, ["-m", "benchmarks.cuda.traffic", "--markdown"]),
    "registers": (DEVELOPERS, ["-m", "benchmarks.cuda.check", "--markdown"]),
    "instructions": (DEVELOPERS, ["-m", "benchmarks.cuda.instructions", "--markdown"]),
    "model": (DEVELOPERS, ["-m", "benchmarks.cuda.model", "--markdown"]),
    "mutations": (DEVELOPERS, ["tests/emulator/mutations.py", "--markdown"]),
}


def printed(arguments: list[str]) -> str:
    """Return the command and its output, as they stand in the page."""
    run = subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True
    )
    command = "python " + " ".join(arguments)
    return f"`{command}`\n\n{run.stdout.strip()}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("names", nargs="*", help=f"of {', '.join(TABLES)}")
    names = parser.parse_args().names or list(TABLES)
    if unknown := set(names) - set(TABLES):
        parser.error(f"no such table: {', '.join(sorted(unknown))}")
    for name in names:
        page, arguments = TABLES[name]
        text = printed(arguments)
        page.write_text(between_marks(page.read_text(), name, text))
        print(f"{page.name}: {name}", flush=True)


if __name__ == "__main__":
    main()
