"""Masks of any other segmentation tool, refined by the SPN and filtered by CRAF: ``refine``."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from tqdm import tqdm

import spn
from vos_pipeline.craf import ConnectedRegionFilter
from vos_pipeline.data import Sequence, list_images
from vos_pipeline.errors import PipelineError
from vos_pipeline.files import replacing
from vos_pipeline.images import image_size, read_image, write_labels
from vos_pipeline.instances import labels_from_scores

__all__ = ["add_arguments", "main_refine"]

STATE = ".refine.npz"  # in every folder of results: how far it is, and CRAF's memory
SMALLEST_SCORE = 64  # grey values from here to 254 are no labels: few videos have so many objects


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of ``refine`` to a parser."""
    parser.add_argument(
        "--frames", type=Path, required=True, metavar="DIR", help="pictures, or one folder a sequence"
    )
    parser.add_argument(
        "--masks", type=Path, required=True, metavar="DIR", help="<frame>.png of the same names and sizes"
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="indexed <frame>.png")
    parser.add_argument(
        "--masks-hold",
        choices=("auto", "labels", "scores"),
        default="auto",
        help="labels: an index an object, or 0 and 255; scores: the probability of one object times 255, in grey; "
        f"auto: grey masks of a folder hold scores if a value is from {SMALLEST_SCORE} to 254 (default: %(default)s)",
    )
    parser.add_argument(
        "--weights", default="lite", help="'lite' or what 'train spn' wrote (default: %(default)s)"
    )
    parser.add_argument("--no-craf", action="store_true", help="the SPN alone")
    parser.add_argument(
        "--tile", type=int, metavar="PIXELS", help="work in tiles of this side, to save memory"
    )
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--resume", action="store_true", help="go on with what an earlier run left in --out")


def main_refine(args: argparse.Namespace) -> None:
    """Runs ``refine`` with the options of :func:`add_arguments`."""
    jobs = [
        MaskedSequence.open(*folders, args.masks_hold)
        for folders in _folders(args.frames, args.masks, args.out)
    ]
    refiner = _load_refiner(args.weights, args.tile, args.device)
    settings = {"weights": args.weights, "craf": not args.no_craf, "tile": args.tile}
    with tqdm(total=sum(len(job.sequence) for job in jobs), desc="refine", unit="frame") as progress:
        for job in jobs:
            refine_sequence(job, refiner, settings, args.device, args.resume, progress)
    print(f"masks     {args.out}")


@dataclass(frozen=True)
class MaskedSequence:
    """A sequence with a coarse mask for every frame, and the folder of its refined masks.

    Args:
        sequence: frames and masks, all of one size.
        out: folder of the results.
        ids: labels of the objects; (1,) for binary masks and for scores.
        scores: whether the masks hold scores, 0 to 255, instead of labels.
    """

    sequence: Sequence
    out: Path
    ids: tuple[int, ...]
    scores: bool

    @classmethod
    def open(cls, frames: Path, masks: Path, out: Path, hold: str = "auto") -> MaskedSequence:
        """Checks names, sizes and masks of two folders before any work is done.

        Raises:
            PipelineError: a frame without its mask or the other way round, sizes that differ, masks that mark
                nothing or are neither indexed nor 8-bit grey.
        """
        sequence = _paired(frames, masks)
        modes = {_mode(path) for path in sequence.mask_paths}
        if hold == "scores" and modes != {"L"}:
            raise PipelineError(
                f"{masks}: scores must be 8-bit grey PNGs, got mode {', '.join(sorted(modes))}"
            )
        values = _values(_read_grey(path) for path in sequence.mask_paths) if modes == {"L"} else set()
        scores = hold == "scores" or (hold == "auto" and any(SMALLEST_SCORE <= v < 255 for v in values))
        if not scores:  # in all masks: another tool may find an object later than in the first frame
            values = _values(sequence.read_mask(t) for t in range(len(sequence)))
        ids = sorted(values - {0})
        if not ids:
            raise PipelineError(f"{masks}: these masks mark no object")
        return cls(sequence, out, (1,) if scores else tuple(ids), scores)

    def read(self, t: int) -> np.ndarray:
        """Scores of frame t in [0, 1], float32 (K, H, W)."""
        if self.scores:
            return _read_grey(self.sequence.mask_paths[t])[None].astype(np.float32) / 255
        labels = self.sequence.read_mask(t)
        return np.stack([labels == k for k in self.ids]).astype(np.float32)

    def result(self, t: int) -> Path:
        """File of the refined mask of frame t."""
        return self.out / f"{self.sequence.frame_paths[t].stem}.png"


