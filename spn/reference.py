"""Reference implementation of linear spatial propagation in plain PyTorch: simple and slow.

Every kernel is tested against these functions. They also run on devices for which no compiled kernels exist. Autograd
differentiates them. They do not validate their arguments, unlike
:func:`spn.propagate` and :func:`spn.propagate_four_way`.

A sweep visits the lines ``t = 0..T-1`` of a map, each with ``M`` positions ``j``. Each position mixes its input with
three neighbours on the previous line (taps ``k = -1, 0, +1``; ``V(t, j)`` is the set of taps inside the map):

    SPN form     h(t, j) = (1 - sum_{k in V} p_k) x(t, j) + sum_{k in V} p_k h(t-1, j+k)
    source form  h(t, j) = lambda(t, j) x(t, j)           + sum_{k in V} p_k h(t-1, j+k)

A sweep may restart every r lines: where t % r == 0, V(t, j) is empty, as it is on the first line.

Reference: Liu et al., "Learning Affinity via Spatial Propagation Networks", NeurIPS 2017, eq. (1)-(2).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

DIRECTIONS = ("left_to_right", "right_to_left", "top_to_bottom", "bottom_to_top")
NORMALIZATIONS = ("none", "abs", "unit", "sigmoid")
MERGES = ("max", "mean", "sum")

# Lower bound of the divisor in the "unit" rule, so that all-zero gates stay zero.
UNIT_FLOOR = 1e-4


def state_dtype(dtype: torch.dtype) -> torch.dtype:
    """Return the dtype of the running state h: float64 for float64 input, float32 for every narrower dtype."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def sweeps_of(direction: str) -> tuple[str, ...]:
    """Return the directions that the operators' ``direction`` argument stands for; it may be "four_way"."""
    return DIRECTIONS if direction == "four_way" else (direction,)


def is_horizontal(direction: str) -> bool:
    """Return whether lines are columns (left_to_right, right_to_left)."""
    return direction in DIRECTIONS[:2]


def is_reversed(direction: str) -> bool:
    """Return whether the sweep starts at the last line (right_to_left, bottom_to_top)."""
    return direction in DIRECTIONS[1::2]


def existing_taps(
    height: int, width: int, direction: str, like: Tensor, restart_every: int | None = None
) -> Tensor:
    """Return V(t, j) as a mask of shape (3, H, W): True where tap k exists.

    No tap exists on the lines where the sweep starts or restarts. On the other lines, tap k exists unless it points
    outside the map.
    """
    taps = torch.ones(3, height, width, dtype=torch.bool, device=like.device)
    along, across = (-1, -2) if is_horizontal(direction) else (-2, -1)
    lines = torch.arange(taps.shape[along], device=like.device)
    if is_reversed(direction):
        lines = lines.flip(0)
    starts = lines == 0 if restart_every is None else lines % restart_every == 0
    taps &= ~(starts if along == -1 else starts.unsqueeze(1))
    taps[0].select(across, 0).fill_(False)
    taps[2].select(across, -1).fill_(False)
    return taps


def normalize_gates(raw: Tensor, mode: str, direction: str | None = None) -> Tensor:
    """Turn raw gates into the weights p_k of the recurrence; see :func:`spn.normalize_gates`."""
    if mode == "none":
        return raw
    if mode == "sigmoid":
        return _normalize_sigmoid(raw, direction)
    total = raw.abs().sum(-4, keepdim=True)
    if mode == "abs":
        return torch.where(total > 1, raw / total.clamp(min=1), raw)
    return raw / total.clamp(min=UNIT_FLOOR)


def _normalize_sigmoid(raw: Tensor, direction: str | None) -> Tensor:
    """Compute p_k = sigmoid(g_k) / sum_{V} sigmoid(g) as a softmax of log-sigmoids, which avoids 0 / 0."""
    taps = _taps_of(raw, direction)
    if taps is None:
        return F.logsigmoid(raw).softmax(-4)
    # The first line has no taps. Finite logits keep NaN out of its gradient.
    logits = torch.where(taps, F.logsigmoid(raw), torch.finfo(raw.dtype).min)
    return torch.where(taps, logits.softmax(-4), 0.0)


