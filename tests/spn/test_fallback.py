"""The package without kernels, or with kernels that cannot load: it works, warns once, and reports the reason."""

import json
import os
import platform
import re
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch
from operator_cases import Case, assert_close, gradients, needs_cpu_kernels

import spn
from spn import _native, _ops

PACKAGE = Path(spn.__file__).parent
TESTS = Path(__file__).parent

CASES = [
    Case((2, 4, 5, 18), 2, 0, "four_way", "abs", "max"),
    Case((1, 4, 18, 5), 4, 2, "four_way", "sigmoid", None),
    Case((2, 3, 7, 4), 1, 3, "right_to_left", "unit"),
]


def copy_of_package(root, libraries=False):
    """Copy the sources, with or without the compiled libraries."""
    left_out = ["__pycache__", "weights"] + ([] if libraries else ["*.so", "*.pyd"])
    shutil.copytree(PACKAGE, root / "spn", ignore=shutil.ignore_patterns(*left_out))
    return root


def python(root, *arguments, **variables):
    """Run Python with spn imported from `root`."""
    environment = {**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1", **variables}
    finished = subprocess.run(
        [sys.executable, *arguments], env=environment, cwd=root, capture_output=True, text=True
    )
    assert finished.returncode == 0, finished.stdout[-4000:] + finished.stderr[-4000:]
    return finished.stdout


SCRIPT = """
import json, sys, warnings
sys.path.insert(0, {tests!r})
import torch
{before_import}
with warnings.catch_warnings(record=True) as on_import:
    warnings.simplefilter("always")
    torch_alone = set(sys.modules)
    import spn
assert not [w for w in on_import if "spn" in str(w.message)], "importing spn must not warn"
assert not torch.cuda.is_initialized()
heavy = {{"torch._dynamo", "triton", "torchvision", "safetensors"}} & (set(sys.modules) - torch_alone)
assert not heavy, f"importing spn must not import {{heavy}}"
from operator_cases import Case, gradients
from test_fallback import CASES
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    results = [gradients(case, case.inputs(dtype)) for case in CASES for dtype in (torch.float32, torch.bfloat16)]
torch.save(results, "results.pt")
said = [(w.category.__name__, str(w.message)) for w in caught]
print(json.dumps(dict(file=spn.__file__, said=said, config=spn.show_config())))
"""


def report(root, before_import="", **variables):
    """Return the warnings and configuration of the package in `root`, and its results."""
    script = SCRIPT.format(tests=str(TESTS), before_import=before_import)
    answer = json.loads(python(root, "-c", script, **variables).splitlines()[-1])
    assert Path(answer["file"]).parent == Path(root) / "spn"
    return answer, torch.load(Path(root) / "results.pt")


def assert_results_are_right(results):
    wanted = [(case, dtype) for case in CASES for dtype in (torch.float32, torch.bfloat16)]
    for (case, dtype), (out, grads) in zip(wanted, results, strict=True):
        expected, expected_grads = gradients(case, case.inputs(dtype))
        assert out.dtype == dtype
        assert_close(out, expected, what=str(case))
        for actual, reference in zip(grads, expected_grads, strict=True):
            assert_close(actual, reference, what=f"{case} gradient")


def assert_says_why_once(answer, reason):
    (category, message), *others = answer["said"]
    assert not others
    assert category == "RuntimeWarning"
    found = re.fullmatch(
        r"spn runs its slow PyTorch reference on cpu: (.+)\. See spn\.show_config\(\)\.", message, re.S
    )
    assert found and re.match(reason, found[1]), message
    line = next(line for line in answer["config"].splitlines() if line.startswith("CPU kernels"))
    assert (
        re.match(rf"CPU kernels  no: {reason}", line)
        and "the PyTorch reference runs instead" in answer["config"]
    )
    assert "CPU capability" not in answer["config"]


@pytest.fixture(scope="module")
def without_libraries(tmp_path_factory):
    return copy_of_package(tmp_path_factory.mktemp("without_libraries"))


# ---- Reasons for missing kernels -------------------------------------------------------------------


@pytest.mark.slow
def test_not_built(without_libraries):
    answer, results = report(without_libraries)
    assert_says_why_once(answer, r"not built \(install with SPN_BUILD=auto, cpu or cuda\)")
    assert_results_are_right(results)


@pytest.mark.slow
@pytest.mark.parametrize("content", [b"", b"not a library at all" * 99])
def test_broken_library(tmp_path, content):
    root = copy_of_package(tmp_path)
    (root / "spn" / "_cpu.abi3.so").write_bytes(content)
    answer, results = report(root)
    assert_says_why_once(answer, r"OSError: .*_cpu\.abi3\.so")
    assert_results_are_right(results)


@pytest.mark.slow
@needs_cpu_kernels
def test_torch_too_old(tmp_path):
    root = copy_of_package(tmp_path, libraries=True)
    answer, results = report(root, before_import="torch.__version__ = '2.10.1+cpu'")
    assert_says_why_once(answer, r"requires torch >= 2\.11, found 2\.10\.1\+cpu")
    assert_results_are_right(results)


@pytest.mark.slow
@needs_cpu_kernels
@pytest.mark.parametrize(
    ("before_import", "reason"),
    [("", "OSError: .+"), ("torch.version.cuda = None", "torch .+ is not a CUDA build")],
)
def test_a_cuda_library_that_cannot_load_leaves_the_cpu_kernels_alone(tmp_path, before_import, reason):
    root = copy_of_package(tmp_path, libraries=True)
    for library in (root / "spn").glob("_cuda*"):
        library.unlink()
    (root / "spn" / "_cuda.abi3.so").write_bytes(b"not a library")
    if not before_import and torch.version.cuda is None:
        pytest.skip("this torch is no CUDA build")
    answer, results = report(root, before_import)
    assert answer["said"] == [] and "CPU kernels  _cpu" in answer["config"]
    assert re.search(rf"CUDA kernels no: {reason}; the PyTorch reference runs instead", answer["config"])
    assert_results_are_right(results)


# ---- A GPU for which the CUDA library contains no code -----------------------------------------------

OLD_GPU = "_cuda.abi3.so holds no code for sm_61 (no kernel image is available for execution on the device)"


@pytest.fixture
def gpus(monkeypatch):
    """Pretend that device 0 is too old and device 1 is not. The library itself may be missing, so it is not called."""
    says = {0: "no kernel image is available for execution on the device", 1: ""}
    monkeypatch.setattr(_ops, "CUDA", _native.Library("_cuda.abi3.so", None))
    monkeypatch.setattr(torch.ops.spn, "cuda_missing_code", says.__getitem__)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "Old GPU")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda index=0: [(6, 1), (9, 0)][index])
    monkeypatch.setattr(_ops, "_warned_devices", set())


