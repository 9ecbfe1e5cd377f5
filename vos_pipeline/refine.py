"""Masks of any other segmentation tool, refined by the SPN and filtered by CRAF: ``refine``."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

import spn
from vos_pipeline.craf import ConnectedRegionFilter
from vos_pipeline.data import Sequence, list_images, write_labels
from vos_pipeline.errors import PipelineError
from vos_pipeline.instances import labels_from_scores

__all__ = ["add_arguments", "main_refine"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of ``refine`` to a parser."""
    parser.add_argument(
        "--frames", type=Path, required=True, metavar="DIR", help="pictures, or one folder a sequence"
    )
    parser.add_argument(
        "--masks", type=Path, required=True, metavar="DIR", help="<frame>.png of the same names"
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    parser.add_argument(
        "--weights", default="lite", help="'lite' or what 'train spn' wrote (default: %(default)s)"
    )
    parser.add_argument("--no-craf", action="store_true", help="the SPN alone")
    parser.add_argument("--device", default="cpu")


def main_refine(args: argparse.Namespace) -> None:
    """Runs ``refine`` with the options of :func:`add_arguments`."""
    device = args.device
    refiner = spn.SPNRefiner.from_pretrained(args.weights).to(device).eval()
    for sequence, folder in _masked_frames(args.frames, args.masks, args.out):
        # Another tool may find an object later than in the first frame.
        ids = sorted({int(k) for t in range(len(sequence)) for k in np.unique(sequence.read_mask(t)) if k})
        if not ids:
            raise PipelineError(f"{sequence.mask_paths[0].parent}: these masks mark no object")
        craf = None
        for t in tqdm(range(len(sequence)), desc=f"refine {sequence.name}", unit="frame"):
            frame, labels = sequence.read_frame(t), sequence.read_mask(t)
            coarse = np.stack([labels == k for k in ids])
            craf = craf or ConnectedRegionFilter(coarse)
            with torch.no_grad():
                image = torch.from_numpy(frame).to(device).permute(2, 0, 1)[None].float() / 255
                scores = refiner(image, torch.from_numpy(coarse).to(device)[None].float())[0].cpu()
            if not args.no_craf:
                scores = torch.from_numpy(craf.step(scores.numpy()))
            write_labels(
                folder / f"{sequence.frame_paths[t].stem}.png", labels_from_scores(scores, ids).numpy()
            )
    print(f"masks     {args.out}")


def _masked_frames(frames: Path, masks: Path, out: Path) -> list[tuple[Sequence, Path]]:
    """Sequences with a mask of each frame's name, and where their results go: one, or one a subfolder."""
    if not masks.is_dir():
        raise PipelineError(f"{masks}: no such folder of masks")
    folders = sorted(p.name for p in masks.iterdir() if p.is_dir())
    pairs = [(frames / n, masks / n, out / n) for n in folders] or [(frames, masks, out)]
    found = []
    for frame_dir, mask_dir, out_dir in pairs:
        images = list_images(frame_dir)
        missing = [p.stem for p in images if not (mask_dir / f"{p.stem}.png").is_file()]
        if missing:
            raise PipelineError(
                f"{mask_dir}: no mask {missing[0]}.png for frame {missing[0]} ({len(missing)} missing)"
            )
        sequence = Sequence(
            frame_dir.resolve().name, tuple(images), tuple(mask_dir / f"{p.stem}.png" for p in images)
        )
        found.append((sequence, out_dir))
    return found
