"""The output folder of a command: the work that it contains, and the files that belong to this work."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from vos_pipeline.errors import PipelineError
from vos_pipeline.files import replacing

NOTE = "run.json"

# The first part of the identity of a work, and its possible values.
KIND = "kind of results"
SEGMENTATION, REFINED_MASKS, TABLES = "segmentation", "refined masks", "the paper's tables"
FOREGROUND_NET, REFINER = "foreground net", "refiner"


class OutputFolder:
    """A folder of results with a record, ``run.json``, of its work and of every file of this work.

    A command claims the folder, identifies its work, and lists files before it writes them. Files that are not listed
    are never replaced or removed, so files of the user are safe anywhere in the folder.

    Args:
        path: the folder; it need not exist.
        option: command-line option that names the folder, for messages. ``--overwrite`` applies only to ``--out``.

    Example:
        >>> folder = OutputFolder("out")
        >>> folder.claim()
        >>> folder.identify("settings", {"steps": 100})
        >>> folder.add(["nets/foreground.pt"])
    """

    def __init__(self, path: str | Path, option: str = "--out") -> None:
        self.path, self.note, self.option = Path(path), Path(path) / NOTE, option

    def claim(self, *, resume: bool = False, overwrite: bool = False, inputs: Iterable[Path] = ()) -> None:
        """Claim the folder for this work.

        Args:
            resume: continue the existing work, if any.
            overwrite: remove the files of the existing work, and no others.
            inputs: files and folders that the work reads; none of them is removed.

        Raises:
            PipelineError: the folder contains work or other files and neither ``resume`` nor ``overwrite`` is given;
                the path is a file; the record is damaged; or an input would be removed.
        """
        if os.path.lexists(self.path) and not self.path.is_dir():
            kind = "a file" if self.path.exists() else "a broken link"
            raise PipelineError(f"{self.path}: is {kind}; choose a folder for {self.option}")
        note = self._read()
        if overwrite:
            self._remove(note, inputs)
            note = None
        elif not resume:
            self._refuse_what_is_there(note)
        self._write(note or {"work": {}, "files": {}, "patterns": []})

    def work(self) -> dict[str, Any]:
        """Return the identity of the existing work, as recorded by :meth:`identify`; {} without work."""
        note = self._read()
        return dict(note["work"]) if note else {}

    def check(self, part: str, value: Any) -> None:
        """Raise PipelineError if the existing work has another value of this part; record nothing."""
        self._compare(self._read(), part, value)

    def _compare(self, note: dict[str, Any] | None, part: str, value: Any) -> None:
        if note is not None and note["work"].get(part, value) != value:
            raise PipelineError(
                f"{self.path} holds another run (different {part}): "
                f"choose another {self.option}{self._or_overwrite('replace it')}"
            )

    def identify(self, part: str, value: Any) -> None:
        """Record one part of the identity of the work, as plain JSON values.

        Raises:
            PipelineError: the existing work has another value of this part.
        """
        note, value = self._claimed(), json.loads(json.dumps(value))
        self._compare(note, part, value)
        if part not in note["work"]:
            note["work"][part] = value
            self._write(note)

    def add(
        self, files: Iterable[str | Path], patterns: Iterable[str] = (), *, written: bool = False
    ) -> None:
        """Record files that the work is about to write.

        Args:
            files: paths relative to the folder.
            patterns: shell patterns of names directly in the folder, for names that are not known in advance.
            written: the work has just written the files, because their names were not known in advance.

        Raises:
            PipelineError: one of the files exists and does not belong to this work.
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

    # --- existing files -------------------------------------------------------------------------------------

    def _refuse_what_is_there(self, note: dict[str, Any] | None) -> None:
        if note is not None:
            if note["work"]:
                raise PipelineError(
                    f"{self.path} holds a run: pass --resume to continue it, --overwrite to replace it, "
                    "or choose another --out"
                )
            return  # a command claimed the folder and never started its work
        names = sorted(name for name in self._names() if not name.startswith("."))
        if names:
            raise PipelineError(
                f"{self.path} holds files that belong to no run ({', '.join(names[:3])}{', ...' * (len(names) > 3)}): "
                f"choose a new or empty folder for {self.option}{self._or_overwrite('keep them and add the results')}"
            )

    def _refuse_foreign(self, path: Path) -> None:
        taken = [path] if os.path.lexists(path) else []
        taken += [p for p in path.parents if self.path in p.parents and os.path.lexists(p) and not p.is_dir()]
        if taken:
            raise PipelineError(
                f"{taken[0]}: exists already and does not belong to this run: move it, or choose another --out"
            )

    def _or_overwrite(self, purpose: str) -> str:
        return f", or pass --overwrite to {purpose}" if self.option == "--out" else ""

    def _remove(self, note: dict[str, Any] | None, inputs: Iterable[Path]) -> None:
        """Remove all recorded files and then the record, so that an interruption keeps the record of the rest."""
        if note is None:
            return
        # An input folder may contain this folder, for example results inside a data set.
        whole = self.path.resolve()
        inside = {path.resolve() for path in inputs if whole in (path.resolve(), *path.resolve().parents)}
        files = [self.path / parent / name for parent, names in note["files"].items() for name in names]
        files += [
            path for pattern in note["patterns"] for path in self.path.glob(pattern) if not path.is_dir()
        ]
        for path in files:
            if os.path.lexists(path) and inside & {path.resolve(), *path.resolve().parents}:
                raise PipelineError(
                    f"{path}: is read by this command, and --overwrite would remove it: choose another --out"
                )
        for path in files:
            path.unlink(missing_ok=True)
        for folder in sorted({folder for path in files for folder in path.parents}, reverse=True):
            if self.path in folder.parents and folder.is_dir() and not any(folder.iterdir()):
                folder.rmdir()
        self.note.unlink()

    def _names(self) -> list[str]:
        return os.listdir(self.path) if self.path.is_dir() else []

    # --- the record -------------------------------------------------------------------------------------------

    def _claimed(self) -> dict[str, Any]:
        note = self._read()
        if note is None:
            raise ValueError(f"{self.path} must be claimed first")
        return note

    def _read(self) -> dict[str, Any] | None:
        if not self.note.exists():
            return None
        note = read_json(self.note, "move the folder away, or choose another --out")
        if not _is_note(note):
            raise PipelineError(
                f"{self.note}: is not the record of a run: move it away, or choose another --out"
            )
        # A dictionary without values serves as an ordered set.
        return {**note, "files": {folder: dict.fromkeys(names) for folder, names in note["files"].items()}}

    def _write(self, note: dict[str, Any]) -> None:
        write_json(
            self.note, {**note, "files": {folder: list(names) for folder, names in note["files"].items()}}
        )


def _is_note(note: dict[str, Any]) -> bool:
    """Return whether a record is complete and lists no file outside its folder."""
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
    """Read a file of :func:`write_json`; raise PipelineError with the remedy if the file is damaged."""
    try:
        value = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise PipelineError(f"{path}: is damaged ({error}): {remedy}") from error
    if not isinstance(value, dict):
        raise PipelineError(f"{path}: is damaged (not a JSON object): {remedy}")
    return value


def write_json(path: Path, value: dict[str, Any]) -> None:
    """Write plain values as JSON, completely or not at all."""
    with replacing(path) as file:
        file.write(json.dumps(value, indent=1).encode() + b"\n")
