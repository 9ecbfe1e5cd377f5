"""Drop-in replacement for the layer of pytorch_spn and GSPN, with the same name and signature.

To use it, change one line of a model: ``from spn.compat import GateRecurrent2dnoind``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, overload

import torch
from torch import Tensor, nn

from .functional import _autocast_dtype, _cast, _check_lines, _check_shaped_like, _check_x, propagate

__all__ = ["GateRecurrent2dnoind"]

_DIRECTIONS = {  # by (horizontal, reverse)
    (True, False): "left_to_right",
    (True, True): "right_to_left",
    (False, False): "top_to_bottom",
    (False, True): "bottom_to_top",
}


class GateRecurrent2dnoind(nn.Module):
    r"""GateRecurrent2dnoind(horizontal, reverse)
    GateRecurrent2dnoind(items_each_chunk)

    Propagate a map along one direction, with the signature of pytorch_spn or of GSPN.

    The arguments select one of two layers:

    .. math::
        h(t,j) &= \Big(1 - \sum_{k \in V} G_k(t,j)\Big)\, X(t,j) + \sum_{k \in V} G_k(t,j)\, h(t-1, j+k)
            && \quad\text{(horizontal, reverse)(X, G1, G2, G3)} \\
        h(t,j) &= B(t,j)\, X(t,j) + \sum_{k \in V} G_k(t,j)\, h(t-1, j+k)
            && \quad\text{(items\_each\_chunk)(X, B, G1, G2, G3)}

    G1, G2 and G3 are the gates of the taps :math:`k = -1, 0, +1`, and :math:`V(t,j)` is the set of taps that point
    inside the map. :func:`spn.propagate` computes both forms. The caller normalises the gates.

    Args:
        horizontal: if True, the lines are columns, visited from left to right; otherwise rows, from top to bottom.
        reverse: whether to visit the lines in the opposite order.
        items_each_chunk: number of columns after which a sweep from left to right restarts. Pieces are counted from
            the left. If the number does not divide W, the last piece is shorter. With W or more, the sweep does not
            restart.

    Shape:
        X, G1, G2, G3 and B, each (N, C, H, W) -> h, (N, C, H, W). All tensors share X's device and X's dtype, which
        is float32, float64, float16 or bfloat16.

    Raises:
        TypeError: an argument is missing, superfluous or has the wrong type, or dtypes differ.
        ValueError: a shape, a device or items_each_chunk is invalid.

    Note:
        Every call copies G1, G2 and G3 into one tensor, which is saved for the backward pass. To avoid the copy,
        compute the gates with one convolution that returns (N, 3 C, H, W), and call
        ``spn.propagate(X, conv_out.unflatten(1, (3, C)), direction)``. For GSPN's layer, add ``source=B`` and
        ``restart_every=items_each_chunk``. With ``normalize``, this function also accepts raw gates.

        The notes of :func:`spn.propagate` on complexity, layout, reproducibility and autocast apply here too.

        The layer has no parameters or buffers. The arguments have the same order as in pytorch_spn and GSPN, but
        in some versions of these libraries they have other names. Pass them by position if your code must run with
        either library.

    Example:
        >>> import torch
        >>> from spn.compat import GateRecurrent2dnoind
        >>> x, lam, g1, g2, g3 = torch.rand(5, 1, 2, 6, 6) / 3
        >>> GateRecurrent2dnoind(True, False)(x, g1, g2, g3).shape
        torch.Size([1, 2, 6, 6])
        >>> GateRecurrent2dnoind(3)(x, lam, g1, g2, g3).shape
        torch.Size([1, 2, 6, 6])

    Reference:
        Liu et al., "Learning Affinity via Spatial Propagation Networks", NeurIPS 2017; Wang et al., "Parallel Sequence
        Modeling via Generalized Spatial Propagation Network", CVPR 2025.
    """

    @overload
    def __new__(cls, horizontal: bool, reverse: bool) -> _PytorchSPN: ...
    @overload
    def __new__(cls, items_each_chunk: int) -> _GSPN: ...

    def __new__(cls, *args: Any, **kwargs: Any) -> GateRecurrent2dnoind:
        if cls is GateRecurrent2dnoind:
            cls = _layer_of((*args, *kwargs.values()))
        return super().__new__(cls)

    if not TYPE_CHECKING:  # for user-defined subclasses, which wrap one of the two layers below

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__()
            self.layer = GateRecurrent2dnoind(*args, **kwargs)

        def forward(self, *args: Any, **kwargs: Any) -> Tensor:
            return self.layer(*args, **kwargs)

    def _get_name(self) -> str:
        return "GateRecurrent2dnoind"


class _PytorchSPN(GateRecurrent2dnoind):
    def __init__(self, horizontal: bool, reverse: bool) -> None:
        nn.Module.__init__(self)
        for name, value in (("horizontal", horizontal), ("reverse", reverse)):
            if not isinstance(value, bool):
                raise TypeError(f"{name} must be a bool, got {type(value).__name__}")
        self.horizontal = horizontal
        self.reverse = reverse

    def forward(self, X: Tensor, G1: Tensor, G2: Tensor, G3: Tensor) -> Tensor:
        maps = _checked(X=X, G1=G1, G2=G2, G3=G3)
        return propagate(maps["X"], _gates(maps), _DIRECTIONS[self.horizontal, self.reverse])

    if TYPE_CHECKING:  # nn.Module.__call__ is annotated as Any
        __call__ = forward

    def extra_repr(self) -> str:
        return f"horizontal={self.horizontal}, reverse={self.reverse}"


class _GSPN(GateRecurrent2dnoind):
    def __init__(self, items_each_chunk: int) -> None:
        nn.Module.__init__(self)
        self.items_each_chunk = _check_lines("items_each_chunk", items_each_chunk)

    def forward(self, X: Tensor, B: Tensor, G1: Tensor, G2: Tensor, G3: Tensor) -> Tensor:
        maps = _checked(X=X, B=B, G1=G1, G2=G2, G3=G3)
        return propagate(
            maps["X"],
            _gates(maps),
            "left_to_right",
            source=maps["B"],
            restart_every=self.items_each_chunk,
        )

    if TYPE_CHECKING:  # nn.Module.__call__ is annotated as Any
        __call__ = forward

    def extra_repr(self) -> str:
        return f"items_each_chunk={self.items_each_chunk}"


def _layer_of(arguments: tuple[Any, ...]) -> type[GateRecurrent2dnoind]:
    if len(arguments) not in (1, 2):
        expected = "(horizontal, reverse) or (items_each_chunk)"
        raise TypeError(f"GateRecurrent2dnoind takes {expected}, got {len(arguments)} arguments")
    return _GSPN if len(arguments) == 1 and not isinstance(arguments[0], bool) else _PytorchSPN


def _checked(**maps: Tensor) -> dict[str, Tensor]:
    """Cast the maps to the autocast dtype where autocast is enabled, and validate them under their argument names."""
    dtype = _autocast_dtype(maps["X"])
    maps = {name: _cast(value, dtype) for name, value in maps.items()}
    _check_x(maps["X"], "X")
    for name, value in maps.items():
        _check_shaped_like(name, value, maps["X"], "X")
    return maps


def _gates(maps: dict[str, Tensor]) -> Tensor:
    return torch.stack([maps["G1"], maps["G2"], maps["G3"]], 1)
