"""Refine masks of any other segmentation tool with the SPN and a temporal filter."""

from __future__ import annotations

import zlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from vos_pipeline.data import CoarseSequence, write_labels
from vos_pipeline.errors import PipelineError, warn
from vos_pipeline.files import fingerprint, replacing
from vos_pipeline.nets import labels_from_scores, working_image
from vos_pipeline.output_folder import KIND, REFINED_MASKS, OutputFolder
from vos_pipeline.pipeline.refine_folders import folders_to_refine
from vos_pipeline.refiner import load_refiner, refiner_identity
from vos_pipeline.settings import FILTERS, CRAFParameters, FlowFilterParameters
from vos_pipeline.temporal import TemporalFilter, make_filter
from vos_pipeline.training import check_device, first_rank_first, join_process_group, my_share, wait_for_all

STATE = ".refine.npz"  # in every folder of results: the number of finished frames and the state of the filter
CONSTANTS = {"craf": CRAFParameters, "flow": FlowFilterParameters}


def refine_masks(
    frames: Path,
    masks: Path,
    out: Path,
    *,
    masks_hold: str = "auto",
    weights: str = "lite",
    filter_name: str = "flow",
    tile: int | None = None,
    device: str = "cpu",
    resume: bool = False,
    overwrite: bool = False,
) -> None:
    """Refine the masks of one sequence, or of several sequences in one folder each.

    ``masks`` is one sequence if it contains images. It is also one sequence if ``frames`` contains images and ``masks``
    contains NPZ files of scores or one folder of scores per object. Otherwise each folder in ``masks`` that contains
    such masks is a sequence. Exceptions are ``out``, folders with names that begin with "@", "__" or ".", and folders
    that have no frames and contain no masks. Under ``torchrun``, each rank refines a share of the sequences.

    Args:
        frames: folder of frames, or of one folder per sequence.
        masks: folder of masks with the names and sizes of the frames, or of one folder per sequence; see
            :class:`vos_pipeline.data.CoarseSequence`.
        out: folder for the indexed ``<frame>.png`` or ``<sequence>/<frame>.png``.
        masks_hold: "labels", "scores", or "auto" to decide by the values of the masks of each folder.
        weights: weights of the refiner, see :func:`vos_pipeline.refiner.load_refiner`.
        filter_name: temporal filter for the output of the SPN, one of :data:`vos_pipeline.settings.FILTERS`.
        tile: side of the tiles of the refiner in pixels. None refines whole frames.
        device: device of the refiner.
        resume: continue an earlier call with the same settings, frames and masks in ``out``.
        overwrite: delete the files of an earlier call in ``out``, and no others.

    Raises:
        PipelineError: masks that do not match their frames (before any work is done), an unknown refiner, results that
            would be written among the frames or masks, ``out`` contains results or other files and neither ``resume``
            nor ``overwrite`` is given, or ``resume`` with different settings, frames or masks.
        ValueError: an unknown filter.
    """
    if filter_name not in FILTERS:  # before the folder of results is claimed
        raise ValueError(f"filter_name must be one of {FILTERS}, got {filter_name!r}")
    check_device(device)  # before all masks are read
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
            constants = asdict(CONSTANTS[filter_name]()) if filter_name in CONSTANTS else None
            folder.identify(
                "settings",
                {
                    "weights": refiner_identity(weights),
                    "filter": filter_name,
                    "constants": constants,
                    "tile": tile,
                },
            )
            for job in jobs:
                job.note(folder)
    own = my_share(jobs)
    count = sum(len(job.coarse.sequence) for job in own)
    with tqdm(total=count, desc="refine", unit="frame", disable=not first) as progress:
        for job in own:
            _refine_sequence(job, refiner, filter_name, device, progress)
    wait_for_all()


@dataclass(frozen=True)
class _Job:
    """A sequence, and the folder of its refined masks."""

    coarse: CoarseSequence
    out: Path

    def result(self, t: int) -> Path:
        """Return the path of the refined mask of frame t."""
        return self.out / f"{self.coarse.sequence.frame_paths[t].stem}.png"

    def note(self, folder: OutputFolder) -> None:
        """Note frames, masks and results in the folder.

        Raises:
            PipelineError: the folder contains results of other frames or masks.
        """
        sequence, place = self.coarse.sequence, self.out.relative_to(folder.path)
        whose = "" if place == Path() else f" of {place}"
        folder.identify(f"video{whose}", sequence.frames_fingerprint())
        masks = fingerprint(self.coarse.files)
        folder.identify(
            f"masks{whose}", {"files": masks, "ids": self.coarse.ids, "scores": self.coarse.scores}
        )
        folder.add([place / STATE, *(place / self.result(t).name for t in range(len(sequence)))])


