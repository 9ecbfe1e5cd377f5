"""Open sequences in the DAVIS layout: sets by year and name."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

from vos_pipeline.data.folders import list_files, list_images, listing, natural_order, shorten
from vos_pipeline.data.sequence import Sequence, validated
from vos_pipeline.data.set_lists import has_set, plain_name, read_set
from vos_pipeline.errors import PipelineError, warn

TRAIN_YEARS = ("2017", "2016")  # years in which a train set is searched, in order


def load_davis(
    root: str | Path,
    year: str = "2017",
    set_name: str = "val",
    sequences: list[str] | None = None,
    resolution: str = "480p",
) -> list[Sequence]:
    """Open the sequences of a DAVIS set.

    Layout: ``ROOT/{JPEGImages,Annotations}/480p/<sequence>/%05d.{jpg,png}``, and the list of the set where
    :func:`read_set` finds it. Frames may have any image suffix. A test set may contain only the first mask of each
    sequence.

    Args:
        sequences: names to open, in this order; None opens the whole set.

    Raises:
        PipelineError: a file or folder is missing (the message lists what exists) or cut short, sizes differ, or a
            first mask is empty.
    """
    root = Path(root)
    names = read_set(root, year, set_name, sequences, resolution)
    return [_open_davis(root, name, resolution) for name in names]


def load_sets(root: Path, sets: list[str], names: list[str] | None = None) -> list[Sequence]:
    """Open the sequences of several sets of one root, or only the named ones."""
    found: dict[str, Sequence] = {}
    for spec in sets:
        year, separator, set_name = spec.partition("/")
        if not separator:
            raise PipelineError(f"a set must be YEAR/SET such as 2017/val, got {spec!r}")
        found |= {sequence.name: sequence for sequence in load_davis(root, year, set_name)}
    wanted = dict.fromkeys(plain_name(name, "--sequences") for name in names or found)
    unknown = [name for name in wanted if name not in found]
    if unknown:
        raise PipelineError(f"no sequence {unknown[0]!r} in {', '.join(sets)}; available: {', '.join(found)}")
    return [found[name] for name in wanted]


def load_train_set(root: Path) -> list[Sequence]:
    """Open the train set of a DAVIS root: of 2017 if the root has it, otherwise of 2016.

    Raises:
        PipelineError: the root has no train set, or :func:`load_davis` cannot open it.
    """
    for year in TRAIN_YEARS:
        if has_set(root, year, "train"):
            return load_davis(root, year, "train")
    return load_davis(root, TRAIN_YEARS[0], "train")  # raises an error that lists the sets of the root


def has_train_set(root: Path) -> bool:
    """Return whether the root has a train set that :func:`load_train_set` can open."""
    return any(has_set(root, year, "train") for year in TRAIN_YEARS)


def load_truth(root: str | Path, name: str, resolution: str = "480p") -> Sequence:
    """Open the ground truth of a sequence: a sequence whose frames are its masks. The real frames are not needed.

    Raises:
        PipelineError: there are no masks or only the first one, or a mask is missing (the numbering has a gap, or a
            frame has no mask).
    """
    frames_dir, masks_dir = _folders(Path(root), name, resolution)
    masks = list_files(masks_dir, ".png")
    if len(masks) == 1:
        raise PipelineError(
            f"{masks_dir}: contains only {masks[0].name}, so results cannot be scored; "
            "score a set whose masks are public, such as val"
        )
    known = {mask.stem for mask in masks}
    frames = list_images(frames_dir) if frames_dir.is_dir() else []
    missing = [frame.stem for frame in frames if frame.stem not in known] or _gaps(masks)
    if missing:
        raise PipelineError(
            f"{masks_dir / missing[0]}.png: this ground-truth mask is missing ({len(missing)} missing in all); "
            "copy or download the annotations again"
        )
    return Sequence(name, tuple(masks), tuple(masks))


def _open_davis(root: Path, name: str, resolution: str) -> Sequence:
    frames_dir, masks_dir = _folders(root, name, resolution)
    if not frames_dir.is_dir():
        raise PipelineError(
            f"{frames_dir}: no such folder; {frames_dir.parent} contains {listing(frames_dir.parent)}"
        )
    frames = list_images(frames_dir)
    known = {path.stem: path for path in list_files(masks_dir, ".png")} if masks_dir.is_dir() else {}
    masks = tuple(known.get(frame.stem) for frame in frames)
    alone = natural_order(list(known.keys() - {frame.stem for frame in frames}))
    lost = alone or (None in masks and _gaps(frames))
    if lost:
        raise PipelineError(
            f"{frames_dir / lost[0]}{frames[0].suffix}: this frame is missing; "
            "copy or download the sequence again"
        )
    if masks[0] is None:
        raise PipelineError(
            f"{masks_dir / frames[0].stem}.png: the first mask is missing; the first frame needs a mask"
        )
    bare = [frame.stem for frame, mask in zip(frames, masks, strict=True) if mask is None]
    if bare and len(known) > 1:
        warn(
            f"{masks_dir}: {len(bare)} of {len(frames)} frames have no mask ({shorten(bare, 3)}); "
            "the sequence is not scored"
        )
    return validated(Sequence(name, tuple(frames), masks))


def _folders(root: Path, name: str, resolution: str) -> tuple[Path, Path]:
    """Return the folders of the frames and of the masks of a sequence."""
    return root / "JPEGImages" / resolution / name, root / "Annotations" / resolution / name


def _gaps(files: list[Path]) -> list[str]:
    """Return the names missing from a numbering with otherwise equal steps."""
    if not all(path.stem.isdecimal() for path in files):
        return []
    steps = [(int(b.stem) - int(a.stem), a.stem) for a, b in pairwise(files)]
    step = min(steps, default=(0, ""))[0]
    return [f"{int(stem) + step:0{len(stem)}d}" for length, stem in steps if length != step]