@torch.inference_mode()
def refine_sequence(
    job: MaskedSequence, refiner: torch.nn.Module, settings: dict, device: str, resume: bool, progress: tqdm
) -> None:
    """Refines frame after frame; a run that was stopped goes on behind the last frame that it finished.

    CRAF's memory of that frame is stored beside the results: labels alone would not do, since the regions of
    several objects may overlap.
    """
    settings = {**settings, "objects": job.ids, "scores": job.scores}
    start, regions = _load_state(job, settings) if resume else (0, None)
    progress.update(start)
    craf = ConnectedRegionFilter(job.read(0) >= 0.5 if regions is None else regions)
    for t in range(start, len(job.sequence)):
        image = torch.from_numpy(job.sequence.read_frame(t)).to(device).permute(2, 0, 1)[None].float() / 255
        scores = refiner(image, torch.from_numpy(job.read(t))[None].to(device))[0].cpu()
        if settings["craf"]:
            scores = torch.from_numpy(craf.step(scores.numpy()))
        write_labels(job.result(t), labels_from_scores(scores, list(job.ids)).numpy())
        _save_state(job, settings, t + 1, craf.regions)
        progress.update()


# --- what an interrupted run leaves -------------------------------------------------------------------------


def _save_state(job: MaskedSequence, settings: dict, done: int, regions: np.ndarray) -> None:
    with replacing(job.out / STATE) as file:
        np.savez(
            file,
            settings=json.dumps(settings),
            done=done,
            shape=regions.shape,
            regions=np.packbits(regions),
        )


def _load_state(job: MaskedSequence, settings: dict) -> tuple[int, np.ndarray | None]:
    """Frames done and CRAF's regions after them; (0, None) to start from the first frame."""
    path = job.out / STATE
    if not path.exists():
        return 0, None
    with np.load(path) as state:
        if json.loads(str(state["settings"])) != json.loads(json.dumps(settings)):
            raise PipelineError(
                f"{job.out}: was made with other settings or masks: leave out --resume to replace it"
            )
        done, shape = int(state["done"]), tuple(state["shape"])
        regions = np.unpackbits(state["regions"], count=int(np.prod(shape))).reshape(shape).astype(bool)
    if not all(job.result(t).is_file() for t in range(done)):
        return 0, None  # someone took results away: CRAF needs the frames before
    return done, regions


# --- reading --------------------------------------------------------------------------------------------------


def _folders(frames: Path, masks: Path, out: Path) -> list[tuple[Path, Path, Path]]:
    """Folders of frames, of masks and of results: one of each, or as many as ``masks`` has subfolders."""
    if not masks.is_dir():
        raise PipelineError(f"{masks}: no such folder of masks")
    names = sorted(p.name for p in masks.iterdir() if p.is_dir() and not p.name.startswith("."))
    return [(frames / n, masks / n, out / n) for n in names] or [(frames, masks, out)]


def _paired(frames: Path, masks: Path) -> Sequence:
    """The frames and the masks of their names; PipelineError if names or sizes do not match."""
    images = list_images(frames)
    names = {path.stem for path in images}
    paths = {path.stem: path for path in masks.glob("*.png") if not path.name.startswith(".")}
    missing = [path.stem for path in images if path.stem not in paths]
    if missing:
        raise PipelineError(
            f"{masks}: no mask {missing[0]}.png for frame {missing[0]} ({len(missing)} missing)"
        )
    alone = sorted(paths.keys() - names)
    if alone:
        raise PipelineError(f"{frames}: no frame for mask {paths[alone[0]].name} ({len(alone)} missing)")
    sequence = Sequence(frames.resolve().name, tuple(images), tuple(paths[path.stem] for path in images))
    for path in (*sequence.frame_paths, *sequence.mask_paths):
        height, width = image_size(path)
        if (height, width) != sequence.size:
            raise PipelineError(
                f"{path}: is {width}x{height}, but {images[0].name} is {sequence.size[1]}x{sequence.size[0]}; "
                "all frames and masks of a folder must have one size"
            )
    return sequence


def _mode(path: Path) -> str:
    with Image.open(path) as image:
        return image.mode


def _values(masks: Iterable[np.ndarray]) -> set[int]:
    return {int(value) for mask in masks for value in np.unique(mask)}


def _read_grey(path: Path) -> np.ndarray:
    return read_image(path)[..., 0]


def _load_refiner(weights: str, tile: int | None, device: str) -> spn.SPNRefiner:
    try:
        return spn.SPNRefiner.from_pretrained(weights, tile=tile).to(device).eval()
    except (ValueError, RuntimeError, OSError) as error:  # no such file, or of another shape
        raise PipelineError(f"--weights {weights}: {error}") from error
