"""The public functions, their validation and the equations that they compute.

The modules and the refiner call these functions.
"""

from __future__ import annotations

from numbers import Integral
from typing import Any

import torch
from torch import Tensor

from . import _ops, reference
from .reference import DIRECTIONS, MERGES, NORMALIZATIONS

DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)


def propagate(
    x: Tensor,
    gates: Tensor,
    direction: str,
    *,
    source: Tensor | None = None,
    normalize: str = "none",
    restart_every: int | None = None,
) -> Tensor:
    r"""Propagate a map along one direction.

    The sweep visits lines :math:`t = 0..T-1` in the order given by ``direction``. Each position :math:`j` of a line
    mixes its own value with three neighbours on the previous line, the taps :math:`k \in \{-1, 0, +1\}`:

    .. math::
        h(t,j) &= \Big(1 - \sum_{k \in V} p_k\Big)\, x(t,j) + \sum_{k \in V} p_k\, h(t-1, j+k)
            && \quad\text{SPN form, source=None} \\
        h(t,j) &= \lambda(t,j)\, x(t,j) + \sum_{k \in V} p_k\, h(t-1, j+k)
            && \quad\text{source form}

    :math:`V(t,j)` is the set of taps that point inside the map. The first line has no taps, so in SPN form
    :math:`h = x` there, and a constant map stays constant for any gates. The weights :math:`p` are the gates after
    ``normalize``.

    Args:
        x: map, (N, C, H, W); float32, float64, float16 or bfloat16.
        gates: raw weights, (N, 3, G, H, W), with taps in the order -1, 0, +1. The position index j increases downwards
            in horizontal sweeps and rightwards in vertical sweeps. G must divide C; channel c uses channel group
            c // (C // G).
        direction: "left_to_right", "right_to_left", "top_to_bottom" or "bottom_to_top".
        source: :math:`\lambda`, (N, G_s, H, W), where G_s divides C; None selects the SPN form.
        normalize: rule that turns the raw gates g into the weights p: "none", "abs", "unit" or "sigmoid"; see
            :func:`normalize_gates`. It is fused into the kernel, and gradients are with respect to the raw gates.
        restart_every: number of lines r after which the sweep restarts: :math:`V(t,j)` is empty where
            :math:`t \bmod r = 0`. Lines are counted along the sweep. If r does not divide T, the last piece of the
            sweep is shorter; for "right_to_left" it is at the left end. With None or r >= T, the sweep does not
            restart. A compiled or exported program keeps r as a constant.

    Returns:
        h, (N, C, H, W) in x's dtype. The running state is float32 (float64 for float64 input).

    Raises:
        TypeError: an argument is not a tensor, not floating point, or dtypes differ.
        ValueError: a shape, device, direction, normalize or restart_every is invalid.

    Note:
        **Complexity.** A sweep does O(N C H W) work in T dependent steps: T is W for a horizontal sweep and H for a
        vertical sweep. With ``restart_every=r``, at most r steps depend on each other. The pieces between restarts are
        independent. They are computed in parallel if there are too few planes to occupy all threads or
        multiprocessors.

        **Memory.** With gradients enabled, the call saves x, gates and source without copying them. It also saves
        every 16th line of h, 1/16 of x's elements; the backward pass recomputes the other lines. Gradients of inputs
        that do not require them are neither computed nor allocated. If the gates require no gradient, no line of h is
        saved or recomputed.

        **Layout.** Contiguous tensors, and views of them such as ``conv_out.unflatten(1, (3, G))``, are read in place.
        Any other layout, most notably ``torch.channels_last``, is copied once per call and once more in the backward
        pass. If several calls share such a tensor, call ``.contiguous()`` on it first. Results are contiguous. Inputs
        are never modified.

        **Reproducibility.** Results are deterministic, bit for bit, for the same shapes. With a different batch size,
        rounding may differ for small maps.

        **Autocast.** Under ``torch.autocast``, all three tensors are cast to the autocast dtype, as for a convolution.
        float64 tensors are not cast.

    Example:
        >>> import torch, spn
        >>> x = torch.eye(4)[None, None]
        >>> gates = torch.zeros(1, 3, 1, 4, 4)
        >>> gates[:, 1] = 1.0  # copy from the left
        >>> bool((spn.propagate(x, gates, "left_to_right")[0, 0] == x[0, 0, :, :1]).all())
        True

    Reference:
        Liu et al., "Learning Affinity via Spatial Propagation Networks", NeurIPS 2017, eq. (1)-(2).
    """
    x, gates, source = _cast_for_autocast(x, gates, source)
    _check_choice("direction", direction, DIRECTIONS)
    _check_choice("normalize", normalize, NORMALIZATIONS)
    restart = _check_restart(restart_every)
    _check_x(x)
    _check_grouped("gates", "G", gates, x, lead=(3,))
    gates = gates.unsqueeze(1)
    if source is not None:
        _check_grouped("source", "G_s", source, x, lead=())
        source = source.unsqueeze(1)
    saved = _saved(x, gates, source)
    out, _, _ = _ops.propagate(x, gates, source, direction, normalize, "none", *saved, restart)
    return out.squeeze(1)


