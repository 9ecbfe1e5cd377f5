"""Describe the machine of a measurement, for every result file."""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
import time
from pathlib import Path

import torch

import spn


def describe(device: str) -> dict:
    """Return machine, versions and commit as plain JSON values."""
    facts = {
        "cpu": _cpu_name(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "spn": spn.__version__,
        "allocator": allocator(),
        "commit": _commit(),
    }
    facts["kernels"] = spn.show_config().splitlines()[3:]
    if device == "cuda":
        facts["gpu"] = torch.cuda.get_device_name()
        facts["cuda"] = torch.version.cuda
    return facts


def allocator(maps: Path = Path("/proc/self/maps")) -> str:
    """Return the memory allocator: "tcmalloc", "jemalloc" or "mimalloc" if loaded, else "glibc" or "unknown"."""
    try:
        text = maps.read_text()
    except OSError:  # not Linux
        return "unknown"
    for name in ("tcmalloc", "jemalloc", "mimalloc"):
        if re.search(rf"/lib{name}[^/\n]*$", text, re.MULTILINE):
            return name
    return "glibc" if re.search(r"/libc(-[\d.]+)?\.so[^/\n]*$", text, re.MULTILINE) else "unknown"


def matmul_gigaflops(size: int = 1024) -> float:
    """Measure the highest float32 throughput of a matrix product, in 10⁹ operations per second."""
    a = torch.randn(size, size)
    best = float("inf")
    for _ in range(20):
        start = time.perf_counter()
        a @ a
        best = min(best, time.perf_counter() - start)
    return 2 * size**3 / best / 1e9


def write_results(path: Path, facts: dict, rows: list[dict]) -> None:
    """Write a result file atomically, so that an interrupted benchmark leaves a complete file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".unfinished")
    unfinished.write_text(json.dumps({"machine": facts, "rows": rows}, indent=1) + "\n")
    unfinished.replace(path)


def _cpu_name() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or "unknown"


def _commit() -> str:
    """Return the commit, with a + if tracked files besides the results differ; "unknown" outside a checkout."""
    root = Path(__file__).parent

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", *arguments], cwd=root, capture_output=True, text=True, check=True
        ).stdout.strip()

    measured = ("--", ":(top)", ":(top,exclude)benchmarks/results")
    try:
        return git("rev-parse", "--short", "HEAD") + (
            "+" if git("status", "--porcelain", "-uno", *measured) else ""
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
