"""What a build does where something is missing or does not fit: stand-ins take the place of the compilers."""

import importlib.util
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch
import torch._inductor.config  # reads CXX when it is imported, which should not be amid these tests
from setuptools import Distribution
from torch.utils import cpp_extension

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
TORCH = torch.__version__


class Project:
    """A source tree with empty kernels, and its build."""

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
        # Not by a command line: to parse one changes the level of every logger, torch's too.
        command = distribution.get_command_obj("build_ext")
        command.inplace, command.build_lib = inplace, "lib"
        distribution.run_command("build_ext")

    def files(self, folder="spn") -> set[str]:
        return {file.name for file in (self.root / folder).iterdir()} - {"__init__.py"}

    def architectures(self) -> list[str]:
        """Of the last call of nvcc."""
        options = Path(f"{self.nvcc}.log").read_text().splitlines()[-1].split()
        return [o.removeprefix("-gencode=arch=") for o in options if o.startswith("-gencode")]


@pytest.fixture
def project(tmp_path, monkeypatch):
    project = Project(tmp_path)
    monkeypatch.chdir(tmp_path)
    for name in ("CC", "LDSHARED", "MAX_JOBS", "SPN_BUILD", "TORCH_CUDA_ARCH_LIST"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    monkeypatch.setenv("CXX", str(tmp_path / "bin" / "g++"))
    monkeypatch.setattr(build_kernels, "ROOT", tmp_path)
    monkeypatch.setattr(cpp_extension, "CUDA_HOME", str(tmp_path / "cuda"))
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(_native, "__file__", str(tmp_path / "spn" / "_native.py"))
    return project


def says(capfd) -> list[str]:
    return [line for line in capfd.readouterr().out.splitlines() if line.startswith("CUDA kernels")]


def show_config_says() -> str:
    return f"CUDA kernels {_config._describe(_native.load('cuda'))}"


# ---- Why there are no CUDA kernels -----------------------------------------------------------------------------------

UNSUPPORTED = "host_config.h:139:2: error: #error -- unsupported GNU version!"
NO_HEADER = "cc1plus: fatal error: cuda_runtime.h: No such file or directory"
EMPTY_KERNEL = (
    "nvcc 13.0 with its default host compiler does not compile an empty kernel (CC and CUDA_HOME choose them)"
)


def no_kernels(project, monkeypatch):
    (project.root / "csrc" / "cuda" / "kernels.cu").unlink()


def torch_without_cuda(project, monkeypatch):
    monkeypatch.setattr(torch.version, "cuda", None)


def no_toolkit(project, monkeypatch):
    monkeypatch.setattr(cpp_extension, "CUDA_HOME", None)


def no_nvcc(project, monkeypatch):
    project.nvcc.unlink()


def nvcc_does_not_run(project, monkeypatch):
    project.nvcc.chmod(0o644)


def nvcc_says_nothing(project, monkeypatch):
    project.script(project.nvcc, "#!/bin/sh\n")


def older_toolkit(project, monkeypatch):
    project.put_nvcc(release="12.6")


def newer_toolkit(project, monkeypatch):
    monkeypatch.setattr(torch.version, "cuda", "12.8")


def no_common_architecture(project, monkeypatch):
    monkeypatch.setenv("TORCH_CUDA_ARCH_LIST", "6.0 7.0+PTX")


def unknown_architecture(project, monkeypatch):
    monkeypatch.setenv("TORCH_CUDA_ARCH_LIST", "9.0;nine")


def host_compiler_refused(project, monkeypatch):
    project.put_nvcc(attempt=f"echo '{UNSUPPORTED}' >&2; exit 1")


def chosen_host_compiler_refused(project, monkeypatch):
    monkeypatch.setenv("CC", "gcc-99")
    project.put_nvcc(
        attempt=f'case "$*" in *"-ccbin gcc-99"*) echo "{UNSUPPORTED}" >&2; exit 1 ;; esac',
    )


def host_compiler_refused_by_torch(project, monkeypatch):
    project.put_compiler(version="99.1.0")


def no_headers(project, monkeypatch):
    project.put_nvcc(attempt=f"echo '{NO_HEADER}'; echo '1 error'; exit 1")


def crash_without_a_word(project, monkeypatch):
    project.put_nvcc(attempt="exit 9")


def late_failure(project, monkeypatch):
    (project.root / "csrc" / "cuda" / "kernels.cu").write_text("// newer than its object\n")
    project.put_nvcc(compile="exit 1")


CASES = {
    no_kernels: "this source tree has no CUDA kernels",
    torch_without_cuda: f"torch {TORCH} is not a CUDA build",
    no_toolkit: "nvcc was not found (set CUDA_HOME)",
    no_nvcc: "ROOT/cuda has no bin/nvcc (set CUDA_HOME)",
    nvcc_does_not_run: "ROOT/cuda/bin/nvcc does not run: Permission denied",
    nvcc_says_nothing: "ROOT/cuda/bin/nvcc --version names no release (set CUDA_HOME)",
    older_toolkit: f"nvcc 12.6 is of CUDA 12, torch {TORCH} of CUDA 13 (set CUDA_HOME to a toolkit of CUDA 13)",
    newer_toolkit: f"nvcc 13.0 is of CUDA 13, torch {TORCH} of CUDA 12 (set CUDA_HOME to a toolkit of CUDA 12)",
    no_common_architecture: "nvcc 13.0 knows no architecture of 6.0 7.0+PTX (set TORCH_CUDA_ARCH_LIST)",
    unknown_architecture: "TORCH_CUDA_ARCH_LIST='9.0;nine' means nothing to torch (ValueError: ",
    host_compiler_refused: f"{EMPTY_KERNEL}: {UNSUPPORTED}",
    chosen_host_compiler_refused: f"nvcc 13.0 with gcc-99 does not compile an empty kernel (CC and CUDA_HOME choose "
    f"them): {UNSUPPORTED}",
    host_compiler_refused_by_torch: "RuntimeError: The current installed version of ",
    no_headers: f"{EMPTY_KERNEL}: {NO_HEADER}",
    crash_without_a_word: f"{EMPTY_KERNEL}: exit status 9",
    late_failure: (
        "RuntimeError: Error compiling objects",
        "CompileError: command ",
    ),  # with ninja, and without
}
cases = pytest.mark.parametrize(("spoil", "reason"), CASES.items(), ids=lambda v: getattr(v, "__name__", ""))


def starts_with(text: str, reason, root: Path) -> bool:
    reasons = [reason] if isinstance(reason, str) else reason
    return any(text.startswith(r.replace("ROOT", str(root))) for r in reasons)


@cases
def test_auto_goes_on_without_cuda_kernels(project, monkeypatch, capfd, spoil, reason):
    project.build()
    assert project.files() == project.files("lib/spn") == {"_cpu.abi3.so", "_cuda.abi3.so"}
    spoil(project, monkeypatch)
    capfd.readouterr()
    project.build()
    (line,) = says(capfd)
    assert starts_with(line.removeprefix("CUDA kernels not built: "), reason, project.root), line
    assert project.files() == project.files("lib/spn") == {"_cpu.abi3.so", "_cuda.left_out"}
    assert show_config_says() == line.replace("not", "no: not", 1) + "; the PyTorch reference runs instead"


@cases
def test_cuda_says_what_is_missing(project, monkeypatch, spoil, reason):
    monkeypatch.setenv("SPN_BUILD", "cuda")
    spoil(project, monkeypatch)
    with pytest.raises(SystemExit) as stopped:
        project.build()
    message = str(stopped.value)
    assert "\n" not in message
    assert starts_with(message.removeprefix("SPN_BUILD=cuda: "), reason, project.root), message
    assert "_cuda.left_out" not in project.files()


# ---- Architectures ---------------------------------------------------------------------------------------------------


def test_every_architecture(project, capfd):
    project.build()
    assert says(capfd) == []
    numbers = sorted(ALL.split())
    assert project.architectures() == sorted(
        [f"compute_{n},code=sm_{n}" for n in numbers] + ["compute_120,code=compute_120"]
    )
    assert show_config_says().startswith("CUDA kernels no: OSError"), "the stand-in is no library"


@pytest.mark.parametrize("mode", ["auto", "cuda"])
def test_the_default_architectures_are_those_that_nvcc_knows(project, monkeypatch, capfd, mode):
    monkeypatch.setenv("SPN_BUILD", mode)
    monkeypatch.setattr(torch.version, "cuda", "12.8")
    project.put_nvcc(release="12.6", known="50 75 80 86 89 90")
    project.build()
    left_out = "built without sm_100, sm_120, which nvcc 12.6 does not know"
    assert says(capfd) == [f"CUDA kernels {left_out}"]
    assert "compute_90,code=compute_90" in project.architectures()
    assert not {"100", "120"} & {word.split("_")[1] for word in ",".join(project.architectures()).split(",")}
    assert project.files() == {"_cpu.abi3.so", "_cuda.abi3.so", "_cuda.left_out"}
    monkeypatch.setattr(torch.ops, "load_library", lambda path: None)
    assert show_config_says() == f"CUDA kernels _cuda.abi3.so, {left_out}"


def test_chosen_architectures(project, monkeypatch, capfd):
    monkeypatch.setenv("TORCH_CUDA_ARCH_LIST", "7.0;8.0+PTX 9.0a")
    project.build()
    assert says(capfd) == ["CUDA kernels built without sm_70, which nvcc 13.0 does not know"]
    assert project.architectures() == [
        "compute_80,code=compute_80", "compute_80,code=sm_80", "compute_90a,code=sm_90a",
    ]  # fmt: skip

    monkeypatch.setenv("TORCH_CUDA_ARCH_LIST", "7.0;8.0+PTX 9.0a")
    monkeypatch.setenv("SPN_BUILD", "cuda")
    with pytest.raises(SystemExit) as stopped:
        project.build()
    assert (
        str(stopped.value)
        == "SPN_BUILD=cuda: TORCH_CUDA_ARCH_LIST names sm_70, which nvcc 13.0 does not know"
    )


# ---- Nothing of an earlier build stays -------------------------------------------------------------------------------


def test_a_later_build_clears_the_reason(project, monkeypatch, capfd):
    project.put_nvcc(release="12.6")
    project.build()
    assert "_cuda.left_out" in project.files()
    project.put_nvcc()
    project.build()
    assert project.files() == project.files("lib/spn") == {"_cpu.abi3.so", "_cuda.abi3.so"}


@pytest.mark.parametrize("release", ["12.6", "13.0"])
def test_cpu_leaves_neither_a_cuda_library_nor_a_reason(project, monkeypatch, capfd, release):
    project.put_nvcc(release=release)
    project.build()
    monkeypatch.setenv("SPN_BUILD", "cpu")
    capfd.readouterr()
    project.build()
    assert says(capfd) == []
    assert project.files() == project.files("lib/spn") == {"_cpu.abi3.so"}
    assert show_config_says().startswith(
        "CUDA kernels no: not built (install with SPN_BUILD=auto, cpu or cuda)"
    )


def test_none_leaves_no_library(project, monkeypatch):
    project.build()
    monkeypatch.setenv("SPN_BUILD", "none")
    project.build()
    assert project.files() == set()


def test_a_build_elsewhere_leaves_the_checkout_alone(project):
    project.build()
    project.put_nvcc(release="12.6")
    project.build(inplace=False)
    assert project.files() == {"_cpu.abi3.so", "_cuda.abi3.so"}
    assert project.files("lib/spn") == {"_cpu.abi3.so", "_cuda.left_out"}


# ---- What stops every build ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["auto", "cpu", "cuda"])
@pytest.mark.parametrize("compiler", ["no-such-compiler", ""])
def test_no_compiler(project, monkeypatch, mode, compiler):
    monkeypatch.setenv("SPN_BUILD", mode)
    monkeypatch.setenv("CXX", compiler)
    with pytest.raises(SystemExit) as stopped:
        project.build()
    assert str(stopped.value) == (
        f"the CPU kernels need a C++17 compiler, and {compiler!r} was not found; install one, name it in CXX, or set "
        "SPN_BUILD=none"
    )


def test_a_compiler_that_fails(project):
    project.script(project.root / "bin" / "g++", "#!/bin/sh\nexit 1\n")
    with pytest.raises(SystemExit) as stopped:
        project.build()
    message = str(stopped.value)
    assert message.startswith("the CPU kernels were not built: ") and "\n" not in message
    assert message.endswith("; see the compiler's messages above, or set SPN_BUILD=none")


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("SPN_BUILD", "gpu", "SPN_BUILD must be one of auto, cpu, cuda, none, got 'gpu'"),
        ("MAX_JOBS", "many", "MAX_JOBS must be a whole number, got 'many'"),
        ("MAX_JOBS", "-1", "MAX_JOBS must be a whole number, got '-1'"),
    ],
)
def test_bad_values(project, monkeypatch, name, value, message):
    monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit) as stopped:
        project.build()
    assert str(stopped.value) == message


