"""Video files are decoded completely or refused, upright, in the right colours, with their times."""

import os

import av
import cv2
import numpy as np
import pytest
import video_files as files
from davis_cases import labels_with, one_line

from vos_pipeline.data import decoding, load_frames, read_image, write_labels
from vos_pipeline.errors import PipelineError
from vos_pipeline.report import write_overlay_video

UNEVEN = (0.0, 0.04, 0.08, 0.2, 0.24, 0.5, 0.9, 1.0, 1.04, 1.08)


def decode(video):
    """Return the decoded frames."""
    folder = decoding.decode_video(video, video.parent / "work")
    return [read_image(path) for path in sorted(folder.glob("*.jpg"))]


def refusal(video):
    """Return the error for a refused video, and check that no frame is kept."""
    with pytest.raises(PipelineError) as error:
        decoding.decode_video(video, video.parent / "work")
    assert not (video.parent / "work").exists() or not os.listdir(video.parent / "work")
    assert video.name in one_line(error)
    return str(error.value)


def by_opencv(video):
    capture = cv2.VideoCapture(str(video))
    while (found := capture.read())[0]:
        yield found[1][..., ::-1]


def difference(a, b):
    assert a.shape == b.shape
    return np.abs(a.astype(int) - b.astype(int)).mean()


# --- intact files -------------------------------------------------------------------------------------------

WHOLE = {
    "clip.mp4": {},
    "12:30:05.mp4": {},
    "fragments.mp4": {"movflags": "frag_keyframe+empty_moov"},
    "fragments-after-the-first.mp4": {"movflags": "frag_keyframe", "gop": 12},
    "clip.mkv": {},
    "clip.webm": {"codec": "libvpx-vp9"},
    "clip.avi": {"codec": "mpeg4"},
    "no-times.avi": {},
    "clip.ts": {},
    "photographs.avi": {"codec": "mjpeg", "pixels": "yuvj420p"},
    "ten-bits.mp4": {"pixels": "yuv420p10le"},
    "no-subsampling.mp4": {"pixels": "yuv444p"},
    "alpha.webm": {"codec": "libvpx-vp9", "pixels": "yuva420p"},
    "alpha.mov": {"codec": "qtrle", "pixels": "argb"},
    "CLIP.MP4": {},
}


@pytest.mark.parametrize("name", WHOLE)
def test_frames_are_those_that_were_encoded(tmp_path, capsys, name):
    video = files.write(tmp_path / name, **WHOLE[name])
    frames = decode(video)
    assert len(frames) == files.COUNT and capsys.readouterr().err == ""
    assert max(map(difference, frames, files.pictures())) < 12
    if ":" not in name:  # OpenCV takes such a name for a network address
        assert max(map(difference, frames, by_opencv(video))) < 2.5  # error of JPEG
    assert decoding.frame_rate(video) == files.RATE


