"""Options shared by several commands: data, training sets, presets, devices, existing results."""

from __future__ import annotations

import argparse
from typing import Any

from vos_pipeline.cli import values
from vos_pipeline.settings import FILTERS, PRECISIONS, PRESETS

DEFAULT = "(default: %(default)s)"
MOST_STEPS = 10**9


def add_path(parser: argparse._ActionsContainer, name: str, metavar: str, about: str, **options: Any) -> None:
    parser.add_argument(name, type=values.path, metavar=metavar, help=about, **options)


def add_out(parser: argparse._ActionsContainer, about: str = "folder for the results") -> None:
    add_path(parser, "--out", "DIR", about, required=True)


def add_data_options(
    parser: argparse.ArgumentParser, sets: str | list[str] | None = "val", shown: str | None = None
) -> None:
    """Add the options that select sequences of a DAVIS dataset.

    Args:
        sets: default of ``--set``. A string if the command accepts one set, a list or None if it accepts several.
        shown: the default as the help shows it, if it differs from ``sets``.
    """
    one = isinstance(sets, str)
    add_path(parser, "--data", "ROOT", "DAVIS root folder", required=True)
    parser.add_argument(
        "--year",
        type=values.plain_name,
        default="2017",
        help=f"year of each SET that is given without YEAR/ {DEFAULT}",
    )
    parser.add_argument(
        "--set",
        "--sets",
        type=values.set_name,
        nargs=None if one else "+",
        dest="set_name" if one else "sets",
        metavar="SET",
        default=sets,
        help=f"{'set' if one else 'sets'} listed in ImageSets, as SET or YEAR/SET (default: {shown or sets})",
    )
    parser.add_argument(
        "--sequences", nargs="+", metavar="NAME", help="sequences to use (default: all of the set)"
    )


def add_train_sets(parser: argparse.ArgumentParser, shown: str = "") -> None:
    """Add ``--train-sets``. ``shown`` continues the description of the default in the help."""
    parser.add_argument(
        "--train-sets",
        type=values.set_name,
        nargs="+",
        metavar="SET",
        help="sets to train the foreground net on, as SET or YEAR/SET, for example 'train val'; "
        "sequences under test are excluded "
        f"(default: train of 2017, or of 2016 if the root has no 2017{shown})",
    )


def add_run_options(parser: argparse.ArgumentParser, preset: str = "small") -> None:
    add_net_options(parser, preset)
    parser.add_argument(
        "--refiner",
        type=values.name_or_file("lite"),
        metavar="NAME_OR_FILE",
        help="SPN to use: 'lite' or a file written by 'train spn' (default: lite; required with preset paper)",
    )
    add_filter(parser, shown="flow; craf with preset paper")


def add_filter(
    parser: argparse._ActionsContainer, default: str | None = None, shown: str | None = None
) -> None:
    parser.add_argument(
        "--filter",
        choices=FILTERS,
        default=default,
        metavar="NAME",
        help="temporal filter that produces the results: none, craf (the filter of the paper, one region per object) "
        f"or flow (regions near the position predicted by optical flow) (default: {shown or default})",
    )


def add_net_options(parser: argparse.ArgumentParser, preset: str = "small") -> None:
    parser.add_argument(
        "--preset",
        choices=list(PRESETS),
        default=preset,
        metavar="NAME",
        help=f"pipeline preset: {', '.join(PRESETS)} {DEFAULT}",
    )
    add_device(parser)
    parser.add_argument(
        "--precision", choices=PRECISIONS, help="precision of the nets (default: float32, as in all presets)"
    )
    parser.add_argument("--compile", action="store_true", help="use torch.compile for training")
    parser.add_argument(
        "--shorten",
        type=values.whole_number(1, MOST_STEPS),
        default=1,
        metavar="N",
        help=f"divide the steps of every training by N, to try out a preset {DEFAULT}",
    )
    add_resume(parser)


def add_refiner(parser: argparse._ActionsContainer, *other_names: str) -> None:
    parser.add_argument(
        "--refiner",
        *other_names,
        type=values.name_or_file("lite"),
        default="lite",
        metavar="NAME_OR_FILE",
        help=f"SPN to use: 'lite' or a file written by 'train spn' {DEFAULT}",
    )


def add_device(parser: argparse._ActionsContainer) -> None:
    parser.add_argument(
        "--device",
        type=values.device,
        default="auto",
        help="cpu, cuda, cuda:N or auto (cuda if a GPU is available); under torchrun, each rank uses its own GPU "
        f"{DEFAULT}",
    )


def add_resume(parser: argparse._ActionsContainer) -> None:
    either = parser.add_mutually_exclusive_group()
    either.add_argument("--resume", action="store_true", help="continue the earlier run in --out")
    either.add_argument(
        "--overwrite",
        action="store_true",
        help="delete the files that an earlier run wrote to --out, and start again",
    )
