"""Compiles the CUDA kernels for every architecture and reads what ptxas says: ``python -m benchmarks.cuda_check``.

Fails where a kernel spills registers, keeps anything in local memory, or needs more registers than the threads of its
largest block leave to each. No GPU is needed; without nvcc it says so and does nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "csrc" / "cuda" / "kernels.cu"
ARCHITECTURES = (75, 80, 86, 89, 90, 100, 120)
REGISTERS_OF_A_MULTIPROCESSOR = 65536
# Threads of a kernel's largest block; the plan counts on one such block a multiprocessor, or several smaller ones.
THREADS = {
    "forward_kernel<double, true>": 512,
    "forward_kernel<*, true>": 1024,
    "forward_kernel<*, false>": 512,
    "backward_kernel": 512,
    "merge_kernel": 1024,
    "add_kernel": 1024,
    "sum_groups_kernel": 1024,
}


@dataclass(frozen=True)
class Kernel:
    architecture: int
    name: str
    registers: int
    stack: int
    spills: int
    shared: int  # static; the plan asks for more at launch

    @property
    def most_registers(self) -> int:
        return min(255, REGISTERS_OF_A_MULTIPROCESSOR // threads_of(self.name))

    @property
    def faults(self) -> list[str]:
        faults = []
        if self.spills:
            faults.append(f"spills {self.spills} bytes")
        if self.stack:
            faults.append(f"keeps {self.stack} bytes in local memory")
        if self.registers > self.most_registers:
            faults.append(
                f"needs {self.registers} registers, {self.most_registers} keep the planned occupancy"
            )
        return faults


def threads_of(name: str) -> int:
    generic = re.sub(r"<[^,>]*", "<*", name)
    for key in (name, generic, name.split("<")[0]):
        if key in THREADS:
            return THREADS[key]
    raise KeyError(f"how many threads has {name}?")


def find_nvcc() -> str | None:
    home = os.environ.get("CUDA_HOME") or os.environ.get("CUDA_PATH")
    candidates = [Path(home) / "bin" / "nvcc"] if home else []
    candidates.append(Path("/usr/local/cuda/bin/nvcc"))
    return next((str(p) for p in candidates if p.exists()), shutil.which("nvcc"))


def parse(report: str, architecture: int) -> list[Kernel]:
    """The kernels of a ``-Xptxas -v`` report, names as C++ writes them."""
    report = subprocess.run(["c++filt"], input=report, capture_output=True, text=True, check=True).stdout
    kernels = []
    for entry in re.split(r"Compiling entry function", report)[1:]:
        name = re.search(r"spn::cuda::(\w+(?:<[^(]*?>)?)\(", entry).group(1)
        name = re.sub(r"\w+::", "", name)
        stack, stores, loads = map(
            int,
            re.search(
                r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads", entry
            ).groups(),
        )
        registers = int(re.search(r"Used (\d+) registers", entry).group(1))
        shared = re.search(r"(\d+) bytes smem", entry)
        kernels.append(
            Kernel(
                architecture, name, registers, stack, stores + loads, int(shared.group(1)) if shared else 0
            )
        )
    return kernels


def compile_for(nvcc: str, architecture: int) -> tuple[list[Kernel], float, str | None]:
    """Kernels, seconds, and the compiler's complaint if it had one."""
    import torch

    include = Path(torch.__file__).parent / "include"
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        command = [nvcc, f"-arch=sm_{architecture}", "-std=c++17", "-O3", "-DUSE_CUDA", f"-I{include}"]
        command += ["-Xptxas", "-v", "-cubin", str(SOURCE), "-o", str(Path(folder) / "kernels.cubin")]
        run = subprocess.run(command, capture_output=True, text=True)
    seconds = time.monotonic() - start
    if run.returncode:
        return [], seconds, run.stderr
    return parse(run.stderr, architecture), seconds, None


def print_table(kernels: list[Kernel], architectures: list[int]) -> None:
    names = sorted({k.name for k in kernels})
    registers = {(k.name, k.architecture): k.registers for k in kernels}
    most = {k.name: k.most_registers for k in kernels}
    print(f"{'registers':36}" + "".join(f"{f'sm_{a}':>8}" for a in architectures) + f"{'at most':>9}")
    for name in names:
        row = "".join(f"{registers.get((name, a), 0):>8}" for a in architectures)
        print(f"{name:36}{row}{most[name]:>9}")
    static = max(k.shared for k in kernels)
    print(f"static shared memory: {static} bytes at most; launches ask for what plan.h counts")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--architectures", type=int, nargs="+", default=list(ARCHITECTURES))
    parser.add_argument("--jobs", type=int, default=max(1, (os.cpu_count() or 1) // 2))
    parser.add_argument("--json", type=Path, help="also write the kernels to this file")
    arguments = parser.parse_args()
    nvcc = find_nvcc()
    if nvcc is None:
        print("SKIPPED: nvcc was not found (set CUDA_HOME); the CUDA kernels were not compiled")
        return 0
    kernels, failed = [], False
    start = time.monotonic()
    with ThreadPoolExecutor(arguments.jobs) as pool:
        results = pool.map(lambda a: (a, *compile_for(nvcc, a)), arguments.architectures)
        for architecture, found, seconds, complaint in results:
            print(f"sm_{architecture}: {len(found)} kernels, {seconds:.0f} s", flush=True)
            if complaint is not None or not found:
                print(complaint or "no kernels were found in the compiler's report")
                failed = True
            kernels += found
    if kernels:
        print_table(kernels, arguments.architectures)
    for kernel in kernels:
        for fault in kernel.faults:
            print(f"FAILED: sm_{kernel.architecture} {kernel.name} {fault}")
            failed = True
    if arguments.json:
        arguments.json.write_text(json.dumps([asdict(k) for k in kernels], indent=1) + "\n")
    print(f"{'FAILED' if failed else 'OK'}: {time.monotonic() - start:.0f} s")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
