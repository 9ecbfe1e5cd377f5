"""The options of every command. No heavy module is imported, so ``--help`` and usage errors appear at once."""

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
    add_out,
    add_path,
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

# In pixels. The guidance network reduces the smallest crop to 2 x 2 positions; no GPU can process a larger crop than
# the largest.
SMALLEST_CROP, LARGEST_CROP = 32, 4096
LARGEST_TILE = 2**20
MOST_SAMPLES, MOST_WORKERS = 2**16, 1024
OPSETS = 18, 23  # ONNX opsets that the exporter writes and that were tested with onnxruntime


class _Parser(argparse.ArgumentParser):
    """Report usage errors in one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"error: {' '.join(message.split())} ({self.prog} --help lists the options)\n")


def command_line() -> argparse.ArgumentParser:
    """Return the parser. Attribute ``command`` of the parsed arguments is the function to call."""
    parser = _Parser(
        "spn-vos", description="Segment the objects of a video, given the mask of its first frame."
    )
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

    _demo(
        add(
            "demo",
            commands.demo,
            "run the pipeline on synthetic clips; write a table, overlay videos and a report",
        )
    )
    _davis(
        add(
            "davis",
            commands.davis,
            "segment the sequences of a DAVIS set, and score those that have ground truth",
        )
    )
    _segment(add("segment", commands.segment, "segment a video, given the mask of its first frame"))
    _refine(
        add("refine", commands.refine, "refine masks of any tool with the SPN, and filter them over time")
    )
    _export(add("export", commands.export, "export the SPN as an ONNX model, which runs without torch"))
    _tables(
        add(
            "tables",
            commands.tables,
            "compute a table of the paper and print it next to the published numbers",
        )
    )
    about = "train the foreground net or the SPN"
    train = top.add_parser("train", help=about, description=about).add_subparsers(
        required=True, metavar="foreground|spn"
    )
    _train_foreground(
        add("foreground", commands.train_foreground, "train the foreground net on a DAVIS set", train)
    )
    _train_spn(add("spn", commands.train_spn, "train the SPN on images with masks or on composites", train))
    _evaluate(add("evaluate", commands.evaluate, "score masks and write the official DAVIS CSV files"))
    return parser


class _Version(argparse.Action):
    """Print the version. Reading it imports torch, so it is read only on request."""

    def __init__(self, **options: Any) -> None:
        super().__init__(nargs=0, **options)

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        from vos_pipeline import __version__

        print(parser.prog, __version__)
        parser.exit()


# --- commands -----------------------------------------------------------------------------------------------


def _demo(parser: argparse.ArgumentParser) -> None:
    add_path(parser, "--out", "DIR", f"folder for the results {DEFAULT}", default=Path("demo"))
    add_run_options(parser, preset="demo")


def _davis(parser: argparse.ArgumentParser) -> None:
    add_data_options(parser)
    add_train_sets(parser)
    add_out(parser)
    add_run_options(parser)


def _segment(parser: argparse.ArgumentParser) -> None:
    add_path(parser, "video", "VIDEO_OR_FRAMES", "video file or folder of frames")
    add_path(
        parser,
        "--mask",
        "FIRST.png",
        "mask of the first frame: one index per object, or 0 and 255 for one object",
        required=True,
    )
    parser.add_argument(
        "--first-frame",
        metavar="NAME_OR_NUMBER",
        help="frame that the mask belongs to; earlier frames are skipped. Frames of a video file are numbered from 0 "
        "(default: the first frame)",
    )
    add_out(parser)
    add_path(
        parser,
        "--train-data",
        "ROOT",
        "DAVIS root folder; the foreground net is first trained on its train set (default: trained on the first "
        "frame only)",
    )
    add_train_sets(parser)
    add_run_options(parser)


def _refine(parser: argparse.ArgumentParser) -> None:
    add_path(
        parser,
        "--frames",
        "DIR",
        "folder of frames, or a folder with one folder of frames per sequence",
        required=True,
    )
    add_path(
        parser,
        "--masks",
        "DIR",
        "folder of masks with the names and sizes of the frames: <frame>.png (labels, or scores of one object), "
        "<frame>.npz (scores of several objects: an array 'scores' of shape (objects, height, width)) or grey "
        "<object>/<frame>.png (the same); or a folder of one such folder per sequence",
        required=True,
    )
    add_out(parser, "folder for the refined masks, palette PNGs <frame>.png or <sequence>/<frame>.png")
    parser.add_argument(
        "--masks-hold",
        choices=MASKS_HOLD,
        default="auto",
        help="contents of the masks. labels: one index per object, or 0 and 255; scores: the probability of one "
        f"object times 255, in grey; auto: scores if any grey mask of the folder has a value from {SMALLEST_SCORE} to "
        f"254. NPZ files and one folder per object always hold scores {DEFAULT}",
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
        help="same as --filter none",
    )
    parser.add_argument(
        "--tile",
        type=values.whole_number(SMALLEST_TILE, LARGEST_TILE),
        metavar="PIXELS",
        help=f"process frames in square tiles with this side, at least {SMALLEST_TILE}, to save memory "
        "(default: no tiles)",
    )
    add_device(parser)
    add_resume(parser)


def _export(parser: argparse.ArgumentParser) -> None:
    add_path(parser, "--onnx", "FILE", "ONNX file to write, weights included", required=True)
    add_refiner(parser)
    parser.add_argument(
        "--opset",
        type=values.whole_number(*OPSETS),
        metavar="N",
        help=f"ONNX operator set, {OPSETS[0]} to {OPSETS[1]} (default: chosen by the exporter)",
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="replace a model that an earlier export wrote"
    )


def _tables(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("table", choices=TABLES, help="table 1, 2, 3 or 4 of the paper")
    add_data_options(parser, sets=None, shown="val; test-challenge for the challenge table")
    add_out(parser, "folder for <table>.csv, <table>.md and one run per variant; existing runs are reused")
    add_train_sets(parser, shown="; train val for the challenge table")
    add_run_options(parser)


def _train_foreground(parser: argparse.ArgumentParser) -> None:
    add_data_options(parser, sets=["train"], shown="train")
    add_out(parser, "folder for foreground.pt")
    add_net_options(parser)


def _train_spn(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--preset",
        choices=list(SPN_PRESETS),
        default="lite",
        help="training preset. lite: the small refiner that ships with spn; paper: section 4.1 of the paper, for "
        f"--voc, or --images and --masks. Other options override it {DEFAULT}",
    )
    add_out(parser, "folder for spn.safetensors, the training state, curves and images")
    data = parser.add_argument_group("data (default: composites of free photographs)")
    add_path(data, "--images", "DIR", "folder of images")
    add_path(data, "--masks", "DIR", "folder of masks with the names of the images")
    add_path(data, "--photos", "DIR", "folder of photographs for composites, besides the bundled ones")
    add_path(data, "--voc", "DIR", "folder that contains VOCdevkit/VOC2012, the training set of the paper")
    add_path(data, "--sbd", "DIR", "folder of SBD (img, cls, ...), used in addition to VOC")
    data.add_argument("--download", action="store_true", help="download VOC and SBD if they are missing")
    data.add_argument(
        "--fcn",
        type=values.name_or_file("coco"),
        default="coco",
        metavar="NAME_OR_FILE",
        help=f"weights of the FCN that makes the coarse masks of VOC: 'coco' (from torchvision) or a file {DEFAULT}",
    )
    add_path(
        data, "--coarse-masks", "DIR", "folder for the coarse masks of VOC (default: coarse-masks in --out)"
    )
    net = parser.add_argument_group("network")
    net.add_argument(
        "--init",
        type=values.name_or_file("lite"),
        metavar="NAME_OR_FILE",
        help="refiner to start from, 'lite' or a .safetensors file; training then uses hard samples from the start "
        "(default: none)",
    )
    net.add_argument("--guidance", choices=GUIDANCES, help="guidance network " + _of_presets("guidance"))
    net.add_argument(
        "--vgg-weights",
        type=values.name_or_file("imagenet", "none"),
        default="imagenet",
        metavar="NAME_OR_FILE",
        help=f"weights that guidance vgg16 starts from: 'imagenet', 'none' or a file {DEFAULT}",
    )
    net.add_argument("--form", choices=FORMS, help="form of the refiner " + _of_presets("form"))
    net.add_argument(
        "--convex",
        action="store_true",
        default=None,
        help="use positive gates that sum to at most 1; only with --form direct",
    )
    run = parser.add_argument_group("training")
    run.add_argument(
        "--precision", choices=PRECISIONS, help="precision of training " + _of_presets("precision")
    )
    for name, kind, metavar, about in (
        ("steps", values.whole_number(1, MOST_STEPS), "N", "training steps "),
        ("batch", values.whole_number(1, MOST_SAMPLES), "N", "samples per step, all processes together "),
        ("seed", values.whole_number(0), "N", "random seed "),
        (
            "size",
            values.whole_number(SMALLEST_CROP, LARGEST_CROP),
            "PIXELS",
            "side of the crops; 256 with --voc ",
        ),
        ("learning-rate", values.positive, "RATE", "learning rate "),
        ("boundary-weight", values.not_negative, "WEIGHT", "extra weight near boundaries; 0 with --voc "),
        ("checkpoint-every", values.whole_number(1, MOST_STEPS), "N", "steps between checkpoints "),
    ):
        run.add_argument(f"--{name}", type=kind, metavar=metavar, help=about + _of_presets(name))
    run.add_argument(
        "--workers",
        type=values.whole_number(0, MOST_WORKERS),
        default=min(8, (os.cpu_count() or 1) - 1),
        metavar="N",
        help=f"processes that prepare samples {DEFAULT}",
    )
    add_device(run)
    add_resume(run)


def _evaluate(parser: argparse.ArgumentParser) -> None:
    add_data_options(parser)
    add_path(
        parser,
        "--results",
        "DIR",
        "folder of the masks to score, <sequence>/<frame>.png; the CSV files are written there",
        required=True,
    )


def _of_presets(option: str) -> str:
    """Return the default of an option: its value in preset "lite", and in the other presets where it differs."""
    name = option.replace("-", "_")
    defaults = {key: getattr(preset, name) for key, preset in SPN_PRESETS.items()}
    default = defaults.pop("lite")
    others = [f"; {value} with preset {key}" for key, value in defaults.items() if value != default]
    return f"(default: {default}{''.join(others)})"
