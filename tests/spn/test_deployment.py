"""The examples of docs/deployment.md: a separate process loads the written files and computes the same results."""

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
    pytest.mark.skipif(not PAGE.exists(), reason="an installed package has no documentation pages"),
    pytest.mark.skipif(not _ops.CPU.loaded, reason=f"CPU kernels: {_ops.CPU.reason}"),
]

BLOCKS = (
    re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.DOTALL | re.MULTILINE) if PAGE.exists() else []
)
LOADING = [block for block in BLOCKS if "refined = " in block or "(refined,)" in block]
WRITING = [block for block in BLOCKS if block not in LOADING]
# Images, objects, height, width; all differ from the sizes that the page exports with.
CASES = [(3, 2, 45, 83), (1, 1, 7, 9), (1, 4, 100, 3)]

# Runs a block for the first case, and only its last line for the other cases.
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
    """A folder in which the blocks of the page that write files ran in order."""
    pytest.importorskip("onnxruntime")
    folder, before = tmp_path_factory.mktemp("deployed"), Path.cwd()
    os.chdir(folder)
    try:
        names = {}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # tracing warns about checks that it does not record
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


def test_the_page_has_examples():
    assert len(LOADING) == 5 and len(WRITING) == 5


@pytest.mark.parametrize("block", LOADING, ids=["onnx", "export", "aoti", "aoti without spn", "trace"])
def test_loaded_in_another_process(block, folder, expected):
    (folder / "block.py").write_text(block)
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    finished = subprocess.run(
        [sys.executable, "-c", LOADER], cwd=folder, env=environment, capture_output=True, text=True
    )
    assert finished.returncode == 0, finished.stderr
    for number, wanted in enumerate(expected):
        refined = torch.load(folder / f"refined{number}.pt")
        torch.testing.assert_close(refined, wanted, rtol=0, atol=1e-5)
