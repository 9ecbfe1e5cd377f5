"""Decode a video file to images once, either completely or not at all, and keep the times of its frames."""

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

DEFAULT_FRAME_RATE = 24.0  # frames per second, as in DAVIS
HIGHEST_FRAME_RATE = 1000.0  # frames per second; a higher declared rate is ignored
EVEN = 0.25  # tolerated shift of a frame, in frame durations, because container clocks are coarse
MISCOUNTED = 2  # intact files may declare one or two frames more than any decoder returns
DECODED = "decoded.json"  # next to the frames: their number, and their times if the frame rate is variable


def decode_video(video: Path, work_dir: Path) -> Path:
    """Decode a video to ``work_dir/<name>-<size>-<time>/%05d.jpg`` once and return that folder.

    :func:`decoded_frames` lists the frames. The rotation stored in the file is applied. A warning on stderr reports a
    file that declares a different number of frames or for which the decoder logs errors. Other files in the folder are
    left unchanged.

    Raises:
        PipelineError: the file is not a video, is damaged or cut short, or another file has the name of a frame.
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
        partial.chmod(0o755)  # mkdtemp creates a private folder
        _move(partial, folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return folder


def frame_rate(video: Path) -> float:
    """Return the declared frame rate in frames per second, or 24 if the file declares none or an implausible one."""
    with _open(video) as (_, stream):
        return _rate(stream)


def decoded_frames(folder: Path) -> tuple[list[Path], tuple[float, ...] | None]:
    """Return the frames that :func:`decode_video` wrote and their times in seconds (None for a constant rate)."""
    path = folder / DECODED
    try:
        note = json.loads(path.read_bytes())
        count, times = int(note["frames"]), note["times"]
        return [folder / _frame_name(t) for t in range(count)], times and tuple(map(float, times))
    except (ValueError, TypeError, LookupError) as error:
        raise PipelineError(f"{path}: is damaged ({error!r}): delete it and run again") from None


def decoded_files(folder: Path) -> list[Path]:
    """Return all files that :func:`decode_video` wrote into a folder."""
    return [*decoded_frames(folder)[0], folder / DECODED]


def uneven(times: list[float | None], rate: float) -> list[float] | None:
    """Return frame times in seconds from the first frame, or None if no separate times are needed.

    None means that the frames follow the frame rate, or that their times are unknown or out of order.
    """
    known = [t for t in times if t is not None]
    if len(known) < len(times) or any(a >= b for a, b in pairwise(known)):
        return None  # AVI files may have no times
    seconds = [round(t - known[0], 6) for t in known]
    on_time = all(abs(t * rate - place) <= EVEN for place, t in enumerate(seconds))
    return None if on_time else seconds


def _move(partial: Path, folder: Path) -> None:
    """Rename a complete folder; if the target folder exists, move the files into it."""
    try:
        os.replace(partial, folder)
    except OSError:
        if not folder.is_dir():
            raise
        sources = decoded_files(partial)  # decoded.json is last
        for source in sources:
            place = folder / source.name
            if os.path.lexists(place) and not (place.is_file() and place.read_bytes() == source.read_bytes()):
                raise PipelineError(
                    f"{place}: exists already and is not a frame of this video; move it, or choose another --out"
                ) from None
        for source in sources:
            os.replace(source, folder / source.name)


def _frame_name(t: int) -> str:
    return f"{t:05d}.jpg"


# --- opening ------------------------------------------------------------------------------------------------


@contextmanager
def _open(video: Path) -> Iterator[tuple[InputContainer, av.VideoStream]]:
    """Open a file and its first video stream.

    FFmpeg reads from a file object, because it takes a name such as 12:30:05.mp4 for a network address.
    """
    with open(video, "rb") as file:
        if video.stat().st_size == 0:
            raise PipelineError(f"{video}: is empty (0 bytes); copy or download it again")
        try:
            with _logged_errors():  # so that the exception holds FFmpeg's reason
                container = av.open(file, "r", metadata_errors="replace")
        except (av.FFmpegError, UnicodeError) as error:
            raise PipelineError(
                f"{video}: cannot be decoded as a video ({_reason(error)}); "
                "use an .mp4 file that plays, or a folder of frames"
            ) from None
        with container:
            streams = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
            if not streams or container.format.name == "tty":  # FFmpeg renders text files as video
                held = ", ".join(sorted({s.type for s in container.streams} - {"video"})) or "text"
                raise PipelineError(
                    f"{video}: contains only {held}, no video; use a video or a folder of frames"
                )
            yield container, streams[0]


@contextmanager
def _logged_errors() -> Iterator[list[tuple[int, str, str]]]:
    """Collect the errors that FFmpeg logs in any thread: decoders conceal damage and report it only there."""
    level, skip = av.logging.get_level(), av.logging.get_skip_repeated()
    av.logging.set_level(av.logging.ERROR)
    av.logging.set_skip_repeated(False)  # otherwise repeats from the previous file would be reported
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
    """Return FFmpeg's last log message, which is closer to the cause than its error code."""
    log = getattr(error, "log", None)
    return str(log[2]).strip() if log else getattr(error, "strerror", None) or type(error).__name__


