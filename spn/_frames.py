"""Frames as a network takes them: padded to whole cells, cropped again, cut into tiles."""

from __future__ import annotations

from itertools import pairwise
from typing import cast

import torch
from torch import Tensor

TILE_OVERLAP = 128  # pixels that neighbouring tiles share: well over the width of a coarse mask's unsure band


def whole_cells(side: int, multiple: int) -> int:
    """The next multiple, two of them or more: torch.export has to know that no map of the guidance has one line.

    Not side + -side % multiple, which the compiler fails on.
    """
    cells = (side + multiple - 1) // multiple
    if torch.compiler.is_compiling():
        return cast(int, torch.sym_max(2, cells) * multiple)
    return (cells + (cells < 2)) * multiple  # max(2, cells), which torch.jit.trace would not record


def cropped(maps: Tensor, height: int, width: int) -> Tensor:
    if not torch.compiler.is_exporting():
        return maps[..., :height, :width]
    # A slice, unlike an index, asks whether the maps are large enough, which torch.export can not tell for all sizes.
    rows, columns = (torch.arange(side, device=maps.device) for side in (height, width))
    return maps.index_select(-2, rows).index_select(-1, columns)


def tile_spans(length: int, tile: int) -> list[tuple[int, int, int, int]]:
    """Tiles along one side as (start, end, first kept, last kept + 1): even steps, kept parts that abut."""
    if length <= tile:
        return [(0, length, 0, length)]
    count = -(-(length - TILE_OVERLAP) // (tile - TILE_OVERLAP))
    starts = [round(i * (length - tile) / (count - 1)) for i in range(count)]
    cuts = [0, *((a + tile + b) // 2 for a, b in pairwise(starts)), length]
    return [(s, s + tile, first, last) for s, first, last in zip(starts, cuts[:-1], cuts[1:], strict=True)]
