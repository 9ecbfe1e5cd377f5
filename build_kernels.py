"""Build configuration for setup.py: which kernels to build, with which flags, and how to handle failed CUDA builds.

If SPN_BUILD=auto skips CUDA kernels or architectures, the build prints one line that says why and stores it in
``spn/_cuda.left_out``. ``spn.show_config()`` reads that file.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

from setuptools.command.build_ext import build_ext
from setuptools.command.build_py import build_py

ROOT = Path(__file__).parent
MODES = ("auto", "cpu", "cuda", "none")
# The libraries run with torch 2.11 and newer, and with Python 3.10 and newer.
STABLE_ABI = ["-DTORCH_TARGET_VERSION=0x020b000000000000", "-DPy_LIMITED_API=0x030A0000"]
# GCC and Clang both accept all flags: each ignores a "-Wno-" flag that only the other knows.
CPU_FLAGS = [
    "-O3",
    "-std=c++17",
    "-fno-math-errno",
    "-fno-trapping-math",
    "-fvisibility=hidden",
    "-Wno-unknown-warning-option",
    "-Wno-psabi",
    "-Wno-maybe-uninitialized",  # in the AVX-512 headers of GCC 12
    "-Wno-pass-failed",  # Clang unrolls some loops instead of vectorising them
]
CUDA_ARCHITECTURES = "7.5;8.0;8.6;8.9;9.0;10.0;12.0+PTX"
LEFT_OUT = "_cuda.left_out"  # like the library, it matches the pattern _cuda.* of remove()


class CannotBuildCuda(Exception):
    """The CUDA kernels cannot be built. The message says why and, in brackets, what to do."""


# ---- Environment variables -------------------------------------------------------------------------------------------


def build_mode() -> str:
    mode = os.environ.get("SPN_BUILD") or "auto"
    if mode not in MODES:
        raise SystemExit(f"SPN_BUILD must be one of {', '.join(MODES)}, got {mode!r}")
    if platform.system() == "Windows" and mode != "none":
        return mode_on_windows(mode)
    return mode


def mode_on_windows(mode: str) -> str:
    """Return "none", or stop if kernels are required: MSVC, torch's compiler on Windows, lacks GCC's vector types."""
    reason = "MSVC does not compile them"
    if mode != "auto":
        raise SystemExit(f"SPN_BUILD={mode}: there are no kernels for Windows: {reason}; set SPN_BUILD=none")
    print(f"CPU and CUDA kernels not built: {reason}", flush=True)
    return "none"


def max_jobs() -> str:
    jobs = os.environ.get("MAX_JOBS") or "0"  # 0: one per core
    if not jobs.isdecimal():
        raise SystemExit(f"MAX_JOBS must be a whole number, got {jobs!r}")
    return jobs


def import_cpp_extension():
    try:
        from torch.utils import cpp_extension
    except ImportError as error:
        raise SystemExit(
            f"building the kernels needs torch at build time ({error}); install torch first and pass "
            "--no-build-isolation, or set SPN_BUILD=none"
        ) from error
    return cpp_extension


# ---- The two libraries -----------------------------------------------------------------------------------------------


def extensions(mode: str) -> list:
    """Return the CPU extension and, if torch is a CUDA build and a toolkit exists, the CUDA extension."""
    if mode == "none":
        return []
    jobs = max_jobs()
    cpp_extension = import_cpp_extension()
    wants_cuda = mode != "cpu" and torch_cuda() and cpp_extension.CUDA_HOME
    return [cpu_extension(), *([cuda_extension(jobs)] if wants_cuda else [])]


def headers() -> list[str]:
    return [str(path.relative_to(ROOT)) for path in (ROOT / "csrc").rglob("*.h")]


def cuda_sources() -> list[str]:
    return [str(path.relative_to(ROOT)) for path in sorted((ROOT / "csrc" / "cuda").glob("*.cu"))]


def cpu_extension():
    x86 = platform.machine().lower() in ("x86_64", "amd64")
    # baseline comes first: if a library's inline function is compiled several times, the linker keeps the first copy.
    capabilities = ["baseline", "avx2", "avx512"] if x86 else ["baseline"]
    return import_cpp_extension().CppExtension(
        "spn._cpu",
        [f"csrc/cpu/{name}.cpp" for name in (*capabilities, "propagate")],
        extra_compile_args={"cxx": [*CPU_FLAGS, *STABLE_ABI, *(["-DSPN_X86"] if x86 else [])]},
        extra_link_args=["-Wl,--strip-debug"] if platform.system() == "Linux" else [],
        depends=headers(),
        py_limited_api=True,
    )


def cuda_extension(jobs: str):
    return import_cpp_extension().CUDAExtension(
        "spn._cuda",
        cuda_sources(),
        extra_compile_args={
            "cxx": ["-O3", "-std=c++17", *STABLE_ABI],
            # All kernels are in one file. Without --threads, a single core would compile all architectures in sequence.
            "nvcc": [
                "-O3",
                "-std=c++17",
                "-DUSE_CUDA",
                f"--threads={jobs}",
                f"--split-compile={jobs}",
                *STABLE_ABI,
            ],
        },
        depends=headers(),
        py_limited_api=True,
    )


# ---- Compatibility of torch, nvcc and the host compiler --------------------------------------------------------------


def torch_cuda() -> str | None:
    import torch

    return torch.version.cuda


def brief(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"


def ask(failure: str, *command: str, folder: str | None = None) -> str:
    """Run `command` and return its output. If it fails, raise `failure` with the first error line of the output."""
    try:
        finished = subprocess.run(
            command,
            cwd=folder,
            capture_output=True,
            text=True,
            errors="replace",
            env={**os.environ, "LC_ALL": "C"},
        )
    except OSError as error:
        raise CannotBuildCuda(f"{failure}: {error.strerror}") from error
    if finished.returncode:
        lines = [line.strip() for line in (finished.stderr + finished.stdout).splitlines() if line.strip()]
        errors = [line for line in lines if re.search("error|fatal", line, re.IGNORECASE)]
        said = [*errors[:1], *lines[-1:], f"exit status {finished.returncode}"][0]
        raise CannotBuildCuda(f"{failure}: {said}")
    return finished.stdout


def find_nvcc() -> tuple[str, str]:
    """Return the path and the release of nvcc. Its CUDA major version must match torch."""
    import torch

    if torch_cuda() is None:
        raise CannotBuildCuda(f"torch {torch.__version__} is not a CUDA build")
    home = import_cpp_extension().CUDA_HOME
    if home is None:
        raise CannotBuildCuda("nvcc was not found (set CUDA_HOME)")
    nvcc = str(Path(home, "bin", "nvcc"))
    if not Path(nvcc).exists():
        raise CannotBuildCuda(f"{home} has no bin/nvcc (set CUDA_HOME)")
    release = re.search(r"release (\d+\.\d+)", ask(f"{nvcc} does not run", nvcc, "--version"))
    if release is None:
        raise CannotBuildCuda(f"{nvcc} --version prints no release number (set CUDA_HOME)")
    major, torch_major = release[1].split(".")[0], torch_cuda().split(".")[0]
    if major != torch_major:
        raise CannotBuildCuda(
            f"nvcc {release[1]} belongs to CUDA {major}, but torch {torch.__version__} was built for CUDA "
            f"{torch_major} (set CUDA_HOME to a CUDA {torch_major} toolkit)"
        )
    return nvcc, release[1]


def architecture_flags(nvcc: str, release: str) -> tuple[list[str], list[str]]:
    """Return nvcc's flags for the architectures that it supports, and the names of the unsupported ones.

    If PTX was requested for an unsupported architecture, PTX for the newest supported one is added instead.
    """
    wanted = os.environ.get("TORCH_CUDA_ARCH_LIST") or CUDA_ARCHITECTURES
    os.environ["TORCH_CUDA_ARCH_LIST"] = wanted
    try:
        flags = import_cpp_extension()._get_cuda_arch_flags()  # also resolves names such as Hopper and native
    except Exception as error:
        raise CannotBuildCuda(
            f"torch does not recognise TORCH_CUDA_ARCH_LIST={wanted!r} ({brief(error)})"
        ) from error

    listed = ask(f"nvcc {release} does not list its architectures", nvcc, "--list-gpu-arch")
    known = set(re.findall(r"compute_(\d+)", listed))
    number = {flag: re.search(r"arch=compute_(\d+)", flag)[1] for flag in flags}
    kept = [flag for flag in flags if number[flag] in known]
    lost = [flag for flag in flags if number[flag] not in known]
    if not kept:
        raise CannotBuildCuda(
            f"nvcc {release} supports no architecture in {wanted} (set TORCH_CUDA_ARCH_LIST)"
        )
    if any("code=compute_" in flag for flag in lost):
        newest = max((number[flag] for flag in kept), key=int)
        kept.append(f"-gencode=arch=compute_{newest},code=compute_{newest}")
    return sorted(set(kept)), [f"sm_{n}" for n in sorted({number[flag] for flag in lost}, key=int)]


def try_compiler(nvcc: str, release: str, flags: list[str]) -> None:
    """Compile an empty kernel as torch would: nvcc rejects some host compilers, and its headers may be missing."""
    compiler = os.environ.get("CC")
    host = [] if compiler is None else ["-ccbin", compiler]
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "empty.cu").write_text("#include <cuda_runtime.h>\n__global__ void empty() {}\n")
        ask(
            f"nvcc {release} with {compiler or 'its default host compiler'} cannot compile an empty kernel (set CC or "
            "CUDA_HOME)",
            *(nvcc, *flags, "--compiler-options", "-fPIC", *host, "-c", "empty.cu", "-o", "empty.o"),
            folder=folder,
        )


def prepare_cuda(extension, mode: str) -> str | None:
    """Add the flags of the supported architectures to the extension. Return a note on skipped ones, or None."""
    if not cuda_sources():
        raise CannotBuildCuda("this source tree has no CUDA kernels")
    nvcc, release = find_nvcc()
    # Read this first: architecture_flags sets the variable to the default.
    chosen_by_hand = bool(os.environ.get("TORCH_CUDA_ARCH_LIST"))
    flags, unknown = architecture_flags(nvcc, release)
    without = f"{', '.join(unknown)}, which nvcc {release} does not support"
    if unknown and chosen_by_hand and mode == "cuda":
        raise CannotBuildCuda(f"TORCH_CUDA_ARCH_LIST names {without}")
    options = extension.extra_compile_args["nvcc"]
    try_compiler(nvcc, release, [*options, flags[0]])
    options += flags
    return f"built without {without}" if unknown else None


# ---- Commands --------------------------------------------------------------------------------------------------------


def remove(folder: Path, *names: str) -> None:
    """Remove the files of these libraries that an earlier build created."""
    for name in names:
        for stale in folder.glob(f"_{name}.*"):
            stale.unlink()


def require_compiler() -> None:
    compiler = import_cpp_extension().get_cxx_compiler()
    if not shutil.which((compiler.split() or [""])[0]):
        raise SystemExit(
            f"the CPU kernels need a C++17 compiler, and {compiler!r} was not found; install one, name it in CXX, or "
            "set SPN_BUILD=none"
        )


class BuildKernels:
    """Mixin for torch's BuildExtension: builds the CPU kernels first, then the CUDA kernels, whose build may fail."""

    mode: str

    def run(self) -> None:
        require_compiler()
        cpu, *cuda = self.extensions
        try:
            left_out = None if self.mode == "cpu" else prepare_cuda(cuda[0] if cuda else None, self.mode)
        except Exception as error:
            cuda, left_out = [], self.without_cuda(error)
        try:
            self.build([cpu])
        except Exception as error:
            raise SystemExit(
                f"the CPU kernels were not built: {brief(error)}; see the compiler's messages above, or set "
                "SPN_BUILD=none"
            ) from error
        try:
            self.build(cuda)
        except Exception as error:
            cuda, left_out = [], self.without_cuda(error)
        self.extensions = [cpu, *cuda]
        self.keep(left_out, built=bool(cuda))

    def build(self, extensions: list) -> None:
        options = self.inplace, self.compiler  # run() changes both, and does not restore them if it fails
        self.extensions = extensions
        try:
            super().run()
        finally:
            self.inplace, self.compiler = options

    def without_cuda(self, error: Exception) -> str:
        known = isinstance(error, CannotBuildCuda)
        reason = str(error) if known else f"{brief(error)} (see the build output for details)"
        if self.mode == "cuda":
            raise SystemExit(f"SPN_BUILD=cuda: {reason}") from error
        return f"not built: {reason}"

    def keep(self, left_out: str | None, built: bool) -> None:
        """Store the note on skipped kernels in the package's folder. Remove files of an earlier build."""
        folders = [Path(self.build_lib, "spn")]
        if self.inplace:
            folders.append(Path(self.get_finalized_command("build_py").get_package_dir("spn")))
        for folder in folders:
            if not built:
                remove(folder, "cuda")
            (folder / LEFT_OUT).unlink(missing_ok=True)
            if left_out:
                (folder / LEFT_OUT).write_text(f"{left_out}\n", encoding="utf-8")
        if left_out:
            print(f"CUDA kernels {left_out}", flush=True)


class NoKernelsInPlace(build_ext):
    def run(self) -> None:
        if self.inplace:
            remove(Path(self.get_finalized_command("build_py").get_package_dir("spn")), "cpu", "cuda")


class NoKernelsEditable(build_py):
    def run(self) -> None:
        super().run()
        if self.editable_mode:
            remove(Path(self.get_package_dir("spn")), "cpu", "cuda")


def commands(mode: str) -> dict:
    if mode == "none":
        return {"build_ext": NoKernelsInPlace, "build_py": NoKernelsEditable}
    base = import_cpp_extension().BuildExtension
    return {"build_ext": type("BuildKernels", (BuildKernels, base), {"mode": mode})}
