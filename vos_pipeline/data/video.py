"""Write H.264 videos that any player and browser can show."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from itertools import chain, pairwise
from pathlib import Path

import av
import numpy as np

from vos_pipeline.data.decoding import DEFAULT_FRAME_RATE
from vos_pipeline.files import replacing

ENCODERS = ("libx264", "mpeg4")  # some builds of FFmpeg lack the first one
TICKS = 60_000  # clock ticks per second if frames have separate times; MPEG-4 allows up to 65 535


def write_video(
    path: str | Path,
    frames: Iterable[np.ndarray],
    rate: float = DEFAULT_FRAME_RATE,
    times: Sequence[float] | None = None,
) -> None:
    """Write uint8 RGB frames (H, W, 3) as an mp4; readers never see a partial file.

    H.264 halves the colour planes, so an odd width or height is made even by repeating the last column or row.

    Args:
        frames: at least one frame; all have the same size.
        rate: frames per second.
        times: time of each frame in seconds, increasing; None shows the frames at the constant rate.
    """
    encoder = next(name for name in ENCODERS if name in av.codecs_available)
    pictures = map(_picture, frames)
    first = next(pictures, None)
    if first is None:
        raise ValueError("frames must hold at least one frame, got none")
    with replacing(path) as file, av.open(file, "w", format="mp4") as container:
        # 23.976 stands for 24000 / 1001
        exact = Fraction(rate).limit_denominator(1001)
        stream = container.add_stream(encoder, rate=exact)
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height, stream.pix_fmt = first.width, first.height, "yuv420p"
        if encoder == "libx264":
            stream.options = {"crf": "20", "preset": "veryfast"}  # visually lossless, a few ms per frame
        else:
            stream.bit_rate = 8_000_000
        shown: Iterable[av.VideoFrame] = chain([first], pictures)
        if times is not None:
            stream.codec_context.time_base = Fraction(1, TICKS)
            shown = _timed(shown, times, round(TICKS / exact))
        for picture in shown:
            container.mux(stream.encode(picture))
        container.mux(stream.encode())


def _timed(pictures: Iterable[av.VideoFrame], times: Sequence[float], last: int) -> Iterator[av.VideoFrame]:
    """Yield the frames with their times; the last frame is shown for ``last`` ticks."""
    ticks = [round(TICKS * (time - times[0])) for time in times]
    spans = [after - before for before, after in pairwise(ticks)] + [last]
    for picture, tick, span in zip(pictures, ticks, spans, strict=True):
        picture.pts, picture.duration, picture.time_base = tick, span, Fraction(1, TICKS)
        yield picture


def _picture(frame: np.ndarray) -> av.VideoFrame:
    """Return the frame with an even width and height."""
    height, width = frame.shape[:2]
    even = np.pad(frame, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    return av.VideoFrame.from_ndarray(even, format="rgb24")