@pytest.mark.parametrize("name", ["SPN_BUILD", "MAX_JOBS", "TORCH_CUDA_ARCH_LIST"])
def test_empty_means_unset(project, monkeypatch, name):
    monkeypatch.setenv(name, "")
    project.build()
    assert project.files() == {"_cpu.abi3.so", "_cuda.abi3.so"}


# ---- As pip builds: the hooks of setuptools, which do not look for modules beside setup.py ---------------------------

HOOKS = """
import sys
sys.path = [p for p in sys.path if p not in ("", ".")]
from setuptools import build_meta
print(build_meta.{hook}("dist"))
"""


@pytest.fixture
def sources(tmp_path):
    for name in ("setup.py", "build_kernels.py", "pyproject.toml", "MANIFEST.in", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path / name)
    ignored = shutil.ignore_patterns("__pycache__", "weights", "*.so", "*.left_out")
    shutil.copytree(ROOT / "spn", tmp_path / "spn", ignore=ignored, dirs_exist_ok=True)
    return tmp_path


def call_hook(sources, hook, **variables) -> Path:
    environment = (
        {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | {"SPN_BUILD": "none"} | variables
    )
    command = [sys.executable, "-c", HOOKS.format(hook=hook)]
    (sources / "dist").mkdir(exist_ok=True)
    finished = subprocess.run(command, cwd=sources, env=environment, capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr
    return sources / "dist" / finished.stdout.splitlines()[-1]


def test_wheel_from_sdist(sources, tmp_path):
    shutil.unpack_archive(call_hook(sources, "build_sdist"), tmp_path / "unpacked")
    (unpacked,) = (tmp_path / "unpacked").iterdir()
    with zipfile.ZipFile(call_hook(unpacked, "build_wheel")) as wheel:
        names = wheel.namelist()
    assert {"spn/_native.py", "spn/py.typed"} <= set(names) and not any(
        "build_kernels" in name for name in names
    )


def test_the_reason_goes_into_the_wheel(sources, project):
    project.put_nvcc(release="0.1")
    toolkit = str(project.root / "cuda")
    with zipfile.ZipFile(call_hook(sources, "build_wheel", SPN_BUILD="auto", CUDA_HOME=toolkit)) as wheel:
        reason = wheel.read("spn/_cuda.left_out").decode()
    assert reason.startswith("not built: ")


def test_editable_without_kernels_leaves_none(sources):
    for name in ("_cpu.abi3.so", "_cuda.abi3.so", "_cuda.left_out"):
        (sources / "spn" / name).touch()
    call_hook(sources, "build_editable")
    assert not list((sources / "spn").glob("_c[pu]*.*o*"))
