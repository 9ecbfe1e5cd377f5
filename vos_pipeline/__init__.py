"""Video object segmentation around spatial propagation: nets, CRAF, DAVIS data, metrics and a command line.

It has rooms, each of which imports from those before it alone: ``settings``, ``data``, ``evaluation``, ``training``,
``nets``, ``refiner``, ``temporal``, ``report``, ``pipeline``, ``cli``. A room offers others what its ``__init__``
exports. Run it with ``python -m vos_pipeline``.
"""

from typing import Any

__all__ = ["__version__"]


def __getattr__(name: str) -> Any:
    # Read on demand: importing spn imports torch, which `--help` and `evaluate` do not need.
    if name == "__version__":
        from spn import __version__

        return __version__
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
