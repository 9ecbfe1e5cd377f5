"""A source tree with stub compilers: shell scripts whose output and exit status a test chooses."""

import importlib.util
from pathlib import Path

from setuptools import Distribution

from spn import _config, _native

ROOT = Path(__file__).parents[2]
spec = importlib.util.spec_from_file_location("build_kernels", ROOT / "build_kernels.py")
build_kernels = importlib.util.module_from_spec(spec)
spec.loader.exec_module(build_kernels)

WRITE_OUTPUT = 'while [ $# -gt 0 ]; do [ "$1" = -o ] && : >"$2"; shift; done'
COMPILER = f"""#!/bin/sh
case "$*" in *dumpversion*) echo VERSION; exit ;; esac
{WRITE_OUTPUT}
"""
NVCC = f"""#!/bin/sh
echo "$*" >>"$0.log"
case "$*" in
*--version*) echo "Cuda compilation tools, release RELEASE, V1" ;;
*--list-gpu-arch*) for n in KNOWN; do echo "compute_$n"; done ;;
*empty.cu*) TRY ;;
*) COMPILE ;;
esac
{WRITE_OUTPUT}
"""
ALL = "75 80 86 89 90 100 120"


class Project:
    """A source tree with empty kernel files, and its build."""

    def __init__(self, root: Path):
        self.root = root
        self.nvcc = root / "cuda" / "bin" / "nvcc"
        sources = [f"csrc/cpu/{n}.cpp" for n in ("baseline", "avx2", "avx512", "propagate")]
        for name in ("spn/__init__.py", "csrc/cuda/kernels.cu", *sources):
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).touch()
        self.put_compiler()
        self.put_nvcc()

    def put_compiler(self, version="12.2.0"):
        self.script(self.root / "bin" / "g++", COMPILER.replace("VERSION", version))

    def put_nvcc(self, release="13.0", known=ALL, attempt=":", compile=":"):
        text = NVCC.replace("RELEASE", release).replace("KNOWN", known)
        self.script(self.nvcc, text.replace("TRY", attempt).replace("COMPILE", compile))

    @staticmethod
    def script(path: Path, text: str):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(0o755)

    def build(self, inplace=True):
        mode = build_kernels.build_mode()
        distribution = Distribution(
            {
                "name": "spn",
                "packages": ["spn"],
                "ext_modules": build_kernels.extensions(mode),
                "cmdclass": build_kernels.commands(mode),
            }
        )
        # Set the options directly: parsing a command line would change the level of all loggers, including torch's.
        command = distribution.get_command_obj("build_ext")
        command.inplace, command.build_lib = inplace, "lib"
        distribution.run_command("build_ext")

    def files(self, folder="spn") -> set[str]:
        return {file.name for file in (self.root / folder).iterdir()} - {"__init__.py"}

    def architectures(self) -> list[str]:
        """Return the architecture options of the last call of nvcc."""
        options = Path(f"{self.nvcc}.log").read_text().splitlines()[-1].split()
        return [o.removeprefix("-gencode=arch=") for o in options if o.startswith("-gencode")]


def says(capfd) -> list[str]:
    return [line for line in capfd.readouterr().out.splitlines() if line.startswith("CUDA kernels")]


def show_config_says() -> str:
    return f"CUDA kernels {_config._describe(_native.load('cuda'))}"
