"""The report in a real browser: it loads without errors, the slider works, the images are shown."""

import shutil

import numpy as np
import pytest

from vos_pipeline.data import load_davis, make_clips, write_video
from vos_pipeline.evaluation import Table
from vos_pipeline.report import ReportData, SequenceReport, write_report

pytestmark = pytest.mark.slow

FRAMES = 6
STAGES = ("instance nets", "+ SPN", "+ CRAF")
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--window-size=1400,1000",
]


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    driver = shutil.which("chromedriver")
    if chromium is None or driver is None:
        pytest.skip("no chromium with chromedriver on this machine")
    webdriver = pytest.importorskip("selenium.webdriver")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    browser = webdriver.Chrome(options, webdriver.ChromeService(driver))
    yield browser
    browser.quit()


@pytest.fixture
def page(browser, report):
    """The report, freshly loaded."""
    browser.get(report.as_uri())
    return browser


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    root = tmp_path_factory.mktemp("report")
    make_clips(root, clips=2, frames=FRAMES, size=(120, 200))
    curve = {
        "J": [None, *np.linspace(0.9, 0.5, FRAMES - 2), None],
        "F": [None] + [0.25] * (FRAMES - 2) + [None],
    }
    sequences = [
        SequenceReport(
            clip.name,
            {stage: list(clip.mask_paths) for stage in STAGES},
            list(clip.frame_paths),
            list(clip.mask_paths),
            dict.fromkeys(STAGES, curve),
        )
        for clip in load_davis(root)
    ]
    tables = [Table("means", ("stage", "J"), [(stage, 0.5) for stage in STAGES])]
    return write_report(root / "out/report.html", ReportData("Two clips", tables, sequences))


def texts(page, selector):
    return [element.text for element in page.find_elements("css selector", selector)]


def images(page):
    """Return source and natural width of all images after all are decoded."""
    return page.execute_async_script(
        """const done = arguments[0], all = [...document.querySelectorAll("img")];
        Promise.all(all.map(image => image.decode())).then(
            () => done(all.map(image => [image.src, image.naturalWidth])), error => done(String(error)));"""
    )


def sections(page):
    return page.find_elements("css selector", ".sequence")


def test_it_loads_alone_and_without_errors(page):
    assert page.get_log("browser") == []
    assert page.title == "Two clips" and texts(page, "h2") == ["val-006 frames", "val-016 frames"]
    requests = page.execute_script("return performance.getEntriesByType('resource').map(entry => entry.name)")
    assert not [name for name in requests if not name.startswith("data:")]
    assert texts(page, "td") == [cell for stage in STAGES for cell in (stage, "0.500")]


def test_every_image_is_shown_at_every_time(page):
    sliders = page.find_elements("css selector", "[type=range]")
    assert len(sliders) == 2
    for _ in range(FRAMES):
        shown = images(page)
        assert len(shown) == 2 * 2 * (len(STAGES) + 1)  # frame and mask of each stage and the ground truth
        assert all(width == 200 for _, width in shown)
        for slider in sliders:
            slider.send_keys("\ue014")  # arrow right
    assert {slider.get_attribute("value") for slider in sliders} == {str(FRAMES - 1)}


def test_the_slider_controls_only_its_sequence(page):
    first, second = sections(page)

    def state(section):
        sources = [image.get_attribute("src") for image in section.find_elements("css selector", "img")]
        cursors = [line.get_attribute("x1") for line in section.find_elements("css selector", ".cursor")]
        return sources, cursors, [output.text for output in section.find_elements("css selector", "output")]

    before, other = state(first), state(second)
    first.find_element("css selector", "[type=range]").send_keys("\ue014\ue014")
    after = state(first)
    assert all(a != b for a, b in zip(before[0], after[0], strict=True))
    assert before[1] == ["40", "40"] and after[1] == ["260", "260"]  # 40 + 550 * 2 / 5
    scores = "J 0.767  F 0.250"
    assert before[2] == ["", "", "", "", "frame 0"] and after[2] == [scores, scores, scores, "", "frame 2"]
    assert state(second) == other


def test_a_click_on_a_curve_goes_there(page):
    from selenium.webdriver import ActionChains

    chart = sections(page)[1].find_elements("css selector", "svg")[1]
    page.execute_script("arguments[0].scrollIntoView({behavior: 'instant', block: 'center'})", chart)
    ActionChains(page).move_to_element_with_offset(chart, chart.size["width"] * 0.44, 0).click().perform()
    assert texts(page, ".controls output") == ["frame 0", f"frame {FRAMES - 1}"]


def test_play_and_masks(page):
    from selenium.webdriver.support.wait import WebDriverWait

    first = sections(page)[0]
    button, slider = (first.find_element("css selector", name) for name in ("button", "[type=range]"))
    button.click()
    assert button.text == "Pause"
    WebDriverWait(page, 10).until(lambda _: slider.get_attribute("value") == str(FRAMES - 1))
    WebDriverWait(page, 10).until(lambda _: slider.get_attribute("value") == "1")  # playback repeats
    button.click()
    assert button.text == "Play"

    mask = first.find_element("css selector", ".mask")
    assert mask.is_displayed()
    first.find_element("css selector", "[type=checkbox]").click()
    assert not mask.is_displayed()


def test_overlay_videos_play(browser, tmp_path):
    write_video(tmp_path / "clip.mp4", np.full((12, 48, 64, 3), 200, np.uint8), rate=24)
    (tmp_path / "video.html").write_text('<video src="clip.mp4" muted></video>')
    browser.get((tmp_path / "video.html").as_uri())
    if not browser.execute_script(
        """return document.createElement("video").canPlayType('video/mp4; codecs="avc1.64001F"')"""
    ):
        pytest.skip("this browser was built without H.264")
    played = browser.execute_async_script(
        """const done = arguments[0], video = document.querySelector("video");
        video.onended = () => done([video.videoWidth, video.videoHeight, video.duration]);
        video.onerror = () => done(video.error.message);
        video.play().catch(error => done(String(error)));"""
    )
    assert played == [64, 48, pytest.approx(0.5, abs=0.05)]