def propagate_four_way(
    x: Tensor,
    gates: Tensor,
    *,
    source: Tensor | None = None,
    normalize: str = "none",
    merge: str | None = "max",
    restart_every: int | None = None,
) -> Tensor:
    r"""Propagate a map in all four directions and merge the results at each position.

    .. math:: h(i) = \max_d h_d(i), \qquad h_d = \mathrm{propagate}(x, \mathrm{gates}_d, d)

    Args:
        x: map, (N, C, H, W); float32, float64, float16 or bfloat16.
        gates: raw weights, (N, 4, 3, G, H, W), with directions in the order left_to_right, right_to_left,
            top_to_bottom, bottom_to_top, then taps -1, 0, +1. The output (N, 12 G, H, W) of a guidance convolution
            can be viewed in this shape: ``conv_out.unflatten(1, (4, 3, G))``.
        source: :math:`\lambda`, (N, 4, G_s, H, W), where G_s divides C; None selects the SPN form.
        normalize: "none", "abs", "unit" or "sigmoid"; see :func:`normalize_gates`.
        merge: "max", "mean", "sum", or None to return the four maps. If directions tie for "max", the first one
            receives the whole gradient.
        restart_every: number of lines after which each sweep restarts; see :func:`propagate`.

    Returns:
        (N, C, H, W), or (N, 4, C, H, W) with ``merge=None``; in x's dtype, merged in the running state's precision.

    Raises:
        TypeError: an argument is not a tensor, not floating point, or dtypes differ.
        ValueError: a shape, device, normalize, merge or restart_every is invalid.

    Note:
        The forward pass is one call of one kernel. With gradients enabled, it saves x, gates and source without copying
        them. It also saves every 16th line of the four states, in the state's dtype: at most 1/4 of x's elements. If
        the gates require no gradient, it saves no lines. For "max" it also saves one byte per element.

        The gradient of the gates needs the most memory: 12 G planes, compared with C planes for the gradient of x.
        Freezing the gates saves this memory and the recomputation of the states. The notes of :func:`propagate` on
        complexity, layout, reproducibility and autocast apply here too.

    Example:
        >>> import torch, spn
        >>> x = torch.rand(2, 8, 32, 48)
        >>> gates = torch.randn(2, 12, 32, 48).unflatten(1, (4, 3, 1))
        >>> spn.propagate_four_way(x, gates, normalize="abs").shape
        torch.Size([2, 8, 32, 48])

    Reference:
        Liu et al., "Learning Affinity via Spatial Propagation Networks", NeurIPS 2017, section 3.3.
    """
    x, gates, source = _cast_for_autocast(x, gates, source)
    _check_choice("normalize", normalize, NORMALIZATIONS)
    if merge is not None:
        _check_choice("merge", merge, MERGES, "or None")
    restart = _check_restart(restart_every)
    _check_x(x)
    _check_grouped("gates", "G", gates, x, lead=(4, 3))
    if source is not None:
        _check_grouped("source", "G_s", source, x, lead=(4,))
    saved = _saved(x, gates, source)
    out, _, _ = _ops.propagate(x, gates, source, "four_way", normalize, merge or "none", *saved, restart)
    return out