@pytest.mark.parametrize("matrix", ["bt709", "bt601"])
@pytest.mark.parametrize("levels", ["mpeg", "jpeg"])
def test_colours_follow_the_matrix_that_the_file_names(tmp_path, matrix, levels):
    space = {"bt709": 1, "bt601": 5}[matrix]
    video, full = tmp_path / "clip.mp4", {"mpeg": 1, "jpeg": 2}[levels]
    with av.open(str(video), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.height, stream.width, stream.pix_fmt = *files.SIZE, "yuv420p"
        stream.codec_context.colorspace, stream.codec_context.color_range = space, full
        for picture in files.pictures(2):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            container.mux(
                stream.encode(frame.reformat(format="yuv420p", dst_colorspace=space, dst_color_range=full))
            )
        container.mux(stream.encode())
    assert max(map(difference, decode(video), files.pictures(2))) < 4


@pytest.mark.parametrize("rotation", [90, 180, -90])
def test_rotation_is_applied_as_opencv_does(tmp_path, rotation):
    video = files.write(tmp_path / "phone.mp4", rotation=rotation)
    frame = decode(video)[0]
    assert difference(frame, next(by_opencv(video))) < 2
    assert difference(frame, np.rot90(next(files.pictures()), rotation // 90)) < 4


def test_a_video_of_one_frame(tmp_path):
    assert len(decode(files.write(tmp_path / "one.mp4", count=1))) == 1


def test_frames_that_an_edit_list_hides_are_not_missing(tmp_path, capsys):
    whole = files.write(tmp_path / "whole.mp4")
    frames = decode(files.trim(whole, tmp_path / "trimmed.mp4", 10))
    assert len(frames) == files.COUNT - 10 and capsys.readouterr().err == ""
    assert difference(frames[0], list(files.pictures())[10]) < 4


def test_the_levels_of_ffmpegs_log_are_left_as_they_were(tmp_path):
    before = av.logging.get_level(), av.logging.get_skip_repeated()
    decode(files.write(tmp_path / "clip.mp4", count=2))
    assert (av.logging.get_level(), av.logging.get_skip_repeated()) == before


# --- damaged files ------------------------------------------------------------------------------------------

CONTAINERS = {
    "clip.mp4": {"movflags": "faststart"},
    "clip.mkv": {},
    "clip.webm": {"codec": "libvpx-vp9"},
    "clip.avi": {"codec": "mpeg4"},
    "photographs.avi": {"codec": "mjpeg", "pixels": "yuvj420p"},
}


@pytest.mark.parametrize("name", CONTAINERS)
def test_a_video_that_is_cut_short_is_refused_with_both_numbers(tmp_path, name):
    why = refusal(
        files.cut(files.write(tmp_path / name, **CONTAINERS[name]), 0.8 if name == "clip.mp4" else 0.6)
    )
    assert "is damaged or cut short: " in why and " of 30 frames could be decoded" in why
    assert "copy or download it again" in why
    assert int(why.split("short: ")[1].split()[0]) < 28


@pytest.mark.parametrize("name", ["clip.mp4", "clip.mkv", "clip.webm", "clip.avi"])
def test_a_video_with_other_bytes_in_the_middle_is_refused(tmp_path, name):
    video = files.write(tmp_path / name, **CONTAINERS[name])
    # An AVI file begins with space for an index.
    assert "is damaged or cut short" in refusal(files.flip(video, share=0.75 if name == "clip.avi" else 0.5))


def test_a_damaged_slice_is_noticed(tmp_path):
    video = tmp_path / "slices.mp4"
    with av.open(str(video), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"slices": "4"})
        stream.height, stream.width, stream.pix_fmt = 480, 640, "yuv420p"
        for picture in files.pictures(size=(480, 640)):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    assert "30 of 30 frames could be decoded, 1 damaged" in refusal(files.flip(video))


@pytest.mark.parametrize("share", [0.3, 0.6])
def test_errors_that_the_decoder_conceals_are_a_warning(tmp_path, capsys, share):
    # An MPEG-TS file does not declare its number of frames.
    video = files.flip(files.write(tmp_path / "clip.ts"), share=share)
    count = len(decode(video))
    (told,) = capsys.readouterr().err.splitlines()
    assert count < files.COUNT and f"warning: {video}: {count} of {count} frames could be decoded (" in told


def test_a_missing_frame_with_decoder_errors_is_an_error(tmp_path, monkeypatch):
    rgb = decoding._rgb

    def complaining(frame):
        av.logging.log(av.logging.ERROR, "h264", "a word")
        return rgb(frame)

    monkeypatch.setattr(decoding, "_declared", lambda *of: files.COUNT + 1)
    monkeypatch.setattr(decoding, "_rgb", complaining)
    assert "30 of 31 frames could be decoded (a word)" in refusal(files.write(tmp_path / "clip.mp4"))


def test_errors_of_one_file_are_not_reported_for_the_next(tmp_path, capsys):
    for name in ("a.mp4", "b.mp4", "c.mp4"):
        assert "moov atom not found" in refusal(files.cut(files.write(tmp_path / name)))
    assert "repeated" not in refusal(files.flip(files.write(tmp_path / "other.mkv")))
    decode(files.write(tmp_path / "good.mkv"))
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "is empty (0 bytes)"),
        (b"hello\n" * 100, "cannot be decoded as a video"),
        (b"\0" * 5000, "cannot be decoded as a video"),
    ],
)
def test_other_files_are_refused_by_name(tmp_path, content, why):
    (tmp_path / "clip.mp4").write_bytes(content)
    assert why in refusal(tmp_path / "clip.mp4")
    with pytest.raises(PipelineError, match="clip"):
        decoding.frame_rate(tmp_path / "clip.mp4")


