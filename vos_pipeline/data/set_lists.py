"""Read the lists of a DAVIS root: the sequences of each set."""

from __future__ import annotations

import codecs
import re
from pathlib import Path

from vos_pipeline.data.folders import check_name, listing, natural_order, shorten
from vos_pipeline.errors import PipelineError, readable

# DAVIS 2016 as distributed: ImageSets/480p has one line per frame, such as
# "/JPEGImages/480p/bear/00000.jpg /Annotations/480p/bear/00000.png".
YEAR_OF_PAIRS = "2016"
PAIR = re.compile(r"/?JPEGImages/[^/]+/(?P<sequence>[^/]+)/[^/]+\s+/?Annotations/.+")


def read_set(
    root: str | Path,
    year: str,
    set_name: str,
    sequences: list[str] | None = None,
    resolution: str = "480p",
) -> list[str]:
    """Return the sequences of ``ROOT/ImageSets/<year>/<set>.txt``, or the requested ones, each once.

    If 2016 has no such file, ``ROOT/ImageSets/<resolution>/<set>.txt`` is read, as DAVIS 2016 is distributed. A list
    has one name per line; blank lines and lines that begin with ``#`` are ignored. Its encoding is UTF-8, UTF-16 with
    a byte order mark, or Latin-1.

    Raises:
        PipelineError: the folder is not a DAVIS root, the set does not exist or is empty, or a name is unknown or
            cannot be the name of a folder.
    """
    root = Path(root)
    sets = root / "ImageSets"
    if not sets.is_dir():
        raise PipelineError(
            f"{root}: is not a DAVIS root (ImageSets, JPEGImages, Annotations); it contains {listing(root)}"
        )
    path = _list_of(root, year, set_name, resolution)
    if path is None:
        found = ", ".join(_sets_of(sets, resolution)) or "none"
        raise PipelineError(f"{sets / str(year) / set_name}.txt: no such set; this root has {found}")
    names = _names_in(path)
    if not names:
        raise PipelineError(f"{path}: lists no sequence; write one sequence name per line")
    if sequences is None:
        return names
    wanted = list(dict.fromkeys(plain_name(name, "--sequences") for name in sequences))
    unknown = [name for name in wanted if name not in names]
    if unknown:
        raise PipelineError(f"no sequence {unknown[0]!r} in set {year}/{set_name}; it has {shorten(names)}")
    return wanted


def has_set(root: Path, year: str, set_name: str, resolution: str = "480p") -> bool:
    """Return whether the root has a list of this set."""
    return _list_of(root, year, set_name, resolution) is not None


def plain_name(name: str, where: str) -> str:
    """Return the name of one folder or file; raise a PipelineError that begins with ``where`` for any other name."""
    if name in ("", ".", "..") or re.search(r"[/\\\x00-\x1f\x7f]", name):
        raise PipelineError(f"{where}: {name!r} is not a plain name; use a name without /, \\ and ..")
    check_name(Path(name))
    return name


def _list_of(root: Path, year: str, set_name: str, resolution: str) -> Path | None:
    """Return the file that lists a set, or None."""
    year, set_name = plain_name(str(year), "year"), plain_name(set_name, "set")
    folders = (year, resolution) if year == YEAR_OF_PAIRS else (year,)
    paths = (root / "ImageSets" / folder / f"{set_name}.txt" for folder in folders)
    return next((path for path in paths if path.is_file()), None)


def _sets_of(sets: Path, resolution: str) -> list[str]:
    """Return the sets of a root as year/set."""
    found = {
        f"{YEAR_OF_PAIRS if path.parent.name == resolution else path.parent.name}/{path.stem}"
        for path in sets.glob("*/*.txt")
    }
    return natural_order([readable(name) for name in found])


def _names_in(path: Path) -> list[str]:
    """Return the names of a list, each once, in order."""
    names: dict[str, None] = {}
    for number, line in enumerate(re.split(r"\r\n|\r|\n", _text(path.read_bytes())), 1):
        name = line.strip()
        if not name or name.startswith("#"):
            continue
        pair = PAIR.fullmatch(name)
        names[plain_name(pair["sequence"] if pair else name, f"{path}, line {number}")] = None
    return list(names)


def _text(raw: bytes) -> str:
    if raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return raw.decode("utf-16", errors="replace")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        return raw.decode("latin-1")
