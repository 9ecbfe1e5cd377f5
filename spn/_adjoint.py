"""The backward pass as differentiable PyTorch, written in terms of propagations, for derivatives of any order.

The adjoint of a sweep is a sweep of the source form (lambda = 1) in the opposite direction, whose weights are the
forward weights moved to the pixel that their tap points at:

    a(t, j) = dh(t, j) + sum_k p_k(t+1, j-k) a(t+1, j-k)

Where a sweep restarts, its weights are zero, so neither the sweep nor its adjoint carries a value over.

:mod:`spn._ops` uses this module with the reference sweep for the backward pass on devices without kernels, and with the
operator itself for derivatives of the backward pass.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from .reference import (
    UNIT_FLOOR,
    existing_taps,
    is_horizontal,
    is_reversed,
    normalize_gates,
    state_dtype,
    sweeps_of,
)

# sweep(x, p, direction, source) -> h, for normalised weights p.
Sweep = Callable[[Tensor, Tensor, str, Tensor | None], Tensor]
# Whether the gradients of x, gates and source are requested.
Wanted = tuple[bool, bool, bool]
Gradients = tuple[Tensor | None, Tensor | None, Tensor | None]

OPPOSITE = {"left_to_right": "right_to_left", "top_to_bottom": "bottom_to_top"}
OPPOSITE |= {opposite: direction for direction, opposite in OPPOSITE.items()}


def _shift(value: Tensor, dim: int, by: int) -> Tensor:
    """Return value[i + by] along dim, zero beyond the ends."""
    if by == 0:
        return value
    size = value.shape[dim]
    if abs(by) >= size:
        return torch.zeros_like(value)
    kept = value.narrow(dim, max(by, 0), size - abs(by))
    before, after = max(-by, 0), max(by, 0)
    padding = [before, after] if dim == -1 else [0, 0, before, after]
    return F.pad(kept, padding)


def _to_previous_line(value: Tensor, direction: str, tap: int, back: int = 1) -> Tensor:
    """Return the value at the pixel that tap k points at: (t-1, j+k), or (t+1, j-k) for back=-1."""
    along, across = (-1, -2) if is_horizontal(direction) else (-2, -1)
    line = 1 if is_reversed(direction) else -1
    return _shift(_shift(value, along, back * line), across, back * tap)


def normalize_adjoint(raw: Tensor, p: Tensor, grad_p: Tensor, mode: str) -> Tensor:
    """Compute dL/d(raw gates) from dL/dp. Gates are (N, 3, G, H, W); grad_p is zero for taps that do not exist."""
    if mode == "none":
        return grad_p
    along = (p * grad_p).sum(1, keepdim=True)
    if mode == "sigmoid":
        return p * torch.sigmoid(-raw) * (grad_p - along)
    floor = 1.0 if mode == "abs" else UNIT_FLOOR
    total = raw.abs().sum(1, keepdim=True)
    above = total > floor
    return torch.where(above, grad_p - raw.sign() * along, grad_p) / total.clamp(min=floor)


def _sweep_backward(
    grad: Tensor,
    x: Tensor,
    raw: Tensor,
    source: Tensor | None,
    direction: str,
    normalize: str,
    wanted: Wanted,
    sweep: Sweep,
    restart_every: int | None,
) -> Gradients:
    """Compute the gradients of one sweep for x (N, C, H, W), raw gates (N, 3, G, H, W) and source (N, G_s, H, W)."""
    for_x, for_gates, for_source = wanted
    (n, channels), plane = x.shape[:2], x.shape[-2:]
    taps = existing_taps(plane[0], plane[1], direction, x, restart_every).unsqueeze(1)
    p = torch.where(taps, normalize_gates(raw, normalize, direction), 0.0)

    moved = torch.stack(
        [_to_previous_line(p[:, 1 - tap], direction, -tap, back=-1) for tap in (-1, 0, 1)],
        dim=1,
    )
    ones = x.new_ones(n, 1, *plane)
    a = sweep(grad, moved, OPPOSITE[direction], ones)

    grad_x = grad_raw = grad_source = None
    if for_x:
        keep = 1 - p.sum(1) if source is None else source
        grad_x = keep.repeat_interleave(channels // keep.shape[1], dim=1) * a
    if for_gates:
        hidden = sweep(x, p, direction, source)
        per_channel = [
            a * (_to_previous_line(hidden, direction, tap) - (x if source is None else 0))
            for tap in (-1, 0, 1)
        ]
        grad_p = _sum_over_shared(torch.stack(per_channel, dim=1), 2, raw.shape[2])
        grad_raw = normalize_adjoint(raw, p, torch.where(taps, grad_p, 0.0), normalize)
    if for_source and source is not None:
        grad_source = _sum_over_shared(a * x, 1, source.shape[1])
    return grad_x, grad_raw, grad_source


def _sum_over_shared(value: Tensor, dim: int, groups: int) -> Tensor:
    """Sum over the channels, along dim, that share one of ``groups`` planes."""
    shared: Tensor = value.unflatten(dim, (groups, value.shape[dim] // groups))
    return shared.sum(dim + 1)


def split_grad(grad: Tensor, winner: Tensor, merge: str, directions: int) -> Tensor:
    """Compute dL/dh of each direction, (N, D, C, H, W), from the gradient of the merged map."""
    if merge == "none":
        return grad
    if merge == "max":
        won = [winner == d for d in range(directions)]
        return torch.where(torch.stack(won, dim=1), grad.unsqueeze(1), 0.0)
    share = grad / directions if merge == "mean" else grad
    return share.unsqueeze(1).expand(-1, directions, -1, -1, -1)


def propagate_backward(
    grad: Tensor,
    x: Tensor,
    gates: Tensor,
    source: Tensor | None,
    winner: Tensor,
    direction: str,
    normalize: str,
    merge: str,
    wanted: Wanted,
    sweep: Sweep,
    restart_every: int | None,
) -> Gradients:
    """Compute gradients for x (N, C, H, W), gates (N, D, 3, G, H, W) and source (N, D, G_s, H, W), in their dtypes.

    Gradients that are not requested are None. ``winner`` (N, C, H, W), the argmax of the directions, is read only for
    "max". The arithmetic uses the state's dtype.
    """
    dtype, state = x.dtype, state_dtype(x.dtype)
    grad, x, gates = grad.to(state), x.to(state), gates.to(state)
    source = None if source is None else source.to(state)
    directions = sweeps_of(direction)
    grads = split_grad(grad, winner, merge, len(directions))
    parts = []
    for d, name in enumerate(directions):
        lambdas = None if source is None else source[:, d]
        of_sweep = _sweep_backward(
            grads[:, d], x, gates[:, d], lambdas, name, normalize, wanted, sweep, restart_every
        )
        parts.append(of_sweep)
    of_x, of_gates, of_source = ([g for g in column if g is not None] for column in zip(*parts, strict=True))
    return (
        torch.stack(of_x).sum(0).to(dtype) if of_x else None,
        torch.stack(of_gates, dim=1).to(dtype) if of_gates else None,
        torch.stack(of_source, dim=1).to(dtype) if of_source else None,
    )
