"""Video object segmentation around spatial propagation: nets, filters over time, DAVIS data, metrics, a command line.

It has rooms, each of which imports from those before it alone: ``settings``, ``data``, ``evaluation``, ``training``,
``nets``, ``refiner``, ``temporal``, ``report``, ``pipeline``, ``cli``. A room offers others what its ``__init__``
exports. Run it with ``python -m vos_pipeline``, or segment a video frame by frame with :class:`Segmenter`.
"""

from typing import Any

__all__ = ["Segmenter", "__version__"]


def __getattr__(name: str) -> Any:
    # Imported on demand: torch takes a second, which `--help` and `evaluate` do not need.
    if name == "__version__":
        from spn import __version__

        return __version__
    if name == "Segmenter":
        from vos_pipeline.pipeline import Segmenter

        return Segmenter
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
