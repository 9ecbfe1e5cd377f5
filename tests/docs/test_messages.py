"""Every error that the installation page quotes is raised by the code, word for word."""

import os
import platform
import re
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch

import spn
from spn import _native, _ops
from vos_pipeline.__main__ import main
from vos_pipeline.errors import PipelineError
from vos_pipeline.output_folder import OutputFolder
from vos_pipeline.pipeline import RunFolder
from vos_pipeline.settings import get_preset

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "install.md").read_text()
QUOTED = re.findall(r"```\{code-block\} text\n:class: error\n(.*?)\n```", PAGE, re.DOTALL)


# ---- Building: setup.py with a missing torch, or with a torch without CUDA ----------------------------------

# Python imports this before setup.py.
ON_WINDOWS = {"sitecustomize.py": "import platform\nplatform.system = lambda: 'Windows'\n"}
NO_TORCH = {"torch/__init__.py": "raise ModuleNotFoundError(\"No module named 'torch'\")"}
CPP_EXTENSION = """
from setuptools import Extension
from setuptools.command.build_ext import build_ext as BuildExtension

CUDA_HOME = {home!r}

def get_cxx_compiler():
    return {compiler!r}

def CppExtension(name, *sources, **options):
    extension = Extension(name, [])
    extension.extra_compile_args = options["extra_compile_args"]
    return extension

CUDAExtension = CppExtension

def _get_cuda_arch_flags():
    return ["-gencode=arch=compute_100,code=sm_100"]
"""
NVCC = """#!/bin/sh
case "$1" in
--version) echo "Cuda compilation tools, release {release}, V1" ;;
--list-gpu-arch) echo compute_{known} ;;
*) echo "host_config.h:143:2: error: {refusal}"; exit 1 ;;
esac
"""
REFUSAL = "#error -- unsupported GNU version! gcc versions later than 15 are not supported!"


def fake_torch(cuda, home=None, version="2.13.0+cu130", compiler="sh"):
    return {
        "torch/__init__.py": f"__version__ = {version!r}\nfrom . import version\n",
        "torch/version.py": f"cuda = {cuda!r}\n",
        "torch/utils/__init__.py": "",
        "torch/utils/cpp_extension.py": CPP_EXTENSION.format(home=home, compiler=compiler),
    }


def fake_toolkit(release, known=100):
    return fake_torch("13.0", "TOOLKIT") | {
        "cuda/bin/nvcc": NVCC.format(release=release, known=known, refusal=REFUSAL)
    }


def setup_says(mode, files, **variables):
    def say(tmp_path, monkeypatch, capsys):
        for name, text in files.items():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(text.replace("TOOLKIT", str(tmp_path / "cuda")))
            (tmp_path / name).chmod(0o755)
        cleared = {"CC": "", "MAX_JOBS": "", "TORCH_CUDA_ARCH_LIST": ""}
        environment = {**os.environ, **cleared, "PYTHONPATH": str(tmp_path), "SPN_BUILD": mode, **variables}
        command = [sys.executable, "setup.py", "build_ext", "--build-lib", str(tmp_path / "lib")]
        finished = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
        assert finished.returncode != 0
        return finished.stderr.strip().splitlines()[-1].replace(str(tmp_path), "/opt")

    return say


# ---- Importing and running -----------------------------------------------------------------------------------


def warning_on(device, monkeypatch):
    monkeypatch.setattr(_ops, "_warned_devices", set())
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        _ops._warn_once(torch.device(device))
    return str(caught[0].message)


