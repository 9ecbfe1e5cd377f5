"""Checkpoints: written completely or not at all, and read with errors that say what to do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from vos_pipeline.errors import PipelineError
from vos_pipeline.files import replacing


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write a checkpoint completely or not at all."""
    with replacing(path) as file:
        try:
            torch.save(state, file)
        except RuntimeError as error:
            # After a failed or interrupted write, torch raises a second error that hides the original one.
            if isinstance(error.__context__, (OSError, KeyboardInterrupt)):
                raise error.__context__ from None
            raise


def load_checkpoint(path: Path, device: str = "cpu", lazily: bool = False) -> dict[str, Any]:
    """Read a file of :func:`save_checkpoint`; raise PipelineError if it is missing or unreadable.

    ``lazily`` reads tensors only when they are used, for callers that need only the step.
    """
    if not path.exists():
        raise PipelineError(f"{path}: does not exist: run again with --resume to train it")
    try:
        state = torch.load(path, map_location=device, weights_only=True, mmap=lazily)
    except (MemoryError, torch.OutOfMemoryError, PermissionError):  # the file may be intact
        raise
    except Exception as error:  # a damaged archive or pickle can fail in many ways
        raise unusable(path, f"damaged, or not a checkpoint: {type(error).__name__}") from error
    if not isinstance(state, dict):
        raise unusable(path, f"it contains a {type(state).__name__}")
    return state


def unusable(path: Path, why: object) -> PipelineError:
    """Return the error for a checkpoint that cannot be read or does not fit."""
    return PipelineError(f"cannot read {path} ({why}): delete it and run again with --resume")
