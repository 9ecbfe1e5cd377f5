"""Export a refiner to an ONNX file, which is checked and compared with PyTorch before it is written."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from spn import SPNRefiner, onnx
from vos_pipeline.errors import PipelineError
from vos_pipeline.files import replacing

COMPARED = 1, 2, 50, 83  # images, objects, height, width
LARGEST_DIFFERENCE = 1e-4  # of scores in [0, 1]; rounding errors are a hundredth of it


@dataclass(frozen=True)
class OnnxFile:
    """Properties of an exported ONNX file.

    Attributes:
        bytes: file size.
        opset: version of the operator set.
        inputs, outputs: names and shapes, such as "image (n, 3, h, w)".
        difference: largest difference from PyTorch's result, or None if onnxruntime is not installed.
    """

    bytes: int
    opset: int
    inputs: list[str]
    outputs: list[str]
    difference: float | None


def export_onnx(
    refiner: SPNRefiner, file: Path, *, opset: int | None = None, overwrite: bool = False
) -> OnnxFile:
    """Write a refiner as an ONNX model, completely or not at all; see :func:`spn.onnx.export_refiner`.

    Args:
        refiner: in evaluation mode, on the CPU.
        file: output file. Missing folders are created.
        opset: version of the operator set, or None for the exporter's default.
        overwrite: replace a model that an earlier call wrote, but no other file.

    Raises:
        PipelineError: the file exists and must not be replaced, a package is not installed, or the results of the
            model differ from PyTorch's.
    """
    try:
        onnx.translations()
    except ModuleNotFoundError as error:  # its message says what to install
        raise PipelineError(error) from error
    from onnx.checker import check_model

    _check_place(file, overwrite)
    model = onnx.export_refiner(refiner, opset_version=opset).model_proto
    check_model(model, full_check=True)
    content = model.SerializeToString()
    difference = _difference(refiner, content)
    if difference is not None and not difference <= LARGEST_DIFFERENCE:
        raise PipelineError(
            f"{file}: is not written: its masks differ from torch's by {difference:.2g}, more than {LARGEST_DIFFERENCE}"
        )
    with replacing(file) as stream:
        stream.write(content)
    return OnnxFile(
        bytes=len(content),
        opset=model.opset_import[0].version,
        inputs=[_described(value) for value in model.graph.input],
        outputs=[_described(value) for value in model.graph.output],
        difference=difference,
    )


def _check_place(file: Path, overwrite: bool) -> None:
    """Raise PipelineError if ``file`` exists and must not be replaced."""
    if not os.path.lexists(file):
        return
    if not overwrite:
        raise PipelineError(f"{file}: exists: use --overwrite to replace it, or choose another --onnx")
    if not _is_exported(file):
        raise PipelineError(f"{file}: was not written by export: move it away, or use another --onnx")


def _is_exported(file: Path) -> bool:
    from onnx import load_model

    if file.is_symlink() or not file.is_file():
        return False
    try:
        model = load_model(file, load_external_data=False)
    except Exception:  # other files can fail in many ways
        return False
    return any(entry.key == onnx.METADATA_KEY for entry in model.metadata_props)


@torch.no_grad()
def _difference(refiner: SPNRefiner, content: bytes) -> float | None:
    """Return the largest difference from PyTorch's masks at a size not used for export; None without onnxruntime."""
    try:
        import onnxruntime
    except ModuleNotFoundError:
        return None
    pictures, objects, height, width = COMPARED
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(pictures, 3, height, width, generator=generator)
    coarse = (2 * torch.randn(pictures, objects, height, width, generator=generator)).clamp(0, 1)
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    (refined,) = session.run(None, {"image": image.numpy(), "coarse": coarse.numpy()})
    windows, refiner.windows = refiner.windows, False
    expected = refiner(image, coarse)
    refiner.windows = windows
    return float((torch.from_numpy(refined) - expected).abs().max())


def _described(value: Any) -> str:
    sizes = (dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim)
    return f"{value.name} ({', '.join(map(str, sizes))})"
