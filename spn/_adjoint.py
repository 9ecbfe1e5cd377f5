"""The backward pass written as propagations: differentiable PyTorch, to any order.

The adjoint of a sweep is a sweep of the source form (lambda = 1) in the opposite direction, whose weights are the
forward weights moved to the pixel that their tap points at:

    a(t, j) = dh(t, j) + sum_k p_k(t+1, j-k) a(t+1, j-k)

:mod:`spn._ops` uses this with the reference sweep as the backward pass of devices that no kernel covers, and with the
operator itself for derivatives of the backward pass.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from .reference import UNIT_FLOOR, existing_taps, is_horizontal, is_reversed, normalize_gates, sweeps_of

# sweep(x, p, direction, source) -> h, for weights p that are normalised already.
Sweep = Callable[[Tensor, Tensor, str, Tensor | None], Tensor]

OPPOSITE = {"left_to_right": "right_to_left", "top_to_bottom": "bottom_to_top"}
OPPOSITE |= {opposite: direction for direction, opposite in OPPOSITE.items()}


def _shift(value: Tensor, dim: int, by: int) -> Tensor:
    """value[i + by] along dim, zero beyond the ends."""
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
    """The value at the pixel that tap k points at: position j + k of line t - 1 (of line t + 1, j - k for back=-1)."""
    along, across = (-1, -2) if is_horizontal(direction) else (-2, -1)
    line = 1 if is_reversed(direction) else -1
    return _shift(_shift(value, along, back * line), across, back * tap)


def normalize_adjoint(raw: Tensor, p: Tensor, grad_p: Tensor, mode: str) -> Tensor:
    """dL/d(raw gates) from dL/dp; grad_p is zero for taps that do not exist. Gates are (N, 3, G, H, W)."""
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
    grad: Tensor, x: Tensor, raw: Tensor, source: Tensor | None, direction: str, normalize: str, sweep: Sweep
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Gradients of one sweep for x (N, C, H, W), raw gates (N, 3, G, H, W) and source (N, G_s, H, W)."""
    (n, channels), plane = x.shape[:2], x.shape[-2:]
    groups = raw.shape[2]
    taps = existing_taps(plane[0], plane[1], direction, x).unsqueeze(1)
    p = torch.where(taps, normalize_gates(raw, normalize, direction), 0.0)
    hidden = sweep(x, p, direction, source)

    moved = torch.stack(
        [_to_previous_line(p[:, 1 - tap], direction, -tap, back=-1) for tap in (-1, 0, 1)],
        dim=1,
    )
    ones = x.new_ones(n, 1, *plane)
    a = sweep(grad, moved, OPPOSITE[direction], ones)

    per_channel = [
        a * (_to_previous_line(hidden, direction, tap) - (x if source is None else 0)) for tap in (-1, 0, 1)
    ]
    grad_p = torch.stack(per_channel, dim=1).unflatten(2, (groups, channels // groups)).sum(3)
    grad_raw = normalize_adjoint(raw, p, torch.where(taps, grad_p, 0.0), normalize)
    if source is None:
        keep = (1 - p.sum(1)).repeat_interleave(channels // groups, dim=1)
        return keep * a, grad_raw, None
    shared = channels // source.shape[1]
    grad_source = (a * x).unflatten(1, (source.shape[1], shared)).sum(2)
    return source.repeat_interleave(shared, dim=1) * a, grad_raw, grad_source


def split_grad(grad: Tensor, hidden: Tensor | None, merge: str, directions: int) -> Tensor:
    """dL/dh of every direction (N, D, C, H, W) from the gradient of the merged map."""
    if merge == "none":
        return grad
    if hidden is not None:  # for "max"
        winner = hidden.detach().max(dim=1, keepdim=True).indices
        return torch.zeros_like(hidden).scatter(1, winner, grad.unsqueeze(1))
    share = grad / directions if merge == "mean" else grad
    return share.unsqueeze(1).expand(-1, directions, -1, -1, -1)


def propagate_backward(
    grad: Tensor,
    x: Tensor,
    gates: Tensor,
    source: Tensor | None,
    direction: str,
    normalize: str,
    merge: str,
    sweep: Sweep,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Gradients for x (N, C, H, W), gates (N, D, 3, G, H, W) and source (N, D, G_s, H, W), in their dtypes."""
    directions = sweeps_of(direction)

    def source_of(d: int) -> Tensor | None:
        return None if source is None else source[:, d]

    hidden = None
    if merge == "max":
        p = [normalize_gates(gates[:, d], normalize, name) for d, name in enumerate(directions)]
        hidden = torch.stack([sweep(x, p[d], name, source_of(d)) for d, name in enumerate(directions)], dim=1)
    grads = split_grad(grad, hidden, merge, len(directions))
    parts = [
        _sweep_backward(grads[:, d], x, gates[:, d], source_of(d), name, normalize, sweep)
        for d, name in enumerate(directions)
    ]
    grad_x = torch.stack([part[0] for part in parts]).sum(0)
    grad_gates = torch.stack([part[1] for part in parts], dim=1)
    grad_source = None if source is None else torch.stack([g for *_, g in parts if g is not None], dim=1)
    return grad_x, grad_gates, grad_source
