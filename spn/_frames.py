"""Pad frames to whole cells of the guidance, crop results, and split frames into tiles."""

from __future__ import annotations

from itertools import pairwise
from typing import cast

import torch
from torch import Tensor

# Pixels shared by neighbouring tiles; well over the width of the uncertain band of a coarse mask.
TILE_OVERLAP = 128


def whole_cells(side: int, multiple: int) -> int:
    """Round a side up to a multiple, at least twice the multiple.

    torch.export has to know that no map of the guidance has only one line. The expression avoids
    side + -side % multiple, on which the compiler fails.
    """
    cells = (side + multiple - 1) // multiple
    if torch.compiler.is_compiling():
        return cast(int, torch.sym_max(2, cells) * multiple)
    return (cells + (cells < 2)) * multiple  # equals max(2, cells), which torch.jit.trace would not record


def cropped(maps: Tensor, height: int, width: int) -> Tensor:
    if not torch.compiler.is_exporting():
        return maps[..., :height, :width]
    # A slice compares its end with the size of the maps, which torch.export cannot decide for all sizes.
    rows, columns = (torch.arange(side, device=maps.device) for side in (height, width))
    return maps.index_select(-2, rows).index_select(-1, columns)


def tile_spans(length: int, tile: int) -> list[tuple[int, int, int, int]]:
    """Return evenly spaced tiles along one side as (start, end, first kept, last kept + 1); kept parts adjoin."""
    if length <= tile:
        return [(0, length, 0, length)]
    count = -(-(length - TILE_OVERLAP) // (tile - TILE_OVERLAP))
    starts = [round(i * (length - tile) / (count - 1)) for i in range(count)]
    cuts = [0, *((a + tile + b) // 2 for a, b in pairwise(starts)), length]
    return [(s, s + tile, first, last) for s, first, last in zip(starts, cuts[:-1], cuts[1:], strict=True)]
