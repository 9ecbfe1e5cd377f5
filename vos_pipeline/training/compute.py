"""Where and how a net computes: device, precision, memory format, compilation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor, nn

Module = TypeVar("Module", bound=nn.Module)


@dataclass(frozen=True)
class Compute:
    """Where and how a net computes.

    Args:
        device: ``"cpu"``, ``"cuda"``, ``"cuda:1"``.
        precision: "float32", or "bfloat16" or "float16" by autocast.
        compiled: whether torch.compile makes the kernels of a training.
    """

    device: str = "cpu"
    precision: str = "float32"
    compiled: bool = False

    @property
    def kind(self) -> str:
        """The type of the device, without its index."""
        return torch.device(self.device).type

    @property
    def layout(self) -> torch.memory_format:
        """Channels last, which GPUs and float32 on a CPU compute fastest with (a step of the small net: 235 ms of
        one core against 274 ms), but planes for bfloat16 on a CPU (163 ms against 212 ms)."""
        planes = self.kind == "cpu" and self.precision != "float32"
        return torch.contiguous_format if planes else torch.channels_last

    def autocast(self) -> torch.autocast:
        """The context in which a net computes with ``precision``."""
        dtype = getattr(torch, self.precision)
        return torch.autocast(self.kind, dtype, enabled=dtype != torch.float32)

    def place(self, net: Module) -> Module:
        """The net, its weights moved here."""
        return net.to(self.device).to(memory_format=self.layout)

    def move(self, value: Tensor) -> Tensor:
        """A copy here of a batch of images (N, C, H, W), or of another tensor; itself if it is here already."""
        layout = self.layout if value.dim() == 4 else torch.preserve_format
        return value.to(self.device, non_blocking=True, memory_format=layout)
