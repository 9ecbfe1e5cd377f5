"""The lists of a DAVIS root, as distributed and as written by users."""

import codecs
import shutil

import pytest
from davis_cases import make_root, one_line

from vos_pipeline import data
from vos_pipeline.errors import PipelineError


@pytest.fixture
def root(tmp_path):
    return make_root(tmp_path, names=("alpha", "beta", "my clip", "crème"))


def listed(root, content, year="2017", set_name="val"):
    (root / f"ImageSets/{year}").mkdir(exist_ok=True)
    (root / f"ImageSets/{year}/{set_name}.txt").write_bytes(content)
    return data.read_set(root, year, set_name)


TEXT = "# the set\r\n\r\n  alpha \r\nmy clip\r\ncrème\r\nalpha\r\n"


@pytest.mark.parametrize(
    "content",
    [
        TEXT.encode(),
        codecs.BOM_UTF8 + TEXT.encode(),
        codecs.BOM_UTF16_LE + TEXT.encode("utf-16-le"),
        codecs.BOM_UTF16_BE + TEXT.encode("utf-16-be"),
        TEXT.encode("latin-1"),
        TEXT.replace("\r\n", "\n").encode(),
        TEXT.replace("\r\n", "\r").rstrip().encode(),
    ],
    ids=["utf-8", "utf-8 BOM", "utf-16-le", "utf-16-be", "latin-1", "lf", "cr"],
)
def test_lists_in_all_encodings_and_line_endings(root, content):
    assert listed(root, content) == ["alpha", "my clip", "crème"]
    assert [s.name for s in data.load_davis(root)] == ["alpha", "my clip", "crème"]


@pytest.mark.parametrize("name", ["../x", "a/b", "..", ".", "/alpha", "a\\b", "al\0pha"])
def test_a_name_that_cannot_be_a_folder_is_an_error_with_its_line(root, name):
    with pytest.raises(PipelineError, match=r"2017/val\.txt, line 2: '.*' is not a plain name") as error:
        listed(root, f"alpha\n{name}\n".encode())
    one_line(error)
    (root / "ImageSets/2017/val.txt").write_text("alpha\n")
    for call in (
        lambda: data.load_davis(root, sequences=["alpha", name]),
        lambda: data.load_sets(root, ["2017/val"], [name]),
    ):
        with pytest.raises(PipelineError, match=r"--sequences: '.*' is not a plain name"):
            call()
    with pytest.raises(PipelineError, match=r"year: '.*' is not a plain name"):
        data.load_davis(root, year=name)
    with pytest.raises(PipelineError, match=r"set: '.*' is not a plain name"):
        data.load_davis(root, set_name=name)


def test_an_empty_name_is_an_error(root):
    with pytest.raises(PipelineError, match=r"--sequences: '' is not a plain name"):
        data.load_davis(root, sequences=[""])


def test_repeated_names_are_returned_once(root):
    assert [s.name for s in data.load_davis(root, sequences=["beta", "alpha", "beta"])] == ["beta", "alpha"]
    assert [s.name for s in data.load_sets(root, ["2017/val"], ["beta", "beta"])] == ["beta"]


# --- DAVIS 2016 as distributed ------------------------------------------------------------------------------


def pairs(*names):
    lines = [
        f"/JPEGImages/480p/{name}/{t:05d}.jpg /Annotations/480p/{name}/{t:05d}.png "
        for name in names
        for t in range(3)
    ]
    return "\n".join(lines).encode()


@pytest.fixture
def root_of_2016(root):
    shutil.rmtree(root / "ImageSets/2017")
    listed(root, pairs("alpha", "beta"), "480p", "train")
    listed(root, pairs("my clip"), "480p", "val")
    listed(root, pairs("alpha", "beta", "my clip"), "480p", "trainval")
    return root


@pytest.mark.parametrize(
    ("set_name", "names"),
    [("train", ["alpha", "beta"]), ("val", ["my clip"]), ("trainval", ["alpha", "beta", "my clip"])],
)
def test_lists_of_pairs(root_of_2016, set_name, names):
    assert [s.name for s in data.load_davis(root_of_2016, "2016", set_name)] == names


def test_a_list_of_names_takes_precedence_over_pairs(root_of_2016):
    assert listed(root_of_2016, b"beta\n", "2016", "val") == ["beta"]


def test_lists_of_pairs_are_read_only_for_2016(root_of_2016):
    with pytest.raises(PipelineError, match="no such set; this root has 2016/train, 2016/trainval, 2016/val"):
        data.load_davis(root_of_2016, "2017", "val")


# --- train sets ---------------------------------------------------------------------------------------------


def test_the_train_set_is_from_2017_or_else_from_2016(root_of_2016):
    assert data.has_train_set(root_of_2016)
    assert [s.name for s in data.load_train_set(root_of_2016)] == ["alpha", "beta"]
    listed(root_of_2016, "crème".encode(), "2017", "train")
    assert [s.name for s in data.load_train_set(root_of_2016)] == ["crème"]


def test_a_root_without_a_train_set(root, tmp_path):
    assert not data.has_train_set(root) and not data.has_train_set(tmp_path / "nowhere")
    with pytest.raises(PipelineError, match=r"2017/train\.txt: no such set; this root has 2017/val"):
        data.load_train_set(root)
    with pytest.raises(PipelineError, match="nowhere: is not a DAVIS root"):
        data.load_train_set(tmp_path / "nowhere")
    listed(root, b"alpha", "2017", "train")
    (root / "ImageSets/2017/train.txt").write_text("# nothing yet\n")
    with pytest.raises(PipelineError, match=r"train\.txt: lists no sequence"):
        data.load_train_set(root)
