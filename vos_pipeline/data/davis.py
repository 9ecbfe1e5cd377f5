"""The DAVIS layout: sets of sequences by year and name."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

from vos_pipeline.data.folders import list_files, listing, shorten
from vos_pipeline.data.sequence import Sequence, validated
from vos_pipeline.errors import PipelineError


def load_davis(
    root: str | Path,
    year: str = "2017",
    set_name: str = "val",
    sequences: list[str] | None = None,
    resolution: str = "480p",
) -> list[Sequence]:
    """Open the sequences of a DAVIS set.

    Layout: ``ROOT/{JPEGImages,Annotations}/480p/<sequence>/%05d.{jpg,png}``,
    ``ROOT/ImageSets/<year>/<set>.txt``. A test set may hold the first mask of a sequence only.

    Args:
        sequences: names to open, in this order; None opens the whole set.

    Raises:
        PipelineError: something is missing (the message lists what exists) or cut short, sizes differ, or a
            first mask is empty.
    """
    root = Path(root)
    names = read_set(root, year, set_name, sequences)
    return [_open_davis(root, name, resolution) for name in names]


def load_sets(root: Path, sets: list[str], names: list[str] | None) -> list[Sequence]:
    """The sequences of several sets of one root, or those of them that are named."""
    found: dict[str, Sequence] = {}
    for spec in sets:
        year, separator, set_name = spec.partition("/")
        if not separator:
            raise PipelineError(f"a set must be YEAR/SET such as 2017/val, got {spec!r}")
        found |= {sequence.name: sequence for sequence in load_davis(root, year, set_name)}
    unknown = [name for name in names or () if name not in found]
    if unknown:
        raise PipelineError(f"no sequence {unknown[0]!r} in {', '.join(sets)}; there are {', '.join(found)}")
    return [found[name] for name in names or found]


def read_set(root: str | Path, year: str, set_name: str, sequences: list[str] | None = None) -> list[str]:
    """The sequence names of ``ROOT/ImageSets/<year>/<set>.txt``, or those asked for after checking them."""
    root = Path(root)
    sets = root / "ImageSets"
    if not sets.is_dir():
        raise PipelineError(
            f"{root}: is no DAVIS root (ImageSets, JPEGImages, Annotations); it holds {listing(root)}"
        )
    path = sets / str(year) / f"{set_name}.txt"
    if not path.is_file():
        found = sorted(str(p.relative_to(sets).with_suffix("")) for p in sets.glob("*/*.txt"))
        raise PipelineError(f"{path}: no such set; this root has {', '.join(found) or 'none'}")
    names = path.read_text().split()
    if not names:
        raise PipelineError(f"{path}: lists no sequence")
    if sequences is None:
        return names
    unknown = [name for name in sequences if name not in names]
    if unknown:
        raise PipelineError(f"no sequence {unknown[0]!r} in set {year}/{set_name}; it has {shorten(names)}")
    return list(sequences)


def _open_davis(root: Path, name: str, resolution: str) -> Sequence:
    frames_dir, masks_dir = (root / kind / resolution / name for kind in ("JPEGImages", "Annotations"))
    if not frames_dir.is_dir():
        raise PipelineError(
            f"{frames_dir}: no such folder; {frames_dir.parent} holds {listing(frames_dir.parent)}"
        )
    frames = list_files(frames_dir, ".jpg")
    known = {path.stem: path for path in list_files(masks_dir, ".png")} if masks_dir.is_dir() else {}
    masks = tuple(known.get(frame.stem) for frame in frames)
    lost = sorted(known.keys() - {frame.stem for frame in frames}) or (None in masks and _gaps(frames))
    if lost:
        raise PipelineError(
            f"{frames_dir / lost[0]}.jpg: this frame is missing; copy or download the sequence again"
        )
    if masks[0] is None:
        raise PipelineError(f"{masks_dir / frames[0].stem}.png: the first mask is missing")
    return validated(Sequence(name, tuple(frames), masks))


def _gaps(frames: list[Path]) -> list[str]:
    """Names left out of a numbering whose steps are otherwise equal."""
    if not all(frame.stem.isdecimal() for frame in frames):
        return []
    steps = [(int(b.stem) - int(a.stem), a.stem) for a, b in pairwise(frames)]
    step = min(steps, default=(0, ""))[0]
    return [f"{int(stem) + step:0{len(stem)}d}" for length, stem in steps if length != step]
