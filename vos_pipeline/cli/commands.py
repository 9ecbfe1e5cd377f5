"""The implementation of each command. Commands import what they need, so ``evaluate`` starts without torch."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

from vos_pipeline.errors import PipelineError, warn
from vos_pipeline.output_folder import FOREGROUND_NET, KIND, SEGMENTATION, OutputFolder
from vos_pipeline.settings import get_preset

if TYPE_CHECKING:
    from vos_pipeline.data import Sequence
    from vos_pipeline.settings import Preset

ANNOTATIONS = Path("Annotations", "480p")
DEMO_CLIPS, DEMO_FRAMES = 2, 20
DEMO_TRAIN_CLIPS, DEMO_TRAIN_FRAMES = 10, 5


def demo(args: argparse.Namespace) -> None:
    from vos_pipeline.data import clip_files, load_davis, make_clips

    preset, clips = _pipeline_preset(args), args.out / "clips"
    test, train = (DEMO_CLIPS, DEMO_FRAMES), (DEMO_TRAIN_CLIPS, DEMO_TRAIN_FRAMES)
    with _claimed(args, SEGMENTATION, *_files([], preset)) as folder:
        if folder:
            folder.add(Path("clips", file) for file in (*clip_files(*test), *clip_files(*train, "train")))
            make_clips(clips, *test)
            make_clips(clips, *train, set_name="train")
    _run(args, preset, clips, load_davis(clips), "Synthetic clips")


def davis(args: argparse.Namespace) -> None:
    from vos_pipeline.data import load_davis

    preset, (year, set_name) = _pipeline_preset(args), _year_and_set(args)
    sequences = load_davis(args.data, year, set_name, args.sequences)
    train = _train_sequences(args.data, args.train_sets, args.year, sequences)
    with _claimed(args, SEGMENTATION, *_files([*sequences, *(train or [])], preset)):
        pass
    _run(args, preset, args.data, sequences, f"DAVIS {year} {set_name}", davis_set=set_name, train=train)


def segment(args: argparse.Namespace) -> None:
    from vos_pipeline.data import decoded_files, load_frames, load_train_set, without

    preset, train = _pipeline_preset(args), []
    if args.train_sets and not args.train_data:
        raise PipelineError("--train-sets selects sets of a DAVIS root: give the root as --train-data ROOT")
    if args.train_data:
        train = _train_sequences(args.train_data, args.train_sets) or load_train_set(args.train_data)
    if not args.video.is_file():  # before the output folder is claimed: if this fails, nothing is written
        sequence = load_frames(args.video, args.mask, first_frame=args.first_frame)
    with _claimed(args, SEGMENTATION, args.video, args.mask, *_files(train, preset)) as folder:
        if args.video.is_file():
            sequence = load_frames(args.video, args.mask, args.out / "frames", args.first_frame)
            if folder:
                decoded = decoded_files(sequence.frame_paths[0].parent)
                folder.add((path.relative_to(args.out) for path in decoded), written=True)
    train = without(train, [sequence])
    if args.train_data and not train:
        raise PipelineError(
            f"{args.train_data}: the train set contains only {sequence.name}, the video to segment: give another root"
        )
    _run(args, preset, args.out, [sequence], sequence.name, train=train)


# --- shared by several commands -----------------------------------------------------------------------------


def _preset(args: argparse.Namespace) -> Preset:
    """Return the selected preset with the changes that the options make."""
    preset = get_preset(args.preset).shortened(args.shorten)
    return replace(
        preset, precision=args.precision or preset.precision, compile=args.compile or preset.compile
    )


def _pipeline_preset(args: argparse.Namespace) -> Preset:
    """Return the preset with SPN and filter. Check that the SPN can be read before any file is written or removed."""
    from vos_pipeline.refiner import load_refiner

    preset = _preset(args)
    preset = replace(preset, refiner=args.refiner or preset.refiner, filter=args.filter or preset.filter)
    load_refiner(preset.chosen_refiner)
    return preset


def _year_and_set(args: argparse.Namespace) -> tuple[str, str]:
    """Split the set of a command into year and name."""
    year, _, set_name = _with_year([args.set_name], args.year)[0].partition("/")
    return year, set_name


def _with_year(sets: list[str], year: str) -> list[str]:
    """Return the sets as YEAR/SET."""
    return [name if "/" in name else f"{year}/{name}" for name in sets]


def _train_sequences(
    root: Path, sets: list[str] | None, year: str = "2017", under_test: Iterable[Sequence] = ()
) -> list[Sequence] | None:
    """Return the sequences of ``--train-sets`` that are not under test; None without ``--train-sets``."""
    from vos_pipeline.data import load_sets, without

    if sets is None:
        return None
    train = without(load_sets(root, _with_year(sets, year)), under_test)
    if not train:
        raise PipelineError(f"--train-sets {' '.join(sets)}: all sequences are under test: give other sets")
    return train


@contextmanager
def _claimed(args: argparse.Namespace, kind: str, *inputs: Path) -> Iterator[OutputFolder | None]:
    """Join the process group and claim ``--out``.

    The first rank runs the block with the claimed folder, then the others run it with None.
    """
    from vos_pipeline.training import first_rank_first, join_process_group

    args.device = join_process_group(args.device)
    with first_rank_first() as first:
        folder = OutputFolder(args.out) if first else None
        if folder:
            folder.claim(resume=args.resume, overwrite=args.overwrite, inputs=inputs)
            folder.check(KIND, kind)
        yield folder


def _files(sequences: list[Sequence], preset: Preset | None = None) -> Iterator[Path]:
    """Yield the files that a command reads: frames, masks and the SPN."""
    for sequence in sequences:
        yield from sequence.files
    if preset and preset.refiner and Path(preset.refiner).is_file():
        yield Path(preset.refiner)


def _run(
    args: argparse.Namespace,
    preset: Preset,
    root: Path,
    sequences: list[Sequence],
    title: str,
    davis_set: str | None = None,
    train: list[Sequence] | None = None,
) -> None:
    """Run the pipeline in a claimed folder, then write the table, videos and report."""
    from vos_pipeline import pipeline
    from vos_pipeline.training import process_rank

    first = process_rank()[0] == 0
    if first:  # before any work, so that a conflict with existing files is reported now
        OutputFolder(args.out).add(pipeline.output_files(sequences, davis_set))
    result = pipeline.run(
        root,
        sequences,
        args.out,
        preset=preset,
        device=args.device,
        resume=True,
        train_sequences=train,
    )
    if first:  # one rank reports for all
        pipeline.write_outputs(args.out, sequences, result, title, davis_set)


def refine(args: argparse.Namespace) -> None:
    from vos_pipeline.pipeline import refine_masks
    from vos_pipeline.training import process_rank

    refine_masks(
        args.frames,
        args.masks,
        args.out,
        masks_hold=args.masks_hold,
        weights=args.refiner,
        filter_name=args.filter,
        tile=args.tile,
        device=args.device,
        resume=args.resume,
        overwrite=args.overwrite,
    )
    if process_rank()[0] == 0:
        print(f"masks     {args.out}")


def export(args: argparse.Namespace) -> None:
    from vos_pipeline.refiner import export_onnx, load_refiner

    written = export_onnx(load_refiner(args.refiner), args.onnx, opset=args.opset, overwrite=args.overwrite)
    print(f"model     {args.onnx} ({written.bytes / 1e6:.1f} MB, opset {written.opset})")
    print(f"inputs    {', '.join(written.inputs)}")
    print(f"outputs   {', '.join(written.outputs)}")
    if written.difference is None:
        print("not compared with torch: onnxruntime is not installed")
    else:
        print(f"compared  with torch: masks differ by at most {written.difference:.1g}")


def tables(args: argparse.Namespace) -> None:
    from vos_pipeline.data import load_sets
    from vos_pipeline.pipeline import make_table

    sets, train_sets = args.sets or ["val"], args.train_sets
    if args.table == "challenge":  # as in the paper
        sets, train_sets = args.sets or ["test-challenge"], args.train_sets or ["train", "val"]
    sequences = load_sets(args.data, _with_year(sets, args.year), args.sequences)
    make_table(
        args.table,
        args.data,
        sequences,
        args.out,
        _pipeline_preset(args),
        args.device,
        overwrite=args.overwrite,
        train_sequences=_train_sequences(args.data, train_sets, args.year, sequences),
    )


def train_foreground(args: argparse.Namespace) -> None:
    from vos_pipeline import nets
    from vos_pipeline.data import load_sets
    from vos_pipeline.training import Compute, process_rank, ranks_for_batch

    preset, checkpoint = _preset(args), args.out / "foreground.pt"
    sequences = load_sets(args.data, _with_year(args.sets, args.year), args.sequences)
    with _claimed(args, FOREGROUND_NET, *_files(sequences)) as folder:
        if folder:
            folder.identify(KIND, FOREGROUND_NET)
            folder.identify("preset", asdict(preset))
            folder.identify("training data", {s.name: s.fingerprint() for s in sequences})
            folder.add([checkpoint.name])
    compute = Compute(args.device, preset.precision, preset.compile)
    if ranks := ranks_for_batch(preset.foreground.batch):
        nets.train_foreground(sequences, preset, checkpoint, compute, resume=True, ranks=ranks)
    if process_rank()[0] == 0:
        print(f"net  {checkpoint}")


def train_spn(args: argparse.Namespace) -> None:
    from vos_pipeline.cli.train_spn import train_spn

    train_spn(args)


def evaluate(args: argparse.Namespace) -> None:
    from vos_pipeline import evaluation

    if int(os.environ.get("RANK", "0")):
        return  # under torchrun, one rank scores
    year, set_name = _year_and_set(args)
    scores = evaluation.evaluate(args.data, args.results, year, set_name, args.sequences)
    print(scores.global_table().text(), end="\n\n")
    print(scores.object_table().text(), flush=True)
    if args.results.resolve() == (args.data / ANNOTATIONS).resolve():
        warn(f"{args.results}: holds the ground truth, so no CSV files are written there")
        return
    scores.write(args.results, set_name)  # last: the tables are printed even if writing fails
