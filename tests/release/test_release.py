"""The release as users install it: the sdist, the wheel built from it, and that wheel with an older torch.

    make release-check

This takes minutes, because it compiles the kernels again and installs torch into a separate environment. RELEASE_TORCH
names that torch.
"""

import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

import spn

ROOT = Path(__file__).parents[2]
TORCH = os.environ.get("RELEASE_TORCH", "torch==2.13.0")
# The tests of the interface to torch: registration, autograd, autocast, compilation, export, vmap, dtypes, memory
# layouts. Another version of torch does not change the arithmetic of the kernels, so tests of options and sizes are
# skipped.
OPERATOR_TESTS = (
    "test_library.py",
    "test_compile.py",
    "test_func.py",
    "test_modules.py",
    "test_propagate.py",
    "test_purity.py",
    "test_onnx.py",
)
ARITHMETIC = (
    *("Cardinality", "combination", "over_1024", "boundaries", "long_columns", "many_channels"),
    *("gradcheck", "threads", "equals_the_function"),
)
# -O1 halves the compile time and gives the same arithmetic. The build for the other tests is fully optimised.
COMPILER = """#!/bin/sh
exec {compiler} "$@" -O1
"""

pytestmark = pytest.mark.release


def run(*command, cwd, **variables):
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | variables
    finished = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True)
    assert finished.returncode == 0, finished.stdout[-6000:] + finished.stderr[-6000:]
    return finished.stdout


def tracked(*folders):
    return set(run("git", "ls-files", *folders, cwd=ROOT).split())


@pytest.fixture(scope="module")
def distributions(tmp_path_factory):
    """The sdist and the wheel. `build` builds the wheel from the sdist, so files missing in the sdist fail here."""
    sources = tmp_path_factory.mktemp("sources")
    for name in tracked():
        (sources / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, sources / name)
    tools = str(Path(sys.executable).parent) + os.pathsep + os.environ["PATH"]  # ninja
    compiler = tmp_path_factory.mktemp("compiler") / "c++"
    compiler.write_text(COMPILER.format(compiler=os.environ.get("CXX", "c++")))
    compiler.chmod(0o755)
    build = (sys.executable, "-m", "build", "--no-isolation", ".")
    run(*build, cwd=sources, SPN_BUILD="cpu", PATH=tools, CXX=str(compiler))
    (sdist,) = (sources / "dist").glob("*.tar.gz")
    (wheel,) = (sources / "dist").glob("*.whl")
    for file in (sdist, wheel):
        print(f"{file.name}: {file.stat().st_size / 1e6:.2f} MB")
    return sdist, wheel


def test_the_sdist_contains_the_source_tree(distributions):
    with tarfile.open(distributions[0]) as archive:
        held = {name.partition("/")[2] for name in archive.getnames()}
    assert tracked() - held == {".gitignore", *tracked(".github")}


def test_the_wheel_name_allows_every_python(distributions):
    version = re.escape(spn.__version__)
    assert re.fullmatch(rf"spatial_propagation-{version}-cp310-abi3-\w+\.whl", distributions[1].name)


def test_the_wheel_contains_only_the_packages(distributions):
    with zipfile.ZipFile(distributions[1]) as archive:
        held = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert held - tracked("spn", "vos_pipeline") == {"spn/_cpu.abi3.so"}
    assert tracked("spn", "vos_pipeline") - held == set()


def test_the_wheel_with_an_older_torch(distributions, tmp_path):
    run(sys.executable, "-m", "venv", "environment", cwd=tmp_path)
    python = str(tmp_path / "environment" / "bin" / "python")
    tools = ("pytest", "pytest-xdist", "hypothesis", "numpy", "onnx", "onnxruntime", "onnxscript")
    install = ("-m", "pip", "install", "--quiet", "--no-compile")
    run(python, *install, TORCH, *tools, str(distributions[1]), cwd=tmp_path)

    tests = tmp_path / "tests"
    shutil.copytree(ROOT / "tests" / "spn", tests, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "tests" / "conftest.py", tests)
    where = run(python, "-c", "import spn; print(spn.__file__); print(spn.show_config())", cwd=tests)
    print(where)
    assert where.startswith(str(tmp_path / "environment"))
    assert "CPU kernels  _cpu.abi3.so" in where
    ran = run(
        python, "-m", "pytest", "-q", "-n", "auto", "-p", "no:cacheprovider", "--hypothesis-profile", "few",
        "-k", f"not ({' or '.join(ARITHMETIC)})", *OPERATOR_TESTS, cwd=tests, OMP_NUM_THREADS="1",
    )  # fmt: skip
    print(ran.splitlines()[-1])
