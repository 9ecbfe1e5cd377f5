"""spn.show_config(): describe the installation and the backend of each device."""

from __future__ import annotations

import sys

import torch

from . import _native, _ops
from ._version import __version__


class _Report(str):
    """Text that an interactive session displays line by line, without quotes."""

    def __repr__(self) -> str:
        return str(self)


def show_config() -> str:
    """Describe the installation: versions, kernel libraries and the backend of each device.

    If a kernel library is missing, the text says why.

    Returns:
        Several lines of text, to print or to include in a bug report.

    Example:
        >>> import spn
        >>> print(spn.show_config().splitlines()[0].split()[0])
        spn
    """
    lines = [
        f"spn          {__version__}",
        f"torch        {torch.__version__} (CUDA {torch.version.cuda or 'none'})",
        f"python       {sys.version.split()[0]}",
        f"CPU kernels  {_describe(_ops.CPU)}",
        f"CUDA kernels {_describe(_ops.CUDA)}",
    ]
    if _ops.CPU.loaded:
        lines.append(f"CPU capability {torch.ops.spn.cpu_capability()}, {torch.get_num_threads()} threads")
    if torch.cuda.is_available():
        major, minor = torch.cuda.get_device_capability()
        line = f"GPU          {torch.cuda.get_device_name()} (sm_{major}{minor})"
        reason = _ops.why_reference(torch.device("cuda"))
        lines.append(f"{line}: the PyTorch reference runs, {reason}" if reason else line)
    return _Report("\n".join(lines))


def _describe(library: _native.Library) -> str:
    if not library.loaded:
        return f"no: {library.reason}; the PyTorch reference runs instead"
    return ", ".join(filter(None, (library.file, library.left_out)))
