"""Command export: the written model, the messages, and the cases in which nothing is written."""

import sys

import pytest
import torch
from spn_cases import tiny_refiner

import spn
from vos_pipeline import __main__ as cli
from vos_pipeline import refiner

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    file = tmp_path_factory.mktemp("refiner") / "spn.safetensors"
    tiny_refiner().save_pretrained(file)
    return file


@pytest.fixture(scope="module")
def program(checkpoint):
    return spn.onnx.export_refiner(refiner.load_refiner(checkpoint))


@pytest.fixture
def export(checkpoint, program, monkeypatch, tmp_path):
    """Arguments of the command. All tests share one export, because it takes seconds."""
    monkeypatch.setattr(spn.onnx, "export_refiner", lambda *_, **options: program)
    return ["export", "--refiner", str(checkpoint), "--onnx", str(tmp_path / "model.onnx")]


def test_the_model_reproduces_the_masks_of_torch(export, checkpoint, tmp_path, capsys):
    assert cli.main(export) == 0
    (file,) = tmp_path.iterdir()
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"model     {file} ({file.stat().st_size / 1e6:.1f} MB, opset {opset_of(file)})"
    assert lines[1:3] == [
        "inputs    image (n, 3, h, w), coarse (n, k, h, w)",
        "outputs   refined (n, k, h, w)",
    ]
    assert lines[3].startswith("compared  with torch: masks differ by at most ")
    own = refiner.load_refiner(checkpoint)
    own.windows = False
    image, coarse = torch.rand(2, 3, 30, 20), torch.rand(2, 1, 30, 20)
    (refined,) = onnxruntime.InferenceSession(file).run(
        None, {"image": image.numpy(), "coarse": coarse.numpy()}
    )
    with torch.no_grad():
        torch.testing.assert_close(torch.from_numpy(refined), own(image, coarse), rtol=0, atol=1e-5)


def opset_of(file):
    return onnx.load(file).opset_import[0].version


def test_options_reach_the_exporter(export, program, monkeypatch):
    seen = {}
    monkeypatch.setattr(spn.onnx, "export_refiner", lambda *_, **options: seen.update(options) or program)
    assert cli.main([*export, "--opset", "19"]) == 0
    assert seen == {"opset_version": 19}


def test_overwrite_replaces_only_an_exported_model(export, fails, tmp_path):
    file = tmp_path / "model.onnx"
    foreign = onnx.helper.make_model(onnx.helper.make_graph([], "none", [], []))
    for content in (b"mine", foreign.SerializeToString()):
        file.write_bytes(content)
        assert (
            fails(export) == f"error: {file}: exists: use --overwrite to replace it, or choose another --onnx"
        )
        assert f"{file}: was not written by export" in fails([*export, "--overwrite"])
        assert file.read_bytes() == content
    file.unlink()
    assert cli.main(export) == 0
    written = file.read_bytes()
    assert "exists: use --overwrite" in fails(export)
    assert cli.main([*export, "--overwrite"]) == 0
    assert file.read_bytes() == written and list(tmp_path.iterdir()) == [file]


def test_a_missing_package_is_named(export, fails, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    message = "onnxscript is not installed; ONNX export requires it: pip install 'spatial-propagation[onnx]'"
    assert message in fails(export)
    assert not list(tmp_path.iterdir())


def test_without_onnxruntime_nothing_is_compared(export, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert cli.main(export) == 0
    assert "not compared with torch: onnxruntime is not installed" in capsys.readouterr().out


def test_a_model_with_other_masks_is_not_written(export, fails, monkeypatch, tmp_path):
    other = tiny_refiner().eval()
    with torch.no_grad():
        other.propagation.slope.add_(1)
    monkeypatch.setattr(refiner, "load_refiner", lambda name: other)
    assert f"{tmp_path}/model.onnx: is not written: its masks differ from torch's by" in fails(export)
    assert not list(tmp_path.iterdir())