# --- decoding -----------------------------------------------------------------------------------------------


@dataclass
class _Decoded:
    """The result of decoding a file."""

    times: list[float | None] = field(default_factory=list)  # one per frame, in seconds
    damaged: int = 0  # frames that the decoder marked as damaged, and packets that it rejected
    failures: list[str] = field(default_factory=list)
    packet_times: list[float] = field(default_factory=list)  # of the video stream, in decoding order
    end_of_others: float = 0.0  # end of the other streams, such as sound

    @property
    def skipped(self) -> int:
        """Number of packets before the first frame: a cut between key frames leaves packets that cannot be decoded."""
        first = self.times[0] if self.times else None
        return 0 if first is None else sum(t < first - 1e-6 for t in self.packet_times)


def _decode(container: InputContainer, stream: av.VideoStream, folder: Path) -> _Decoded:
    """Write all frames into the folder."""
    # With slice threads, FFmpeg does not report which frames are damaged. A single thread costs little, because
    # writing the JPEGs takes longer than decoding.
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
    """Yield the packets of a file up to the first read error."""
    try:
        yield from container.demux()
    except av.FFmpegError as error:
        decoded.damaged += 1
        decoded.failures.append(_reason(error))


def _frames(packet: av.Packet[Any], decoded: _Decoded) -> list[av.VideoFrame]:
    """Return the frames that a packet completes; [] for a damaged packet."""
    try:
        return [frame for frame in packet.decode() if isinstance(frame, av.VideoFrame)]
    except av.FFmpegError as error:
        decoded.failures.append(_reason(error))
        decoded.damaged += bool(decoded.times)  # a recorded broadcast may start in the middle of a group
        return []


def _rgb(frame: av.VideoFrame) -> np.ndarray:
    """Return the frame as 8-bit RGB with the file's rotation applied."""
    picture = frame.to_ndarray(format="rgb24", interpolation=Interpolation.BICUBIC)
    quarters, rest = divmod(frame.rotation, 90)
    return np.ascontiguousarray(np.rot90(picture, quarters)) if rest == 0 else picture


def _duration(packet: av.Packet[Any]) -> Fraction:
    return (packet.duration or 0) * (packet.time_base or Fraction(0))


# --- completeness -------------------------------------------------------------------------------------------


def _declared(container: InputContainer, stream: av.VideoStream) -> int:
    """Return the number of frames that the file declares, or 0 if it declares none."""
    if "mp4" not in container.format.name.split(","):
        return stream.frames
    # An edit list hides frames. The index reflects this, the frame count does not.
    entries = list(stream.index_entries)
    fragmented = len(entries) > stream.frames  # the count covers only the first fragment
    return 0 if fragmented else sum(not entry.is_discard for entry in entries)


def _expected(container: InputContainer, stream: av.VideoStream, declared: int, decoded: _Decoded) -> int:
    """Return the expected number of frames, from the declared number or the duration.

    A file with neither is expected to have the decoded number.
    """
    count, rate = len(decoded.times), _rate(stream)
    if declared:
        return max(declared - decoded.skipped, 0)
    known = [t for t in decoded.times if t is not None]
    # The last frame may last as long as the longest one.
    longest = max([1 / rate, *(b - a for a, b in pairwise(known))])
    reached = max(known, default=0.0) + longest
    if stream.duration and stream.time_base:
        end = float(((stream.start_time or 0) + stream.duration) * stream.time_base)
    elif container.duration:  # covers all streams: the sound may end later than the frames
        end, reached = container.duration / av.time_base, max(reached, decoded.end_of_others)
    else:
        return count
    missing = round((end - reached) * rate)
    return count + missing if missing > MISCOUNTED else count


def _check(video: Path, decoded: _Decoded, expected: int, complaints: list[str]) -> None:
    """Raise PipelineError if frames are missing or damaged; warn if that is uncertain."""
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
            f"{video}: is damaged or cut short: {numbers}; copy or download it again, or extract the good "
            "frames and use their folder"
        )
    if count != expected or reasons:
        warn(f"{video}: {numbers}; check the decoded frames")
