"""Compile the CUDA kernels for every architecture and check the report of ptxas: ``python -m benchmarks.cuda.check``.

The check fails if a kernel spills registers, uses local memory, needs more registers than are available per thread of
its largest block, or accesses neighbouring values separately that the source accesses together (each memory sector is
then requested several times, which the emulator does not count). No GPU is needed. Without nvcc the check is skipped.
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
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

from ..tables import print_table

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "csrc" / "cuda" / "kernels.cu"
ARCHITECTURES = (75, 80, 86, 90, 100, 120)  # without 89, for which ptxas assigns the registers of 86
# Architectures whose PTX equals that of another except for the name. Generating PTX takes half of the time, so it is
# shared by default; `--own-ptx` generates it for each architecture, as in the library.
SAME_PTX = {86: 80, 89: 80, 120: 100}
REGISTERS_OF_A_MULTIPROCESSOR = 65536
# Threads of the largest block of each kernel, from its launch bounds (csrc/cuda/plan.h, merge.h).
THREADS = {
    "forward_kernel<double": 256,
    "forward_kernel": 384,
    "backward_kernel<double": 256,
    "backward_kernel": 384,
    "merge_kernel": 4 * 256,
    "add_kernel": 4 * 256,
    "sum_parts_kernel": 2 * 256,
}


@dataclass(frozen=True)
class Kernel:
    architecture: int
    name: str
    registers: int
    stack: int
    spills: int
    shared: int  # static; the plan requests more at launch
    apart: int  # accesses to a value next to that of the previous access

    @property
    def most_registers(self) -> int:
        """Registers per thread; they are allocated for four warps at a time, in multiples of eight per thread."""
        threads = -(-threads_of(self.name) // 128) * 128
        return min(255, REGISTERS_OF_A_MULTIPROCESSOR // threads // 8 * 8)

    @property
    def faults(self) -> list[str]:
        faults = []
        if self.spills:
            faults.append(f"spills {self.spills} bytes")
        if self.stack:
            faults.append(f"uses {self.stack} bytes of local memory")
        if self.apart:
            faults.append(f"accesses neighbouring values separately {self.apart} times")
        if self.registers > self.most_registers:
            faults.append(
                f"needs {self.registers} registers, the planned occupancy allows {self.most_registers}"
            )
        return faults


def threads_of(name: str) -> int:
    for key, threads in THREADS.items():
        if name.startswith(key):
            return threads
    raise KeyError(f"THREADS has no entry for {name}")


def find_nvcc() -> str | None:
    home = os.environ.get("CUDA_HOME") or os.environ.get("CUDA_PATH")
    candidates = [Path(home) / "bin" / "nvcc"] if home else []
    candidates.append(Path("/usr/local/cuda/bin/nvcc"))
    return next((str(p) for p in candidates if p.exists()), shutil.which("nvcc"))


def demangled(text: str) -> str:
    return subprocess.run(["c++filt"], input=text, capture_output=True, text=True, check=True).stdout


def name_of(entry: str) -> str:
    """Return a kernel's C++ name without namespaces."""
    return re.sub(r"\w+::", "", re.search(r"spn::cuda::(\w+(?:<[^(]*?>)?)\(", entry).group(1))


def moves_apart(entry: str) -> int:
    """Count single-value loads and stores outside shared memory that start where the previous one ended."""
    apart, before = 0, None
    for kind, address, offset in re.findall(
        r"\b((?:ld|st)(?:\.global)?\.[bufs]\d+)\b[^;\[]*\[(%\w+)(?:\+(\d+))?\]", entry
    ):
        size = int(kind.rpartition(".")[2][1:]) // 8
        here = (kind, address, int(offset or 0))
        apart += here == before
        before = (kind, address, here[2] + size)
    return apart


def parse(report: str, ptx: str, architecture: int) -> list[Kernel]:
    """Return the kernels of a ``-Xptxas -v`` report and of the PTX that it describes."""
    apart = {name_of(entry): moves_apart(entry) for entry in re.split(r"\.entry", demangled(ptx))[1:]}
    kernels = []
    for entry in re.split(r"Compiling entry function", demangled(report))[1:]:
        name = name_of(entry)
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
                architecture,
                name,
                registers,
                stack,
                spills=stores + loads,
                shared=int(shared.group(1)) if shared else 0,
                apart=apart[name],
            )
        )
    return kernels


def write_ptx(nvcc: str, architecture: int, folder: Path) -> Path:
    """Generate PTX and return its file; ``CalledProcessError`` contains the errors of the compiler."""
    import torch

    include = Path(torch.__file__).parent / "include"
    file = folder / f"{architecture}.ptx"
    command = [nvcc, f"-arch=compute_{architecture}", "-std=c++17", "-O3", "-DUSE_CUDA", f"-I{include}"]
    command += ["-ptx", str(SOURCE), "-o", str(file)]
    subprocess.run(command, check=True, capture_output=True, text=True)
    return file


