"""Read and write video files."""

from fractions import Fraction
from types import SimpleNamespace

import av
import cv2
import numpy as np
import pytest
from davis_cases import labels_with

from vos_pipeline.data import decoding, load_frames, video, write_image, write_labels
from vos_pipeline.errors import PipelineError
from vos_pipeline.report import write_overlay_video


def red_clip(path, rate=25.0, size=(48, 64), count=5):
    """Write frames that become increasingly red."""
    frames = np.zeros((count, *size, 3), np.uint8)
    frames[..., 0] = 40 + 40 * np.arange(count)[:, None, None]
    video.write_video(path, frames, rate)
    return path


def decoded(path):
    capture = cv2.VideoCapture(str(path))
    frames = []
    while (found := capture.read())[0]:
        frames.append(found[1][..., ::-1])
    return frames


@pytest.fixture
def first_mask(tmp_path):
    write_labels(tmp_path / "first.png", labels_with(1, size=(48, 64)))
    return tmp_path / "first.png"


# --- writing ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", [24.0, 24000 / 1001, 12.5])
@pytest.mark.parametrize("encoder", video.ENCODERS)
def test_written_videos_can_be_played(tmp_path, monkeypatch, encoder, rate):
    monkeypatch.setattr(video, "ENCODERS", (encoder,))
    path = red_clip(tmp_path / "new/clip.mp4", rate)
    frames = decoded(path)
    assert [frame.shape for frame in frames] == [(48, 64, 3)] * 5
    for t, frame in enumerate(frames):
        red, green, blue = frame.reshape(-1, 3).mean(0)
        assert red == pytest.approx(40 + 40 * t, abs=12) and max(green, blue) < 12
    assert decoding.frame_rate(path) == pytest.approx(rate, rel=1e-4)
    assert [p.name for p in path.parent.iterdir()] == ["clip.mp4"]


def test_browsers_know_the_format(tmp_path):
    with av.open(red_clip(tmp_path / "clip.mp4")) as container:
        (stream,) = container.streams
        assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")


@pytest.mark.parametrize("size", [(47, 63), (1, 1), (48, 65)])
def test_odd_sizes_are_made_even(tmp_path, size):
    frame = decoded(red_clip(tmp_path / "clip.mp4", size=size))[0]
    assert frame.shape == (size[0] + size[0] % 2, size[1] + size[1] % 2, 3)
    assert frame[-1, -1, 0] == pytest.approx(40, abs=12)  # no black seam


def test_a_failed_write_leaves_nothing(tmp_path):
    def frames():
        yield np.zeros((48, 64, 3), np.uint8)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        video.write_video(tmp_path / "clip.mp4", frames())
    assert not list(tmp_path.iterdir())


def test_overlays_keep_the_frame_rate_of_the_video(tmp_path, first_mask):
    sequence = load_frames(red_clip(tmp_path / "clip.mp4", 12.5), first_mask, tmp_path / "work")
    for path in sequence.frame_paths:
        write_labels(tmp_path / "masks" / f"{path.stem}.png", labels_with(2, size=(48, 64)))
    write_overlay_video(tmp_path / "overlay.mp4", sequence, tmp_path / "masks")
    frames = decoded(tmp_path / "overlay.mp4")
    assert len(frames) == 5 and decoding.frame_rate(tmp_path / "overlay.mp4") == pytest.approx(12.5)
    assert frames[0][6, 6, 1] > 40 > frames[0][40, 40, 1]  # label 2 is green


# --- reading ------------------------------------------------------------------------------------------------


def test_frames_of_a_video_are_numbered_from_0(tmp_path, first_mask):
    clip = red_clip(tmp_path / "clip.mp4")
    sequence = load_frames(clip, first_mask, tmp_path / "work", first_frame="3")
    assert len(sequence) == 2 and sequence.read_frame(0)[..., 0].mean() == pytest.approx(160, abs=12)
    with pytest.raises(
        PipelineError, match=r"clip\.mp4: no frame has the name or number 5; .* the frames are 00000 to 00004"
    ):
        load_frames(clip, first_mask, tmp_path / "work", first_frame="5")
    mask = first_mask.rename(tmp_path / "00003.png")
    with pytest.raises(
        PipelineError, match=r"00003\.png: has the name of frame 00003, but the video begins at 00000"
    ):
        load_frames(clip, mask, tmp_path / "work")


def test_a_video_is_decoded_once(tmp_path, first_mask, monkeypatch):
    clip = red_clip(tmp_path / "clip.mp4", 12.5)
    sequence = load_frames(clip, first_mask, tmp_path / "work")
    assert sequence.name == "clip" and len(sequence) == 5 and sequence.size == (48, 64)
    assert sequence.frame_rate == pytest.approx(12.5)
    red, green, _ = sequence.read_frame(4).reshape(-1, 3).mean(0)
    assert red > 150 and green < 40

    monkeypatch.setattr(decoding, "write_image", None)  # the second call must not write
    assert load_frames(clip, first_mask, tmp_path / "work") == sequence


def test_a_folder_has_the_frame_rate_of_davis(tmp_path, first_mask):
    for t in range(2):
        write_image(tmp_path / f"clip/{t}.png", np.zeros((48, 64, 3), np.uint8))
    assert load_frames(tmp_path / "clip", first_mask).frame_rate == 24


@pytest.mark.parametrize("claimed", [None, Fraction(0), Fraction(-1), Fraction(90000)])
def test_an_implausible_frame_rate_is_ignored(claimed):
    assert decoding._rate(SimpleNamespace(average_rate=claimed, guessed_rate=None)) == 24
    assert decoding._rate(SimpleNamespace(average_rate=None, guessed_rate=Fraction(30))) == 30


def test_a_file_that_is_not_a_video_is_an_error(tmp_path, first_mask):
    (tmp_path / "notes.mp4").write_text("no video")
    with pytest.raises(PipelineError, match=r"notes\.mp4: cannot be decoded as a video"):
        load_frames(tmp_path / "notes.mp4", first_mask, tmp_path / "work")
    assert not (tmp_path / "work").exists()
    with pytest.raises(ValueError, match="work_dir"):
        load_frames(tmp_path / "notes.mp4", first_mask)
