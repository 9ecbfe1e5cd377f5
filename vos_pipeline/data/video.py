"""Video files in and out: decoded once to pictures, written as H.264 that any player and browser shows."""

from __future__ import annotations

import math
import os
import shutil
import tempfile
from collections.abc import Iterable
from fractions import Fraction
from itertools import chain
from pathlib import Path

import av
import cv2
import numpy as np

from vos_pipeline.data.images import write_image
from vos_pipeline.errors import PipelineError
from vos_pipeline.files import replacing

DEFAULT_FRAME_RATE = 24.0  # that of DAVIS, in frames a second
ENCODERS = ("libx264", "mpeg4")  # some builds of FFmpeg come without the first


def decode_video(video: Path, work_dir: Path) -> Path:
    """Decode to ``work_dir/<name>-<size>-<time>/%05d.jpg`` once: a folder of that name is complete.

    Raises:
        PipelineError: OpenCV can not read the file as a video.
    """
    stat = video.stat()
    folder = work_dir / f"{video.stem}-{stat.st_size}-{stat.st_mtime_ns}"
    if folder.is_dir():
        return folder
    work_dir.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=".decoding-", dir=work_dir))
    capture = cv2.VideoCapture(str(video))
    try:
        count = 0
        while True:
            decoded, frame = capture.read()
            if not decoded:
                break
            write_image(partial / f"{count:05d}.jpg", np.ascontiguousarray(frame[..., ::-1]), quality=95)
            count += 1
        if count == 0:
            raise PipelineError(
                f"{video}: OpenCV can not decode this as a video; give an .mp4 or a folder of frames"
            )
        os.replace(partial, folder)
    finally:
        capture.release()
        shutil.rmtree(partial, ignore_errors=True)
    return folder


def frame_rate(video: Path) -> float:
    """Frames a second as the file says, or 24 where it does not say anything likely."""
    capture = cv2.VideoCapture(str(video))
    rate = capture.get(cv2.CAP_PROP_FPS)
    capture.release()
    return rate if math.isfinite(rate) and 0 < rate <= 1000 else DEFAULT_FRAME_RATE


def write_video(path: str | Path, frames: Iterable[np.ndarray], rate: float = DEFAULT_FRAME_RATE) -> None:
    """Write uint8 RGB frames (H, W, 3) as an mp4; viewers never see half a file.

    H.264 halves the colour planes, so an odd width or height is made even by repeating the last column or
    row.

    Args:
        frames: all of one size, at least one.
        rate: frames a second.
    """
    encoder = next(name for name in ENCODERS if name in av.codecs_available)
    pictures = (av.VideoFrame.from_ndarray(_made_even(frame), format="rgb24") for frame in frames)
    first = next(pictures, None)
    if first is None:
        raise ValueError("frames must hold at least one frame, got none")
    with replacing(path) as file, av.open(file, "w", format="mp4") as container:
        # 23.976 is meant as 24000 / 1001
        stream = container.add_stream(encoder, rate=Fraction(rate).limit_denominator(1001))
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height, stream.pix_fmt = first.width, first.height, "yuv420p"
        if encoder == "libx264":
            stream.options = {"crf": "20", "preset": "veryfast"}  # visually lossless, some ms a frame
        else:
            stream.bit_rate = 8_000_000
        for picture in chain([first], pictures):
            container.mux(stream.encode(picture))
        container.mux(stream.encode())


def _made_even(frame: np.ndarray) -> np.ndarray:
    height, width = frame.shape[:2]
    return np.pad(frame, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
