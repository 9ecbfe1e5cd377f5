"""Memory baselines: calls of plain torch that move the same number of bytes as the operator."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

Call = Callable[[], object]


def copy_of(total_bytes: int, device: str) -> Call:
    """Return a copy into an existing tensor; `total_bytes` is the sum of bytes read and written."""
    source = torch.ones(total_bytes // 2, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return lambda: target.copy_(source)


def fresh_of(bytes_read: int, sizes: Sequence[int], device: str) -> Call:
    """Return a call that allocates tensors of these sizes in bytes and reads `bytes_read`, or at least their sizes.

    ``a * 2`` makes each tensor and ``sum()`` reads the remaining bytes. The tensors are freed together, like the
    results of the operator when nothing refers to them.
    """
    factors = [_values(size, device) for size in sizes]
    rest = _values(max(0, bytes_read - sum(sizes)), device)

    def call() -> list[Tensor]:
        made = [factor * 2 for factor in factors]
        rest.sum()
        return made

    return call


def _values(size: int, device: str) -> Tensor:
    """Return a float32 tensor of this many bytes, rounded down to whole values."""
    return torch.ones(size // 4, device=device)


def sizes_returned(name: str, forward: Callable[..., Tensor], given: Sequence[Tensor]) -> list[int]:
    """Return the bytes of each tensor that a pass allocates: result and, for "both", saved tensors and gradients."""
    result = given[0].nbytes
    if name == "forward":
        return [result]
    return [result, *kept_bytes(forward, given), *(t.nbytes for t in given)]


def kept_bytes(forward: Callable[..., Tensor], given: Sequence[Tensor]) -> list[int]:
    """Return the bytes of each tensor that autograd saves besides the inputs and the result."""
    given = [t.detach().requires_grad_() for t in given]
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        result = forward(*given)
    for tensor in (*given, result):
        kept.pop(tensor.untyped_storage().data_ptr(), None)
    return [size for size in kept.values() if size]


def multiplication(megabytes: float, device: str) -> dict[str, Call]:
    """Return ``a * 2`` for an `a` of this many megabytes, into existing and into fresh memory."""
    a = _values(int(1e6 * megabytes), device)
    target = torch.empty_like(a)
    return {"existing": lambda: torch.mul(a, 2, out=target), "fresh": lambda: a * 2}
