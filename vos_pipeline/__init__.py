"""Video object segmentation with spatial propagation: networks, temporal filters, DAVIS data, metrics, a command line.

Run it with ``python -m vos_pipeline``, or segment a video frame by frame with :class:`Segmenter`.

The subpackages are ``settings``, ``data``, ``evaluation``, ``training``, ``nets``, ``refiner``, ``temporal``,
``report``, ``pipeline`` and ``cli``. Each one imports only from those before it in this list, and uses only what their
``__init__`` exports.
"""

from typing import Any

__all__ = ["Segmenter", "__version__"]


def __getattr__(name: str) -> Any:
    # Imported on demand: importing torch takes a second, and `--help` and `evaluate` do not need it.
    if name == "__version__":
        from spn import __version__

        return __version__
    if name == "Segmenter":
        from vos_pipeline.pipeline import Segmenter

        return Segmenter
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
