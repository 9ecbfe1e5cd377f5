"""A video file as pictures: decoded once, whole or not at all, with the times of its frames."""

from __future__ import annotations

import json
import math
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.container import InputContainer
from av.stream import Disposition
from av.video.reformatter import Interpolation

from vos_pipeline.data.folders import check_name
from vos_pipeline.data.images import write_image
from vos_pipeline.errors import PipelineError, warn

DEFAULT_FRAME_RATE = 24.0  # that of DAVIS, in frames a second
HIGHEST_FRAME_RATE = 1000.0  # a file that says more has no rate
EVEN = 0.25  # a frame this share of a frame's time off its place is still on time: clocks of containers are coarse
MISCOUNTED = 2  # good files declare a frame or two that no decoder gives
DECODED = "decoded.json"  # beside the frames: how many there are, and their times where the rate is variable


def decode_video(video: Path, work_dir: Path) -> Path:
    """Decode to ``work_dir/<name>-<size>-<time>/%05d.jpg`` once, see :func:`decoded_frames`.

    The rotation that the file asks for is applied. A warning on stderr tells of a file that declares some other
    number of frames, or that the decoder complains of. Other files in that folder are left alone.

    Raises:
        PipelineError: the file is no video, is damaged or cut short, or another file has the place of a frame.
    """
    check_name(video)
    stat = video.stat()
    folder = work_dir / f"{video.stem}-{stat.st_size}-{stat.st_mtime_ns}"
    if (folder / DECODED).is_file() and all(path.is_file() for path in decoded_files(folder)):
        return folder
    work_dir.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=".decoding-", dir=work_dir))
    try:
        with _logged_errors() as complaints, _open(video) as (container, stream):
            declared, rate = _declared(container, stream), _rate(stream)
            decoded = _decode(container, stream, partial)
            expected = _expected(container, stream, declared, decoded)
        _check(video, decoded, expected, [message for _, _, message in complaints])
        times = uneven(decoded.times, rate)
        (partial / DECODED).write_text(json.dumps({"frames": len(decoded.times), "times": times}))
        partial.chmod(0o755)  # mkdtemp makes it private
        _move(partial, folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return folder


def frame_rate(video: Path) -> float:
    """Frames a second as the file says, or 24 where it does not say anything likely."""
    with _open(video) as (_, stream):
        return _rate(stream)


def decoded_frames(folder: Path) -> tuple[list[Path], tuple[float, ...] | None]:
    """What :func:`decode_video` left: the frames, and their times in seconds, or None for a constant rate."""
    path = folder / DECODED
    try:
        note = json.loads(path.read_bytes())
        count, times = int(note["frames"]), note["times"]
        return [folder / _frame_name(t) for t in range(count)], times and tuple(map(float, times))
    except (ValueError, TypeError, LookupError) as error:
        raise PipelineError(f"{path}: is damaged ({error!r}): delete it and run again") from None


def decoded_files(folder: Path) -> list[Path]:
    """All files that :func:`decode_video` wrote into a folder."""
    return [*decoded_frames(folder)[0], folder / DECODED]


def uneven(times: list[float | None], rate: float) -> list[float] | None:
    """Seconds from the first frame; None if frames come at the rate, or their times are unknown or out of order."""
    known = [t for t in times if t is not None]
    if len(known) < len(times) or any(a >= b for a, b in pairwise(known)):
        return None  # AVI files may have no times at all
    seconds = [round(t - known[0], 6) for t in known]
    on_time = all(abs(t * rate - place) <= EVEN for place, t in enumerate(seconds))
    return None if on_time else seconds


def _move(partial: Path, folder: Path) -> None:
    """Give a complete folder its name; if there is a folder of that name, add what it lacks."""
    try:
        os.replace(partial, folder)
    except OSError:
        if not folder.is_dir():
            raise
        sources = decoded_files(partial)  # the note comes last
        for source in sources:
            place = folder / source.name
            if os.path.lexists(place) and not (place.is_file() and place.read_bytes() == source.read_bytes()):
                raise PipelineError(
                    f"{place}: is in the way of a frame of the video: move it, or give another --out"
                ) from None
        for source in sources:
            os.replace(source, folder / source.name)


def _frame_name(t: int) -> str:
    return f"{t:05d}.jpg"


# --- opening ------------------------------------------------------------------------------------------------


@contextmanager
def _open(video: Path) -> Iterator[tuple[InputContainer, av.VideoStream]]:
    """The container and its first video, opened by a file object: a name such as 12:30:05.mp4 is no address."""
    with open(video, "rb") as file:
        if video.stat().st_size == 0:
            raise PipelineError(f"{video}: is empty (0 bytes); copy or download it again")
        try:
            with _logged_errors():  # for the reason
                container = av.open(file, "r", metadata_errors="replace")
        except (av.FFmpegError, UnicodeError) as error:
            raise PipelineError(
                f"{video}: can not be decoded as a video ({_reason(error)}); "
                "give an .mp4 that plays or a folder of frames"
            ) from None
        with container:
            streams = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
            if not streams or container.format.name == "tty":  # FFmpeg draws text
                held = ", ".join(sorted({s.type for s in container.streams} - {"video"})) or "text"
                raise PipelineError(f"{video}: holds no video but {held}; give a video or a folder of frames")
            yield container, streams[0]


@contextmanager
def _logged_errors() -> Iterator[list[tuple[int, str, str]]]:
    """What FFmpeg logs as errors, of any thread: decoders conceal damage and tell of it there alone."""
    level, skip = av.logging.get_level(), av.logging.get_skip_repeated()
    av.logging.set_level(av.logging.ERROR)
    av.logging.set_skip_repeated(False)  # it would tell of repeats in the file before
    try:
        with av.logging.Capture(local=False) as logs:
            yield logs
    finally:
        av.logging.set_level(level)
        av.logging.set_skip_repeated(skip)


def _rate(stream: av.VideoStream) -> float:
    rate = float(stream.average_rate or stream.guessed_rate or 0)
    return rate if math.isfinite(rate) and 0 < rate <= HIGHEST_FRAME_RATE else DEFAULT_FRAME_RATE


def _reason(error: Exception) -> str:
    """What FFmpeg says last, which is closer to the cause than its error code."""
    log = getattr(error, "log", None)
    return str(log[2]).strip() if log else getattr(error, "strerror", None) or type(error).__name__


# --- decoding -----------------------------------------------------------------------------------------------


@dataclass
class _Decoded:
    """What came out of a file."""

    times: list[float | None] = field(default_factory=list)  # of the frames
    damaged: int = 0  # frames marked by the decoder, and packets that it refused
    failures: list[str] = field(default_factory=list)
    packet_times: list[float] = field(default_factory=list)  # of the video, in the order of decoding
    end_of_others: float = 0.0  # when the sound and the like end

    @property
    def skipped(self) -> int:
        """Packets shown before the first frame: a cut between key frames leaves some that can not be decoded."""
        first = self.times[0] if self.times else None
        return 0 if first is None else sum(t < first - 1e-6 for t in self.packet_times)


def _decode(container: InputContainer, stream: av.VideoStream, folder: Path) -> _Decoded:
    """Write all frames into the folder."""
    # Threads for the slices of a frame hide which frames are damaged. Writing JPEGs takes longer than decoding.
    stream.thread_type = "NONE"
    decoded = _Decoded()
    for packet in _packets(container, decoded):
        time = None if packet.pts is None or packet.time_base is None else packet.pts * packet.time_base
        if packet.stream_index != stream.index:
            if time is not None:
                decoded.end_of_others = max(decoded.end_of_others, float(time + _duration(packet)))
            continue
        if packet.is_corrupt:
            decoded.failures.append("a packet is marked as damaged")
        if time is not None and not packet.is_discard:
            decoded.packet_times.append(float(time))
        for frame in _frames(packet, decoded):
            decoded.damaged += frame.is_corrupt
            write_image(folder / _frame_name(len(decoded.times)), _rgb(frame), quality=95)
            decoded.times.append(frame.time)
    return decoded


def _packets(container: InputContainer, decoded: _Decoded) -> Iterator[av.Packet[Any]]:
    """All packets of a file, as far as it can be read."""
    try:
        yield from container.demux()
    except av.FFmpegError as error:
        decoded.damaged += 1
        decoded.failures.append(_reason(error))


def _frames(packet: av.Packet[Any], decoded: _Decoded) -> list[av.VideoFrame]:
    """The frames that a packet completes; a damaged one none."""
    try:
        return [frame for frame in packet.decode() if isinstance(frame, av.VideoFrame)]
    except av.FFmpegError as error:
        decoded.failures.append(_reason(error))
        decoded.damaged += bool(decoded.times)  # a broadcast may begin anywhere
        return []


def _rgb(frame: av.VideoFrame) -> np.ndarray:
    """8-bit RGB, turned as the file asks for."""
    picture = frame.to_ndarray(format="rgb24", interpolation=Interpolation.BICUBIC)
    quarters, rest = divmod(frame.rotation, 90)
    return np.ascontiguousarray(np.rot90(picture, quarters)) if rest == 0 else picture


def _duration(packet: av.Packet[Any]) -> Fraction:
    return (packet.duration or 0) * (packet.time_base or Fraction(0))


# --- is that all? -------------------------------------------------------------------------------------------


def _declared(container: InputContainer, stream: av.VideoStream) -> int:
    """The number of frames that a file says it has; 0 where it does not say."""
    if "mp4" not in container.format.name.split(","):
        return stream.frames
    # An edit list takes frames away, which the index tells and the count does not.
    entries = list(stream.index_entries)
    fragmented = len(entries) > stream.frames  # the count is that of the first fragment
    return 0 if fragmented else sum(not entry.is_discard for entry in entries)


def _expected(container: InputContainer, stream: av.VideoStream, declared: int, decoded: _Decoded) -> int:
    """The number of frames to expect: declared, or by the duration; as many as came where a file has neither."""
    count, rate = len(decoded.times), _rate(stream)
    if declared:
        return max(declared - decoded.skipped, 0)
    known = [t for t in decoded.times if t is not None]
    # The last frame may last as long as any.
    longest = max([1 / rate, *(b - a for a, b in pairwise(known))])
    reached = max(known, default=0.0) + longest
    if stream.duration and stream.time_base:
        end = float(((stream.start_time or 0) + stream.duration) * stream.time_base)
    elif container.duration:  # of all that the file holds: the sound may end later than the pictures
        end, reached = container.duration / av.time_base, max(reached, decoded.end_of_others)
    else:
        return count
    missing = round((end - reached) * rate)
    return count + missing if missing > MISCOUNTED else count


def _check(video: Path, decoded: _Decoded, expected: int, complaints: list[str]) -> None:
    """PipelineError where frames are missing or damaged; a warning where that is not sure."""
    count = len(decoded.times)
    numbers = f"{count} of {expected} frames could be decoded"
    if decoded.damaged:
        numbers += f", {decoded.damaged} damaged"
    if reasons := (*complaints, *decoded.failures):
        numbers += f" ({reasons[0].strip()})"
    if count == 0:
        raise PipelineError(
            f"{video}: {numbers}; copy or download it again, or convert it to H.264 in an .mp4"
        )
    allowed = 0 if reasons else MISCOUNTED
    if decoded.damaged or expected - count > allowed:
        raise PipelineError(
            f"{video}: is damaged or cut short: {numbers}; copy or download it again, or extract the frames "
            "that are good and give their folder"
        )
    if count != expected or reasons:
        warn(f"{video}: {numbers}; look at the frames")
