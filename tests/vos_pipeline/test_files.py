"""Files are complete or absent, even if writing fails."""

import errno

import pytest

from vos_pipeline.files import replacing


def test_a_finished_block_replaces_the_file(tmp_path):
    path = tmp_path / "new/folder/notes.txt"
    for text in (b"first", b"second"):
        with replacing(path) as file:
            file.write(text)
            assert not path.exists() or path.read_bytes() == b"first"
        assert path.read_bytes() == text
    assert [p.name for p in path.parent.iterdir()] == ["notes.txt"]
    assert path.stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize(
    "stop", [KeyboardInterrupt, ValueError, OSError(errno.ENOSPC, "No space left on device")]
)
def test_an_unfinished_block_leaves_the_old_file_alone(tmp_path, stop):
    path = tmp_path / "notes.txt"
    path.write_text("old")
    with pytest.raises(stop if isinstance(stop, type) else OSError) as error, replacing(path) as file:
        file.write(b"half")
        raise stop
    assert [p.read_text() for p in tmp_path.iterdir()] == ["old"]
    if isinstance(stop, OSError):
        assert error.value.filename == str(path)  # the error of a full disk has no file name
