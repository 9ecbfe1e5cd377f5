"""nn.Module versions of the functions. They hold options, and no parameters or buffers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor, nn

from .functional import _check_choice, _check_restart, propagate, propagate_four_way
from .reference import DIRECTIONS, MERGES, NORMALIZATIONS


class Propagate(nn.Module):
    """:func:`spn.propagate` with fixed options.

    Args:
        direction: "left_to_right", "right_to_left", "top_to_bottom" or "bottom_to_top".
        normalize: "none", "abs", "unit" or "sigmoid".
        restart_every: number of lines after which the sweep restarts, or None.

    Shape:
        x (N, C, H, W), gates (N, 3, G, H, W), source (N, G_s, H, W) or None -> (N, C, H, W).

    Example:
        >>> import torch, spn
        >>> layer = spn.Propagate("top_to_bottom", normalize="abs")
        >>> layer(torch.rand(1, 4, 8, 8), torch.randn(1, 3, 4, 8, 8)).shape
        torch.Size([1, 4, 8, 8])
    """

    def __init__(self, direction: str, *, normalize: str = "none", restart_every: int | None = None) -> None:
        super().__init__()
        _check_choice("direction", direction, DIRECTIONS)
        _check_choice("normalize", normalize, NORMALIZATIONS)
        _check_restart(restart_every)
        self.direction = direction
        self.normalize = normalize
        self.restart_every = restart_every

    def forward(self, x: Tensor, gates: Tensor, source: Tensor | None = None) -> Tensor:
        return propagate(
            x,
            gates,
            self.direction,
            source=source,
            normalize=self.normalize,
            restart_every=self.restart_every,
        )

    if TYPE_CHECKING:  # nn.Module.__call__ is annotated as Any
        __call__ = forward

    def extra_repr(self) -> str:
        options = f"direction={self.direction!r}, normalize={self.normalize!r}"
        return options + _restart_repr(self.restart_every)


class FourWayPropagate(nn.Module):
    """:func:`spn.propagate_four_way` with fixed options.

    Args:
        normalize: "none", "abs", "unit" or "sigmoid".
        merge: "max", "mean", "sum" or None.
        restart_every: number of lines after which each sweep restarts, or None.

    Shape:
        x (N, C, H, W), gates (N, 4, 3, G, H, W), source (N, 4, G_s, H, W) or None -> (N, C, H, W), or (N, 4, C, H, W)
        with ``merge=None``.

    Example:
        >>> import torch, spn
        >>> layer = spn.FourWayPropagate(normalize="abs")
        >>> layer(torch.rand(1, 4, 8, 8), torch.randn(1, 4, 3, 4, 8, 8)).shape
        torch.Size([1, 4, 8, 8])
    """

    def __init__(
        self, *, normalize: str = "none", merge: str | None = "max", restart_every: int | None = None
    ) -> None:
        super().__init__()
        _check_choice("normalize", normalize, NORMALIZATIONS)
        if merge is not None:
            _check_choice("merge", merge, MERGES, "or None")
        _check_restart(restart_every)
        self.normalize = normalize
        self.merge = merge
        self.restart_every = restart_every

    def forward(self, x: Tensor, gates: Tensor, source: Tensor | None = None) -> Tensor:
        return propagate_four_way(
            x,
            gates,
            source=source,
            normalize=self.normalize,
            merge=self.merge,
            restart_every=self.restart_every,
        )

    if TYPE_CHECKING:  # nn.Module.__call__ is annotated as Any
        __call__ = forward

    def extra_repr(self) -> str:
        options = f"normalize={self.normalize!r}, merge={self.merge!r}"
        return options + _restart_repr(self.restart_every)


def _restart_repr(restart_every: int | None) -> str:
    return "" if restart_every is None else f", restart_every={restart_every}"
