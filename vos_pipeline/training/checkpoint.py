"""Checkpoints of a training: written whole or not at all, read with an error that says what to do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from vos_pipeline.errors import PipelineError
from vos_pipeline.files import replacing


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write all of it or nothing."""
    with replacing(path) as file:
        try:
            torch.save(state, file)
        except RuntimeError as error:
            # After a write that failed, or that Ctrl-C broke off, torch fails once more and hides the first reason.
            if isinstance(error.__context__, (OSError, KeyboardInterrupt)):
                raise error.__context__ from None
            raise


def load_checkpoint(path: Path, device: str = "cpu", lazily: bool = False) -> dict[str, Any]:
    """Read what :func:`save_checkpoint` wrote; PipelineError if it is no such file.

    ``lazily`` reads tensors when they are first used, for those who want to know the step alone.
    """
    if not path.exists():
        raise PipelineError(f"{path}: there is no such net: run again with --resume, which trains it")
    try:
        state = torch.load(path, map_location=device, weights_only=True, mmap=lazily)
    except (MemoryError, torch.OutOfMemoryError, PermissionError):  # the file may be whole
        raise
    except Exception as error:  # a damaged archive or pickle fails in any way
        raise unusable(path, f"damaged, or no checkpoint: {type(error).__name__}") from error
    if not isinstance(state, dict):
        raise unusable(path, f"it holds a {type(state).__name__}")
    return state


def unusable(path: Path, why: object) -> PipelineError:
    """The error for a checkpoint that cannot be read or does not fit."""
    return PipelineError(f"cannot read {path} ({why}): delete it and run again with --resume")
