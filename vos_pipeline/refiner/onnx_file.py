"""A refiner as an ONNX file, which is checked and compared with torch before it is written."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from spn import SPNRefiner, onnx
from vos_pipeline.errors import PipelineError
from vos_pipeline.files import replacing

COMPARED = 1, 2, 50, 83  # pictures, objects, height, width
LARGEST_DIFFERENCE = 1e-4  # of scores in [0, 1]; roundings are a hundredth of it


@dataclass(frozen=True)
class OnnxFile:
    """What a file holds.

    Attributes:
        bytes: its size.
        opset: version of the operator set.
        inputs, outputs: names and shapes, such as "image (n, 3, h, w)".
        difference: the largest from torch's result; None if onnxruntime, which computes it, is not installed.
    """

    bytes: int
    opset: int
    inputs: list[str]
    outputs: list[str]
    difference: float | None


def export_onnx(
    refiner: SPNRefiner, file: Path, *, opset: int | None = None, overwrite: bool = False
) -> OnnxFile:
    """Write a refiner as an ONNX model, whole or not at all; see :func:`spn.onnx.export_refiner`.

    Args:
        refiner: in evaluation mode, on the CPU.
        file: to write; missing folders are made.
        opset: version of the operator set, None for the exporter's choice.
        overwrite: replace a model that an earlier call wrote, and no other file.

    Raises:
        PipelineError: the file exists and may not be replaced, a package is not installed, or the model's results are
            not those of torch.
    """
    try:
        onnx.translations()
    except ModuleNotFoundError as error:  # which says what to install
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
    """PipelineError where something is in the way."""
    if not os.path.lexists(file):
        return
    if not overwrite:
        raise PipelineError(f"{file}: exists: --overwrite replaces a model; or give another --onnx")
    if not _is_exported(file):
        raise PipelineError(f"{file}: is no model that export wrote: move it away, or give another --onnx")


def _is_exported(file: Path) -> bool:
    from onnx import load_model

    if file.is_symlink() or not file.is_file():
        return False
    try:
        model = load_model(file, load_external_data=False)
    except Exception:  # whatever else a file holds fails in any way
        return False
    return any(entry.key == onnx.METADATA_KEY for entry in model.metadata_props)


@torch.no_grad()
def _difference(refiner: SPNRefiner, content: bytes) -> float | None:
    """The largest difference from torch's masks, at a size that is not the export's; None without onnxruntime."""
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
