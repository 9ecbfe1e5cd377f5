"""The examples of docs/deployment.md: what this process writes, a process of its own loads and computes the same."""

import os
import re
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch

import spn
from spn import _ops

ROOT = Path(spn.__file__).parents[1]
PAGE = ROOT / "docs" / "deployment.md"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not PAGE.exists(), reason="beside an installed package there are no pages"),
    pytest.mark.skipif(not _ops.CPU.loaded, reason=f"CPU kernels: {_ops.CPU.reason}"),
]

BLOCKS = (
    re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.DOTALL | re.MULTILINE) if PAGE.exists() else []
)
LOADING = [block for block in BLOCKS if "refined = " in block or "(refined,)" in block]
WRITING = [block for block in BLOCKS if block not in LOADING]
# Pictures, objects, height, width; none is of a size that the page exports at.
CASES = [(3, 2, 45, 83), (1, 1, 7, 9), (1, 4, 100, 3)]

# Runs a block for the first case, and its last line for the others.
LOADER = """
import sys, torch
block = open("block.py").read()
for number, (image, coarse) in enumerate(torch.load("inputs.pt")):
    if "onnxruntime" in block:
        image, coarse = image.numpy(), coarse.numpy()
    names = {"image": image, "coarse": coarse} if number == 0 else names | {"image": image, "coarse": coarse}
    with torch.no_grad():
        exec(block if number == 0 else block.strip().splitlines()[-1], names)
    torch.save(torch.as_tensor(names["refined"]), f"refined{number}.pt")
assert ("spn" in sys.modules) == ("import spn" in block)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder in which the page's writing blocks ran, one after the other."""
    pytest.importorskip("onnxruntime")
    folder, before = tmp_path_factory.mktemp("deployed"), Path.cwd()
    os.chdir(folder)
    try:
        names = {}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of tracing, about checks that it does not record
            for block in WRITING:
                exec(block, names)
    finally:
        os.chdir(before)
    shutil.copy(ROOT / "spn" / _ops.CPU.file, folder)
    inputs = [(torch.rand(n, 3, h, w), (2 * torch.randn(n, k, h, w)).clamp(0, 1)) for n, k, h, w in CASES]
    torch.save(inputs, folder / "inputs.pt")
    return folder


@pytest.fixture(scope="module")
def expected(folder):
    refiner = spn.SPNRefiner.from_pretrained("lite")
    refiner.windows = False
    with torch.no_grad():
        return [refiner(*inputs) for inputs in torch.load(folder / "inputs.pt")]


def test_there_is_something_to_run():
    assert len(LOADING) == 5 and len(WRITING) == 5


@pytest.mark.parametrize("block", LOADING, ids=["onnx", "export", "aoti", "aoti without spn", "trace"])
def test_loaded_elsewhere(block, folder, expected):
    (folder / "block.py").write_text(block)
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    finished = subprocess.run(
        [sys.executable, "-c", LOADER], cwd=folder, env=environment, capture_output=True, text=True
    )
    assert finished.returncode == 0, finished.stderr
    for number, wanted in enumerate(expected):
        refined = torch.load(folder / f"refined{number}.pt")
        torch.testing.assert_close(refined, wanted, rtol=0, atol=1e-5)