def assemble(nvcc: str, ptx: Path, architecture: int) -> list[Kernel]:
    """Assemble the file for an architecture and return its kernels."""
    cubin = ptx.with_suffix(f".{architecture}.cubin")
    command = [nvcc, "-cubin", f"-arch=sm_{architecture}", "-O3", "-Xptxas", "-v", str(ptx), "-o", str(cubin)]
    report = subprocess.run(command, check=True, capture_output=True, text=True).stderr
    return parse(report, ptx.read_text(), architecture)


def compile_all(
    nvcc: str, ptx_of: dict[int, int], jobs: int
) -> Iterator[tuple[int, list[Kernel], str | None]]:
    """Yield each architecture, its kernels and the compiler's errors; ``ptx_of`` maps it to the PTX to assemble."""
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(jobs) as pool:
        # PTX is submitted first, so that no worker waits for a file whose generation has not started.
        files = {a: pool.submit(write_ptx, nvcc, a, Path(folder)) for a in sorted(set(ptx_of.values()))}

        def kernels_of(architecture: int) -> list[Kernel]:
            return assemble(nvcc, files[ptx_of[architecture]].result(), architecture)

        found = {a: pool.submit(kernels_of, a) for a in ptx_of}
        for architecture, kernels in found.items():
            try:
                yield architecture, kernels.result(), None
            except subprocess.CalledProcessError as error:
                yield architecture, [], error.stderr


def register_rows(kernels: list[Kernel], architectures: list[int]) -> list[dict[str, object]]:
    registers = {(k.name, k.architecture): k.registers for k in kernels}
    rows = []
    for name, most in sorted({(k.name, k.most_registers) for k in kernels}):
        counts = {f"sm_{a}": registers.get((name, a), "") for a in architectures}
        rows.append({"registers per thread": name, **counts, "limit": most})
    return rows


def shared_rows() -> list[dict[str, object]]:
    """Return the dynamic shared memory of launches; the kernels have no static shared memory."""
    from .devices import A100, H200, RTX_5090, T4
    from .schedule import Pass, kernel_emulator, plan_of
    from .traffic import TARGETS

    devices = {"sm_75": T4, "sm_80": A100, "sm_90": H200, "sm_120": RTX_5090}
    rows = []
    for shape in TARGETS:
        for backward in (False, True):
            row: dict[str, object] = {"shared memory per block": f"{Pass(shape, backward=backward).name}"}
            row["shape"] = "x".join(map(str, shape))
            for architecture, device in devices.items():
                plan = plan_of(Pass(shape, backward=backward), device.machine())
                kilobytes = (plan["scratch_bytes"] + kernel_emulator.HEADER) / 1024
                row[architecture] = f"{plan['threads']} threads, {kilobytes:.0f} KB"
            rows.append(row)
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--architectures", type=int, nargs="+", default=list(ARCHITECTURES))
    parser.add_argument(
        "--own-ptx", action="store_true", help="generate PTX for each architecture separately"
    )
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument(
        "--markdown", action="store_true", help="print Markdown tables, as in docs/cuda_kernels.md"
    )
    parser.add_argument("--json", type=Path, help="also write the kernels to this file")
    arguments = parser.parse_args()
    nvcc = find_nvcc()
    if nvcc is None:
        print("SKIPPED: nvcc was not found (set CUDA_HOME); the CUDA kernels were not compiled")
        return 0
    kernels, failed = [], False
    start = time.monotonic()
    ptx_of = {a: a if arguments.own_ptx else SAME_PTX.get(a, a) for a in arguments.architectures}
    for architecture, found, complaint in compile_all(nvcc, ptx_of, arguments.jobs):
        done = time.monotonic() - start
        print(f"sm_{architecture}: {len(found)} kernels, after {done:.0f} s", file=sys.stderr, flush=True)
        if not found:
            print(complaint or "no kernels were found in the compiler's report")
            failed = True
        failed = failed or any(kernel.shared for kernel in found)
        kernels += found
    if kernels:
        print_table(register_rows(kernels, arguments.architectures), arguments.markdown)
        print()
        print_table(shared_rows(), arguments.markdown)
    for kernel in kernels:
        for fault in kernel.faults:
            print(f"FAILED: sm_{kernel.architecture} {kernel.name} {fault}")
            failed = True
    if arguments.json:
        arguments.json.write_text(json.dumps([asdict(k) for k in kernels], indent=1) + "\n")
    print(f"{'FAILED' if failed else 'OK'}: {time.monotonic() - start:.0f} s", file=sys.stderr)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
