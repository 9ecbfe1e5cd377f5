r"""Export to ONNX: models that use this package as standard ONNX, which runs without torch.

Every call of :func:`spn.propagate` or :func:`spn.propagate_four_way` becomes nodes that prepare the whole map, and one
``Scan`` per direction, whose body is the recurrence for one line. All operators are of the domain ``ai.onnx``, so any
runtime that has ``Scan`` runs the model. Exported models have no backward pass.

The packages onnx and onnxscript are imported when a function of this module is called, not before.
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

METADATA_KEY = "spatial-propagation"  # of exported refiners; its value is the version of this package
# Pictures, objects, height, width. All differ, and none is 1, which torch.export would take as fixed.
EXAMPLE = 2, 3, 45, 67


def translations() -> dict[Callable[..., Any], Callable[..., Any]]:
    """The ONNX translations of this package's operators.

    Returns:
        A new dictionary for the argument ``custom_translation_table`` of :func:`torch.onnx.export`. Add entries for
        operators of your own.

    Raises:
        ModuleNotFoundError: onnx or onnxscript is not installed.

    Note:
        The running state is float32 (float64 for float64 input), as in the kernels. Sizes may be dynamic.

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
    """Exports a refiner to ONNX: whole frames, for any number of pictures and objects and any size.

    The model's inputs are ``image`` (n, 3, h, w) and ``coarse`` (n, k, h, w), float32 in [0, 1]; its output is
    ``refined`` (n, k, h, w). The weights are part of the model. It computes what ``refiner.windows = False`` computes,
    and does not check the range of its inputs.

    Args:
        refiner: in evaluation mode, without ``tile``.
        file: path to write, or None to write nothing. A file that is there is replaced.
        opset_version: version of the operator set, 18 to 23; None takes :func:`torch.onnx.export`'s default.

    Returns:
        What :func:`torch.onnx.export` returns.

    Raises:
        ModuleNotFoundError: onnx or onnxscript is not installed.
        TypeError: refiner is none.
        ValueError: the refiner is in training mode or works in tiles, or opset_version is another.

    Note:
        Takes about ten seconds. The model's cost: :doc:`deployment`.

    Example:
        >>> refiner = SPNRefiner.from_pretrained("lite")
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
        # Both inputs share n, h and w, which torch remarks on.
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
    assert program is not None  # torch says None for its older exporter alone
    program.model.metadata_props[METADATA_KEY] = __version__
    if file is not None:
        program.save(file, external_data=False)
    return program


def _require(*packages: str) -> None:
    """ModuleNotFoundError that says what to install, if one of them is missing."""
    for package in packages:
        try:
            __import__(package)
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError(
                f"{error.name} is not installed: pip install 'spatial-propagation[onnx]' brings what ONNX export needs",
                name=error.name,
            ) from error
