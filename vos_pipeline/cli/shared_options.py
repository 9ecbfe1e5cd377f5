"""Options that several commands have: data, training sets, presets, devices, what is in the folder of results."""

from __future__ import annotations

import argparse

from vos_pipeline.cli import values
from vos_pipeline.settings import FILTERS, PRECISIONS, PRESETS

DEFAULT = "(default: %(default)s)"
MOST_STEPS = 10**9


def add_data_options(
    parser: argparse.ArgumentParser, sets: str | list[str] | None = "val", shown: str | None = None
) -> None:
    """``sets`` is the default: a name where the command takes one set, a list or None where it takes several."""
    one = isinstance(sets, str)
    parser.add_argument("--data", type=values.path, required=True, metavar="ROOT", help="a DAVIS root")
    parser.add_argument(
        "--year", type=values.plain_name, default="2017", help=f"of sets that are given without one {DEFAULT}"
    )
    parser.add_argument(
        "--set",
        "--sets",
        type=values.set_name,
        nargs=None if one else "+",
        dest="set_name" if one else "sets",
        metavar="SET",
        default=sets,
        help=f"{'a set' if one else 'sets'} of ImageSets, SET or YEAR/SET (default: {shown or sets})",
    )
    parser.add_argument("--sequences", nargs="+", metavar="NAME", help="only these of the set")


def add_train_sets(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--train-sets",
        type=values.set_name,
        nargs="+",
        metavar="SET",
        help="sets to train the foreground net on, SET or YEAR/SET, such as train val; "
        "sequences under test are left out "
        "(default: train of 2017, else of 2016; for the challenge train val)",
    )


def add_run_options(parser: argparse.ArgumentParser, preset: str = "small") -> None:
    add_net_options(parser, preset)
    parser.add_argument(
        "--refiner",
        type=values.name_or_file("lite"),
        metavar="NAME_OR_FILE",
        help="the SPN, 'lite' or what 'train spn' wrote (default: lite; the paper preset has none)",
    )
    add_filter(parser, shown="the preset's: flow; paper: craf")


def add_filter(
    parser: argparse._ActionsContainer, default: str | None = None, shown: str | None = None
) -> None:
    parser.add_argument(
        "--filter",
        choices=FILTERS,
        default=default,
        metavar="NAME",
        help="the filter over time that the results come from: none, craf (the paper's, one region per object) or "
        f"flow (regions near the place to which optical flow carries the object) (default: {shown or default})",
    )


def add_net_options(parser: argparse.ArgumentParser, preset: str = "small") -> None:
    parser.add_argument(
        "--preset",
        choices=list(PRESETS),
        default=preset,
        metavar="NAME",
        help=f"{', '.join(PRESETS)} {DEFAULT}",
    )
    add_device(parser)
    parser.add_argument(
        "--precision", choices=PRECISIONS, help="of the nets (default: the preset's, float32)"
    )
    parser.add_argument(
        "--compile", action="store_true", help="let torch.compile make the training's kernels"
    )
    parser.add_argument(
        "--shorten",
        type=values.whole_number(1, MOST_STEPS),
        default=1,
        metavar="N",
        help="divide the steps of every training by N, to try a preset out",
    )
    add_resume(parser)


def add_refiner(parser: argparse._ActionsContainer, *other_names: str) -> None:
    parser.add_argument(
        "--refiner",
        *other_names,
        type=values.name_or_file("lite"),
        default="lite",
        metavar="NAME_OR_FILE",
        help=f"'lite' or what 'train spn' wrote {DEFAULT}",
    )


def add_device(parser: argparse._ActionsContainer) -> None:
    parser.add_argument(
        "--device",
        type=values.device,
        default="auto",
        help="cpu, cuda, cuda:1, ..., or auto: cuda where there is a GPU; under torchrun each rank takes its own "
        f"{DEFAULT}",
    )


def add_resume(parser: argparse._ActionsContainer) -> None:
    either = parser.add_mutually_exclusive_group()
    either.add_argument("--resume", action="store_true", help="go on with what an earlier run left in --out")
    either.add_argument(
        "--overwrite",
        action="store_true",
        help="remove the files that an earlier run left in --out, and start anew",
    )
