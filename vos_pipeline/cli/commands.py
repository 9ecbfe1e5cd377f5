"""What each command does. Imports are made by the command that needs them: ``evaluate`` starts without torch."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from vos_pipeline.errors import PipelineError
from vos_pipeline.settings import get_preset

if TYPE_CHECKING:
    from vos_pipeline.data import Sequence

DEMO_CLIPS, DEMO_FRAMES = 2, 20
DEMO_TRAIN_CLIPS, DEMO_TRAIN_FRAMES = 10, 5


def demo(args: argparse.Namespace) -> None:
    from vos_pipeline.data import load_davis, make_clips

    clips = args.out / "clips"
    make_clips(clips, DEMO_CLIPS, DEMO_FRAMES)
    make_clips(clips, DEMO_TRAIN_CLIPS, DEMO_TRAIN_FRAMES, set_name="train")
    _run(args, clips, load_davis(clips), "Synthetic clips")


def davis(args: argparse.Namespace) -> None:
    from vos_pipeline.data import load_davis

    sequences = load_davis(args.data, args.year, args.set_name, args.sequences)
    _run(args, args.data, sequences, f"DAVIS {args.year} {args.set_name}", davis_set=args.set_name)


def segment(args: argparse.Namespace) -> None:
    from vos_pipeline.data import load_frames, load_train_set

    train = load_train_set(args.train_data) if args.train_data else []
    sequence = load_frames(args.video, args.mask, args.out / "frames", args.first_frame)
    train = [other for other in train if other.name != sequence.name]
    _run(args, args.out, [sequence], sequence.name, train=train)


def _run(
    args: argparse.Namespace,
    root: Path,
    sequences: list[Sequence],
    title: str,
    davis_set: str | None = None,
    train: list[Sequence] | None = None,
) -> None:
    """The pipeline, then everything a user looks at."""
    from vos_pipeline import pipeline
    from vos_pipeline.training import process_rank

    result = pipeline.run(
        root,
        sequences,
        args.out,
        preset=args.preset,
        device=_device(args.device),
        resume=args.resume,
        train_sequences=train,
    )
    if process_rank()[0] == 0:  # one rank tells what all of them did
        pipeline.write_outputs(args.out, sequences, result, title, davis_set)


def refine(args: argparse.Namespace) -> None:
    from vos_pipeline.pipeline import refine_masks

    refine_masks(
        args.frames,
        args.masks,
        args.out,
        masks_hold=args.masks_hold,
        weights=args.weights,
        craf=not args.no_craf,
        tile=args.tile,
        device=_device(args.device),
        resume=args.resume,
    )
    print(f"masks     {args.out}")


def tables(args: argparse.Namespace) -> None:
    from vos_pipeline.data import load_sets
    from vos_pipeline.pipeline import make_table

    device = _device(args.device)
    sequences = load_sets(args.data, args.sets, args.sequences)
    preset = replace(get_preset(args.preset), precision=args.precision, compile=args.compile)
    make_table(args.table, args.data, sequences, args.out, preset, device)


def train_foreground(args: argparse.Namespace) -> None:
    from vos_pipeline import nets
    from vos_pipeline.data import load_davis
    from vos_pipeline.training import Compute, join_process_group, process_rank

    preset, checkpoint = get_preset(args.preset), args.out / "foreground.pt"
    sequences = load_davis(args.data, args.year, args.set_name, args.sequences)
    compute = Compute(join_process_group(_device(args.device)), preset.precision, preset.compile)
    nets.train_foreground(sequences, preset, checkpoint, compute, resume=args.resume)
    if process_rank()[0] == 0:
        print(f"net  {checkpoint}")


def train_spn(args: argparse.Namespace) -> None:
    from vos_pipeline.cli.train_spn import train_spn

    args.device = _device(args.device)
    train_spn(args)


def evaluate(args: argparse.Namespace) -> None:
    from vos_pipeline import evaluation

    scores = evaluation.evaluate(args.data, args.results, args.year, args.set_name, args.sequences)
    print(scores.global_table().text(), end="\n\n")
    print(scores.object_table().text())


def _device(name: str) -> str:
    import torch

    try:
        kind = torch.device(name).type
    except RuntimeError:
        raise PipelineError(f"no device {name!r}: give cpu, cuda or cuda:N") from None
    if kind == "cuda" and not torch.cuda.is_available():
        raise PipelineError(
            f"no CUDA device for --device {name} on this machine or in this torch: give --device cpu"
        )
    return name
