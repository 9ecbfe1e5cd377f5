"""Build the kernels as stable-ABI libraries: one wheel works with every Python >= 3.10 and torch >= 2.11.

SPN_BUILD selects what is built:

    auto  (default) CPU kernels, and CUDA kernels if they can be built; one line says what was skipped and why
    cpu   CPU kernels only
    cuda  CPU and CUDA kernels, or an error that says what is missing
    none  pure Python: every operator runs on the PyTorch reference implementation

The build needs no visible GPU. TORCH_CUDA_ARCH_LIST overrides the CUDA architectures. The implementation is in
build_kernels.py.
"""

from __future__ import annotations

import sys
from pathlib import Path

from setuptools import setup

sys.path.insert(0, str(Path(__file__).parent))  # pip does not add this folder to the path

from build_kernels import build_mode, commands, extensions

MODE = build_mode()
setup(
    ext_modules=extensions(MODE),
    cmdclass=commands(MODE),
    options={} if MODE == "none" else {"bdist_wheel": {"py_limited_api": "cp310"}},
)