def test_text_is_not_rendered_as_video(tmp_path):
    (tmp_path / "notes.txt").write_text("hello world\n" * 100)
    assert "notes.txt: contains only text, no video" in refusal(tmp_path / "notes.txt")


def test_an_unknown_codec_is_named(tmp_path):
    video = files.write(tmp_path / "clip.mp4")
    video.write_bytes(video.read_bytes().replace(b"avc1", b"zzzz").replace(b"avcC", b"zzzC"))
    why = refusal(video)
    assert "0 of 30 frames could be decoded (Decoder not found)" in why and "convert it to H.264" in why


def test_two_processes_may_decode_one_video(tmp_path, monkeypatch):
    video = files.write(tmp_path / "clip.mp4", count=2)
    decode_alone = decoding._decode

    def while_another_finishes(*of):
        monkeypatch.setattr(decoding, "_decode", decode_alone)
        decode(video)
        return decode_alone(*of)

    monkeypatch.setattr(decoding, "_decode", while_another_finishes)
    assert len(decode(video)) == 2 and len(os.listdir(tmp_path / "work")) == 1


def test_a_video_without_its_index(tmp_path):
    assert "moov atom not found" in refusal(files.cut(files.write(tmp_path / "clip.mp4")))


def test_sound_without_video_is_refused(tmp_path):
    assert "contains only audio, no video" in refusal(files.write_sound(tmp_path / "talk.m4a"))


@pytest.mark.parametrize("missing", [1, 2, 3])
def test_one_or_two_frames_fewer_than_declared_are_a_warning(tmp_path, monkeypatch, capsys, missing):
    video = files.write(tmp_path / "clip.mp4")
    monkeypatch.setattr(decoding, "_declared", lambda *of: files.COUNT + missing)
    if missing > 2:
        assert "30 of 33 frames" in refusal(video)
    else:
        assert len(decode(video)) == files.COUNT
        assert f"warning: {video}: 30 of {30 + missing} frames" in capsys.readouterr().err