def _taps_of(gates: Tensor, direction: str | None) -> Tensor | None:
    """Return V, broadcastable to gates (N, 3, G, H, W), or to (N, 4, 3, G, H, W) with the direction in dimension 1."""
    height, width = gates.shape[-2:]
    if gates.dim() == 6 and direction is None:
        return torch.stack([existing_taps(height, width, d, gates) for d in DIRECTIONS]).unsqueeze(2)
    return None if direction is None else existing_taps(height, width, direction, gates).unsqueeze(1)


def sweep(
    x: Tensor, p: Tensor, direction: str, source: Tensor | None = None, restart_every: int | None = None
) -> Tensor:
    """Compute h from x (N, C, H, W), weights p (N, 3, G, H, W) and source (N, G_s, H, W) or None."""
    channels, (height, width) = x.shape[1], x.shape[-2:]
    p = torch.where(existing_taps(height, width, direction, p, restart_every).unsqueeze(1), p, 0.0)
    p = p.repeat_interleave(channels // p.shape[2], dim=2)
    if source is None:
        driven = (1 - p.sum(1)) * x
    else:
        driven = source.repeat_interleave(channels // source.shape[1], dim=1) * x

    along = -1 if is_horizontal(direction) else -2
    step = -1 if is_reversed(direction) else 1
    lines_p = p.unbind(along)[::step]
    lines_driven = driven.unbind(along)[::step]

    hidden: list[Tensor] = []
    for t, (p_t, driven_t) in enumerate(zip(lines_p, lines_driven, strict=True)):
        if t == 0 or (restart_every is not None and t % restart_every == 0):
            hidden.append(driven_t)
            continue
        previous = F.pad(hidden[-1], (1, 1))
        hidden.append(
            driven_t
            + p_t[:, 0] * previous[..., :-2]
            + p_t[:, 1] * previous[..., 1:-1]
            + p_t[:, 2] * previous[..., 2:]
        )
    return torch.stack(hidden[::step], dim=along)


def propagate(
    x: Tensor,
    gates: Tensor,
    direction: str,
    *,
    source: Tensor | None = None,
    normalize: str = "none",
    restart_every: int | None = None,
) -> Tensor:
    """Propagate along one direction; the specification of :func:`spn.propagate`."""
    dtype = state_dtype(x.dtype)
    p = normalize_gates(gates.to(dtype), normalize, direction)
    source = None if source is None else source.to(dtype)
    return sweep(x.to(dtype), p, direction, source, restart_every).to(x.dtype)


def propagate_four_way(
    x: Tensor,
    gates: Tensor,
    *,
    source: Tensor | None = None,
    normalize: str = "none",
    merge: str | None = "max",
    restart_every: int | None = None,
) -> Tensor:
    """Propagate in four directions and merge; the specification of :func:`spn.propagate_four_way`."""
    narrow, dtype = x.dtype, state_dtype(x.dtype)
    x, gates, source = x.to(dtype), gates.to(dtype), None if source is None else source.to(dtype)
    hidden = torch.stack(
        [
            propagate(
                x,
                gates[:, d],
                direction,
                source=None if source is None else source[:, d],
                normalize=normalize,
                restart_every=restart_every,
            )
            for d, direction in enumerate(DIRECTIONS)
        ],
        dim=1,
    )
    return merge_directions(hidden, merge).to(narrow)


def merge_directions(hidden: Tensor, merge: str | None) -> Tensor:
    """Merge dimension 1 of (N, 4, C, H, W) at each position; if directions tie for "max", the first is selected."""
    if merge == "max":
        winner = hidden.max(dim=1, keepdim=True).indices
        return hidden.gather(1, winner).squeeze(1)
    if merge == "mean":
        return hidden.mean(1)
    if merge == "sum":
        return hidden.sum(1)
    return hidden
