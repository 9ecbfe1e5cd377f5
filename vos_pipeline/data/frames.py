"""Open a user's video: a folder of images, or a file that FFmpeg can decode."""

from __future__ import annotations

import re
from pathlib import Path

from vos_pipeline.data.decoding import DEFAULT_FRAME_RATE, decode_video, decoded_frames, frame_rate
from vos_pipeline.data.folders import IMAGE_SUFFIXES, check_name, list_images
from vos_pipeline.data.labels import read_labels
from vos_pipeline.data.sequence import Sequence, validated
from vos_pipeline.errors import PipelineError


def load_frames(
    source: str | Path,
    first_mask: str | Path,
    work_dir: str | Path | None = None,
    first_frame: str | None = None,
) -> Sequence:
    """Open a user's video: a folder of images in natural order, or a file that FFmpeg can decode.

    Args:
        source: the folder or the video file.
        first_mask: label mask of the first frame.
        work_dir: folder for the decoded JPEG frames of a video file; a later call reuses them.
        first_frame: the frame that the mask belongs to: its name, with or without suffix, or the number in its name
            (7 for 00007.jpg). Frames of a video file are numbered from 0. Earlier frames are omitted.

    Raises:
        PipelineError: there are no frames, the video cannot be decoded, or the first frame does not exist; or the mask
            has another size than the frames, has the name of another frame, or is in the folder of the frames.
    """
    source, first_mask, times = Path(source), Path(first_mask), None
    check_name(source.absolute())
    if first_mask.suffix.lower() in IMAGE_SUFFIXES and first_mask.parent.resolve() == source.resolve():
        raise PipelineError(
            f"{first_mask}: this mask is in the folder of the frames and would be read as a frame; move it to another "
            "folder, and pass --first-frame if it does not belong to the first frame"
        )
    if source.is_dir():
        name, rate, frames = source.resolve().name, DEFAULT_FRAME_RATE, list_images(source)
    elif source.is_file():
        if work_dir is None:
            raise ValueError("work_dir must be given to decode a video file, got None")
        name, rate = source.stem, frame_rate(source)
        read_labels(first_mask)  # decoding may take long
        frames, times = decoded_frames(decode_video(source, Path(work_dir)))
    else:
        raise PipelineError(f"{source}: no such file or folder")
    if len(frames) == 1:
        raise PipelineError(
            f"{source}: contains only one frame, whose mask is given; there is nothing to segment"
        )
    if first_frame is None:
        _check_name_of_mask(first_mask, frames)
    else:
        start = _index(first_frame, frames, source)
        frames = frames[start:]
        times = times and tuple(time - times[start] for time in times[start:])
    if len(frames) == 1:
        raise PipelineError(
            f"{source}: --first-frame {first_frame} is the last frame; there is nothing to segment"
        )
    return validated(Sequence(name, tuple(frames), (first_mask,) + (None,) * (len(frames) - 1), rate, times))


def _check_name_of_mask(mask: Path, frames: list[Path]) -> None:
    """Raise PipelineError if the mask has the name of a frame other than the first."""
    by_number = frames if mask.stem.isdecimal() else []
    named = [frame for frame in frames if frame.stem == mask.stem] or _with_number(mask.stem, by_number)
    if named and frames[0] not in named:
        raise PipelineError(
            f"{mask}: has the name of frame {named[0].stem}, but the video begins at {frames[0].stem}; pass "
            f"--first-frame {named[0].stem} to begin there, or --first-frame {frames[0].stem} if the mask belongs to it"
        )


def _index(name: str, frames: list[Path], source: Path) -> int:
    """Return the index of the frame with this name or number; raise PipelineError unless exactly one frame matches."""
    found = [frame for frame in frames if name in (frame.name, frame.stem)] or _with_number(name, frames)
    if len(found) != 1:
        wrong = f"{len(found)} frames have the number" if found else "no frame has the name or number"
        raise PipelineError(
            f"{source}: {wrong} {name}; --first-frame must select one frame, "
            f"and the frames are {frames[0].stem} to {frames[-1].stem}"
        )
    return frames.index(found[0])


def _with_number(number: str, frames: list[Path]) -> list[Path]:
    """Return the frames whose names have this number as their last number."""
    if not number.isdecimal():
        return []
    numbers = [re.findall(r"\d+", frame.stem) for frame in frames]
    return [
        frame for frame, found in zip(frames, numbers, strict=True) if found and int(found[-1]) == int(number)
    ]