def normalize_gates(raw: Tensor, mode: str, direction: str | None = None) -> Tensor:
    r"""Turn raw gates into the weights of the recurrence, as the ``normalize`` argument does inside the kernels.

    ========= ============================================================================== ======================
    "none"    :math:`p_k = g_k`
    "abs"     :math:`p_k = g_k / \max(1, \sum_j |g_j|)`                                       stable by Gershgorin
    "unit"    :math:`p_k = g_k / \max(\sum_j |g_j|, 10^{-4})`                                 absolute sum of one
    "sigmoid" :math:`p_k = \sigma(g_k) / \sum_{j \in V} \sigma(g_j)`                          row-stochastic
    ========= ============================================================================== ======================

    "abs" and "unit" sum over all three taps. "sigmoid" sums over the taps that exist, so it depends on the direction.

    Args:
        raw: gates, (N, 3, G, H, W) for one direction or (N, 4, 3, G, H, W) for four.
        mode: "none", "abs", "unit" or "sigmoid".
        direction: direction of the gates (N, 3, G, H, W). If None, "sigmoid" treats every tap as existing, which
            differs from the rule in the operators along the two borders parallel to the sweep. Must be None for
            four-way gates, whose dimension 1 is the direction.

    Returns:
        The weights p, with the shape of raw. For "sigmoid", the weights of taps that do not exist are zero.

    Example:
        >>> import torch, spn
        >>> raw = torch.tensor([2.0, -1.0, 1.0]).reshape(1, 3, 1, 1, 1)
        >>> spn.normalize_gates(raw, "abs").flatten().tolist()
        [0.5, -0.25, 0.25]
    """
    _check_tensor("raw", raw)
    _check_choice("mode", mode, NORMALIZATIONS)
    if direction is not None:
        _check_choice("direction", direction, DIRECTIONS, "or None")
    shape = tuple(raw.shape)
    if not (len(shape) == 5 and shape[1] == 3) and not (len(shape) == 6 and shape[1:3] == (4, 3)):
        raise ValueError(f"raw must be (N, 3, G, H, W) or (N, 4, 3, G, H, W), got {shape}")
    if len(shape) == 6 and direction is not None:
        raise ValueError(f"direction must be None for gates (N, 4, 3, G, H, W), got {direction!r}")
    return reference.normalize_gates(raw, mode, direction)


# ---- Validation -----------------------------------------------------------------------------------------------------


def _check_choice(name: str, value: object, choices: tuple[str, ...], extra: str = "") -> None:
    if isinstance(value, str) and value in choices:
        return
    listed = ", ".join(repr(choice) for choice in choices)
    got = repr(value) if value is None or isinstance(value, str) else type(value).__name__
    raise ValueError(f"{name} must be one of {listed}{' ' + extra if extra else ''}, got {got}")


def _check_restart(value: object) -> int:
    """Validate restart_every and return the value that the operators expect: 0 for None."""
    if value is None:
        return 0
    return _check_lines("restart_every", value, "or None")


def _check_lines(name: str, value: Any, extra: str = "") -> int:
    """Validate a number of lines, which must be an integer of at least 1."""
    if isinstance(value, bool) or not isinstance(value, (int, torch.SymInt, Integral)):  # NumPy integers
        raise TypeError(f"{name} must be an int{extra and f' {extra}'}, got {type(value).__name__}")
    if value < 1:
        raise ValueError(f"{name} must be at least 1 line{extra and f', {extra}'}, got {value}")
    return min(int(value), 2**63 - 1)


