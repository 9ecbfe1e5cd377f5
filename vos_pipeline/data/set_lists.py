"""The lists of a DAVIS root: which sequences a set has."""

from __future__ import annotations

import codecs
import re
from pathlib import Path

from vos_pipeline.data.folders import check_name, listing, natural_order, shorten
from vos_pipeline.errors import PipelineError, readable

# DAVIS 2016 as it is distributed: lines "/JPEGImages/480p/bear/00000.jpg /Annotations/480p/bear/00000.png" in
# ImageSets/480p, a line per frame.
YEAR_OF_PAIRS = "2016"
PAIR = re.compile(r"/?JPEGImages/[^/]+/(?P<sequence>[^/]+)/[^/]+\s+/?Annotations/.+")


def read_set(
    root: str | Path,
    year: str,
    set_name: str,
    sequences: list[str] | None = None,
    resolution: str = "480p",
) -> list[str]:
    """The sequences of ``ROOT/ImageSets/<year>/<set>.txt``, or those asked for after checking them; each once.

    Where 2016 has no such file, ``ROOT/ImageSets/<resolution>/<set>.txt`` is read, as DAVIS 2016 distributes it.
    A list has one name per line; blank lines and lines that begin with ``#`` do not count. It is UTF-8, UTF-16
    with a byte order mark, or Latin-1.

    Raises:
        PipelineError: no DAVIS root, no such set, a set without sequences, or a name that is no folder's name.
    """
    root = Path(root)
    sets = root / "ImageSets"
    if not sets.is_dir():
        raise PipelineError(
            f"{root}: is no DAVIS root (ImageSets, JPEGImages, Annotations); it holds {listing(root)}"
        )
    path = _list_of(root, year, set_name, resolution)
    if path is None:
        found = ", ".join(_sets_of(sets, resolution)) or "none"
        raise PipelineError(f"{sets / str(year) / set_name}.txt: no such set; this root has {found}")
    names = _names_in(path)
    if not names:
        raise PipelineError(f"{path}: lists no sequence")
    if sequences is None:
        return names
    wanted = list(dict.fromkeys(plain_name(name, "--sequences") for name in sequences))
    unknown = [name for name in wanted if name not in names]
    if unknown:
        raise PipelineError(f"no sequence {unknown[0]!r} in set {year}/{set_name}; it has {shorten(names)}")
    return wanted


def has_set(root: Path, year: str, set_name: str, resolution: str = "480p") -> bool:
    """Whether the root has a list of this set."""
    return _list_of(root, year, set_name, resolution) is not None


def plain_name(name: str, where: str) -> str:
    """The name, which is that of one folder or file; PipelineError that begins with ``where`` if it is not."""
    if name in ("", ".", "..") or re.search(r"[/\\\x00-\x1f\x7f]", name):
        raise PipelineError(f"{where}: {name!r} is no plain name; give one without /, \\ and ..")
    check_name(Path(name))
    return name


def _list_of(root: Path, year: str, set_name: str, resolution: str) -> Path | None:
    """The file that lists a set."""
    year, set_name = plain_name(str(year), "year"), plain_name(set_name, "set")
    folders = (year, resolution) if year == YEAR_OF_PAIRS else (year,)
    paths = (root / "ImageSets" / folder / f"{set_name}.txt" for folder in folders)
    return next((path for path in paths if path.is_file()), None)


def _sets_of(sets: Path, resolution: str) -> list[str]:
    """The sets of a root as year/set."""
    found = {
        f"{YEAR_OF_PAIRS if path.parent.name == resolution else path.parent.name}/{path.stem}"
        for path in sets.glob("*/*.txt")
    }
    return natural_order([readable(name) for name in found])


def _names_in(path: Path) -> list[str]:
    """The names of a list, each once, in order."""
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
