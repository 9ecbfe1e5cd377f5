"""Commands with arbitrary input: a valid exit code, one line per failure, and no file of the user changed or lost.

Each example copies valid inputs, damages some of them, and calls one command with random options, once or twice.
"""

import os
import shutil
import signal
import tempfile
from contextlib import contextmanager
from pathlib import Path

import hypothesis.strategies as st
import numpy as np
import pytest
import tiny
from hypothesis import HealthCheck, given, settings
from PIL import Image
from spn_cases import tiny_refiner

import spn
from vos_pipeline import __main__ as cli
from vos_pipeline.cli import commands
from vos_pipeline.data import read_labels, write_video
from vos_pipeline.pipeline import stages
from vos_pipeline.settings import PRESETS

SECONDS = 600  # time limit of a command on any machine
# For slow commands, and for `refine`, which reads several kinds of masks.
EXAMPLES = {"demo": 15, "tables": 40, "refine": 100, "export": 40}
USUAL_EXAMPLES = 70


@pytest.fixture(scope="module", autouse=True)
def quick():
    """Shorten everything: nets of two training steps, no SPN, a demo of a few frames."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(PRESETS, "tiny", tiny.TINY)
        patch.setattr(stages, "load_refiner", lambda name, device: tiny.Unrefined())
        patch.setattr(
            spn.SPNRefiner, "from_pretrained", staticmethod(lambda name, tile=None: tiny_refiner().eval())
        )
        for name, value in (("CLIPS", 1), ("FRAMES", 3), ("TRAIN_CLIPS", 1), ("TRAIN_FRAMES", 1)):
            patch.setattr(commands, f"DEMO_{name}", value)
        yield


@pytest.fixture(scope="module")
def one_export():
    """Export the model only once, because an export takes seconds."""
    program = spn.onnx.export_refiner(tiny_refiner().eval())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(spn.onnx, "export_refiner", lambda refiner, opset_version: program)
        yield


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """Valid inputs, copied for each example."""
    folder = tmp_path_factory.mktemp("inputs")
    tiny.write_root(folder / "davis")
    for kind, name in (("JPEGImages", "frames"), ("Annotations", "masks")):
        shutil.copytree(folder / "davis" / kind / "480p/pair", folder / name)
    for kind, name in (("JPEGImages", "all-frames"), ("Annotations", "all-masks")):
        shutil.copytree(folder / "davis" / kind / "480p", folder / name)
    write_scores(folder)
    frames = np.zeros((4, 40, 64, 3), np.uint8)
    frames[:, 4:18, 6:24] = 200
    write_video(folder / "clip.mp4", frames)
    return folder


def write_scores(folder):
    """Write the masks as scores: as arrays, and as one folder per object."""
    for path in sorted((folder / "masks").iterdir()):
        scores = np.stack([read_labels(path) == k for k in (1, 2)]) * np.uint8(255)
        (folder / "arrays").mkdir(exist_ok=True)
        np.savez(folder / f"arrays/{path.stem}.npz", scores=scores)
        for k in (1, 2):
            (folder / f"objects/{k}").mkdir(parents=True, exist_ok=True)
            Image.fromarray(scores[k - 1]).save(folder / f"objects/{k}/{path.name}")


# --- damaged inputs -----------------------------------------------------------------------------------------

STEMS = st.sampled_from(
    [
        "00001",
        "1",
        "10",
        "0007",
        "a b",
        "ä日本",
        "12:30:05",
        "%05d",
        "[1]*?",
        "-x",
        "a.b",
        ".x",
        "a\nb",
        "caf\udce9",
    ]
)
SUFFIXES = st.sampled_from([".jpg", ".JPG", ".png", ".PNG", ".tif", ".bmp", ".webp", ".gif", ".txt", ""])
MODES = st.sampled_from(["RGB", "L", "P", "LA", "RGBA", "1", "I;16", "CMYK"])
SIZES = st.sampled_from([(40, 64), (40, 64), (64, 40), (1, 1), (3, 5), (41, 64), (200, 300)])
VALUES = st.lists(st.sampled_from([0, 0, 1, 2, 3, 50, 100, 128, 200, 254, 255]), min_size=1, max_size=4)
JUNK = st.sampled_from(
    ["Thumbs.db", ".DS_Store", "._00000.jpg", "notes.txt", "vis/a.png", "@eaDir/a.png", "empty/"]
)
PAIR = "/JPEGImages/480p/pair/00000.jpg /Annotations/480p/pair/00000.png"
LINES = [
    "single",
    "pair",
    "other",
    "pair",
    "# pair",
    "",
    "  single ",
    "../480p/pair",
    "/",
    "..",
    "ghost",
    "single pair",
    "ä",
    PAIR,
]
LISTED = st.lists(st.sampled_from(LINES), max_size=5)


def write_picture(path, mode, size, values):
    rows = np.resize(np.repeat(np.uint8(values), 7), size)
    deep = mode == "I;16"
    image = Image.fromarray(rows.astype(np.uint16) * 257 if deep else rows)
    if mode == "P":
        image.putpalette(bytes(range(256)) * 3)
    elif not deep:
        image = image.convert(mode)
    try:
        image.save(path, None if path.suffix.lower() in Image.registered_extensions() else "PNG")
    except OSError:  # the format does not support the mode
        image.convert("L").save(path, "PNG")


def rename(path, name):
    path.rename(path.with_name(name))


def copy(path, name):
    if not path.with_name(name).exists():
        shutil.copy(path, path.with_name(name))


def picture(path, mode, size, values):
    write_picture(path, mode, size, values)


def cut(path, share):
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])


def flip(path, share):
    content = bytearray(path.read_bytes())
    for index in range(int(share * len(content)), len(content), 97):
        content[index] ^= 255
    path.write_bytes(content)


def write_list(path, lines, ending, encoding):
    path.write_bytes(ending.join(lines).encode(encoding, "replace"))


def junk(path, name):
    target = path.parent / name
    if name.endswith("/"):
        target.mkdir(exist_ok=True)
    else:
        target.parent.mkdir(exist_ok=True)
        write_picture(target, "RGB", (40, 64), [0, 200])


def replace(path, kind):
    path.unlink()
    if kind == "link":
        path.symlink_to(path.parent)
    elif kind == "loop":
        path.symlink_to(path)
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()


# Ways to damage a file, and their arguments.
NAMED = st.tuples(STEMS, SUFFIXES).map(lambda parts: "".join(parts) or "x")
SHARES = st.sampled_from([0, 0.1, 0.5, 0.9, 0.99])
ENCODINGS = st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "latin-1"])
SPOILING = st.one_of(
    st.tuples(st.just(rename), NAMED),
    st.tuples(st.just(copy), NAMED),
    st.tuples(st.just(picture), MODES, SIZES, VALUES),
    st.tuples(st.just(cut), SHARES),
    st.tuples(st.just(flip), SHARES),
    st.tuples(st.just(junk), JUNK),
    st.tuples(st.just(replace), st.sampled_from(["nothing", "link", "loop", "pipe", "folder"])),
    st.tuples(st.just(write_list), LISTED, st.sampled_from(["\n", "\r\n", "\r"]), ENCODINGS),
)


def spoil(folder, read, place, spoiling):
    """Damage one of the files that a command reads."""
    how, *values = spoiling
    files = [path for name in read for path in (folder / name, *(folder / name).rglob("*"))]
    files = [path for path in sorted(files) if path.is_file() and not path.is_symlink()]
    files = [path for path in files if (path.suffix == ".txt") == (how is write_list)]
    if files:
        how(files[place % len(files)], *values)


# --- commands -----------------------------------------------------------------------------------------------


def usually(good, *odd):
    """Draw a valid word nine times out of ten, because a wrong word ends the command early."""
    return st.sampled_from([good] * 9 * len(odd) + list(odd))


# Paths relative to the folder of inputs.
ODD = ["davis", "frames", "masks", "clip.mp4", "none", "frames/00000.jpg", "", "masks/00000.png", "."]
OUT = st.sampled_from(
    ["../out"] * 12
    + ["../theirs"] * 3
    + ["../beside"] * 3
    + ["../file", "../link", "../new/er", "frames", "masks", "davis", "."]
)
LEAVE = st.sampled_from([[], ["--resume"], ["--overwrite"]])
PRESET = usually(["--preset", "tiny"], ["--preset", "none"])
DEVICE = usually([], ["--device", "cpu"], ["--device", "mps"], ["--device", "cuda"], ["--device", ""])
YEAR = st.sampled_from([["--year", "2016"], ["--year", "2017"], []])
SET = usually([], ["--set", "train"], ["--set", "../x"], ["--set", "ghost"])
NAMES = usually(
    [], *(["--sequences", *names] for names in (["pair"], ["pair", "pair"], ["../x"], ["single", "ä"]))
)
FOLDERS = [
    *(["--frames", "frames", "--masks", masks] for masks in ("masks", "arrays", "objects")),
    ["--frames", "all-frames", "--masks", "all-masks"],
]
NUMBERS = ["0", "-1", "nan", "1e9", "", "ä", "1.5"]


ONNX = st.sampled_from(
    ["../out/model.onnx"] * 6
    + [
        "../new/er/model.onnx",
        "../theirs/model.onnx",
        "../theirs/thesis.tex",
        "../file",
        "../file/x",
        "../link",
    ]
    + ["masks/00000.png", "masks", "."]
)


def path(good):
    return usually(good, *ODD)


def numeric(option, good):
    return usually(good, *NUMBERS).map(lambda word: [option, word])


def arguments(*parts):
    """Return a strategy of command lines. Parts are words, or strategies of a word or a list of words."""
    drawn = [part if isinstance(part, st.SearchStrategy) else st.just(part) for part in parts]
    flat = st.tuples(*drawn).map(
        lambda parts: [w for p in parts for w in (p if isinstance(p, list) else [p])]
    )
    return flat


RUN = (
    PRESET,
    DEVICE,
    usually(
        [], ["--refiner", "lite"], ["--refiner", "masks/00000.png"], ["--shorten", "2"], ["--shorten", "x"]
    ),
)
TRAIN_SETS = usually([], *(["--train-sets", *sets] for sets in (["2016/train", "val"], ["none"], ["a/b/c"])))
VIDEO = st.sampled_from(["frames", "clip.mp4"])
COMMANDS = {
    "demo": arguments("demo", "--out", OUT, *RUN),
    "davis": arguments("davis", "--data", path("davis"), "--out", OUT, YEAR, SET, NAMES, TRAIN_SETS, *RUN),
    "segment": arguments(
        *(
            "segment",
            st.one_of(VIDEO, VIDEO, path("frames")),
            "--mask",
            path("masks/00000.png"),
            "--out",
            OUT,
        ),
        usually([], *(["--train-data", name] for name in ("davis", "none", "frames"))),
        usually([], *(["--first-frame", name] for name in ("00000", "0", "1", "00001.jpg", "x", "99"))),
        *RUN,
    ),
    "refine": arguments(
        *(
            "refine",
            st.sampled_from(FOLDERS),
            usually([], *(["--masks", word] for word in ODD)),
            "--out",
            OUT,
        ),
        usually([], *(["--masks-hold", word] for word in ("labels", "scores", "labels", "scores", "x"))),
        *(
            usually([], ["--no-craf"], ["--filter", "craf"], ["--filter", "x"]),
            usually([], ["--tile", "256"], ["--tile", "1"]),
            DEVICE,
        ),
    ),
    "export": arguments(
        *("export", "--onnx", ONNX),
        usually([], ["--refiner", "lite"], ["--refiner", "masks/00000.png"], ["--refiner", "x"]),
        usually([], ["--opset", "18"], ["--opset", "1"]),
    ),
    "tables": arguments(
        *("tables", usually("timing", "models", "challenge", "x"), "--data", path("davis"), "--out", OUT),
        *(
            usually(["--sets", "2016/val"], [], ["--sets", "2017/val", "2016/val"], ["--sets", "x"]),
            NAMES,
            *RUN,
        ),
    ),
    "train-foreground": arguments(
        *(
            "train",
            "foreground",
            "--data",
            path("davis"),
            "--year",
            "2016",
            "--out",
            OUT,
            SET,
            NAMES,
            *RUN[:2],
        )
    ),
    "train-spn": arguments(
        *(
            "train",
            "spn",
            "--out",
            OUT,
            "--images",
            path("frames"),
            "--masks",
            path("masks"),
            "--init",
            "lite",
        ),
        *(numeric("--steps", "1"), numeric("--batch", "1"), numeric("--size", "32"), numeric("--seed", "3")),
        *(
            numeric("--workers", "0"),
            numeric("--learning-rate", "0.001"),
            numeric("--boundary-weight", "3"),
            numeric("--checkpoint-every", "1"),
            DEVICE,
        ),
    ),
    "evaluate": arguments(
        *("evaluate", "--data", path("davis"), "--results", path("all-masks"), YEAR, SET, NAMES)
    ),
}


# The inputs of each command.
READ = {
    "demo": (),
    "davis": ("davis",),
    "segment": ("frames", "masks", *["clip.mp4"] * 8),
    "refine": ("frames", "masks", "arrays", "objects", "all-frames/pair", "all-masks"),
    "export": ("masks",),
    "tables": ("davis",),
    "train-foreground": ("davis",),
    "train-spn": ("frames", "masks"),
    "evaluate": ("davis/Annotations", "davis/ImageSets", "all-masks"),
}
# The user's files, with names that commands also write.
THEIRS = (
    *(
        "nets/foreground.pt",
        "nets/pair/foreground.pt",
        "labels/flow/pair/00001.png",
        "seconds/pair.json",
        "report.html",
    ),
    *(
        "foreground.pt",
        "spn.pt",
        "curves.csv",
        "00001.png",
        "pair/00001.png",
        "timing.csv",
        "overlays/pair.mp4",
    ),
    *("clips/ImageSets/2017/val.txt", "frames/note.txt", "thesis.tex"),
)


# --- checks -------------------------------------------------------------------------------------------------


@contextmanager
def bounded_time():
    def hangs(*_):
        raise AssertionError(f"no end after {SECONDS} s")

    before = signal.signal(signal.SIGALRM, hangs)
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def contents(folder):
    """Return the contents of a folder: bytes of files, targets of links, kinds of other entries."""
    found = {}
    for parent, folders, files in os.walk(folder):
        for name in (*folders, *files):
            path = Path(parent, name)
            if path.is_symlink():
                found[path] = os.readlink(path)
            elif path.is_file():
                found[path] = path.read_bytes()
            elif path.is_fifo():
                found[path] = "fifo"
    return found


def call(argv, capsys):
    """Run a command, check its messages, and return its exit code."""
    capsys.readouterr()
    with bounded_time():
        code = cli.main(argv)
    said = capsys.readouterr().err
    lines = [line for line in said.splitlines() if line.startswith("error:")]
    assert code in (0, 1, 2) and "Traceback" not in said
    assert len(lines) == (code != 0), said
    assert code == 0 or said.splitlines()[-1] == lines[0], said
    return code


def results_of(argv, inputs):
    """Return the folder that a command may write to."""
    option = {"evaluate": "--results", "export": "--onnx"}.get(argv[0], "--out")
    place = Path(os.path.realpath(inputs / argv[argv.index(option) + 1]))
    return place.parent if argv[0] == "export" else place


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
def test_any_input(command, inputs, request, capsys):
    if command == "export":
        request.getfixturevalue("one_export")
    codes, seen = [0, 0, 0], set()

    @settings(max_examples=EXAMPLES.get(command, USUAL_EXAMPLES), suppress_health_check=list(HealthCheck))
    @given(
        COMMANDS[command],
        st.lists(st.tuples(st.integers(0, 59), SPOILING), max_size=3),
        LEAVE,
        st.none() | LEAVE,
    )
    def check(argv, spoilings, leave, again):
        example = repr((argv, spoilings, leave, again))
        if example in seen:  # hypothesis draws some examples more than once
            return
        seen.add(example)
        with tempfile.TemporaryDirectory() as name:
            base = Path(name)
            folder = base / "in"
            shutil.copytree(inputs, folder)
            for theirs in (
                *(base / "theirs" / name for name in THEIRS),
                base / "beside/nets/mine.pt",
                base / "file",
            ):
                theirs.parent.mkdir(parents=True, exist_ok=True)
                theirs.write_text("mine")
            (base / "link").symlink_to(folder / "masks")
            for place, spoiling in spoilings:
                spoil(folder, READ[command], place, spoiling)
            before, out = contents(base), results_of(argv, folder)
            os.chdir(folder)
            try:
                for leaves in (leave,) if again is None else (leave, again):
                    asked = [] if command in ("evaluate", "tables") else leaves
                    codes[call([*argv, *asked], capsys)] += 1
                    after = contents(base)
                    lost = [path for path in before if after.get(path) != before[path]]
                    assert not lost, f"changed or gone: {lost}"
                    added = (path for path in after.keys() - before.keys())
                    stray = [path for path in added if out not in Path(os.path.realpath(path)).parents]
                    assert not stray, f"outside of {out}: {stray}"
            finally:
                os.chdir("/")

    check()
    with capsys.disabled():
        print(f"\n{command}: {codes[0]} done, {codes[1]} failed, {codes[2]} usage; {len(seen)} examples")