def test_only_the_gpu_without_code_runs_the_reference(gpus):
    assert _ops.why_reference(torch.device("cuda")) == _ops.why_reference(torch.device("cuda", 0)) == OLD_GPU
    assert _ops.why_reference(torch.device("cuda", 1)) is None


def test_a_gpu_without_code_is_warned_about_once(gpus):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(3):
            _ops._warn_once(torch.device("cuda", 0))
    (warning,) = caught
    assert (
        str(warning.message)
        == f"spn runs its slow PyTorch reference on cuda: {OLD_GPU}. See spn.show_config()."
    )


def test_show_config_names_a_gpu_without_code(gpus, monkeypatch):
    lines = spn.show_config().splitlines()
    assert lines[4] == "CUDA kernels _cuda.abi3.so"
    assert lines[-1] == f"GPU          Old GPU (sm_61): the PyTorch reference runs, {OLD_GPU}"
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
    assert spn.show_config().splitlines()[-1] == "GPU          Old GPU (sm_61)"


@pytest.mark.parametrize("name", ["propagate", "propagate_backward"])
def test_the_cuda_library_calls_the_reference_by_an_operator(name):
    sources = PACKAGE.parent / "csrc" / "cuda" / "propagate.cu"
    if sources.exists():  # an installed package has no sources
        assert f'"spn::reference_{name}"' in sources.read_text()
    operator, reference = (getattr(torch.ops.spn, n).default._schema for n in (name, f"reference_{name}"))
    assert str(reference) == str(operator).replace("spn::", "spn::reference_")


def test_the_operators_of_the_reference():
    x, gates, source = Case((2, 4, 18, 5), 2, 1, "four_way", "abs", "max").inputs()
    options = ("four_way", "abs", "max")
    results = torch.ops.spn.reference_propagate(x, gates, source, *options, True, True)
    assert_close(results[0], torch.ops.spn.propagate(x, gates, source, *options, True, True)[0])
    inputs = (torch.ones_like(x), x, gates, source, *results[1:], *options, True, True, True)
    expected = torch.ops.spn.propagate_backward(*inputs)
    for actual, wanted in zip(torch.ops.spn.reference_propagate_backward(*inputs), expected, strict=True):
        assert_close(actual, wanted)