def _check_tensor(name: str, value: object) -> None:
    if not isinstance(value, Tensor):
        raise TypeError(f"{name} must be a torch.Tensor, got {type(value).__name__}")
    if value.dtype not in DTYPES:
        raise TypeError(f"{name} must be float32, float64, float16 or bfloat16, got {_short(value.dtype)}")
    if value.layout != torch.strided:
        raise TypeError(f"{name} must be a dense tensor, got layout {_short(value.layout)}")


def _check_x(x: Tensor, name: str = "x") -> None:
    _check_tensor(name, x)
    if x.dim() != 4:
        raise ValueError(f"{name} must be (N, C, H, W), got {tuple(x.shape)}")
    if min(x.shape[1:]) < 1:
        raise ValueError(f"{name} must be (N, C, H, W) with C, H, W >= 1, got {tuple(x.shape)}")


def _check_grouped(name: str, symbol: str, value: Tensor, x: Tensor, lead: tuple[int, ...]) -> None:
    """Validate gates or source, (N, *lead, groups, H, W), where the number of groups divides C."""
    _check_like(name, value, x)
    n, channels, height, width = x.shape
    shape = value.shape
    if len(shape) != 4 + len(lead) or shape != (n, *lead, shape[-3], height, width):
        symbols = ", ".join(map(str, ("N", *lead, symbol, "H", "W")))
        expected = ", ".join(map(str, (n, *lead, symbol, height, width)))
        raise ValueError(f"{name} must be ({symbols}) = ({expected}), got {tuple(shape)}")
    groups = shape[-3]
    if groups < 1 or channels % groups:
        raise ValueError(
            f"{name} must have a number of groups {symbol} that divides C = {channels}, got {groups}"
        )


def _check_like(name: str, value: Tensor, x: Tensor, x_name: str = "x") -> None:
    _check_tensor(name, value)
    if value.dtype != x.dtype:
        raise TypeError(f"{name} must have {x_name}'s dtype {_short(x.dtype)}, got {_short(value.dtype)}")
    _ops.check_device(name, value, x, x_name)


def _check_shaped_like(name: str, value: Tensor, x: Tensor, x_name: str) -> None:
    _check_like(name, value, x, x_name)
    if value.shape != x.shape:
        expected, got = tuple(x.shape), tuple(value.shape)
        raise ValueError(f"{name} must be (N, C, H, W) = {expected} as {x_name} is, got {got}")


def _short(name: torch.dtype | torch.layout) -> str:
    return str(name).removeprefix("torch.")


def _saved(x: Tensor, gates: Tensor, source: Tensor | None) -> tuple[bool, bool]:
    """Whether the backward pass needs the argmax of the merge, and saved lines of the state (only for the gates)."""
    return _needs_grad(x, gates, source), _needs_grad(gates)


def _needs_grad(*tensors: Tensor | None) -> bool:
    return torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in tensors)


def _cast_for_autocast(
    x: Tensor, gates: Tensor, source: Tensor | None
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Cast tensors to the autocast dtype, as torch does for a convolution; other values are left to validation."""
    dtype = _autocast_dtype(x)
    return _cast(x, dtype), _cast(gates, dtype), None if source is None else _cast(source, dtype)


def _autocast_dtype(x: Tensor) -> torch.dtype | None:
    """The dtype to which autocast casts tensors on x's device, or None."""
    if not isinstance(x, Tensor):
        return None
    device = x.device.type
    # The compiler of torch 2.11 cannot trace is_autocast_available.
    has_autocast = device in ("cpu", "cuda") or torch.amp.is_autocast_available(device)
    return torch.get_autocast_dtype(device) if has_autocast and torch.is_autocast_enabled(device) else None


def _cast(value: Tensor, dtype: torch.dtype | None) -> Tensor:
    castable = isinstance(value, Tensor) and value.is_floating_point() and value.dtype != torch.float64
    return value.to(dtype) if castable and dtype is not None else value
