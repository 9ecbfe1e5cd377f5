"""Registration of the operators with torch: schema, kernels, fake, autograd, vmap.

==================== =============================================================================================
kernels              ``_cpu`` and ``_cuda`` libraries; the reference for every device without a library
fake                 shapes only: meta tensors, torch.compile, torch.export
autograd             forward -> hand-written backward -> :mod:`spn._adjoint`, which has derivatives of any order
vmap                 the mapped dimension is merged into the batch
==================== =============================================================================================

Both operators take gates (N, D, 3, G, H, W) and source (N, D, G_s, H, W), with D = 4 for ``direction="four_way"`` and
D = 1 for one direction. ``out`` is (N, C, H, W), or (N, D, C, H, W) for ``merge="none"``. ``restart_every`` is 0 if
sweeps do not restart.

On request, the forward pass also returns the tensors that the backward pass needs besides the inputs. ``winner`` is the
direction that the maximum selected (uint8, only for "max"). ``checkpoints`` holds lines 16, 32, ... of the state of
each sweep, which only the gradient of the gates needs. If one of them is missing, autograd runs the forward pass again.

The arguments ``for_x``, ``for_gates`` and ``for_source`` select the gradients that the backward pass computes. Results
that were not requested are empty, in both passes.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from . import _adjoint, _fallback, _native, reference

FORWARD = (
    "(Tensor x, Tensor gates, Tensor? source, str direction, str normalize, str merge,"
    " bool save_winner, bool save_checkpoints, int restart_every=0) -> (Tensor, Tensor, Tensor)"
)
BACKWARD = (
    "(Tensor grad, Tensor x, Tensor gates, Tensor? source, Tensor winner, Tensor checkpoints,"
    " str direction, str normalize, str merge, bool for_x, bool for_gates, bool for_source, int restart_every=0)"
    " -> (Tensor, Tensor, Tensor)"
)

library = torch.library.Library("spn", "DEF")
for schema in (
    f"propagate{FORWARD}",
    f"propagate_backward{BACKWARD}",
    # The CUDA library calls these on a GPU for which it contains no code.
    f"reference_propagate{FORWARD}",
    f"reference_propagate_backward{BACKWARD}",
    "cpu_capability() -> str",
    "cuda_missing_code(int device) -> str",
    "cuda_limits(int device) -> str",
):
    library.define(schema, tags=(torch.Tag.pt2_compliant_tag,))

CPU = _native.load("cpu")
CUDA = _native.load("cuda")

_propagate = torch.ops.spn.propagate.default
_propagate_backward = torch.ops.spn.propagate_backward.default

Results = tuple[Tensor, Tensor, Tensor]  # of both operators, as in their schemas


def _wants_function() -> bool:
    """Whether the call is inside a transform of torch.func or forward-mode AD; see :class:`_Propagate`."""
    if torch.compiler.is_dynamo_compiling():
        return False
    return torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0


def propagate(*args: Any) -> Results:
    results: Results = _Propagate.apply(*args) if _wants_function() else _propagate(*args)
    return results


def propagate_backward(*args: Any) -> Results:
    results: Results = _PropagateBackward.apply(*args) if _wants_function() else _propagate_backward(*args)
    return results


# ---- The reference runs on devices without a library ----------------------------------------------------------------

_warned_devices: set[str] = set()


def _warn_once(device: torch.device) -> None:
    if device.type in _warned_devices:
        return
    _warned_devices.add(device.type)
    warnings.warn(
        f"spn runs its slow PyTorch reference on {device.type}: {why_reference(device)}. See spn.show_config().",
        RuntimeWarning,
        stacklevel=2,
    )


def why_reference(device: torch.device) -> str | None:
    """Return why the reference runs on this device, or None if kernels run."""
    if device.type == "cpu":
        return CPU.reason
    if device.type != "cuda":
        return "spn has no kernels for this device"
    if not CUDA.loaded:
        return CUDA.reason
    index = torch.cuda.current_device() if device.index is None else device.index
    missing = torch.ops.spn.cuda_missing_code(index)
    major, minor = torch.cuda.get_device_capability(index)
    return f"{CUDA.file} holds no code for sm_{major}{minor} ({missing})" if missing else None


def _reference_propagate(x: Tensor, *arguments: Any) -> Results:
    _warn_once(x.device)
    return _fallback.propagate(x, *arguments)


def _reference_backward(grad: Tensor, *arguments: Any) -> tuple[Tensor, ...]:
    _warn_once(grad.device)
    return _fallback.propagate_backward(grad, *arguments)


for prefix in ("", "reference_"):
    library.impl(f"{prefix}propagate", _reference_propagate, "CompositeExplicitAutograd")
    library.impl(f"{prefix}propagate_backward", _reference_backward, "CompositeExplicitAutograd")


# ---- Fake -----------------------------------------------------------------------------------------------------------


def check_device(name: str, value: Tensor, x: Tensor, x_name: str = "x") -> None:
    if value.device != x.device:
        raise ValueError(f"{name} must be on {x_name}'s device {x.device}, got {value.device}")


def _check_devices(x: Tensor, **others: Tensor | None) -> None:
    for name, value in others.items():
        if value is not None:
            check_device(name, value, x)


def _propagate_fake(
    x: Tensor,
    gates: Tensor,
    source: Tensor | None,
    direction: str,
    normalize: str,
    merge: str,
    save_winner: bool,
    save_checkpoints: bool,
    restart_every: int = 0,
) -> Results:
    _check_devices(x, gates=gates, source=source)
    n, channels, height, width = x.shape
    directions = reference.sweeps_of(direction)
    out = x.new_empty((n, len(directions), channels, height, width) if merge == "none" else x.shape)
    winner = x.new_empty(x.shape if save_winner and merge == "max" else (0,), dtype=torch.uint8)
    if not save_checkpoints:
        return out, winner, x.new_empty((0,), dtype=reference.state_dtype(x.dtype))
    values = 0
    for name in directions:
        lines, positions = (width, height) if reference.is_horizontal(name) else (height, width)
        values += (lines - 1) // _fallback.CHECKPOINT_LINES * positions
    return out, winner, x.new_empty((n, channels, values), dtype=reference.state_dtype(x.dtype))


def _propagate_backward_fake(
    grad: Tensor,
    x: Tensor,
    gates: Tensor,
    source: Tensor | None,
    winner: Tensor,
    checkpoints: Tensor,
    direction: str,
    normalize: str,
    merge: str,
    for_x: bool,
    for_gates: bool,
    for_source: bool,
    restart_every: int = 0,
) -> tuple[Tensor, ...]:
    _check_devices(x, gates=gates, source=source, grad=grad, winner=winner, checkpoints=checkpoints)
    inputs = ((x, for_x), (gates, for_gates), (source, for_source))
    return tuple(x.new_empty(value.shape if asked and value is not None else (0,)) for value, asked in inputs)


torch.library.register_fake("spn::propagate", _propagate_fake, lib=library)
torch.library.register_fake("spn::propagate_backward", _propagate_backward_fake, lib=library)


# ---- Autograd -------------------------------------------------------------------------------------------------------


def _propagate_setup(ctx: Any, inputs: tuple[Any, ...], output: Results) -> None:
    x, gates, source, *ctx.options, saves_winner, saves_checkpoints, ctx.restart_every = inputs
    ctx.saved = saves_winner, saves_checkpoints
    _, winner, checkpoints = output
    ctx.mark_non_differentiable(winner, checkpoints)
    ctx.set_materialize_grads(False)  # avoids allocating zeros of full size
    ctx.save_for_backward(x, gates, source, winner, checkpoints)


def _propagate_autograd(
    ctx: Any, grad: Tensor | None, _winner: object, _checkpoints: object
) -> tuple[Tensor | None, ...]:
    if grad is None:
        return (None,) * 9
    x, gates, source, winner, checkpoints = ctx.saved_tensors
    wanted = ctx.needs_input_grad[:3]
    needed = True, wanted[1]
    if any(need and not saved for need, saved in zip(needed, ctx.saved, strict=True)):
        _, winner, checkpoints = propagate(x, gates, source, *ctx.options, *needed, ctx.restart_every)
    saved = winner, checkpoints
    grads = propagate_backward(grad, x, gates, source, *saved, *ctx.options, *wanted, ctx.restart_every)
    return *(g if asked else None for g, asked in zip(grads, wanted, strict=True)), *([None] * 6)


def _sweep(x: Tensor, p: Tensor, direction: str, source: Tensor | None) -> Tensor:
    """Run one sweep of the operator with normalised weights; a :data:`spn._adjoint.Sweep`."""
    lambdas = None if source is None else source.unsqueeze(1)
    out, _, _ = propagate(x, p.unsqueeze(1), lambdas, direction, "none", "none", True, True, 0)
    return out.squeeze(1)


def _propagate_backward_setup(ctx: Any, inputs: tuple[Any, ...], output: Results) -> None:
    grad, x, gates, source, winner, _checkpoints, direction, normalize, merge, *wanted, restart_every = inputs
    ctx.options = direction, normalize, merge
    ctx.restart_every = restart_every or None
    ctx.wanted = tuple(wanted)
    ctx.mark_non_differentiable(*(g for g, asked in zip(output, wanted, strict=True) if not asked))
    ctx.save_for_backward(grad, x, gates, source, winner)


def _propagate_backward_autograd(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
    *inputs, winner = ctx.saved_tensors  # grad, x, gates, source
    direction, normalize, merge = ctx.options
    differentiated = [i for i, needed in enumerate(ctx.needs_input_grad[:4]) if needed]

    def gradients(*values: Tensor) -> tuple[Tensor, ...]:
        tensors = list(inputs)
        for i, value in zip(differentiated, values, strict=True):
            tensors[i] = value
        grad, x, gates, source = tensors
        results = _adjoint.propagate_backward(
            grad,
            x,
            gates,
            source,
            winner,
            direction,
            normalize,
            merge,
            ctx.wanted,
            _sweep,
            ctx.restart_every,
        )
        return tuple(g for g in results if g is not None)

    vjp = torch.func.vjp(gradients, *(inputs[i] for i in differentiated))[1]
    tangents = vjp(tuple(g for g, asked in zip(grads, ctx.wanted, strict=True) if asked))
    found = dict(zip(differentiated, tangents, strict=True))
    return tuple(found.get(i) for i in range(13))


# ---- vmap -----------------------------------------------------------------------------------------------------------


def _join_batch(value: Tensor | None, dim: int | None, size: int) -> Tensor | None:
    if value is None:
        return None
    value = value.unsqueeze(0).expand(size, *value.shape) if dim is None else value.movedim(dim, 0)
    return value.reshape(size * value.shape[1], *value.shape[2:])


def _split_batch(values: Results, size: int) -> tuple[tuple[Tensor, ...], tuple[int | None, ...]]:
    """Split the batch again, except for values that are empty because they were not requested."""
    split = tuple(v if v.dim() == 1 else v.unflatten(0, (size, v.shape[0] // size)) for v in values)
    return split, tuple(None if v.dim() == 1 else 0 for v in values)


def _propagate_vmap(
    call: Callable[..., Results],
    info: Any,
    in_dims: tuple[int | None, ...],
    x: Tensor,
    gates: Tensor,
    source: Tensor | None,
    *options: Any,
) -> tuple[tuple[Tensor, ...], tuple[int | None, ...]]:
    size = info.batch_size
    tensors = [_join_batch(v, dim, size) for v, dim in zip((x, gates, source), in_dims, strict=False)]
    return _split_batch(call(*tensors, *options), size)


def _propagate_backward_vmap(
    call: Callable[..., Results],
    info: Any,
    in_dims: tuple[int | None, ...],
    grad: Tensor,
    x: Tensor,
    gates: Tensor,
    source: Tensor | None,
    winner: Tensor,
    checkpoints: Tensor,
    *options: Any,
) -> tuple[tuple[Tensor, ...], tuple[int | None, ...]]:
    size = info.batch_size
    tensors = [_join_batch(v, dim, size) for v, dim in zip((grad, x, gates, source), in_dims, strict=False)]
    saved = (
        v if v.dim() == 1 and dim is None else _join_batch(v, dim, size)
        for v, dim in zip((winner, checkpoints), in_dims[4:6], strict=True)
    )
    return _split_batch(call(*tensors, *saved, *options), size)


# ---- Registration of the formulas for torch.compile and torch.func --------------------------------------------

torch.library.register_autograd(
    "spn::propagate", _propagate_autograd, setup_context=_propagate_setup, lib=library
)
torch.library.register_autograd(
    "spn::propagate_backward",
    _propagate_backward_autograd,
    setup_context=_propagate_backward_setup,
    lib=library,
)
torch.library.register_vmap("spn::propagate", partial(_propagate_vmap, _propagate), lib=library)
torch.library.register_vmap(
    "spn::propagate_backward", partial(_propagate_backward_vmap, _propagate_backward), lib=library
)


class _Propagate(torch.autograd.Function):
    """The same formulas for torch.func, whose transforms do not support the autograd of torch.library.

    Forward-mode AD raises an error here; with torch.library it would return a zero tangent.
    """

    @staticmethod
    def forward(*args: Any) -> Any:
        return _propagate(*args)

    setup_context = staticmethod(_propagate_setup)
    backward = staticmethod(_propagate_autograd)
    vmap = staticmethod(partial(_propagate_vmap, propagate))


class _PropagateBackward(torch.autograd.Function):
    @staticmethod
    def forward(*args: Any) -> Any:
        return _propagate_backward(*args)

    setup_context = staticmethod(_propagate_backward_setup)
    backward = staticmethod(_propagate_backward_autograd)
    vmap = staticmethod(partial(_propagate_backward_vmap, propagate_backward))