# ---- All other tests without kernels ---------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    ("files", "only"),
    [
        (["test_reference.py", "test_validation.py"], "not meta"),
        (["test_properties.py", "test_propagate.py"], "operator or many_channels or boundaries"),
        (
            ["test_library.py", "test_compile.py", "test_func.py", "test_purity.py"],
            "(opcheck_forward or compiled) and True or func_grad or grad_of_grad or never_written",
        ),
    ],
    ids=["specification", "properties", "library"],
)
def test_the_suite_passes_without_kernels(without_libraries, files, only):
    paths = [str(TESTS / file) for file in files]
    options = ["-q", "-p", "no:cacheprovider", "--hypothesis-profile", "few", "-k", only]
    printed = python(without_libraries, "-m", "pytest", *options, *paths)
    assert "spn runs its slow PyTorch reference on cpu: not built" in printed
    assert int(re.search(r"(\d+) passed", printed)[1]) > 20


def test_a_source_folder_that_hides_the_installed_package(without_libraries, tmp_path):
    installed = tmp_path / "spn"
    installed.mkdir()
    (installed / "_cpu.abi3.so").touch()
    paths = os.pathsep.join([str(without_libraries), str(tmp_path)])
    printed = python(without_libraries, "-c", "import spn; print(spn.show_config())", PYTHONPATH=paths)
    reason = "not built in the source folder, which hides the installed package: run Python in another folder"
    assert f"CPU kernels  no: {reason}; the PyTorch reference runs instead\n" in printed
    assert "CUDA kernels no: not built (install with SPN_BUILD=auto, cpu or cuda)" in printed


def test_a_path_that_cannot_be_searched_does_not_prevent_the_import(without_libraries, tmp_path):
    (tmp_path / "loop").symlink_to("loop")
    paths = os.pathsep.join([str(without_libraries), str(tmp_path / "loop")])
    printed = python(without_libraries, "-c", "import spn; print(spn.show_config())", PYTHONPATH=paths)
    assert "CPU kernels  no: not built (install with SPN_BUILD=auto, cpu or cuda)" in printed


# ---- show_config with kernels ----------------------------------------------------------------------


@needs_cpu_kernels
def test_show_config_names_versions_libraries_and_capability():
    config = spn.show_config()
    assert repr(config) == config, "a notebook displays the lines"
    lines = config.splitlines()
    assert lines[0] == f"spn          {spn.__version__}"
    assert lines[1] == f"torch        {torch.__version__} (CUDA {torch.version.cuda or 'none'})"
    assert lines[2] == f"python       {platform.python_version()}"
    assert lines[3] == "CPU kernels  _cpu.abi3.so"
    assert lines[4].startswith("CUDA kernels ")
    assert re.fullmatch(
        rf"CPU capability (baseline|avx2|avx512), {torch.get_num_threads()} threads", lines[5]
    )


def capabilities():
    """Return the instruction sets of this machine, as reported by torch."""
    best = torch.backends.cpu.get_cpu_capability()
    return {"AVX512": ["baseline", "avx2", "avx512"], "AVX2": ["baseline", "avx2"]}.get(best, ["baseline"])


@pytest.mark.slow
@needs_cpu_kernels
@pytest.mark.parametrize("capability", ["baseline", "avx2", "avx512"])
def test_every_instruction_set_gives_the_same_results(tmp_path, capability):
    if capability not in capabilities():
        pytest.skip(f"this machine has no {capability}")
    root = copy_of_package(tmp_path, libraries=True)
    answer, results = report(root, SPN_CPU_CAPABILITY=capability)
    assert answer["said"] == []
    assert f"CPU capability {capability}," in answer["config"]
    assert_results_are_right(results)


@pytest.mark.slow
@needs_cpu_kernels
@pytest.mark.parametrize("capability", ["baseline", "avx2"])
def test_every_instruction_set_equals_the_reference(capability):
    if capability not in capabilities():
        pytest.skip(f"this machine has no {capability}")
    tests = [
        str(TESTS / "test_propagate.py"),
        str(TESTS / "test_properties.py"),
        "-k",
        "equals_the_reference or bit",
    ]
    printed = python(
        PACKAGE.parent, "-m", "pytest", "-q", "-p", "no:cacheprovider", *tests, SPN_CPU_CAPABILITY=capability
    )
    assert re.search(r"\d+ passed", printed)
