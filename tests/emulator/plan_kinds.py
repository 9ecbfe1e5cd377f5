"""List the kinds of plans of the CUDA kernels on Hopper GPUs, and check that tests/spn/cuda_cases.py reaches them.

``python tests/emulator/plan_kinds.py`` prints each kind with a case that reaches it, and proposes cases for kinds
without one. ``--write`` writes cases that reach every kind to cuda_cases.py. Needs a C++ compiler and no GPU.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import cache
from heapq import heapify, heappop, heappush
from itertools import cycle, product
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "spn"))

import torch
from cuda_cases import CHOSEN, RUNS, Run, gpu_seconds
from kernel_emulator import DTYPES, ROOT, problem_of
from operator_cases import DIRECTIONS, NORMALIZATIONS, Case

from benchmarks.cuda.devices import H100, H200

CASES_FILE = ROOT / "tests" / "spn" / "cuda_cases.py"
# Their bandwidths differ, so their plans keep different planes on chip.
HOPPER = (H100, H200)

# The problems to search. Numbers of planes that leave multiprocessors idle, that match them, or that exceed them:
BATCHES = (1, 2, 5, 9, 17, 34, 67, 133, 270, 1100)
# numbers of channels and of channel groups;
CHANNELS = ((1, 1), (2, 1), (4, 1), (4, 2), (16, 1), (64, 1))
# planes that are small, fit on chip, fit in part, or do not fit; lines with more positions than a block has threads, or
# than shared memory can carry. Widths are multiples of four, two and one.
SIDES = (
    *((20, 21), (20, 22), (20, 24), (64, 64), (100, 101), (112, 112), (100, 150), (128, 128), (128, 130), (150, 151)),
    *((150, 150), (160, 160), (168, 168), (200, 200), (200, 201), (200, 202), (230, 232)),
    *((20, 400), (20, 401), (20, 402), (2, 1900), (2, 1901), (2, 1902), (17, 3660), (17, 3661), (17, 3662)),
)  # fmt: skip
WITH_RESTARTS = ((20, 24), (100, 101), (20, 402))
MOST_VALUES = 12_000_000  # elements of x; more would make the tests slow

Kind = tuple[str, ...]


def _short(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def kinds_of_plan(name: str, save: bool, case: Case, dtype: torch.dtype, plan: dict) -> Iterator[Kind]:
    """Yield the properties of a plan that decide which code runs: the combined ones first, then independent ones."""
    four = case.direction == "four_way"
    sharing = case.shape[1] // case.groups
    together = plan["channels"]
    schedule = (
        "sweeps side by side" if plan["split"] else "planes on chip" if plan["resident"] else "streamed"
    )
    carried = "shared memory" if plan["carry_in_shared"] else "global memory"
    shared = "in one block" if together == sharing else "in parts" if together > 1 else "block by block"
    yield tuple(
        word
        for word, holds in (
            (name, True),
            ("saving", save),
            (_short(dtype), True),
            (f"pieces of {plan['piece']}", True),
            ("four directions" if four else "one direction", True),
            (schedule, True),
            (f"{plan['resident']} arrays", name == "backward" and plan["resident"]),
            ("one stage", plan["stages"] == 1),
            (f"lines carried in {carried}", plan["carry_values"]),
            ("merges in the tensors' dtype", plan["merges_narrow"]),
            (f"shared gates {shared}", name == "backward" and sharing > 1),
            ("in chunks of lines", plan["chunks"] > 1),
            ("in runs of lines", plan["runs"] > 1),
        )
        if holds
    )
    if four:
        yield name, _short(dtype), schedule, f"merge {case.merge}"
    else:
        yield name, _short(dtype), case.direction
    if plan["blocks"] < plan["tasks"]:
        yield name, _short(dtype), "several tasks per block"
    if together > 1 and plan["threads"] < max(case.shape[2:]):
        yield name, _short(dtype), "several channels per block", "lines in segments"
    if name == "backward" and 0 < case.source_groups < case.shape[1]:
        in_parts = case.shape[1] // case.source_groups > together
        yield name, _short(dtype), "shared source " + ("in parts" if in_parts else "in one block")


# Whether the forward pass saves what the backward pass needs.
PASSES = (("forward", False), ("forward", True), ("backward", False))


def kinds_of_options(case: Case, dtype: torch.dtype) -> Iterator[Kind]:
    """Yield the kinds of arithmetic, which are independent of the plan."""
    form = "source form" if case.source_groups else "SPN form"
    for name in ("forward", "backward"):
        yield name, _short(dtype), f"normalize {case.normalize}", form


def kinds_of_plans(case: Case, dtype: torch.dtype) -> set[Kind]:
    """Return the kinds of the forward pass without and with gradients and of the backward pass, on each device."""
    merge = case.merge or "none" if case.direction == "four_way" else "none"
    groups, restart_every = (case.groups, case.source_groups), case.restart_every or 0
    problem = problem_of(case.shape, dtype, case.direction, case.normalize, merge, *groups, restart_every)
    found: set[Kind] = set()
    for device, (name, save) in product(HOPPER, PASSES):
        plan = device.machine().plan(name, problem, save=save)
        if plan["threads"]:
            found.update((device.name, *kind) for kind in kinds_of_plan(name, save, case, dtype, plan))
    return found


def problems() -> Iterator[Case]:
    for batch, (channels, groups), sides in product(BATCHES, CHANNELS, SIDES):
        if batch * channels * sides[0] * sides[1] > MOST_VALUES:
            continue
        for source in {0, 1, channels}:
            case = Case((batch, channels, *sides), groups, source, "four_way", "abs", "max")
            yield case
            yield case.with_(merge="mean")
            if batch in (1, 67):
                yield case.with_(merge="sum")
            if batch == 1:
                yield case.with_(merge=None)
            if batch == 1 and channels < 4 and sides in WITH_RESTARTS:
                yield case.with_(restart_every=2)
                yield case.with_(direction="right_to_left", merge=None, restart_every=8)
            if batch in (1, 1100):
                yield from (case.with_(direction=direction, merge=None) for direction in DIRECTIONS)


@cache
def reachable() -> dict[Case, dict[torch.dtype, frozenset[Kind]]]:
    """Return, for each set of kinds, the cheapest problem that has it."""
    cheapest: dict[tuple, Case] = {}
    for case in problems():
        by_dtype = {
            dtype: frozenset(kinds_of_plans(case, dtype)) for dtype in DTYPES if dtype != torch.float16
        }
        # A plan depends only on the width of the dtype.
        by_dtype[torch.float16] = frozenset(
            tuple("float16" if word == "bfloat16" else word for word in kind)
            for kind in by_dtype[torch.bfloat16]
        )
        kinds = tuple(by_dtype[dtype] for dtype in DTYPES)
        key = (kinds, case.source_groups > 0)
        if key not in cheapest or gpu_seconds(case) < gpu_seconds(cheapest[key]):
            cheapest[key] = case
    return {case: dict(zip(DTYPES, kinds, strict=True)) for (kinds, _), case in cheapest.items()}


def all_kinds() -> set[Kind]:
    options = {
        kind
        for normalize, source_groups, dtype in product(NORMALIZATIONS, (0, 1), DTYPES)
        for kind in kinds_of_options(Case(normalize=normalize, source_groups=source_groups), dtype)
    }
    return options.union(*(kinds for by_dtype in reachable().values() for kinds in by_dtype.values()))


def reached(runs: Iterable[Run]) -> dict[Kind, Run]:
    """Return the first run that reaches each kind."""
    found: dict[Kind, Run] = {}
    for run in runs:
        for dtype in run.dtypes:
            for kind in (*kinds_of_plans(run.case, dtype), *kinds_of_options(run.case, dtype)):
                found.setdefault(kind, run)
    return found


def proposals(missing: set[Kind]) -> Iterator[Run]:
    """Yield runs that reach all missing kinds, greedily by the number of new kinds per second."""
    problems = list(reachable().items())

    def gain(index: int) -> tuple[float, Run | None]:
        case, by_dtype = problems[index]
        new = {dtype: len(kinds & missing) for dtype, kinds in by_dtype.items() if kinds & missing}
        if not new:
            return 0.0, None
        return sum(new.values()) / gpu_seconds(case, tuple(new)), Run(case, tuple(new))

    # Gains only decrease, so a problem is the best if its current gain is at least the earlier gains of the others.
    heap = [(-gain(index)[0], index) for index in range(len(problems))]
    heapify(heap)
    normalizations = cycle(NORMALIZATIONS)
    while heap:
        _, index = heappop(heap)
        value, run = gain(index)
        if run and heap and value < -heap[0][0]:
            heappush(heap, (-value, index))
        elif run:
            run = replace(run, case=run.case.with_(normalize=next(normalizations)))
            missing = missing - reached([run]).keys()
            yield run
    for normalize, source_groups in product(NORMALIZATIONS, (0, 1)):
        case = Case((1, 1, 20, 21), 1, source_groups, "four_way", normalize, "mean")
        dtypes = tuple(dtype for dtype in DTYPES if missing.intersection(kinds_of_options(case, dtype)))
        if dtypes:
            yield Run(case, dtypes)


def source_of(run: Run) -> str:
    case = run.case
    merge = "None" if case.merge is None else f'"{case.merge}"'
    options = f'{case.groups}, {case.source_groups}, "{case.direction}", "{case.normalize}", {merge}'
    if case.restart_every:
        options += f", {case.restart_every}"
    names = {torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16"}
    dtypes = "".join(f"{names[dtype]}, " for dtype in run.dtypes)
    dtypes = dtypes.rstrip() if len(run.dtypes) == 1 else dtypes.rstrip(", ")
    return f"    Run(Case({case.shape}, {options}), ({dtypes})),\n"


def write(runs: Iterable[Run]) -> None:
    text = CASES_FILE.read_text()
    lines = "".join(source_of(run) for run in runs)
    text, written = re.subn(r"(?s)(\nFOUND = \(\n).*?(\)  # end of FOUND)", rf"\1{lines}\2", text)
    assert written == 1, f"{CASES_FILE.name} has no block FOUND"
    CASES_FILE.write_text(text)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "--write", action="store_true", help="choose the cases again and write them to cuda_cases.py"
    )
    arguments = parser.parse_args()
    kinds = all_kinds()
    if arguments.write:
        found = [*proposals(kinds - reached(CHOSEN).keys())]
        write(found)
        runs = (*CHOSEN, *found)
    else:
        runs = RUNS
    by_kind = reached(runs)
    for kind in sorted(kinds):
        print(f"{', '.join(kind):130} {by_kind.get(kind, 'NOT REACHED')}")
    missing = kinds - by_kind.keys()
    for run in proposals(missing):
        print("proposed:", source_of(run).strip())
    seconds = sum(gpu_seconds(run.case, run.dtypes) for run in runs)
    print(
        f"{len(kinds)} kinds, {len(missing)} not reached, {len(runs)} problems, about {seconds:.0f} s on a GPU"
    )
    return int(bool(missing))


if __name__ == "__main__":
    sys.exit(main())