@torch.inference_mode()
def _refine_sequence(
    job: _Job, refiner: nn.Module, filter_name: str, device: str, progress: tqdm[Any]
) -> None:
    """Refine frame by frame, starting after the last frame that an interrupted run finished.

    The state of the filter is stored with the results. Labels cannot replace it, because the regions of several
    objects may overlap.
    """
    coarse = job.coarse
    over_time = make_filter(filter_name, coarse.sequence.read_frame(0), coarse.read(0) >= 0.5)
    removed = Removed()
    start = _load_state(job, over_time, removed)
    progress.update(start)
    for t in range(start, len(coarse.sequence)):
        frame = coarse.sequence.read_frame(t)
        image = working_image(frame, None, device)[None]
        scores = refiner(image, torch.from_numpy(coarse.read(t))[None].to(device))[0].cpu()
        before = labels_from_scores(scores, coarse.ids).numpy()
        after = labels_from_scores(
            torch.from_numpy(over_time.step(scores.numpy(), frame)), coarse.ids
        ).numpy()
        write_labels(job.result(t), after)
        removed.count(t, before, after)
        _save_state(job, t + 1, over_time, removed)
        progress.update()
    if removed.share > Removed.MUCH:
        progress.clear()
        warn(
            f"{job.out}: the {filter_name} filter removed {removed.share:.0%} of the refined masks, most in frame "
            f"{job.result(removed.worst_frame).stem} ({removed.worst_share:.0%}); --filter none keeps everything"
        )


class Removed:
    """Count the pixels that a filter removes from the labels of a video, except those it moves to another object."""

    MUCH = 0.05

    def __init__(self) -> None:
        self.marked, self.pixels = 0, 0
        self.worst_frame, self.worst_share = 0, 0.0

    def count(self, t: int, before: np.ndarray, after: np.ndarray) -> None:
        """Count one frame, given its labels before and after the filter."""
        marked, left = int(np.count_nonzero(before)), int(np.count_nonzero(after))
        self.marked, self.pixels = self.marked + marked, self.pixels + marked - left
        share = 1 - left / marked if marked else 0.0
        if share > self.worst_share:
            self.worst_frame, self.worst_share = t, share

    @property
    def share(self) -> float:
        """Removed pixels divided by labelled pixels, over all frames."""
        return self.pixels / max(self.marked, 1)

    def state(self) -> np.ndarray:
        """Return the counts, for :meth:`restore`."""
        return np.array([self.marked, self.pixels, self.worst_frame, self.worst_share], np.float64)

    def restore(self, state: np.ndarray) -> None:
        """Continue from the counts of :meth:`state`."""
        self.marked, self.pixels, self.worst_frame = (int(value) for value in state[:3])
        self.worst_share = float(state[3])


# --- state of an interrupted run ----------------------------------------------------------------------------


def _save_state(job: _Job, done: int, over_time: TemporalFilter, removed: Removed) -> None:
    memory: dict[str, Any] = over_time.state()
    with replacing(job.out / STATE) as file:
        np.savez_compressed(file, done=done, removed=removed.state(), **memory)


def _load_state(job: _Job, over_time: TemporalFilter, removed: Removed) -> int:
    """Restore the filter and return the number of finished frames; 0 means to start from the first frame."""
    path = job.out / STATE
    if not path.exists():
        return 0
    try:
        with np.load(path) as file:
            state = dict(file)
        done = int(state["done"])
        if not all(job.result(t).is_file() for t in range(done)):
            return 0  # results were deleted, and the filter needs all earlier frames
        over_time.restore(state)
        removed.restore(state["removed"])
    except (OSError, ValueError, KeyError, EOFError, TypeError, IndexError, BadZipFile, zlib.error) as error:
        raise PipelineError(f"{path}: is damaged: delete it and run again with --resume") from error
    return done
