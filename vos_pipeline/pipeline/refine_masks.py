"""Masks of any other segmentation tool, refined by the SPN and filtered by CRAF."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from vos_pipeline.data import (
    CoarseSequence,
    has_images,
    has_score_arrays,
    is_mask,
    is_object_name,
    is_score_array,
    list_files,
    list_images,
    listing,
    mask_folders,
    write_labels,
)
from vos_pipeline.errors import PipelineError, warn
from vos_pipeline.files import fingerprint, replacing
from vos_pipeline.nets import labels_from_scores, working_image
from vos_pipeline.output_folder import KIND, REFINED_MASKS, OutputFolder
from vos_pipeline.refiner import load_refiner, refiner_identity
from vos_pipeline.settings import CRAFParameters
from vos_pipeline.temporal import ConnectedRegionFilter
from vos_pipeline.training import first_rank_first, join_process_group, my_share, wait_for_all

STATE = ".refine.npz"  # in every folder of results: how far it is, and CRAF's memory


def refine_masks(
    frames: Path,
    masks: Path,
    out: Path,
    *,
    masks_hold: str = "auto",
    weights: str = "lite",
    craf: bool = True,
    tile: int | None = None,
    device: str = "cpu",
    resume: bool = False,
    overwrite: bool = False,
) -> None:
    """Refine the masks of one sequence, or of several in folders of their names.

    Where ``masks`` itself holds pictures, it is one sequence. So it is where ``frames`` itself holds pictures, and
    ``masks`` holds NPZ files of scores or a folder of scores per object. Otherwise each folder in it that holds such
    masks is one, except ``out``, folders whose names begin with "@", "__" or ".", and folders without frames that hold
    no masks. Ranks share the sequences out.

    Args:
        frames: pictures, or one folder per sequence.
        masks: masks of the same names and sizes, in as many folders, see :class:`vos_pipeline.data.CoarseSequence`.
        out: for ``<frame>.png`` or ``<sequence>/<frame>.png``, indexed.
        masks_hold: "labels", "scores", or "auto" to decide by the values of a folder's masks.
        weights: of the refiner, see :func:`vos_pipeline.refiner.load_refiner`.
        craf: whether CRAF filters what the SPN gives.
        tile: side of the refiner's tiles in pixels.
        device: where the refiner computes.
        resume: go on from what an earlier call with the same settings, frames and masks left in ``out``.
        overwrite: remove the files that an earlier call left in ``out``, and no others.

    Raises:
        PipelineError: masks that do not fit their frames (before any work is done), no such refiner, results that would
            lie among the frames or masks, ``out`` holds results or other files and neither ``resume`` nor ``overwrite``
            is given, or ``resume`` with other settings, frames or masks than before.
    """
    folders = _folders(frames, masks, out)
    _refuse_to_replace_inputs(folders)
    jobs = [
        _Job(CoarseSequence.open(images, coarse, masks_hold), results) for images, coarse, results in folders
    ]
    device = join_process_group(device)
    refiner = load_refiner(weights, device, tile)
    with first_rank_first() as first:
        if first:
            folder = OutputFolder(out)
            read = [path for job in jobs for path in job.coarse.files]
            folder.claim(resume=resume, overwrite=overwrite, inputs=(frames, masks, Path(weights), *read))
            folder.identify(KIND, REFINED_MASKS)
            constants = asdict(CRAFParameters()) if craf else None
            folder.identify(
                "settings", {"weights": refiner_identity(weights), "craf": constants, "tile": tile}
            )
            for job in jobs:
                job.note(folder)
    own = my_share(jobs)
    count = sum(len(job.coarse.sequence) for job in own)
    with tqdm(total=count, desc="refine", unit="frame", disable=not first) as progress:
        for job in own:
            _refine_sequence(job, refiner, craf, device, progress)
    wait_for_all()


@dataclass(frozen=True)
class _Job:
    """A sequence, and the folder of its refined masks."""

    coarse: CoarseSequence
    out: Path

    def result(self, t: int) -> Path:
        """File of the refined mask of frame t."""
        return self.out / f"{self.coarse.sequence.frame_paths[t].stem}.png"

    def note(self, folder: OutputFolder) -> None:
        """Note what is refined and where; PipelineError if the folder holds results of other frames or masks."""
        sequence, place = self.coarse.sequence, self.out.relative_to(folder.path)
        whose = "" if place == Path() else f" of {place}"
        folder.identify(f"video{whose}", sequence.frames_fingerprint())
        masks = fingerprint(self.coarse.files)
        folder.identify(
            f"masks{whose}", {"files": masks, "ids": self.coarse.ids, "scores": self.coarse.scores}
        )
        folder.add([place / STATE, *(place / self.result(t).name for t in range(len(sequence)))])


@torch.inference_mode()
def _refine_sequence(job: _Job, refiner: nn.Module, filtered: bool, device: str, progress: tqdm[Any]) -> None:
    """Refines frame after frame, from behind the last frame that a run which was stopped finished.

    CRAF's memory of that frame is stored beside the results: labels alone would not do, since the regions of
    several objects may overlap.
    """
    coarse = job.coarse
    start, regions = _load_state(job)
    progress.update(start)
    craf = ConnectedRegionFilter(coarse.read(0) >= 0.5 if regions is None else regions)
    for t in range(start, len(coarse.sequence)):
        image = working_image(coarse.sequence, t, None, device)[None]
        scores = refiner(image, torch.from_numpy(coarse.read(t))[None].to(device))[0].cpu()
        if filtered:
            scores = torch.from_numpy(craf.step(scores.numpy()))
        write_labels(job.result(t), labels_from_scores(scores, coarse.ids).numpy())
        _save_state(job, t + 1, craf.regions)
        progress.update()


def _folders(frames: Path, masks: Path, out: Path) -> list[tuple[Path, Path, Path]]:
    """Folders of frames, of masks and of results: one of each, or as many as ``masks`` has folders of masks."""
    if not masks.is_dir():
        raise PipelineError(f"{masks}: no such folder of masks")
    others = _folders_of_masks(masks, out)
    if has_images(masks) or _is_one_sequence(frames, masks, others):
        return [(frames, masks, out)]
    names = [path.name for path in others if _has_frames(frames / path.name, path)]
    if names:
        return [(frames / name, masks / name, out / name) for name in names]
    if has_score_arrays(masks):
        return [(frames, masks, out)]  # whose frames are missing
    raise PipelineError(f"{masks}: holds no masks and no folder of masks; it holds {listing(masks)}")


def _is_one_sequence(frames: Path, masks: Path, others: list[Path]) -> bool:
    """Whether NPZ files or a folder per object are the masks of pictures in ``frames`` itself.

    A sequence may be named as an object is, so folders that have frames of their own are sequences.
    """
    if not _holds_images(frames) or not mask_folders(masks):
        return False
    if has_score_arrays(masks):
        return True
    if any(_holds_images(frames / path.name) for path in others):
        return False
    for path in others:
        if not is_object_name(path.name):
            warn(f"{path}: skipped, an object's folder must be named by its label, 1 to 254")
    return True


def _holds_images(folder: Path) -> bool:
    return folder.is_dir() and has_images(folder)


def _folders_of_masks(masks: Path, out: Path) -> list[Path]:
    """Folders that hold masks, without that of the results and those that systems and archives leave behind."""
    return [
        path
        for path in sorted(masks.iterdir())
        if path.is_dir()
        and not path.name.startswith(("@", "__", "."))
        and path.resolve() != out.resolve()
        and mask_folders(path)
    ]


def _has_frames(frames: Path, masks: Path) -> bool:
    """Whether a folder of masks has its frames; False, and a line that says so, for files that may be no masks."""
    if frames.is_dir():
        return True
    if _are_masks(masks):
        raise PipelineError(f"{frames}: no such folder of frames for the masks in {masks}")
    what = (
        "these pictures are no masks and have" if has_images(masks) else "its files may be no masks and have"
    )
    warn(f"{masks}: skipped, {what} no frames")
    return False


def _are_masks(folder: Path) -> bool:
    """Whether all that is in the folder can be masks; numbers as names say little about what folders in it hold."""
    if has_images(folder):
        return all(is_mask(path) for path in list_images(folder))
    return has_score_arrays(folder) and all(is_score_array(path) for path in list_files(folder, ".npz"))


def _refuse_to_replace_inputs(folders: list[tuple[Path, Path, Path]]) -> None:
    sources = [source for images, masks, _ in folders for source in (images, masks, *mask_folders(masks))]
    inputs = {folder.resolve(): folder for folder in sources}
    for _, masks, results in folders:
        if (source := inputs.get(results.resolve())) is not None:
            raise PipelineError(f"{results}: the results would replace files of {source}: give another --out")
        beside_objects = results.resolve().parent == masks.resolve() and mask_folders(masks) != [masks]
        if beside_objects and is_object_name(results.name):
            raise PipelineError(
                f"{results}: the next run would take the results for masks of an object: give another --out"
            )


# --- what an interrupted run leaves -------------------------------------------------------------------------


def _save_state(job: _Job, done: int, regions: np.ndarray) -> None:
    with replacing(job.out / STATE) as file:
        np.savez(file, done=done, shape=regions.shape, regions=np.packbits(regions))


def _load_state(job: _Job) -> tuple[int, np.ndarray | None]:
    """Frames done and CRAF's regions after them; (0, None) to start from the first frame."""
    path, shape = job.out / STATE, (len(job.coarse.ids), *job.coarse.sequence.size)
    if not path.exists():
        return 0, None
    try:
        with np.load(path) as state:
            done, noted = int(state["done"]), tuple(state["shape"])
            regions = np.unpackbits(state["regions"], count=math.prod(shape)).reshape(shape).astype(bool)
    except (OSError, ValueError, KeyError, EOFError, TypeError, BadZipFile) as error:
        raise PipelineError(f"{path}: is damaged: delete it and run again with --resume") from error
    if noted != shape or not all(job.result(t).is_file() for t in range(done)):
        return 0, None  # someone took results away: CRAF needs the frames before
    return done, regions
