"""Write typical and damaged video files with FFmpeg's encoders."""

from fractions import Fraction

import av
import numpy as np

COUNT, RATE, SIZE = 30, 25, (96, 128)


def pictures(count=COUNT, size=SIZE):
    """Yield smooth moving colours with a marked corner that shows the orientation, uint8 (H, W, 3)."""
    y, x = np.mgrid[: size[0], : size[1]]
    for t in range(count):
        waves = [np.sin((x + 2 * t) / 15 + phase) * np.cos(y / 20 - phase) for phase in (0, 1, 2)]
        picture = (127 + 100 * np.stack(waves, axis=-1)).astype(np.uint8)
        picture[:24, :32] = 255, 0, 0
        yield picture


def write(
    path,
    count=COUNT,
    codec="libx264",
    pixels="yuv420p",
    rotation=None,
    times=None,
    size=SIZE,
    gop=None,
    **options,
):
    """Write a video of :func:`pictures`; options go to the muxer."""
    with av.open(str(path), "w", options=options) as container:
        stream = container.add_stream(codec, rate=RATE)
        stream.height, stream.width, stream.pix_fmt = *size, pixels
        if gop is not None:
            stream.gop_size = gop
        if rotation is not None:
            stream.set_display_rotation(rotation)
        if times is not None:
            stream.codec_context.time_base = Fraction(1, 1000)
        for t, picture in enumerate(pictures(count, size)):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            if times is not None:
                frame.pts, frame.time_base = round(1000 * times[t]), Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def write_sound(path):
    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream("aac", rate=44100, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 44100
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def trim(source, path, first):
    """Write a copy whose edit list begins between key frames: earlier frames are stored but not shown."""
    options = {"use_editlist": "1", "avoid_negative_ts": "disabled"}
    with av.open(str(source)) as old, av.open(str(path), "w", options=options) as new:
        stream = old.streams.video[0]
        copy = new.add_stream_from_template(stream)
        offset = int(first / RATE / stream.time_base)
        for packet in old.demux(stream):
            if packet.dts is not None:
                packet.pts, packet.dts, packet.stream = packet.pts - offset, packet.dts - offset, copy
                new.mux(packet)
    return path


def cut(path, share=0.6):
    """Truncate the file, as an interrupted download does."""
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    return path


def flip(path, count=200, share=0.5):
    """Overwrite bytes in the middle of the file."""
    data = bytearray(path.read_bytes())
    start = int(share * len(data))
    data[start : start + count] = np.random.default_rng(1).bytes(count)
    path.write_bytes(data)
    return path
