"""The command line, ``python -m vos_pipeline`` or ``spn-vos``.

Exit codes: 0 done, 1 failed (one line says why and what to do), 2 usage.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from vos_pipeline.errors import PipelineError

# Everything heavy is imported by the command that needs it: --help and evaluate start without torch.
if TYPE_CHECKING:
    from vos_pipeline.data import Sequence
    from vos_pipeline.pipeline import RunResult

DEMO_CLIPS, DEMO_FRAMES = 2, 20
DEMO_TRAIN_CLIPS, DEMO_TRAIN_FRAMES = 10, 5


def main(argv: list[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    argv = sys.argv[1:] if argv is None else argv
    try:
        args = _parser(argv).parse_args(argv)
    except SystemExit as stop:  # argparse has said why
        return int(stop.code or 0)
    try:
        args.command(args)
    except PipelineError as error:
        return _fail(error)
    except KeyboardInterrupt:
        resume = ": finished work is kept, --resume goes on with it" if hasattr(args, "resume") else ""
        return _fail(f"interrupted{resume}")
    except (OSError, MemoryError) as error:  # a full disk, a folder without permission
        return _fail(f"{type(error).__name__}: {error}")
    except RuntimeError as error:
        if "out of memory" not in str(error):
            raise
        return _fail("the device ran out of memory: choose --preset small, or --device cpu")
    return 0


def _fail(why: object) -> int:
    print("error:", " ".join(str(why).split()), file=sys.stderr)
    return 1


def _parser(argv: list[str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "spn-vos", description="Video object segmentation from the mask of the first frame."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(name: str, command: Callable, summary: str, to=commands) -> argparse.ArgumentParser:
        sub = to.add_parser(name, help=summary, description=summary)
        sub.set_defaults(command=command)
        return sub

    demo = add("demo", _demo, "synthetic clips -> whole pipeline -> table, overlays, report")
    demo.add_argument("--out", type=Path, default=Path("demo"), metavar="DIR", help="default: %(default)s")
    _add_run_options(demo, preset="demo")

    davis = add("davis", _davis, "the pipeline on DAVIS, scored where the masks are known")
    _add_data_options(davis)
    davis.add_argument("--out", type=Path, required=True, metavar="DIR")
    _add_run_options(davis)

    segment = add("segment", _segment, "your own video, from the mask of its first frame")
    segment.add_argument(
        "video", type=Path, metavar="VIDEO_OR_FRAMES", help="a video file or a folder of pictures"
    )
    segment.add_argument(
        "--mask", type=Path, required=True, metavar="FIRST.png", help="one index for each object"
    )
    segment.add_argument("--out", type=Path, required=True, metavar="DIR")
    segment.add_argument(
        "--train-data", type=Path, metavar="ROOT", help="a DAVIS root to train the foreground net on"
    )
    _add_run_options(segment)

    refine = add("refine", _refine, "masks of any other tool, refined by the SPN and CRAF")
    if argv[:1] == ["refine"]:
        from vos_pipeline.refine import add_arguments

        add_arguments(refine)

    train = commands.add_parser("train", help="train the foreground net or the SPN").add_subparsers(
        required=True, metavar="foreground|spn"
    )
    foreground = add("foreground", _train_foreground, "train the foreground net on a DAVIS set", train)
    _add_data_options(foreground, set_name="train")
    foreground.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for foreground.pt")
    _add_run_options(foreground)
    spn = add("spn", _train_spn, "train the SPN on pictures with masks or on free composites", train)
    if argv[:2] == ["train", "spn"]:
        from vos_pipeline.train_spn import add_arguments

        add_arguments(spn)

    evaluate = add("evaluate", _evaluate, "score results; writes the official DAVIS CSV files into them")
    _add_data_options(evaluate)
    evaluate.add_argument("--results", type=Path, required=True, metavar="DIR", help="<sequence>/<frame>.png")
    return parser


def _add_data_options(parser: argparse.ArgumentParser, set_name: str = "val") -> None:
    parser.add_argument("--data", type=Path, required=True, metavar="ROOT", help="a DAVIS root")
    parser.add_argument("--year", default="2017", help="of ImageSets (default: %(default)s)")
    parser.add_argument(
        "--set", default=set_name, dest="set_name", metavar="SET", help="default: %(default)s"
    )
    parser.add_argument("--sequences", nargs="+", metavar="NAME", help="only these of the set")


def _add_run_options(parser: argparse.ArgumentParser, preset: str = "small") -> None:
    parser.add_argument("--preset", default=preset, help="paper, small or demo (default: %(default)s)")
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1, ... (default: %(default)s)")
    parser.add_argument("--resume", action="store_true", help="go on with what an earlier run left in --out")


# --- commands -----------------------------------------------------------------------------------------------


def _demo(args: argparse.Namespace) -> None:
    from vos_pipeline.data import load_davis
    from vos_pipeline.synthetic import make_clips

    clips = args.out / "clips"
    make_clips(clips, DEMO_CLIPS, DEMO_FRAMES)
    make_clips(clips, DEMO_TRAIN_CLIPS, DEMO_TRAIN_FRAMES, set_name="train")
    _run(args, clips, load_davis(clips), "Synthetic clips")


def _davis(args: argparse.Namespace) -> None:
    from vos_pipeline.data import load_davis

    sequences = load_davis(args.data, args.year, args.set_name, args.sequences)
    _run(args, args.data, sequences, f"DAVIS {args.year} {args.set_name}", csv_set=args.set_name)


def _segment(args: argparse.Namespace) -> None:
    from vos_pipeline.data import load_frames

    sequence = load_frames(args.video, args.mask, work_dir=args.out / "frames")
    _run(args, args.train_data, [sequence], sequence.name)


def _run(
    args: argparse.Namespace,
    root: Path | None,
    sequences: list[Sequence],
    title: str,
    csv_set: str | None = None,
) -> None:
    """The pipeline, then everything a user looks at: table, CSV files, overlays, report."""
    from vos_pipeline import pipeline
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
    if process_rank()[0] != 0:
        return  # one rank tells what all of them did
    final = result.stages[-1]
    print(_text_table(("", "J", "F", "J&F", "s/frame/object"), result.table()))
    if csv_set is not None and result.evaluations[final] is not None:
        for path in result.evaluations[final].write(result.label_dirs[final], csv_set):
            print(f"scores    {path}")
    print(f"masks     {result.label_dirs[final]}")
    print(f"overlays  {_write_overlays(sequences, result.label_dirs[final], args.out / 'overlays')}")
    print(f"report    {_write_report(sequences, result, args.out / 'report.html', title)}")


def _refine(args: argparse.Namespace) -> None:
    from vos_pipeline.refine import main_refine

    args.device = _device(args.device)
    main_refine(args)


def _train_foreground(args: argparse.Namespace) -> None:
    from vos_pipeline.data import load_davis
    from vos_pipeline.train import train_foreground

    sequences = load_davis(args.data, args.year, args.set_name, args.sequences)
    train_foreground(sequences, args.preset, _device(args.device), args.out, resume=args.resume)
    print(f"net       {args.out / 'foreground.pt'}")


def _train_spn(args: argparse.Namespace) -> None:
    from vos_pipeline.train_spn import main_train

    args.device = _device(args.device)
    main_train(args)


def _evaluate(args: argparse.Namespace) -> None:
    from vos_pipeline.metrics import GLOBAL_COLUMNS, SEQUENCE_COLUMNS, evaluate

    evaluation = evaluate(args.data, args.results, args.year, args.set_name, args.sequences)
    print(_text_table(GLOBAL_COLUMNS, [tuple(evaluation.summary().values())]), end="\n\n")
    print(_text_table(SEQUENCE_COLUMNS, evaluation.per_object()))


# --- helpers ------------------------------------------------------------------------------------------------


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


def _write_overlays(sequences: list[Sequence], labels: Path, folder: Path) -> Path:
    from tqdm import tqdm

    from vos_pipeline.data import overlay, read_labels, write_image

    for sequence in tqdm(sequences, desc="overlays", unit="sequence"):
        for t, path in enumerate(sequence.frame_paths):
            mask = read_labels(labels / sequence.name / f"{path.stem}.png")
            write_image(folder / sequence.name / f"{path.stem}.jpg", overlay(sequence.read_frame(t), mask))
    return folder


def _write_report(sequences: list[Sequence], result: RunResult, path: Path, title: str) -> Path:
    from vos_pipeline.report import ReportData, SequenceReport, write_report

    final = result.evaluations[result.stages[-1]]
    tables = [("mean over objects", ["stage", "J", "F", "J&F", "s / frame / object"], result.table())]
    if final is not None:
        tables.append((f"{result.stages[-1]}, each object", ["object", "J", "F"], final.per_object()))
    reports = [
        SequenceReport(
            sequence.name,
            {
                stage: [
                    result.label_dirs[stage] / sequence.name / f"{p.stem}.png" for p in sequence.frame_paths
                ]
                for stage in result.stages
            },
            list(sequence.frame_paths),
            list(sequence.mask_paths) if sequence.has_all_masks else [],
            _curves(sequence, result),
        )
        for sequence in sequences
    ]
    return write_report(path, ReportData(title, tables, reports))


def _curves(sequence: Sequence, result: RunResult) -> dict[str, dict[str, list[float | None]]]:
    """Means over objects for each frame; the first and the last frame are not scored."""
    curves = {}
    for stage in result.stages:
        evaluation = result.evaluations[stage]
        names = [f"{sequence.name}_{label}" for label in sequence.object_ids]
        scores = [evaluation.objects[name] for name in names if evaluation and name in evaluation.objects]
        if scores:
            j, f = sum(s.j for s in scores) / len(scores), sum(s.f for s in scores) / len(scores)
            curves[stage] = {"J": [None, *j.tolist(), None], "F": [None, *f.tolist(), None]}
    return curves


def _text_table(header: tuple[str, ...], rows: list[tuple]) -> str:
    cells = [[_text(value) for value in row] for row in (header, *rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = []
    for name, *values in cells:
        numbers = (value.rjust(width) for value, width in zip(values, widths[1:], strict=True))
        lines.append("  ".join((name.ljust(widths[0]), *numbers)))
    return "\n".join(lines)


def _text(value: object) -> str:
    if isinstance(value, float):
        return "-" if math.isnan(value) else f"{value:.3f}"
    return str(value)


if __name__ == "__main__":
    sys.exit(main())
