"""Match the folders of frames, masks and results when masks are refined."""

from __future__ import annotations

from pathlib import Path

from vos_pipeline.data import (
    all_hold_scores,
    has_images,
    has_score_arrays,
    is_mask,
    is_object_name,
    list_images,
    listing,
    mask_folders,
)
from vos_pipeline.errors import PipelineError, warn

Folders = tuple[Path, Path, Path]  # of frames, of masks and of results


def folders_to_refine(frames: Path, masks: Path, out: Path) -> list[Folders]:
    """Return folders of frames, masks and results: one of each, or one of each per folder of masks in ``masks``.

    Raises:
        PipelineError: no masks, masks without frames, or results that would be written among the frames or masks.
    """
    folders = _found(frames, masks, out)
    for found in folders:
        _name_what_is_skipped(found)
    _refuse_to_replace_inputs(folders)
    return folders


def _found(frames: Path, masks: Path, out: Path) -> list[Folders]:
    if not masks.is_dir():
        raise PipelineError(f"{masks}: no such folder of masks")
    if has_images(masks):
        return [(frames, masks, out)]
    others = _folders_of_masks(masks, out)
    if _holds_images(frames) and (has_score_arrays(masks) or _is_one_sequence(frames, masks, others)):
        return [(frames, masks, out)]
    names = [path.name for path in others if _has_frames(frames / path.name, path)]
    if names:
        return [(frames / name, masks / name, out / name) for name in names]
    if has_score_arrays(masks):
        return [(frames, masks, out)]  # opening them reports the missing frames
    raise PipelineError(f"{masks}: contains no masks and no folders of masks; it contains {listing(masks)}")


def _is_one_sequence(frames: Path, masks: Path, others: list[Path]) -> bool:
    """Return whether ``masks`` has one folder per object.

    A sequence may be named like an object, but then its frames exist.
    """
    return bool(mask_folders(masks)) and not any(_holds_images(frames / path.name) for path in others)


def _holds_images(folder: Path) -> bool:
    return folder.is_dir() and has_images(folder)


def _folders_of_masks(masks: Path, out: Path) -> list[Path]:
    """Return folders that contain masks, except the results and the folders that systems and archives create."""
    return [
        path
        for path in sorted(masks.iterdir())
        if path.is_dir()
        and not path.name.startswith(("@", "__", "."))
        and path.resolve() != out.resolve()
        and mask_folders(path)
    ]


def _has_frames(frames: Path, masks: Path) -> bool:
    """Return whether a folder of masks has its frames. False, with a warning, for files that may not be masks."""
    if frames.is_dir():
        return True
    if _are_masks(masks):
        hint = "; name the folder of an object by its label, 1 to 254" * _holds_images(frames.parent)
        raise PipelineError(f"{frames}: no such folder of frames for the masks in {masks}{hint}")
    if has_images(masks):
        warn(f"{masks}: skipped, these images are not masks and have no frames")
    else:
        warn(
            f"{masks}: skipped, its files may not be masks, and the folder of frames {frames} does not exist"
        )
    return False


def _are_masks(folder: Path) -> bool:
    """Return whether all images or arrays of the folder can be masks.

    Folders in it are not considered: a number as a name says little about the contents.
    """
    if has_images(folder):
        return all(is_mask(path) for path in list_images(folder))
    return has_score_arrays(folder) and all_hold_scores(folder)


def _name_what_is_skipped(folders: Folders) -> None:
    """Warn of each folder of masks next to the folders of objects: it may be a misnamed object."""
    _, masks, results = folders
    if mask_folders(masks) == [masks]:
        return
    for path in _folders_of_masks(masks, results):
        if not is_object_name(path.name):
            warn(f"{path}: skipped, the folder of an object must be named by its label, 1 to 254")


def _refuse_to_replace_inputs(folders: list[Folders]) -> None:
    sources = [source for images, masks, _ in folders for source in (images, masks, *mask_folders(masks))]
    inputs = {folder.resolve(): folder for folder in sources}
    for _, masks, results in folders:
        if (source := inputs.get(results.resolve())) is not None:
            raise PipelineError(
                f"{results}: the results would replace files of {source}: choose another --out"
            )
        beside_objects = results.resolve().parent == masks.resolve() and mask_folders(masks) != [masks]
        if beside_objects and is_object_name(results.name):
            raise PipelineError(
                f"{results}: the next run would read the results as masks of an object: choose another --out"
            )
