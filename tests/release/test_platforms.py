"""Builds per platform: instruction sets of the kernels, compiler flags, and Windows, where no kernels are built."""

import platform

import pytest
from stand_ins import build_kernels, show_config_says

BASELINE = ["csrc/cpu/baseline.cpp", "csrc/cpu/propagate.cpp"]
X86 = ["csrc/cpu/baseline.cpp", "csrc/cpu/avx2.cpp", "csrc/cpu/avx512.cpp", "csrc/cpu/propagate.cpp"]


def machine_is(monkeypatch, system, machine):
    monkeypatch.setattr(platform, "system", lambda: system)
    monkeypatch.setattr(platform, "machine", lambda: machine)


@pytest.mark.parametrize(
    ("system", "machine", "sources", "linker"),
    [
        ("Linux", "x86_64", X86, ["-Wl,--strip-debug"]),
        ("Linux", "aarch64", BASELINE, ["-Wl,--strip-debug"]),
        ("Darwin", "arm64", BASELINE, []),
    ],
)
def test_cpu_kernels(project, monkeypatch, system, machine, sources, linker):
    machine_is(monkeypatch, system, machine)
    extension = build_kernels.cpu_extension()
    assert extension.sources == sources
    assert ("-DSPN_X86" in extension.extra_compile_args["cxx"]) == (sources == X86)
    assert [option for option in extension.extra_link_args if option.startswith("-Wl")] == linker


def test_warnings_of_one_compiler_do_not_disturb_the_other():
    """Clang warns about unknown "-Wno-" flags unless -Wno-unknown-warning-option comes first."""
    warnings = [flag for flag in build_kernels.CPU_FLAGS if flag.startswith("-W")]
    assert warnings[0] == "-Wno-unknown-warning-option"
    assert all(flag.startswith("-Wno-") for flag in warnings)


# ---- Windows ---------------------------------------------------------------------------------------------------------


def test_windows_continues_without_kernels(project, monkeypatch, capfd):
    project.build()
    machine_is(monkeypatch, "Windows", "AMD64")
    capfd.readouterr()
    project.build()
    assert capfd.readouterr().out.startswith("CPU and CUDA kernels not built: MSVC does not compile them\n")
    assert project.files() == set()
    assert show_config_says().startswith("CUDA kernels no: there are no kernels for Windows; the PyTorch")


@pytest.mark.parametrize("mode", ["cpu", "cuda"])
def test_windows_stops_if_kernels_are_required(project, monkeypatch, mode):
    machine_is(monkeypatch, "Windows", "AMD64")
    monkeypatch.setenv("SPN_BUILD", mode)
    with pytest.raises(SystemExit) as stopped:
        project.build()
    assert str(stopped.value) == (
        f"SPN_BUILD={mode}: there are no kernels for Windows: MSVC does not compile them; set SPN_BUILD=none"
    )