def no_kernels(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(_ops, "CPU", _native.load("absent"))
    return warning_on("cpu", monkeypatch)


def a_hidden_installation(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(_native, "hides_an_installation", lambda name: True)
    return _native.load("absent").reason


def no_kernels_for_windows(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(platform, "system", lambda: "Windows")
    return _native.load("absent").reason


def no_kernels_for_a_device(tmp_path, monkeypatch, capsys):
    return warning_on("meta", monkeypatch).partition(": ")[2].partition(". See")[0]


def no_code_for_this_gpu(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(_ops, "CUDA", _native.Library("_cuda.abi3.so", None))
    missing = "no kernel image is available for execution on the device"
    monkeypatch.setattr(torch.ops.spn, "cuda_missing_code", lambda index: missing)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda index: (6, 1))
    return _ops.why_reference(torch.device("cuda", 0))


def library_says(name, version, cuda):
    """Load a kernel library that exists but does not match the installed torch."""

    def say(tmp_path, monkeypatch, capsys):
        (tmp_path / f"_{name}.abi3.so").touch()
        monkeypatch.setattr(_native, "__file__", str(tmp_path / "_native.py"))
        monkeypatch.setattr(torch, "__version__", version)
        monkeypatch.setattr(torch.version, "cuda", cuda)
        return _native.load(name).reason

    return say


def call_says(call):
    def say(tmp_path, monkeypatch, capsys):
        with pytest.raises((TypeError, ValueError, PipelineError)) as caught:
            call()
        return str(caught.value)

    return say


def zeros(*shape, dtype=torch.float32):
    return torch.zeros(shape, dtype=dtype)


# ---- The command line ----------------------------------------------------------------------------------------


def command_says(arguments):
    def say(tmp_path, monkeypatch, capsys):
        (tmp_path / "out").mkdir()
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
        assert main(arguments.split()) == 1
        return capsys.readouterr().err.strip()

    return say


def pipeline_says(call):
    def say(tmp_path, monkeypatch, capsys):
        monkeypatch.chdir(tmp_path)
        Path("out").mkdir()
        with pytest.raises(PipelineError) as caught:
            call()
        return f"error: {caught.value}"

    return say


def another_run():
    folder = OutputFolder("out")
    folder.claim()
    folder.identify("preset", "another")
    RunFolder(Path("out")).open(get_preset("demo"), [], [])


# In the order of the page.
SAID = [
    setup_says("gpu", {}),
    setup_says("auto", {}, MAX_JOBS="many"),
    setup_says("cpu", ON_WINDOWS),
    setup_says("cpu", NO_TORCH),
    setup_says("auto", fake_torch("13.0", compiler="no-such-c++")),
    setup_says("cuda", fake_torch(None, version="2.13.0+cpu")),
    setup_says("cuda", fake_torch("13.0")),
    setup_says("cuda", fake_toolkit("12.6")),
    setup_says("cuda", fake_toolkit("13.0", known=90), TORCH_CUDA_ARCH_LIST="6.1"),
    setup_says("cuda", fake_toolkit("13.0"), CC="gcc-16"),
    no_kernels,
    a_hidden_installation,
    no_kernels_for_windows,
    library_says("cpu", "2.10.1", None),
    library_says("cuda", "2.13.0+cpu", None),
    no_code_for_this_gpu,
    no_kernels_for_a_device,
    call_says(lambda: spn.propagate_four_way(zeros(2, 1, 32, 32), zeros(2, 12, 32, 32))),
    call_says(lambda: spn.propagate_four_way(zeros(1, 8, 4, 4), zeros(1, 4, 3, 3, 4, 4))),
    call_says(
        lambda: spn.propagate_four_way(zeros(1, 1, 4, 4), zeros(1, 4, 3, 1, 4, 4, dtype=torch.float16))
    ),
    call_says(lambda: spn.propagate_four_way(zeros(1, 1, 4, 4, dtype=torch.uint8), zeros(1, 4, 3, 1, 4, 4))),
    call_says(
        lambda: spn.SPNRefiner(spn.LiteGuidance((1, 1, 1, 1)))(zeros(1, 3, 480, 854), zeros(1, 1, 60, 107))
    ),
    call_says(lambda: spn.SPNRefiner.from_pretrained("large")),
    call_says(lambda: get_preset("large")),
    command_says("refine --frames f --masks m --out out --device cuda"),
    command_says("davis --data out --out results"),
    pipeline_says(another_run),
]


def test_each_quoted_message_has_a_cause_here():
    assert len(QUOTED) == len(SAID)


@pytest.mark.parametrize(("quoted", "said"), list(zip(QUOTED, SAID, strict=False)))
def test_message(quoted, said, tmp_path, monkeypatch, capsys):
    assert said(tmp_path, monkeypatch, capsys) == quoted
