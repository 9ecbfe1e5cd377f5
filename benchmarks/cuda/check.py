"""Compiles the CUDA kernels for every architecture and reads what ptxas says: ``python -m benchmarks.cuda.check``.

Fails where a kernel spills registers, keeps anything in local memory, needs more registers than the threads of its
largest block leave to each, or moves neighbouring values one by one that the source moves at once (memory then sees
each sector several times, which the emulator's counts do not show). No GPU is needed; without nvcc it says so and does
nothing.
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
ARCHITECTURES = (75, 80, 86, 90, 100, 120)  # and not 89: ptxas gives its kernels the registers of 86
# For which nvcc writes the PTX of another, line by line, but for its name. Half the time goes into PTX, so each is
# written once; `--own-ptx` writes each architecture's own, as the library has it.
SAME_PTX = {86: 80, 89: 80, 120: 100}
REGISTERS_OF_A_MULTIPROCESSOR = 65536
# Threads of a kernel's largest block, as its launch bounds say (csrc/cuda/plan.h, merge.h).
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
    shared: int  # static; the plan asks for more at launch
    apart: int  # moves of neighbouring values that follow one another

    @property
    def most_registers(self) -> int:
        """Registers are given to four warps at a time, in eights for each thread."""
        threads = -(-threads_of(self.name) // 128) * 128
        return min(255, REGISTERS_OF_A_MULTIPROCESSOR // threads // 8 * 8)

    @property
    def faults(self) -> list[str]:
        faults = []
        if self.spills:
            faults.append(f"spills {self.spills} bytes")
        if self.stack:
            faults.append(f"keeps {self.stack} bytes in local memory")
        if self.apart:
            faults.append(f"moves neighbouring values one by one, {self.apart} times")
        if self.registers > self.most_registers:
            faults.append(
                f"needs {self.registers} registers, {self.most_registers} keep the planned occupancy"
            )
        return faults


def threads_of(name: str) -> int:
    for key, threads in THREADS.items():
        if name.startswith(key):
            return threads
    raise KeyError(f"how many threads has {name}?")


def find_nvcc() -> str | None:
    home = os.environ.get("CUDA_HOME") or os.environ.get("CUDA_PATH")
    candidates = [Path(home) / "bin" / "nvcc"] if home else []
    candidates.append(Path("/usr/local/cuda/bin/nvcc"))
    return next((str(p) for p in candidates if p.exists()), shutil.which("nvcc"))


def demangled(text: str) -> str:
    return subprocess.run(["c++filt"], input=text, capture_output=True, text=True, check=True).stdout


def name_of(entry: str) -> str:
    """A kernel's name as C++ writes it, without namespaces."""
    return re.sub(r"\w+::", "", re.search(r"spn::cuda::(\w+(?:<[^(]*?>)?)\(", entry).group(1))


def moves_apart(entry: str) -> int:
    """How many loads and stores of one value, not to shared memory, continue where the one before them ended."""
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
    """The kernels of a ``-Xptxas -v`` report and of the code that it is of."""
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
    """The file; ``CalledProcessError`` has the compiler's complaint if it had one."""
    import torch

    include = Path(torch.__file__).parent / "include"
    file = folder / f"{architecture}.ptx"
    command = [nvcc, f"-arch=compute_{architecture}", "-std=c++17", "-O3", "-DUSE_CUDA", f"-I{include}"]
    command += ["-ptx", str(SOURCE), "-o", str(file)]
    subprocess.run(command, check=True, capture_output=True, text=True)
    return file


def assemble(nvcc: str, ptx: Path, architecture: int) -> list[Kernel]:
    """The kernels of the file, on the architecture."""
    cubin = ptx.with_suffix(f".{architecture}.cubin")
    command = [nvcc, "-cubin", f"-arch=sm_{architecture}", "-O3", "-Xptxas", "-v", str(ptx), "-o", str(cubin)]
    report = subprocess.run(command, check=True, capture_output=True, text=True).stderr
    return parse(report, ptx.read_text(), architecture)


def compile_all(
    nvcc: str, ptx_of: dict[int, int], jobs: int
) -> Iterator[tuple[int, list[Kernel], str | None]]:
    """For each architecture its kernels, and the compiler's complaint if it had one; ``ptx_of``: whose PTX it gets."""
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(jobs) as pool:
        # All PTX goes first: what waits for a file then waits for one that is being written.
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
    """What launches ask for beyond static shared memory, of which the kernels have none."""
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
    parser.add_argument("--own-ptx", action="store_true", help="share no PTX among architectures")
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
