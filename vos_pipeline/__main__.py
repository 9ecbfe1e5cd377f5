"""The command line, ``python -m vos_pipeline`` or ``spn-vos``.

Exit codes: 0 done, 1 failed (one line says why and what to do), 2 usage.
"""

from __future__ import annotations

import argparse
import errno
import sys
from collections.abc import Callable
from pathlib import Path

from vos_pipeline import commands, tables
from vos_pipeline.errors import PipelineError


def main(argv: list[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    argv = sys.argv[1:] if argv is None else argv
    try:
        args = _parser(argv).parse_args(argv)
    except SystemExit as stop:  # argparse has said why
        return int(stop.code or 0)
    later = ": finished work is kept, --resume goes on with it" if hasattr(args, "resume") else ""
    try:
        args.command(args)
    except PipelineError as error:
        return _fail(error)
    except KeyboardInterrupt:
        return _fail(f"interrupted{later}")
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        return _fail(
            f"the disk is full, free some space ({_reason(error)}){later}" if full else _reason(error)
        )
    except MemoryError:
        return _fail("out of memory: choose --preset small, or smaller frames")
    except RuntimeError as error:
        if "out of memory" not in str(error):
            raise
        return _fail("the device ran out of memory: choose --preset small, or --device cpu")
    return 0


def _reason(error: OSError) -> str:
    reason = (error.strerror or str(error) or type(error).__name__).lower()
    return f"{error.filename}: {reason}" if error.filename else reason


def _fail(why: object) -> int:
    print("error:", " ".join(str(why).split()), file=sys.stderr)
    return 1


# --- options ------------------------------------------------------------------------------------------------


def _parser(argv: list[str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "spn-vos", description="Video object segmentation from the mask of the first frame."
    )
    top = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(name: str, command: Callable, summary: str, to=top) -> argparse.ArgumentParser:
        sub = to.add_parser(name, help=summary, description=summary)
        sub.set_defaults(command=command)
        return sub

    demo = add("demo", commands.demo, "synthetic clips -> whole pipeline -> table, overlays, report")
    demo.add_argument("--out", type=Path, default=Path("demo"), metavar="DIR", help="default: %(default)s")
    _add_run_options(demo, preset="demo")

    davis = add("davis", commands.davis, "the pipeline on DAVIS, scored where the masks are known")
    _add_data_options(davis)
    davis.add_argument("--out", type=Path, required=True, metavar="DIR")
    _add_run_options(davis)

    segment = add("segment", commands.segment, "your own video, from the mask of its first frame")
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

    refine = add("refine", commands.refine, "masks of any other tool, refined by the SPN and CRAF")
    if argv[:1] == ["refine"]:
        from vos_pipeline.refine import add_arguments

        add_arguments(refine)

    tables.add_arguments(add("tables", commands.tables, "the paper's tables with our figures beside them"))

    train = top.add_parser("train", help="train the foreground net or the SPN").add_subparsers(
        required=True, metavar="foreground|spn"
    )
    foreground = add(
        "foreground", commands.train_foreground, "train the foreground net on a DAVIS set", train
    )
    _add_data_options(foreground, set_name="train")
    foreground.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for foreground.pt")
    _add_run_options(foreground)
    spn = add("spn", commands.train_spn, "train the SPN on pictures with masks or on free composites", train)
    if argv[:2] == ["train", "spn"]:
        from vos_pipeline.train_spn import add_arguments

        add_arguments(spn)

    evaluate = add(
        "evaluate", commands.evaluate, "score results; writes the official DAVIS CSV files into them"
    )
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


if __name__ == "__main__":
    sys.exit(main())
