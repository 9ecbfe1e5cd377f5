"""Output folders: which files a command may change, and which it never changes."""

import json

import pytest
from davis_cases import files_in, one_line

from vos_pipeline.errors import PipelineError
from vos_pipeline.output_folder import NOTE, OutputFolder


@pytest.fixture
def worked(tmp_path):
    """A folder that contains work (two files) and one file of the user."""
    folder = OutputFolder(tmp_path / "out")
    folder.claim()
    folder.identify("settings", {"steps": 3})
    folder.add(["a.txt", "deep/er/b.txt"])
    (tmp_path / "out/deep/er").mkdir(parents=True)
    for name in ("a.txt", "deep/er/b.txt", "deep/mine.txt"):
        (tmp_path / "out" / name).write_text(name)
    return folder


def refuses(call, match):
    with pytest.raises(PipelineError, match=match) as error:
        call()
    one_line(error)


# --- claiming -----------------------------------------------------------------------------------------------


def test_a_new_or_empty_folder_can_be_claimed(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "hidden").mkdir()
    (tmp_path / "hidden/.DS_Store").write_text("")
    for name in ("new", "empty", "hidden"):
        OutputFolder(tmp_path / name).claim()
        assert (tmp_path / name / NOTE).is_file()


def test_a_folder_with_files_is_refused(tmp_path):
    for name in ("a", "b", "c", "d"):
        (tmp_path / name).write_text(name)
    before = files_in(tmp_path)
    refuses(
        OutputFolder(tmp_path).claim,
        r"holds files that belong to no run \(a, b, c, \.\.\.\): choose a new or empty",
    )
    assert files_in(tmp_path) == before


def test_a_file_is_refused(tmp_path):
    (tmp_path / "out").write_text("mine")
    for leave in ({}, {"resume": True}, {"overwrite": True}):
        refuses(
            lambda leave=leave: OutputFolder(tmp_path / "out").claim(**leave),
            "is a file; choose a folder for --out",
        )
    assert (tmp_path / "out").read_text() == "mine"


def test_a_broken_link_is_refused(tmp_path):
    (tmp_path / "out").symlink_to("nowhere")
    refuses(OutputFolder(tmp_path / "out").claim, "is a broken link; choose a folder for --out")


def test_work_is_not_replaced_by_default(worked):
    before = files_in(worked.path)
    refuses(worked.claim, "holds a run: pass --resume to continue it, --overwrite to replace it")
    assert files_in(worked.path) == before


def test_a_folder_without_started_work_can_be_claimed(tmp_path):
    folder = OutputFolder(tmp_path)
    folder.claim()
    folder.add(["frames/00000.jpg"])
    folder.claim()


def test_an_unclaimed_folder_records_nothing(tmp_path):
    with pytest.raises(ValueError, match="must be claimed first"):
        OutputFolder(tmp_path).add(["a.txt"])


# --- overwriting --------------------------------------------------------------------------------------------


def test_overwriting_removes_only_recorded_files(worked):
    worked.claim(overwrite=True)
    assert set(map(str, files_in(worked.path))) == {"deep/mine.txt", NOTE}
    assert not (worked.path / "deep/er").exists()  # folders that become empty are removed
    worked.identify("settings", {"steps": 4})


def test_files_of_recorded_patterns_are_removed(worked):
    worked.add([], ["events.*"])
    for name in ("events.1", "deep/events.2"):
        (worked.path / name).write_text(name)
    worked.claim(overwrite=True)
    assert set(map(str, files_in(worked.path))) == {"deep/mine.txt", "deep/events.2", NOTE}


def test_inputs_are_not_removed(worked, tmp_path):
    (tmp_path / "link").symlink_to(worked.path / "deep")
    before = files_in(worked.path)
    for source in (worked.path / "a.txt", worked.path / "deep", tmp_path / "link", worked.path):
        refuses(
            lambda source=source: worked.claim(overwrite=True, inputs=[source]),
            "is read by this command, and --overwrite would remove it",
        )
    assert files_in(worked.path) == before
    # tmp_path contains the folder.
    worked.claim(overwrite=True, inputs=[worked.path / "deep/mine.txt", tmp_path])


def test_an_interrupted_removal_can_be_repeated(worked, monkeypatch):
    unlink = type(worked.path).unlink

    def stop(path, missing_ok=False):
        if path.name == "b.txt":
            raise KeyboardInterrupt
        unlink(path, missing_ok=missing_ok)

    monkeypatch.setattr(type(worked.path), "unlink", stop)
    with pytest.raises(KeyboardInterrupt):
        worked.claim(overwrite=True)
    monkeypatch.undo()
    worked.claim(overwrite=True)
    assert set(map(str, files_in(worked.path))) == {"deep/mine.txt", NOTE}


# --- identity of the work, and files that do not belong to it -------------------------------------------------


def test_other_work_is_refused(worked):
    worked.claim(resume=True)
    worked.identify("settings", {"steps": 3})
    refuses(lambda: worked.identify("settings", {"steps": 4}), r"holds another run \(different settings\)")
    worked.identify("data", ("a", 1))  # a new part
    worked.identify("data", ["a", 1])


@pytest.mark.parametrize("file", ["mine.txt", "mine.txt/b.txt", "link", "events.1"])
def test_files_of_the_user_are_not_replaced(tmp_path, file):
    (tmp_path / "mine.txt").write_text("mine")
    (tmp_path / "events.1").write_text("mine")
    (tmp_path / "link").symlink_to("nowhere")
    folder = OutputFolder(tmp_path)
    folder.claim(overwrite=True)
    first = file.split("/")[0]
    refuses(lambda: folder.add([file]), f"{first}: exists already and does not belong to this run")
    refuses(lambda: folder.add([], ["events.*"]), "events.1: exists already")
    assert str(file) not in (tmp_path / NOTE).read_text()


def test_files_of_the_work_may_be_added_again(worked):
    worked.claim(resume=True)
    worked.add(["a.txt", "deep/er/b.txt"])


# --- the record -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        "{}",
        "\xff",
        "[" * 100_000,
        json.dumps({"work": {}, "files": {"..": ["x"]}, "patterns": []}),
        json.dumps({"work": {}, "files": {"/": ["x"]}, "patterns": []}),
        json.dumps({"work": {}, "files": {".": ["../x"]}, "patterns": []}),
        json.dumps({"work": {}, "files": {".": [".."]}, "patterns": []}),
        json.dumps({"work": {}, "files": {".": 1}, "patterns": []}),
        json.dumps({"work": {}, "files": {}, "patterns": ["../*"]}),
    ],
)
def test_a_damaged_record_is_an_error_and_nothing_is_removed(tmp_path, content):
    (tmp_path / "x").write_text("mine")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / NOTE).write_text(content, encoding="latin-1")
    for leave in ({}, {"resume": True}, {"overwrite": True}):
        refuses(
            lambda leave=leave: OutputFolder(tmp_path / "out").claim(**leave),
            rf"{NOTE}: is (damaged|not the record)",
        )
    assert (tmp_path / "x").read_text() == "mine"
