"""A user's own video: a folder of pictures, or a file that FFmpeg can decode."""

from __future__ import annotations

from pathlib import Path

from vos_pipeline.data.decoding import DEFAULT_FRAME_RATE, decode_video, frame_rate, frame_times
from vos_pipeline.data.folders import check_name, list_images
from vos_pipeline.data.sequence import Sequence, validated
from vos_pipeline.errors import PipelineError


def load_frames(source: str | Path, first_mask: str | Path, work_dir: str | Path | None = None) -> Sequence:
    """Open a user's own video: a folder of pictures in natural order, or a file that FFmpeg can decode.

    Args:
        source: the folder or the video file. first_mask: label mask of the first frame.
        work_dir: where the frames of a video file are kept as JPEG (a later call finds them there).

    Raises:
        PipelineError: no frames, an undecodable video, or a mask that does not fit the first frame.
    """
    source, first_mask, times = Path(source), Path(first_mask), None
    check_name(source.absolute())
    if source.is_dir():
        name, rate, frames = source.resolve().name, DEFAULT_FRAME_RATE, list_images(source)
    elif source.is_file():
        if work_dir is None:
            raise ValueError("work_dir must be given to decode a video file, got None")
        name, rate = source.stem, frame_rate(source)
        folder = decode_video(source, Path(work_dir))
        frames, times = list_images(folder), frame_times(folder)
    else:
        raise PipelineError(f"{source}: no such file or folder")
    if len(frames) == 1:
        raise PipelineError(f"{source}: holds one frame; its mask is given, so there is nothing to segment")
    return validated(Sequence(name, tuple(frames), (first_mask,) + (None,) * (len(frames) - 1), rate, times))
