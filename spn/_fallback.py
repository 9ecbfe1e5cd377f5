"""The operators in plain PyTorch: the reference, with the results saved for its backward pass.

:mod:`spn._ops` defines the schemas.
"""

from __future__ import annotations

import torch
from torch import Tensor

from . import _adjoint, reference

CHECKPOINT_LINES = 16


def propagate(
    x: Tensor,
    gates: Tensor,
    source: Tensor | None,
    direction: str,
    normalize: str,
    merge: str,
    save_winner: bool,
    save_checkpoints: bool,
    restart_every: int = 0,
) -> tuple[Tensor, Tensor, Tensor]:
    directions = reference.sweeps_of(direction)
    state = reference.state_dtype(x.dtype)
    hidden = torch.stack(
        [
            reference.propagate(
                x.to(state),
                gates[:, d].to(state),
                name,
                source=None if source is None else source[:, d].to(state),
                normalize=normalize,
                restart_every=restart_every or None,
            )
            for d, name in enumerate(directions)
        ],
        dim=1,
    )
    out = reference.merge_directions(hidden, merge).to(x.dtype).contiguous()
    winner = x.new_empty(0, dtype=torch.uint8)
    checkpoints = x.new_empty(0, dtype=state)
    if save_checkpoints:
        checkpoints = _checkpoints_of(hidden, directions)
    if save_winner and merge == "max":
        winner = hidden.max(dim=1).indices.to(torch.uint8)
    return out, winner, checkpoints


def propagate_backward(
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
    wanted = for_x, for_gates, for_source
    grads = _adjoint.propagate_backward(
        grad,
        x,
        gates,
        source,
        winner,
        direction,
        normalize,
        merge,
        wanted,
        reference.sweep,
        restart_every or None,
    )
    return tuple(x.new_empty(0) if g is None else g.contiguous() for g in grads)


def _checkpoints_of(hidden: Tensor, directions: tuple[str, ...]) -> Tensor:
    """Return lines 16, 32, ... of each sweep of hidden (N, D, C, H, W), in the order of the sweep."""
    saved = []
    for d, direction in enumerate(directions):
        along = -1 if reference.is_horizontal(direction) else -2
        lines = hidden[:, d].flip(along) if reference.is_reversed(direction) else hidden[:, d]
        lines = lines.movedim(along, 2)
        saved.append(lines[:, :, CHECKPOINT_LINES - 1 : lines.shape[2] - 1 : CHECKPOINT_LINES].flatten(2))
    return torch.cat(saved, dim=2).contiguous()
