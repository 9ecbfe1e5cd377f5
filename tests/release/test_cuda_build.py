"""Builds in which some or all CUDA kernels cannot be built: what is built, and the message that says why."""

from pathlib import Path

import pytest
import torch
from stand_ins import ALL, says, show_config_says
from torch.utils import cpp_extension

pytestmark = pytest.mark.slow

TORCH = torch.__version__

# ---- Builds without CUDA kernels -------------------------------------------------------------------------------------

UNSUPPORTED = "host_config.h:139:2: error: #error -- unsupported GNU version!"
NO_HEADER = "cc1plus: fatal error: cuda_runtime.h: No such file or directory"
EMPTY_KERNEL = "nvcc 13.0 with its default host compiler cannot compile an empty kernel (set CC or CUDA_HOME)"


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
    nvcc_says_nothing: "ROOT/cuda/bin/nvcc --version prints no release number (set CUDA_HOME)",
    older_toolkit: f"nvcc 12.6 belongs to CUDA 12, but torch {TORCH} was built for CUDA 13 (set CUDA_HOME to a CUDA "
    "13 toolkit)",
    newer_toolkit: f"nvcc 13.0 belongs to CUDA 13, but torch {TORCH} was built for CUDA 12 (set CUDA_HOME to a CUDA "
    "12 toolkit)",
    no_common_architecture: "nvcc 13.0 supports no architecture in 6.0 7.0+PTX (set TORCH_CUDA_ARCH_LIST)",
    unknown_architecture: "torch does not recognise TORCH_CUDA_ARCH_LIST='9.0;nine' (ValueError: ",
    host_compiler_refused: f"{EMPTY_KERNEL}: {UNSUPPORTED}",
    chosen_host_compiler_refused: f"nvcc 13.0 with gcc-99 cannot compile an empty kernel (set CC or CUDA_HOME): "
    f"{UNSUPPORTED}",
    host_compiler_refused_by_torch: "RuntimeError: The current installed version of ",
    no_headers: f"{EMPTY_KERNEL}: {NO_HEADER}",
    crash_without_a_word: f"{EMPTY_KERNEL}: exit status 9",
    late_failure: (
        "RuntimeError: Error compiling objects",
        "CompileError: command ",
    ),  # with and without ninja
}
cases = pytest.mark.parametrize(("spoil", "reason"), CASES.items(), ids=lambda v: getattr(v, "__name__", ""))


def starts_with(text: str, reason, root: Path) -> bool:
    reasons = [reason] if isinstance(reason, str) else reason
    return any(text.startswith(r.replace("ROOT", str(root))) for r in reasons)


@cases
def test_auto_continues_without_cuda_kernels(project, monkeypatch, capfd, spoil, reason):
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
    assert show_config_says().startswith("CUDA kernels no: OSError"), "the stub is not a library"


@pytest.mark.parametrize("mode", ["auto", "cuda"])
def test_the_default_architectures_are_those_that_nvcc_knows(project, monkeypatch, capfd, mode):
    monkeypatch.setenv("SPN_BUILD", mode)
    monkeypatch.setattr(torch.version, "cuda", "12.8")
    project.put_nvcc(release="12.6", known="50 75 80 86 89 90")
    project.build()
    left_out = "built without sm_100, sm_120, which nvcc 12.6 does not support"
    assert says(capfd) == [f"CUDA kernels {left_out}"]
    assert "compute_90,code=compute_90" in project.architectures()
    assert not {"100", "120"} & {word.split("_")[1] for word in ",".join(project.architectures()).split(",")}
    assert project.files() == {"_cpu.abi3.so", "_cuda.abi3.so", "_cuda.left_out"}
    monkeypatch.setattr(torch.ops, "load_library", lambda path: None)
    assert show_config_says() == f"CUDA kernels _cuda.abi3.so, {left_out}"


def test_chosen_architectures(project, monkeypatch, capfd):
    monkeypatch.setenv("TORCH_CUDA_ARCH_LIST", "7.0;8.0+PTX 9.0a")
    project.build()
    assert says(capfd) == ["CUDA kernels built without sm_70, which nvcc 13.0 does not support"]
    assert project.architectures() == [
        "compute_80,code=compute_80", "compute_80,code=sm_80", "compute_90a,code=sm_90a",
    ]  # fmt: skip

    monkeypatch.setenv("TORCH_CUDA_ARCH_LIST", "7.0;8.0+PTX 9.0a")
    monkeypatch.setenv("SPN_BUILD", "cuda")
    with pytest.raises(SystemExit) as stopped:
        project.build()
    assert (
        str(stopped.value)
        == "SPN_BUILD=cuda: TORCH_CUDA_ARCH_LIST names sm_70, which nvcc 13.0 does not support"
    )
