"""The folder that a command writes into: which files in it are its own, and which work it holds."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from vos_pipeline.errors import PipelineError
from vos_pipeline.files import replacing

NOTE = "run.json"

# The first part of what a work is, and the values that it takes.
KIND = "kind of results"
SEGMENTATION, REFINED_MASKS, TABLES = "segmentation", "refined masks", "the paper's tables"
FOREGROUND_NET, REFINER = "foreground net", "refiner"


class OutputFolder:
    """A folder of results and the note in it, ``run.json``, of the work that it holds and of every file of that work.

    A command claims the folder, says what its work is, and lists files before it writes them. Nothing that is not
    listed is ever replaced or removed, so a file of the user's is safe wherever it lies.

    Args:
        path: of the folder; it need not exist.
        option: of the command line that names it, for messages. ``--overwrite`` concerns ``--out`` alone.

    Example:
        >>> folder = OutputFolder("out")
        >>> folder.claim()
        >>> folder.identify("settings", {"steps": 100})
        >>> folder.add(["nets/foreground.pt"])
    """

    def __init__(self, path: str | Path, option: str = "--out") -> None:
        self.path, self.note, self.option = Path(path), Path(path) / NOTE, option

    def claim(self, *, resume: bool = False, overwrite: bool = False, inputs: Iterable[Path] = ()) -> None:
        """Take the folder for this work, or refuse it.

        Args:
            resume: go on with the work that is there, if there is any.
            overwrite: remove the files of the work that is there, and no others.
            inputs: what the work reads; none of it is removed.

        Raises:
            PipelineError: the folder holds work or other files and neither ``resume`` nor ``overwrite`` is given; it is
                a file; its note is damaged; or an input would be removed.
        """
        if os.path.lexists(self.path) and not self.path.is_dir():
            kind = "a file" if self.path.exists() else "a link to nothing"
            raise PipelineError(f"{self.path}: is {kind}; give a folder as {self.option}")
        note = self._read()
        if overwrite:
            self._remove(note, inputs)
            note = None
        elif not resume:
            self._refuse_what_is_there(note)
        self._write(note or {"work": {}, "files": {}, "patterns": []})

    def work(self) -> dict[str, Any]:
        """What the work here is: its parts as :meth:`identify` noted them; {} if there is none."""
        note = self._read()
        return dict(note["work"]) if note else {}

    def check(self, part: str, value: Any) -> None:
        """PipelineError if the work that is here has another value of this part; nothing is noted."""
        self._compare(self._read(), part, value)

    def _compare(self, note: dict[str, Any] | None, part: str, value: Any) -> None:
        if note is not None and note["work"].get(part, value) != value:
            raise PipelineError(
                f"{self.path} holds another run (different {part}): "
                f"give another {self.option}{self._or_overwrite('replace it')}"
            )

    def identify(self, part: str, value: Any) -> None:
        """Note one part of what the work is, in plain values.

        Raises:
            PipelineError: the work that is here has another value of this part.
        """
        note, value = self._claimed(), json.loads(json.dumps(value))
        self._compare(note, part, value)
        if part not in note["work"]:
            note["work"][part] = value
            self._write(note)

    def add(
        self, files: Iterable[str | Path], patterns: Iterable[str] = (), *, written: bool = False
    ) -> None:
        """Note files that the work is about to write.

        Args:
            files: paths relative to the folder.
            patterns: shell patterns of names in the folder itself, where the exact names are not known.
            written: the work has just written them, since their names were not known before.

        Raises:
            PipelineError: one of them is there already and is not of this work.
        """
        note = self._claimed()
        for file in map(Path, files):
            names = note["files"].setdefault(str(file.parent), {})
            if file.name not in names:
                if not written:
                    self._refuse_foreign(self.path / file)
                names[file.name] = None
        for pattern in patterns:
            if pattern not in note["patterns"]:
                for path in self.path.glob(pattern):
                    self._refuse_foreign(path)
                note["patterns"].append(pattern)
        self._write(note)

    # --- what is there --------------------------------------------------------------------------------------

    def _refuse_what_is_there(self, note: dict[str, Any] | None) -> None:
        if note is not None:
            if note["work"]:
                raise PipelineError(
                    f"{self.path} holds a run: --resume goes on with it, --overwrite replaces it; or give another --out"
                )
            return  # all that is there was prepared by a command that never began its work
        names = sorted(name for name in self._names() if not name.startswith("."))
        if names:
            raise PipelineError(
                f"{self.path} holds files that are of no run ({', '.join(names[:3])}{', ...' * (len(names) > 3)}): "
                f"give a new or empty folder as {self.option}{self._or_overwrite('write beside them')}"
            )

    def _refuse_foreign(self, path: Path) -> None:
        taken = [path] if os.path.lexists(path) else []
        taken += [p for p in path.parents if self.path in p.parents and os.path.lexists(p) and not p.is_dir()]
        if taken:
            raise PipelineError(
                f"{taken[0]}: is in the way and not of this run: move it, or give another --out"
            )

    def _or_overwrite(self, purpose: str) -> str:
        return f", or --overwrite to {purpose}" if self.option == "--out" else ""

    def _remove(self, note: dict[str, Any] | None, inputs: Iterable[Path]) -> None:
        """All noted files, the note itself last: an interruption leaves a note of what is left."""
        if note is None:
            return
        # A folder of inputs may hold this one, as a data set holds results.
        whole = self.path.resolve()
        inside = {path.resolve() for path in inputs if whole in (path.resolve(), *path.resolve().parents)}
        files = [self.path / parent / name for parent, names in note["files"].items() for name in names]
        files += [
            path for pattern in note["patterns"] for path in self.path.glob(pattern) if not path.is_dir()
        ]
        for path in files:
            if os.path.lexists(path) and inside & {path.resolve(), *path.resolve().parents}:
                raise PipelineError(
                    f"{path}: is read by this command, and --overwrite would remove it: give another --out"
                )
        for path in files:
            path.unlink(missing_ok=True)
        for folder in sorted({folder for path in files for folder in path.parents}, reverse=True):
            if self.path in folder.parents and folder.is_dir() and not any(folder.iterdir()):
                folder.rmdir()
        self.note.unlink()

    def _names(self) -> list[str]:
        return os.listdir(self.path) if self.path.is_dir() else []

    # --- the note ---------------------------------------------------------------------------------------------

    def _claimed(self) -> dict[str, Any]:
        note = self._read()
        if note is None:
            raise ValueError(f"{self.path} must be claimed first")
        return note

    def _read(self) -> dict[str, Any] | None:
        if not self.note.exists():
            return None
        note = read_json(self.note, "move the folder away, or give another --out")
        if not _is_note(note):
            raise PipelineError(f"{self.note}: is no note of a run: move it away, or give another --out")
        # A dictionary without values is a set that keeps its order.
        return {**note, "files": {folder: dict.fromkeys(names) for folder, names in note["files"].items()}}

    def _write(self, note: dict[str, Any]) -> None:
        write_json(
            self.note, {**note, "files": {folder: list(names) for folder, names in note["files"].items()}}
        )


def _is_note(note: dict[str, Any]) -> bool:
    """Whether it has all parts, and no file of it lies outside its folder."""
    kinds = {"work": dict, "files": dict, "patterns": list}
    if not all(isinstance(note.get(name), kind) for name, kind in kinds.items()):
        return False
    lists = (*note["files"].values(), note["patterns"])
    folders = map(Path, note["files"])
    return all(isinstance(names, list) and all(map(_is_name, names)) for names in lists) and not any(
        folder.is_absolute() or ".." in folder.parts for folder in folders
    )


def _is_name(name: Any) -> bool:
    return isinstance(name, str) and Path(name).name == name != ".."


def read_json(path: Path, remedy: str) -> dict[str, Any]:
    """What :func:`write_json` wrote; PipelineError with what to do if the file is damaged."""
    try:
        value = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise PipelineError(f"{path}: is damaged ({error}): {remedy}") from error
    if not isinstance(value, dict):
        raise PipelineError(f"{path}: is damaged (no JSON object): {remedy}")
    return value


def write_json(path: Path, value: dict[str, Any]) -> None:
    """Write plain values, whole or not at all."""
    with replacing(path) as file:
        file.write(json.dumps(value, indent=1).encode() + b"\n")