def test_sound_may_end_after_the_video(tmp_path, capsys):
    video = tmp_path / "clip.mkv"
    with av.open(str(video), "w") as container:
        pictures = container.add_stream("libx264", rate=25)
        pictures.height, pictures.width, pictures.pix_fmt = *files.SIZE, "yuv420p"
        sound = container.add_stream("aac", rate=44100, layout="mono")
        for picture in files.pictures():
            container.mux(pictures.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(pictures.encode())
        for k in range(130):  # 3 s
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
            frame.sample_rate, frame.pts = 44100, 1024 * k
            container.mux(sound.encode(frame))
        container.mux(sound.encode())
    assert len(decode(video)) == files.COUNT and capsys.readouterr().err == ""


# --- times --------------------------------------------------------------------------------------------------


def shown_at(video):
    with av.open(str(video)) as container:
        return [float(frame.pts * frame.time_base) for frame in container.decode(video=0)]


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_a_variable_rate_keeps_its_timing_in_the_overlay(tmp_path, suffix):
    video = files.write(tmp_path / f"screen.{suffix}", count=len(UNEVEN), times=UNEVEN)
    write_labels(tmp_path / "first.png", labels_with(1, size=files.SIZE))
    sequence = load_frames(video, tmp_path / "first.png", tmp_path / "work")
    assert sequence.times == UNEVEN
    assert load_frames(video, tmp_path / "first.png", tmp_path / "work") == sequence  # decoded once
    later = load_frames(video, tmp_path / "first.png", tmp_path / "work", first_frame="1")
    assert later.times == pytest.approx([time - UNEVEN[1] for time in UNEVEN[1:]])
    for path in sequence.frame_paths:
        write_labels(tmp_path / "masks" / f"{path.stem}.png", labels_with(1, size=files.SIZE))
    write_overlay_video(tmp_path / "overlay.mp4", sequence, tmp_path / "masks")
    assert shown_at(tmp_path / "overlay.mp4") == pytest.approx(UNEVEN, abs=1e-4)


@pytest.mark.parametrize("name", [name for name in WHOLE if "times" not in name])
def test_a_constant_rate_has_no_times(tmp_path, name):
    video = files.write(tmp_path / name, **WHOLE[name])
    assert decoding.decoded_frames(decoding.decode_video(video, tmp_path / "work"))[1] is None


# --- the folder of frames -----------------------------------------------------------------------------------


def test_the_mask_is_read_before_the_video_is_decoded(tmp_path):
    video = files.write(tmp_path / "clip.mp4")
    with pytest.raises(PipelineError, match=r"first\.png: no such file"):
        load_frames(video, tmp_path / "first.png", tmp_path / "work")
    assert not (tmp_path / "work").exists()


def test_other_files_in_the_folder_are_unchanged(tmp_path):
    video = files.write(tmp_path / "clip.mp4")
    folder = decoding.decode_video(video, tmp_path / "work")
    frames = decoding.decoded_files(folder)
    written = [path.read_bytes() for path in frames]
    mine = [folder / name for name in (".DS_Store", "notes.txt", "mask.png", "99999.jpg")]
    for path in mine:
        path.write_text("mine")
    assert decoding.decoded_files(decoding.decode_video(video, tmp_path / "work")) == frames
    for path in (frames[0], frames[3], frames[-1]):  # as after an interrupted removal
        path.unlink()
    assert decoding.decode_video(video, tmp_path / "work") == folder
    assert [path.read_bytes() for path in frames] == written
    assert all(path.read_text() == "mine" for path in mine)


def test_a_file_with_the_name_of_a_frame_is_not_replaced(tmp_path):
    video = files.write(tmp_path / "clip.mp4")
    first, *_, note = decoding.decoded_files(decoding.decode_video(video, tmp_path / "work"))
    note.unlink()
    first.write_text("mine")
    with pytest.raises(
        PipelineError, match="exists already and is not a frame of this video; move it"
    ) as error:
        decoding.decode_video(video, tmp_path / "work")
    assert str(first) in one_line(error) and first.read_text() == "mine"
    first.rename(tmp_path / "moved")
    decoding.decode_video(video, tmp_path / "work")


def test_a_damaged_record_of_the_frames_can_be_deleted(tmp_path):
    video = files.write(tmp_path / "clip.mp4")
    *_, note = decoding.decoded_files(decoding.decode_video(video, tmp_path / "work"))
    for content in ("", "[]", '{"frames": null}'):
        note.write_text(content)
        with pytest.raises(PipelineError, match=r"damaged .*: delete it and run again") as error:
            decoding.decode_video(video, tmp_path / "work")
        assert str(note) in one_line(error)
        note.unlink()
        decoding.decode_video(video, tmp_path / "work")


@pytest.mark.parametrize(
    ("times", "expected"),
    [
        ([0.0, 0.04, 0.08], None),
        ([7.0, 7.041, 7.079], None),  # a clock in milliseconds, a file that starts late
        ([0.5, 0.54, 0.62], [0.0, 0.04, 0.12]),  # a frame was dropped
        ([0.0, None, 0.08], None),
        ([0.0, 0.08, 0.04], None),
        ([0.0], None),
    ],
)
def test_which_times_are_kept(times, expected):
    assert decoding.uneven(times, 25) == expected
