"""The HTML report is complete, self-contained, small, and safe with any text."""

import base64
import io
import json
import math
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from vos_pipeline.data import load_davis, make_clips, write_image, write_labels
from vos_pipeline.evaluation import Table
from vos_pipeline.report import ReportData, SequenceReport, write_report

FRAMES = 7
STAGES = ("first mask repeated", "instance nets", "+ SPN", "+ CRAF")
VOID_TAGS = {"meta", "img", "input", "br", "hr", "link"}


class Page(HTMLParser):
    """Collects tags and texts for the tests, and checks that every tag is closed."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.text, self.images = [], [], [], ""
        self.feed(text)
        self.close()
        assert not self.open, f"unclosed: {self.open}"

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID_TAGS:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.tags and self.tags[-1][0] == "script" and self.tags[-1][1].get("id") == "images":
            self.images += data
        else:
            self.text.append(data.strip())

    def all(self, tag, **attrs):
        return [a for t, a in self.tags if t == tag and attrs.items() <= a.items()]


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    root = tmp_path_factory.mktemp("clips")
    make_clips(root, clips=1, frames=FRAMES, size=(120, 200))
    return load_davis(root)[0]


def sequence_report(clip, name=None, **changes):
    curve = {"J": [None, *np.linspace(1, 0.5, FRAMES - 2), None], "F": [math.nan] * FRAMES}
    fields = {
        "stages": {stage: list(clip.mask_paths) for stage in STAGES},
        "frame_paths": list(clip.frame_paths),
        "truth_paths": list(clip.mask_paths),
        "curves": dict.fromkeys(STAGES, curve),
    }
    return SequenceReport(name or clip.name, **{**fields, **changes})


def write_and_parse(tmp_path, sequences, tables=(), title="A run", **options):
    path = write_report(
        tmp_path / "out" / "report.html", ReportData(title, list(tables), sequences), **options
    )
    return path, Page(path.read_text(encoding="utf-8"))


def decode(uri):
    kind, payload = re.fullmatch(r"data:image/(\w+);base64,(.+)", uri).groups()
    image = Image.open(io.BytesIO(base64.b64decode(payload, validate=True)))
    image.load()
    assert image.format.lower() == kind
    return image


def test_all_stages_and_frames_are_there(tmp_path, clip):
    _, page = write_and_parse(tmp_path, [sequence_report(clip), sequence_report(clip, "second")])
    assert len(page.all("section", **{"class": "sequence"})) == 2
    for stage in (*STAGES, "ground truth"):
        assert page.text.count(stage) >= 2
        assert len(page.all("img", **{"data-stage": stage})) == 2
    for slider in page.all("input", type="range"):
        assert (slider["min"], slider["max"]) == ("0", str(FRAMES - 1))
    for images in json.loads(page.images):
        assert images["times"] == list(range(FRAMES)) and len(images["frames"]) == FRAMES
        assert set(images["masks"]) == {*STAGES, "ground truth"}
        for column in images["masks"].values():
            assert len(column) == FRAMES


def test_every_picture_can_be_decoded(tmp_path, clip):
    _, page = write_and_parse(tmp_path, [sequence_report(clip)], width=100)
    (images,) = json.loads(page.images)
    for uri in images["frames"]:
        assert decode(uri).format == "JPEG" and decode(uri).size == (100, 60)
    for column in images["masks"].values():
        for uri in column:
            assert decode(uri).format == "PNG" and decode(uri).size == (100, 60)


def test_masks_have_a_tint_and_a_boundary_and_are_clear_elsewhere(tmp_path, clip):
    _, page = write_and_parse(tmp_path, [sequence_report(clip)], width=200)
    (images,) = json.loads(page.images)
    drawn = np.array(decode(images["masks"]["ground truth"][0]).convert("RGBA"))
    labels = clip.read_mask(0)
    assert (drawn[labels == 0][:, 3] == 0).all()
    assert set(np.unique(drawn[labels > 0][:, 3])) == {115, 255}
    assert {tuple(c[:3]) for c in drawn[drawn[..., 3] == 115]} == {(128, 0, 0), (0, 128, 0)}


def test_large_labels_are_drawn_and_void_is_not(tmp_path, clip):
    for name, label in (("large", 150), ("void", 255)):
        labels = np.zeros((120, 200), np.uint8)
        labels[40:80, 50:120] = label
        write_labels(tmp_path / f"{name}.png", labels)
    large, void = tmp_path / "large.png", tmp_path / "void.png"
    stages = {"large": [large] * FRAMES, "void": [void] * (FRAMES - 1) + [large]}
    _, page = write_and_parse(tmp_path, [sequence_report(clip, stages=stages)], width=200)
    (images,) = json.loads(page.images)
    alpha = {n: np.array(decode(images["masks"][n][0]).convert("RGBA"))[..., 3] for n in stages}
    assert (alpha["large"][45:75, 55:115] == 115).all() and alpha["large"][40, 50] == 255
    assert not alpha["large"][:40].any() and not alpha["void"].any()


def test_masks_of_0_and_255_show_one_object(tmp_path, clip):
    path = tmp_path / "grey.png"
    Image.fromarray(np.where(clip.read_mask(0) > 0, 255, 0).astype(np.uint8)).save(path)
    _, page = write_and_parse(tmp_path, [sequence_report(clip, truth_paths=[path] * FRAMES)], width=200)
    drawn = np.array(decode(json.loads(page.images)[0]["masks"]["ground truth"][0]).convert("RGBA"))
    assert {tuple(c[:3]) for c in drawn[drawn[..., 3] == 115]} == {(128, 0, 0)}


def test_nothing_outside_the_file_is_needed(tmp_path, clip):
    path, _ = write_and_parse(tmp_path, [sequence_report(clip)])
    text = path.read_text()
    assert not re.search(r"(https?:)?//[a-z]", re.sub(r"base64,[\w+/=]+", "", text))
    assert "<link" not in text and not re.search(r"<script[^>]+src=", text)
    assert [p.name for p in path.parent.iterdir()] == ["report.html"]


def test_tables_show_numbers_and_escape_text(tmp_path, clip):
    table = Table("means <&>", ("stage", "J"), [("<b>", 0.12345), ("none", math.nan), ("count", 3)])
    path, page = write_and_parse(tmp_path, [], [table], title="a < b & c")
    assert {"means <&>", "<b>", "0.123", "–", "3", "a < b & c"} <= set(page.text)
    assert "<b>" not in path.read_text()


def test_a_stage_name_cannot_end_the_script(tmp_path, clip):
    stages = {"</script><i>": list(clip.mask_paths)}
    _, page = write_and_parse(tmp_path, [sequence_report(clip, stages=stages, curves={})])
    assert "</script><i>" in json.loads(page.images)[0]["masks"]


def test_curves_have_one_line_per_stage_and_break_at_gaps(tmp_path, clip):
    curves = {"one": {"J": [None, 1.0, 0.5, None, 0.0, 0.25, math.nan], "F": [0.5] * FRAMES}}
    _, page = write_and_parse(tmp_path, [sequence_report(clip, curves=curves)])
    lines = [line["points"] for line in page.all("polyline")]
    assert lines[0].split()[0] == "131.7,20.0"  # frame 1 of 0..6, J = 1
    assert [len(points.split()) for points in lines] == [2, 2, 7]
    assert len(page.all("svg")) == 2 and len(page.all("line", **{"class": "cursor"})) == 2


def test_without_ground_truth_the_page_has_neither_it_nor_curves(tmp_path, clip):
    _, page = write_and_parse(tmp_path, [sequence_report(clip, truth_paths=[], curves={})])
    assert not page.all("svg") and "ground truth" not in json.loads(page.images)[0]["masks"]


def test_an_unknown_mask_is_left_empty(tmp_path, clip):
    truth = [clip.mask_paths[0], *[None] * (FRAMES - 1)]
    _, page = write_and_parse(tmp_path, [sequence_report(clip, truth_paths=truth)])
    assert [bool(uri) for uri in json.loads(page.images)[0]["masks"]["ground truth"]] == [True] + [False] * 6


@pytest.mark.parametrize("limit", [1e6, 1e4])
def test_long_videos_are_thinned_to_the_limit(limit, tmp_path):
    rng = np.random.default_rng(0)
    frame, mask = tmp_path / "f.jpg", tmp_path / "m.png"
    write_image(frame, rng.integers(0, 255, (180, 320, 3), dtype=np.uint8))
    write_labels(mask, rng.integers(0, 3, (180, 320), dtype=np.uint8))
    report = SequenceReport("long", {"one": [mask] * 90}, [frame] * 90)
    path, page = write_and_parse(tmp_path, [report], limit=limit)
    times = json.loads(page.images)[0]["times"]
    if limit == 1e6:
        assert path.stat().st_size < 1.1 * limit
        assert 2 <= len(times) < 90 and times[0] == 0
        note = f"90 frames (showing one of every {times[1]} frames)"
    else:  # less than one frame needs
        assert times == [0]
        note = "90 frames (showing only the first frame)"
    assert f"<small>{note}</small>" in path.read_text()
    (slider,) = page.all("input", type="range")
    assert slider["max"] == str(len(times) - 1)


def test_a_stage_of_another_length_is_an_error(tmp_path, clip):
    stages = {"short": list(clip.mask_paths[:-1])}
    with pytest.raises(ValueError, match="stage 'short' must have 7 frames, got 6"):
        write_and_parse(tmp_path, [sequence_report(clip, stages=stages)])


def test_a_failed_write_leaves_the_old_page(tmp_path, clip):
    path, _ = write_and_parse(tmp_path, [sequence_report(clip)])
    before = path.read_bytes()
    with pytest.raises(ValueError):
        write_and_parse(tmp_path, [sequence_report(clip, stages={"short": []})])
    assert path.read_bytes() == before
