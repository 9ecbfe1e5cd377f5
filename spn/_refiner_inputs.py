"""Validation of the refiner's inputs: shapes, dtypes and values near [0, 1]."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.modules import module as modules
from torch.utils import _python_dispatch

# Resampling overshoots [0, 1] by up to about 0.2. Values in [0, 255], images normalised by mean and standard
# deviation, and log-odds lie well outside these bounds.
LOWEST, HIGHEST = -0.5, 1.5
REMEDIES = {
    "image": "divide by 255, or skip the normalisation",
    "coarse": "pass logits=True for log-odds, or divide by 255",
}


def check_shapes(image: Tensor, coarse: Tensor) -> None:
    for name, value in (("image", image), ("coarse", coarse)):
        if not isinstance(value, Tensor):
            raise TypeError(f"{name} must be a torch.Tensor, got {type(value).__name__}")
        if not value.is_floating_point():
            raise TypeError(f"{name} must be floating point, in [0, 1], got {value.dtype}")
    if image.dim() != 4 or image.shape[1] != 3:
        raise ValueError(f"image must be (N, 3, H, W), got {tuple(image.shape)}")
    n, _, h, w = image.shape
    if coarse.dim() != 4 or coarse.shape[0] != n or coarse.shape[2:] != image.shape[2:]:
        raise ValueError(f"coarse must be (N, K, H, W) = ({n}, K, {h}, {w}), got {tuple(coarse.shape)}")


def is_traced() -> bool:
    """Whether the current computation is recorded as a program for other inputs."""
    return torch.compiler.is_compiling() or torch._C._get_tracing_state() is not None


def records_gradient(*tensors: Tensor) -> bool:
    """Whether autograd records operations on these tensors."""
    return torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)


def only_result_counts(*tensors: Tensor) -> bool:
    """Whether a call on a CPU only has to return its result: no gradient is recorded, and no program is traced."""
    return not (records_gradient(*tensors) or _is_transformed()) and all(
        tensor.device.type == "cpu" and _is_readable(tensor) for tensor in tensors
    )


def is_plain(module: nn.Module, kind: type[nn.Module]) -> bool:
    """Whether a module is of exactly this class, without parametrisations or hooks."""
    heard = module._forward_hooks or module._forward_pre_hooks or modules._has_any_global_hook()
    return type(module) is kind and not heard


def check_values(**tensors: Tensor) -> None:
    """Raise a ValueError for values far from [0, 1]. NaN is accepted, because it is visible in the result.

    The check is skipped where Python cannot read values: while a call is traced, compiled, exported, transformed by
    torch.func or captured into a CUDA graph, and for tensors without values.
    """
    if _is_transformed() or not all(map(_is_readable, tensors.values())):
        return
    tensors = {name: value for name, value in tensors.items() if value.numel()}
    extremes = [extreme.float() for value in tensors.values() for extreme in torch.aminmax(value.detach())]
    # Read all values in one transfer, because each transfer waits for the GPU.
    found = torch.stack(extremes).tolist() if extremes else []
    for name, low, high in zip(tensors, found[::2], found[1::2], strict=True):
        if low < LOWEST or high > HIGHEST:
            raise ValueError(
                f"{name} must be in [0, 1], got values from {low:.4g} to {high:.4g}: {REMEDIES[name]}"
            )


def _is_transformed() -> bool:
    return (
        is_traced()
        or torch._C._are_functorch_transforms_active()
        or _python_dispatch._get_current_dispatch_mode() is not None
    )


def _is_readable(value: Tensor) -> bool:
    is_fake = type(value).__torch_dispatch__ is not Tensor.__torch_dispatch__
    return not (value.is_meta or is_fake or (value.is_cuda and torch.cuda.is_current_stream_capturing()))
