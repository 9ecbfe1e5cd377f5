"""Load the compiled kernels, and record the reason if they cannot be loaded.

CPU and CUDA kernels are in separate libraries, so that the CPU kernels load on a torch without CUDA. Loading a library
registers its operators with torch. Devices without a library use :mod:`spn.reference` (see :mod:`spn._ops`).
"""

from __future__ import annotations

import platform
import sys
from dataclasses import dataclass
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

import torch

OLDEST_TORCH = (2, 11)


@dataclass(frozen=True)
class Library:
    """A kernel library: its file name, the reason if it is not loaded, and what the build omitted from it."""

    file: str
    reason: str | None
    left_out: str | None = None

    @property
    def loaded(self) -> bool:
        return self.reason is None


def torch_version() -> tuple[int, int]:
    major, minor = torch.__version__.split("+")[0].split(".")[:2]
    return int(major), int(minor)


def library_in(folder: Path, name: str) -> Path | None:
    """Return the file of a kernel library, if the folder of a package has it."""
    files = (folder / f"_{name}{suffix}" for suffix in EXTENSION_SUFFIXES)
    return next((file for file in files if file.exists()), None)


def load(name: str) -> Library:
    """Load ``spn/_<name>*.so`` into torch; never raises."""
    path = library_in(Path(__file__).parent, name)
    left_out = left_out_by_the_build(name)
    if path is None:
        return Library(f"_{name}", left_out or why_not_built(name))
    if torch_version() < OLDEST_TORCH:
        oldest = ".".join(map(str, OLDEST_TORCH))
        return Library(path.name, f"requires torch >= {oldest}, found {torch.__version__}")
    if name == "cuda" and torch.version.cuda is None:
        return Library(path.name, f"torch {torch.__version__} is not a CUDA build")
    try:
        torch.ops.load_library(str(path))
    except (OSError, RuntimeError) as error:
        return Library(path.name, f"{type(error).__name__}: {error}")
    return Library(path.name, None, left_out)


def why_not_built(name: str) -> str:
    if platform.system() == "Windows":
        return "there are no kernels for Windows"
    if hides_an_installation(name):
        return (
            "not built in the source folder, which hides the installed package: run Python in another folder"
        )
    return "not built (install with SPN_BUILD=auto, cpu or cuda)"


def hides_an_installation(name: str) -> bool:
    """Return whether Python imports a package without kernels although its path has another one with this library.

    After ``pip install .``, Python imports the source folder of a checkout if it runs there.
    """
    here = Path(__file__).resolve().parent
    if library_in(here, "cpu") or library_in(here, "cuda"):
        return False
    try:
        others = [Path(entry).resolve() / here.name for entry in sys.path]
        return any(other != here and library_in(other, name) is not None for other in others)
    except (OSError, RuntimeError, ValueError):  # an entry that is no path, or a loop of links
        return False


def left_out_by_the_build(name: str) -> str | None:
    """Read the line that build_kernels.py writes if it omits something."""
    file = Path(__file__).with_name(f"_{name}.left_out")
    return file.read_text(encoding="utf-8").strip() if file.exists() else None
