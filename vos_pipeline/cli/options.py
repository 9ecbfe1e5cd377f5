"""The options of every command. Nothing heavy is imported: ``--help`` and usage errors come at once."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from vos_pipeline.cli import commands, values
from vos_pipeline.cli.shared_options import (
    DEFAULT,
    MOST_STEPS,
    add_data_options,
    add_device,
    add_filter,
    add_net_options,
    add_refiner,
    add_resume,
    add_run_options,
    add_train_sets,
)
from vos_pipeline.settings import (
    FORMS,
    GUIDANCES,
    MASKS_HOLD,
    PRECISIONS,
    SMALLEST_SCORE,
    SMALLEST_TILE,
    SPN_PRESETS,
    TABLES,
)

# In pixels. The guidance network leaves 2 x 2 positions of the smallest crop; no GPU takes more than the largest.
SMALLEST_CROP, LARGEST_CROP = 32, 4096
LARGEST_TILE = 2**20
MOST_SAMPLES, MOST_WORKERS = 2**16, 1024
OPSETS = 18, 23  # of ONNX: what the exporter writes and onnxruntime was tried with


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"error: {' '.join(message.split())} ({self.prog} --help lists the options)\n")


def command_line() -> argparse.ArgumentParser:
    """The parser; what it returns has the function to call as ``command``."""
    parser = _Parser("spn-vos", description="Video object segmentation from the mask of the first frame.")
    parser.add_argument("--version", action=_Version, help="print the version and exit")
    top = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(
        name: str,
        command: Callable[[argparse.Namespace], None],
        summary: str,
        to: argparse._SubParsersAction[_Parser] = top,
    ) -> argparse.ArgumentParser:
        sub = to.add_parser(name, help=summary, description=summary)
        sub.set_defaults(command=command)
        return sub

    _demo(add("demo", commands.demo, "synthetic clips -> whole pipeline -> table, overlays, report"))
    _davis(add("davis", commands.davis, "the pipeline on DAVIS, scored where the masks are known"))
    _segment(add("segment", commands.segment, "your own video, from the mask of its first frame"))
    _refine(
        add("refine", commands.refine, "masks of any other tool, refined by the SPN and filtered over time")
    )
    _export(add("export", commands.export, "the SPN as an ONNX model, which runs without torch"))
    _tables(add("tables", commands.tables, "the paper's tables with our figures beside them"))
    train = top.add_parser("train", help="train the foreground net or the SPN").add_subparsers(
        required=True, metavar="foreground|spn"
    )
    _train_foreground(
        add("foreground", commands.train_foreground, "train the foreground net on a DAVIS set", train)
    )
    _train_spn(
        add("spn", commands.train_spn, "train the SPN on pictures with masks or on free composites", train)
    )
    _evaluate(
        add("evaluate", commands.evaluate, "score results; writes the official DAVIS CSV files into them")
    )
    return parser


class _Version(argparse.Action):
    """Prints the version, which is read only if it is asked for: that loads torch."""

    def __init__(self, **options: Any) -> None:
        super().__init__(nargs=0, **options)

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        from vos_pipeline import __version__

        print(parser.prog, __version__)
        parser.exit()


# --- commands -----------------------------------------------------------------------------------------------


def _demo(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", type=values.path, default=Path("demo"), metavar="DIR", help=DEFAULT)
    add_run_options(parser, preset="demo")


def _davis(parser: argparse.ArgumentParser) -> None:
    add_data_options(parser)
    add_train_sets(parser)
    parser.add_argument("--out", type=values.path, required=True, metavar="DIR")
    add_run_options(parser)


def _segment(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "video", type=values.path, metavar="VIDEO_OR_FRAMES", help="a video file or a folder of pictures"
    )
    parser.add_argument(
        "--mask", type=values.path, required=True, metavar="FIRST.png", help="one index for each object"
    )
    parser.add_argument(
        "--first-frame",
        metavar="NAME_OR_NUMBER",
        help="the frame of the mask, where the video starts; in a video file, frames are numbered from 0 "
        "(default: the first)",
    )
    parser.add_argument("--out", type=values.path, required=True, metavar="DIR")
    parser.add_argument(
        "--train-data", type=values.path, metavar="ROOT", help="a DAVIS root to train the foreground net on"
    )
    add_train_sets(parser)
    add_run_options(parser)


def _refine(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--frames", type=values.path, required=True, metavar="DIR", help="pictures, or one folder a sequence"
    )
    parser.add_argument(
        "--masks",
        type=values.path,
        required=True,
        metavar="DIR",
        help="<frame>.png of the same names and sizes, or scores of several objects: <frame>.npz with an array "
        "'scores' (objects, height, width), or grey <object>/<frame>.png",
    )
    parser.add_argument("--out", type=values.path, required=True, metavar="DIR", help="indexed <frame>.png")
    parser.add_argument(
        "--masks-hold",
        choices=MASKS_HOLD,
        default="auto",
        help="labels: an index an object, or 0 and 255; scores: the probability of one object times 255, in grey; "
        f"auto: grey masks of a folder hold scores if a value is from {SMALLEST_SCORE} to 254; "
        f"NPZ files and a folder per object always hold scores {DEFAULT}",
    )
    add_refiner(parser, "--weights")
    over_time = parser.add_mutually_exclusive_group()
    add_filter(over_time, default="flow")
    over_time.add_argument(
        "--no-craf",
        action="store_const",
        const="none",
        dest="filter",
        default=argparse.SUPPRESS,
        help="--filter none",
    )
    parser.add_argument(
        "--tile",
        type=values.whole_number(SMALLEST_TILE, LARGEST_TILE),
        metavar="PIXELS",
        help=f"work in tiles of this side, {SMALLEST_TILE} or more, to save memory",
    )
    add_device(parser)
    add_resume(parser)


def _export(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--onnx", type=values.path, required=True, metavar="FILE", help="the model to write, weights included"
    )
    add_refiner(parser)
    parser.add_argument(
        "--opset",
        type=values.whole_number(*OPSETS),
        metavar="N",
        help=f"version of the operator set, {OPSETS[0]} to {OPSETS[1]} (default: the exporter's choice)",
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="replace a model that an earlier export wrote"
    )


def _tables(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("table", choices=TABLES, help="table 1, 2, 3 or 4 of the paper")
    add_data_options(parser, sets=None, shown="val, for the challenge test-challenge")
    parser.add_argument(
        "--out",
        type=values.path,
        required=True,
        metavar="DIR",
        help="for <table>.csv, <table>.md and a run per variant; what is there is reused",
    )
    add_train_sets(parser)
    add_run_options(parser)


def _train_foreground(parser: argparse.ArgumentParser) -> None:
    add_data_options(parser, sets=["train"], shown="train")
    parser.add_argument(
        "--out", type=values.path, required=True, metavar="DIR", help="folder for foreground.pt"
    )
    add_net_options(parser)


def _train_spn(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--preset",
        choices=list(SPN_PRESETS),
        default="lite",
        help="lite: the small refiner that ships with spn; paper: section 4.1, for --voc, or --images and --masks. "
        f"Options that are given override it {DEFAULT}",
    )
    parser.add_argument(
        "--out",
        type=values.path,
        required=True,
        help="folder for spn.safetensors, the training's state, curves and pictures",
    )
    data = parser.add_argument_group("data (without any of them: composites of free photographs)")
    data.add_argument("--images", type=values.path, help="folder of pictures")
    data.add_argument("--masks", type=values.path, help="folder of masks with the pictures' names")
    data.add_argument(
        "--photos", type=values.path, help="photographs to draw composites from, beside the bundled ones"
    )
    data.add_argument(
        "--voc", type=values.path, help="folder that holds VOCdevkit/VOC2012: the paper's training set"
    )
    data.add_argument("--sbd", type=values.path, help="folder of SBD (img, cls, ...), to join VOC")
    data.add_argument("--download", action="store_true", help="fetch VOC and SBD if they are not there")
    data.add_argument(
        "--fcn",
        type=values.name_or_file("coco"),
        default="coco",
        help="'coco' (torchvision's weights) or a file of them, for the coarse masks of VOC",
    )
    data.add_argument(
        "--coarse-masks", type=values.path, help="folder to keep them in (default: OUT/coarse-masks)"
    )
    net = parser.add_argument_group("network")
    net.add_argument(
        "--init",
        type=values.name_or_file("lite"),
        help="refiner to start from: 'lite' or a .safetensors file; samples are hard at once",
    )
    net.add_argument("--guidance", choices=GUIDANCES, help=_of_presets("guidance"))
    net.add_argument(
        "--vgg-weights",
        type=values.name_or_file("imagenet", "none"),
        default="imagenet",
        help=f"'imagenet', 'none' or a file {DEFAULT}",
    )
    net.add_argument("--form", choices=FORMS, help=_of_presets("form"))
    net.add_argument(
        "--convex",
        action="store_true",
        default=None,
        help="the direct form with positive gates that sum to at most 1",
    )
    run = parser.add_argument_group("training")
    run.add_argument("--precision", choices=PRECISIONS, help=_of_presets("precision"))
    for name, kind, about in (
        ("steps", values.whole_number(1, MOST_STEPS), ""),
        ("batch", values.whole_number(1, MOST_SAMPLES), "of all processes together "),
        ("seed", values.whole_number(0), ""),
        ("size", values.whole_number(SMALLEST_CROP, LARGEST_CROP), "side of the crops, for VOC 256 "),
        ("learning-rate", values.positive, ""),
        ("boundary-weight", values.not_negative, "extra weight near outlines, for VOC 0 "),
        ("checkpoint-every", values.whole_number(1, MOST_STEPS), "steps from one saved state to the next "),
    ):
        run.add_argument(f"--{name}", type=kind, help=about + _of_presets(name))
    run.add_argument(
        "--workers",
        type=values.whole_number(0, MOST_WORKERS),
        default=min(8, (os.cpu_count() or 1) - 1),
        help=f"processes that prepare samples {DEFAULT}",
    )
    add_device(run)
    add_resume(run)


def _evaluate(parser: argparse.ArgumentParser) -> None:
    add_data_options(parser)
    parser.add_argument(
        "--results", type=values.path, required=True, metavar="DIR", help="<sequence>/<frame>.png"
    )


def _of_presets(option: str) -> str:
    """The value that each preset of the SPN has for an option."""
    name = option.replace("-", "_")
    return f"({', '.join(f'{key}: {getattr(preset, name)}' for key, preset in SPN_PRESETS.items())})"
