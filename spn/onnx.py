r"""Export models that use this package to standard ONNX, which runs without torch.

Every call of :func:`spn.propagate` or :func:`spn.propagate_four_way` becomes nodes that prepare the whole map and one
``Scan`` node per direction, whose body computes the recurrence for one line. All operators belong to the domain
``ai.onnx``, so any runtime that supports ``Scan`` can run the model. Exported models have no backward pass.

This module imports the packages onnx and onnxscript only when one of its functions is called.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from typing import Any

import torch

from . import _onnx
from ._version import __version__
from .refiner import SPNRefiner

__all__ = ["export_refiner", "translations"]

METADATA_KEY = "spatial-propagation"  # metadata of exported refiners: the version of this package
# Images, objects, height, width. All differ, and none is 1, because torch.export treats a size of 1 as fixed.
EXAMPLE = 2, 3, 45, 67


def translations() -> dict[Callable[..., Any], Callable[..., Any]]:
    """Return the ONNX translations of this package's operators.

    Returns:
        A new dictionary for the argument ``custom_translation_table`` of :func:`torch.onnx.export`. You can add
        entries for your own operators.

    Raises:
        ModuleNotFoundError: onnx or onnxscript is not installed.

    Note:
        The running state is float32 (float64 for float64 input), as in the kernels. Dynamic sizes are supported.

    Example:
        >>> import torch, spn
        >>> layer = spn.Propagate("left_to_right", normalize="abs").eval()
        >>> inputs = torch.rand(1, 4, 8, 9), torch.randn(1, 3, 2, 8, 9)
        >>> table = spn.onnx.translations()
        >>> program = torch.onnx.export(layer, inputs, dynamo=True, verbose=False, custom_translation_table=table)
        >>> [node.op_type for node in program.model.graph].count("Scan")
        1
    """
    _require("onnx", "onnxscript")
    return {torch.ops.spn.propagate.default: _onnx.propagate}


def export_refiner(
    refiner: SPNRefiner,
    file: str | os.PathLike[str] | None = None,
    *,
    opset_version: int | None = None,
) -> torch.onnx.ONNXProgram:
    """Export a refiner to ONNX, for any number of images and objects and for any size.

    The inputs of the model are ``image`` (n, 3, h, w) and ``coarse`` (n, k, h, w), float32 in [0, 1]; its output is
    ``refined`` (n, k, h, w). The model contains the weights. It processes whole frames, as the refiner does with
    ``refiner.windows = False``, and does not check the range of its inputs.

    Args:
        refiner: refiner in evaluation mode, without ``tile``.
        file: path to write, or None to write nothing. An existing file is replaced.
        opset_version: version of the operator set, 18 to 23; None uses the default of :func:`torch.onnx.export`.

    Returns:
        The program that :func:`torch.onnx.export` returns.

    Raises:
        ModuleNotFoundError: onnx or onnxscript is not installed.
        TypeError: refiner is not an SPNRefiner.
        ValueError: the refiner is in training mode or uses tiles, or opset_version is out of range.

    Note:
        The export takes about ten seconds. For the runtime of the model, see :doc:`deployment`.

    Example:
        >>> import spn
        >>> refiner = spn.SPNRefiner.from_pretrained("lite")
        >>> program = spn.onnx.export_refiner(refiner)
        >>> [value.name for value in program.model.graph.inputs]
        ['image', 'coarse']
    """
    _require("onnx", "onnxscript")
    if not isinstance(refiner, SPNRefiner):
        raise TypeError(f"refiner must be an SPNRefiner, got {type(refiner).__name__}")
    if opset_version is not None and not 18 <= opset_version <= 23:
        raise ValueError(f"opset_version must be 18 to 23, or None, got {opset_version}")
    if refiner.training:
        raise ValueError("refiner must be in evaluation mode, got one in training mode: call refiner.eval()")
    if refiner.tile is not None:
        raise ValueError(f"refiner must have tile=None to take any size, got tile={refiner.tile}")
    pictures, objects, height, width = EXAMPLE
    device = next(refiner.parameters()).device
    example = (
        torch.rand(pictures, 3, height, width, device=device),
        torch.rand(pictures, objects, height, width, device=device),
    )
    n, k, h, w = (torch.export.Dim(name) for name in "nkhw")
    with torch.no_grad(), warnings.catch_warnings():
        # torch warns that both inputs share n, h and w.
        warnings.filterwarnings("ignore", ".*The axis name: . will not be used", UserWarning)
        program = torch.onnx.export(
            refiner,
            example,
            dynamo=True,
            verbose=False,
            input_names=["image", "coarse"],
            output_names=["refined"],
            dynamic_shapes=({0: n, 2: h, 3: w}, {0: n, 1: k, 2: h, 3: w}),
            opset_version=opset_version,
            custom_translation_table=translations(),
        )
    assert program is not None  # torch returns None only from its older exporter
    program.model.metadata_props[METADATA_KEY] = __version__
    if file is not None:
        program.save(file, external_data=False)
    return program


def _require(*packages: str) -> None:
    """Raise a ModuleNotFoundError that names the command to run if a package is missing."""
    for package in packages:
        try:
            __import__(package)
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError(
                f"{error.name} is not installed; ONNX export requires it: pip install 'spatial-propagation[onnx]'",
                name=error.name,
            ) from error
