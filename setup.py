"""Builds the kernels as stable-ABI libraries: one wheel serves every Python >= 3.10 and torch >= 2.11.

SPN_BUILD chooses what is built:

    auto  (default) CPU kernels, and CUDA kernels where nvcc is found and torch is a CUDA build
    cpu   CPU kernels only
    cuda  CPU and CUDA kernels, or an error that says what is missing
    none  pure Python: every operator runs on the PyTorch reference

No visible GPU is needed to build. TORCH_CUDA_ARCH_LIST overrides the CUDA architectures.
"""

from __future__ import annotations

import os
import platform
from pathlib import Path

from setuptools import setup

ROOT = Path(__file__).parent
MODES = ("auto", "cpu", "cuda", "none")
STABLE_ABI = ["-DTORCH_TARGET_VERSION=0x020b000000000000", "-DPy_LIMITED_API=0x030A0000"]
CUDA_ARCHITECTURES = "7.5;8.0;8.6;8.9;9.0;10.0;12.0+PTX"


def build_mode() -> str:
    mode = os.environ.get("SPN_BUILD", "auto")
    if mode not in MODES:
        raise SystemExit(f"SPN_BUILD must be one of {', '.join(MODES)}, got {mode!r}")
    return mode


def import_cpp_extension():
    try:
        from torch.utils import cpp_extension
    except ImportError as error:
        raise SystemExit(
            f"building the kernels needs torch at build time ({error}); install torch first and pass "
            "--no-build-isolation, or set SPN_BUILD=none"
        ) from error
    return cpp_extension


def missing_for_cuda() -> str | None:
    """Why the CUDA kernels cannot be built here, or None."""
    import torch

    cpp_extension = import_cpp_extension()
    if not any((ROOT / "csrc" / "cuda").glob("*.cu")):
        return "this source tree has no CUDA kernels"
    if torch.version.cuda is None:
        return f"torch {torch.__version__} is not a CUDA build"
    home = cpp_extension.CUDA_HOME
    if home is None or not (Path(home) / "bin" / "nvcc").exists():
        return "nvcc was not found (set CUDA_HOME)"
    if not (Path(home) / "include" / "cuda_runtime.h").exists():
        return f"{home} has nvcc but no include/cuda_runtime.h (set CUDA_HOME)"
    return None


def headers() -> list[str]:
    return [str(path.relative_to(ROOT)) for path in (ROOT / "csrc").rglob("*.h")]


def cpu_extension():
    x86 = platform.machine().lower() in ("x86_64", "amd64")
    # baseline comes first: should two copies of an inline function of a library meet, the linker keeps its copy.
    capabilities = ["baseline", "avx2", "avx512"] if x86 else ["baseline"]
    flags = [
        "-O3",
        "-std=c++17",
        "-fno-math-errno",
        "-fno-trapping-math",
        "-fvisibility=hidden",
        "-Wno-psabi",
        "-Wno-maybe-uninitialized",  # in the AVX-512 headers of gcc 12
    ]
    return import_cpp_extension().CppExtension(
        "spn._cpu",
        [f"csrc/cpu/{name}.cpp" for name in (*capabilities, "propagate")],
        extra_compile_args={"cxx": [*flags, *STABLE_ABI, *(["-DSPN_X86"] if x86 else [])]},
        extra_link_args=["-Wl,--strip-debug"] if platform.system() == "Linux" else [],
        depends=headers(),
        py_limited_api=True,
    )


def cuda_extension():
    os.environ.setdefault("TORCH_CUDA_ARCH_LIST", CUDA_ARCHITECTURES)
    jobs = os.environ.get("MAX_JOBS") or "0"  # 0: one a core
    return import_cpp_extension().CUDAExtension(
        "spn._cuda",
        [str(p.relative_to(ROOT)) for p in sorted((ROOT / "csrc" / "cuda").glob("*.cu"))],
        extra_compile_args={
            "cxx": ["-O3", "-std=c++17", *STABLE_ABI],
            # One file holds all kernels: without these, a single core would compile every architecture in turn.
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


def extensions(mode: str) -> list:
    if mode == "none":
        return []
    built = [cpu_extension()]
    missing = None if mode == "cpu" else missing_for_cuda()
    if mode == "cuda" and missing:
        raise SystemExit(f"SPN_BUILD=cuda: {missing}")
    if mode != "cpu" and not missing:
        built.append(cuda_extension())
    return built


def commands(mode: str) -> dict:
    if mode == "none":
        return {}
    build_ext = import_cpp_extension().BuildExtension.with_options(use_ninja=True)
    return {"build_ext": build_ext}


MODE = build_mode()
setup(
    ext_modules=extensions(MODE),
    cmdclass=commands(MODE),
    options={} if MODE == "none" else {"bdist_wheel": {"py_limited_api": "cp310"}},
)
