"""What each command does. Imports are made by the command that needs them: ``evaluate`` starts without torch."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from vos_pipeline.errors import PipelineError

if TYPE_CHECKING:
    from vos_pipeline.data import Sequence

DEMO_CLIPS, DEMO_FRAMES = 2, 20
DEMO_TRAIN_CLIPS, DEMO_TRAIN_FRAMES = 10, 5


def demo(args: argparse.Namespace) -> None:
    from vos_pipeline.data import load_davis
    from vos_pipeline.synthetic import make_clips

    clips = args.out / "clips"
    make_clips(clips, DEMO_CLIPS, DEMO_FRAMES)
    make_clips(clips, DEMO_TRAIN_CLIPS, DEMO_TRAIN_FRAMES, set_name="train")
    _run(args, clips, load_davis(clips), "Synthetic clips")


def davis(args: argparse.Namespace) -> None:
    from vos_pipeline.data import load_davis

    sequences = load_davis(args.data, args.year, args.set_name, args.sequences)
    _run(args, args.data, sequences, f"DAVIS {args.year} {args.set_name}", davis_set=args.set_name)


def segment(args: argparse.Namespace) -> None:
    from vos_pipeline.data import load_frames

    sequence = load_frames(args.video, args.mask, work_dir=args.out / "frames")
    _run(args, args.train_data, [sequence], sequence.name)


def _run(
    args: argparse.Namespace,
    root: Path | None,
    sequences: list[Sequence],
    title: str,
    davis_set: str | None = None,
) -> None:
    """The pipeline, then everything a user looks at."""
    from vos_pipeline import pipeline
    from vos_pipeline.outputs import write_outputs
    from vos_pipeline.train import process_rank

    result = pipeline.run(
        root or args.out,
        sequences,
        args.out,
        preset=args.preset,
        device=_device(args.device),
        resume=args.resume,
        train_sequences=None if root else [],
    )
    if process_rank()[0] == 0:  # one rank tells what all of them did
        write_outputs(args.out, sequences, result, title, davis_set)


def refine(args: argparse.Namespace) -> None:
    from vos_pipeline.refine import main_refine

    args.device = _device(args.device)
    main_refine(args)


def train_foreground(args: argparse.Namespace) -> None:
    from vos_pipeline import train
    from vos_pipeline.data import load_davis

    sequences = load_davis(args.data, args.year, args.set_name, args.sequences)
    train.train_foreground(sequences, args.preset, _device(args.device), args.out, resume=args.resume)
    print(f"net  {args.out / 'foreground.pt'}")


def train_spn(args: argparse.Namespace) -> None:
    from vos_pipeline.train_spn import main_train

    args.device = _device(args.device)
    main_train(args)


def tables(args: argparse.Namespace) -> None:
    from vos_pipeline.tables import main_tables

    args.device = _device(args.device)
    main_tables(args)


def evaluate(args: argparse.Namespace) -> None:
    from vos_pipeline import metrics
    from vos_pipeline.outputs import text_table

    evaluation = metrics.evaluate(args.data, args.results, args.year, args.set_name, args.sequences)
    print(text_table(metrics.GLOBAL_COLUMNS, [evaluation.summary().values()]), end="\n\n")
    print(text_table(metrics.SEQUENCE_COLUMNS, evaluation.per_object()))


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
