"""The layer of pytorch_spn and of GSPN under its own name and call, computed by this package's operator.

A model changes one line, ``from spn.compat import GateRecurrent2dnoind``.
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

    One sweep along the lines of a map, called as pytorch_spn or as GSPN calls it.

    The arguments decide which of the two layers is made:

    .. math::
        h(t,j) &= \Big(1 - \sum_{k \in V} G_k(t,j)\Big)\, X(t,j) + \sum_{k \in V} G_k(t,j)\, h(t-1, j+k)
            && \quad\text{(horizontal, reverse)(X, G1, G2, G3)} \\
        h(t,j) &= B(t,j)\, X(t,j) + \sum_{k \in V} G_k(t,j)\, h(t-1, j+k)
            && \quad\text{(items\_each\_chunk)(X, B, G1, G2, G3)}

    G1, G2 and G3 are the taps :math:`k = -1, 0, +1`; :math:`V(t,j)` are those that point inside the map. See
    :func:`spn.propagate`, which computes both. Gates are used as they are: the caller normalises them.

    Args:
        horizontal: whether lines are columns, visited from left to right; otherwise rows, from top to bottom.
        reverse: whether the lines are visited from the other end.
        items_each_chunk: number of columns after which a sweep from left to right starts anew. Pieces are counted from
            the left. Where the number does not divide W, the last piece is short. W or more is one sweep from end to
            end.

    Shape:
        X, G1, G2, G3 and B, each (N, C, H, W) -> h, (N, C, H, W). All have X's dtype, float32, float64, float16 or
        bfloat16, and X's device.

    Raises:
        TypeError: an argument is missing, too many or of another type, or dtypes differ.
        ValueError: a shape, a device or items_each_chunk does not fit.

    Note:
        Every call copies G1, G2 and G3 into one tensor, which is kept for the backward pass. To save the copy, let the
        convolution that makes the gates return them together, (N, 3 C, H, W), and call
        ``spn.propagate(X, conv_out.unflatten(1, (3, C)), direction)``. For GSPN's layer add ``source=B`` and
        ``restart_every=items_each_chunk``. With ``normalize`` it takes the raw gates, too.
        Everything that :func:`spn.propagate` says of cost, layouts, autocast and derivatives holds here.
        The layer has neither parameters nor buffers. The order of arguments is that of both libraries. Their names may
        be others in some versions: pass arguments by position where code has to run with either library.

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

    if not TYPE_CHECKING:  # the two layers have their own; a subclass of the caller's holds one of them

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
    """The maps, cast to the dtype of autocast where it is enabled; an error names the caller's argument."""
    dtype = _autocast_dtype(maps["X"])
    maps = {name: _cast(value, dtype) for name, value in maps.items()}
    _check_x(maps["X"], "X")
    for name, value in maps.items():
        _check_shaped_like(name, value, maps["X"], "X")
    return maps


def _gates(maps: dict[str, Tensor]) -> Tensor:
    return torch.stack([maps["G1"], maps["G2"], maps["G3"]], 1)
