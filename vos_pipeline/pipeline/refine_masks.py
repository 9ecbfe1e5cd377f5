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

from vos_pipeline.data import CoarseSequence, write_labels
from vos_pipeline.errors import PipelineError
from vos_pipeline.files import fingerprint, replacing
from vos_pipeline.nets import labels_from_scores, working_image
from vos_pipeline.output_folder import KIND, REFINED_MASKS, OutputFolder
from vos_pipeline.pipeline.refine_folders import folders_to_refine
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
    jobs = [
        _Job(CoarseSequence.open(images, coarse, masks_hold), results)
        for images, coarse, results in folders_to_refine(frames, masks, out)
    ]
    device = join_process_group(device)
    refiner = load_refiner(weights, device, tile)
    with first_rank_first() as first:
        if first:
            folder = OutputFolder(out)
            read = [path for job in jobs for path in (*job.coarse.sequence.files, *job.coarse.files)]
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
