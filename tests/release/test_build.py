"""Files left by earlier builds, and errors that stop a build in any mode."""

import pytest
from stand_ins import says, show_config_says

# ---- Files of an earlier build are removed ---------------------------------------------------------------------------


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


def test_a_build_outside_the_checkout_does_not_change_it(project):
    project.build()
    project.put_nvcc(release="12.6")
    project.build(inplace=False)
    assert project.files() == {"_cpu.abi3.so", "_cuda.abi3.so"}
    assert project.files("lib/spn") == {"_cpu.abi3.so", "_cuda.left_out"}


# ---- Errors in any mode ----------------------------------------------------------------------------------------------


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
