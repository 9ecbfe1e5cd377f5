"""Training curves of a refiner, as a CSV file and for TensorBoard."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from vos_pipeline.files import replacing


class Curves:
    """Write ``curves.csv``, one row per checkpoint, and, if TensorBoard is installed, also one point per step."""

    FILE = "curves.csv"
    COLUMNS = ("step", "loss", "J coarse", "J refined", "validation loss")

    def __init__(self, folder: Path, done: int) -> None:
        self.path = folder / self.FILE
        self.losses: list[float] = []
        rows = self.path.read_text(errors="replace").splitlines()[1:] if done and self.path.exists() else []
        # An interrupted run may have written a row for a state that it did not save, or a partial row.
        kept = [row for row in rows if _step(row) <= done]
        with replacing(self.path) as file:
            file.write("".join(f"{row}\n" for row in (",".join(self.COLUMNS), *kept)).encode())
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            self.writer = None
        else:
            self.writer = SummaryWriter(str(folder), purge_step=done + 1 if done else None)

    def add_step(self, step: int, loss: float, learning_rate: float) -> None:
        """Record a finished step."""
        self.losses.append(loss)
        self._draw(step, loss=loss, learning_rate=learning_rate)

    def add_checkpoint(self, step: int, **scores: float) -> None:
        """Record the mean loss since the last checkpoint and the validation scores, if there are any."""
        values = [np.mean(self.losses), *(scores.get(name, np.nan) for name in self.COLUMNS[2:])]
        self.losses = []
        with self.path.open("a") as file:
            file.write(",".join([str(step), *(f"{value:.5f}" for value in values)]) + "\n")
        self._draw(step, **scores)

    def close(self) -> None:
        """Wait until TensorBoard's writer thread has written all points."""
        if self.writer is not None:
            self.writer.close()

    def _draw(self, step: int, **values: float) -> None:
        if self.writer is not None:
            for name, value in values.items():
                self.writer.add_scalar(name, value, step)


def _step(row: str) -> float:
    """Return the step of a row, or infinity if the row is incomplete."""
    values = row.split(",")
    whole = len(values) == len(Curves.COLUMNS) and values[0].isdecimal()
    return int(values[0]) if whole else math.inf
