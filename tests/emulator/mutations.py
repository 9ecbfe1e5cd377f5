"""Faults that the tests must detect: every removed barrier, and mutations of the kernels' source.

``python tests/emulator/mutations.py [--markdown]`` prints every fault and the error that detects it.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch
from cases import Case, check, check_wanted
from kernel_emulator import FAST, ROOT, SLOW, Build, KernelError, Machine, Mutation

from benchmarks.tables import markdown_head, markdown_row


def barriers() -> list[str]:
    """Return the name of every barrier in the kernels' source: forward.h:B0 for a block, forward.h:W0 for a warp."""
    found = []
    for path in sorted((ROOT / "csrc" / "cuda").glob("*.h")):
        if path.name == "simt.h":
            continue
        for kind, number in re.findall(r"SPN_(WARP_)?BARRIER\((\d+)\)", path.read_text()):
            found.append(f"{path.name}:{'W' if kind else 'B'}{number}")
    return found


MUTATIONS = (
    Mutation("restarts.h", "t0 == 0 ? 1 : 0", "0", "the first line has taps"),
    Mutation("restarts.h", "(every - static_cast<unsigned>(t0) % every) % every", "0",
             "sweeps restart at the start of each tile"),
    Mutation("forward_lines.h", "Taps<T>{load(before - 1), h, load(before + 1)}",
             "Taps<T>{load(before + 1), h, load(before - 1)}", "the two neighbour taps are swapped"),
    Mutation("forward.h", "store(carry + (parity ^ 1) * positions, h)", "store(carry + parity * positions, h)",
             "the carried line is overwritten while it is read"),
    Mutation("forward.h", "plan.stages == 2", "false", "two tiles use the same buffer"),
    Mutation("forward.h", "in.checkpoints && t0 + kLines < in.sweep.lines",
             "in.checkpoints && t0 + kLines <= in.sweep.lines", "an unneeded checkpoint line is saved"),
    Mutation("forward.h", "!first && inside", "inside && t0 > 0", "a run continues from another run's state"),
    Mutation("forward.h", "++d, turn ^= 1", "++d", "a sweep's pointers are overwritten while they are read"),
    Mutation("segments.h", "positions <= threads ? 0 : kLines", "positions <= threads ? 0 : kLines / 2",
             "the halo is half as wide"),
    Mutation("tile.h", "copy_wait<1>()", "copy_wait<2>()", "a tile is used before its copy completes"),
    Mutation("tile.h", "line >= 0 && line < lines", "line >= 0 && line <= lines", "a column outside the map is read"),
    Mutation("tile.h", "copy_async<kPiece * sizeof(V)>(place(turn, to), plane + offset_of(turn), counts)",
             "copy_async<kPiece * sizeof(V)>(place(turn, to), plane + offset_of(turn), true)",
             "pieces outside the map are read (asynchronous copy)"),
    Mutation("tile.h", "counts ? load_piece<kPiece>(from) : Pack<V, kPiece>{}", "load_piece<kPiece>(from)",
             "pieces outside the map are read (plain load)"),
    Mutation("forward.h", "in.target.direction == 0", "in.target.direction == 1",
             "a plane is loaded on chip one sweep late"),
    Mutation("result.h", "value <= best", "value < best", "a tie selects the last direction"),
    Mutation("result.h", "target.direction > 1", "target.direction > 2", "the argmax of the first two sweeps is lost"),
    Mutation("backward_lines.h", "load(minus + 1) + v.p[k].zero * a[k] + load(plus - 1)",
             "load(minus - 1) + v.p[k].zero * a[k] + load(plus + 1)", "the adjoint taps are swapped"),
    Mutation("backward_lines.h", "!first", "false", "a group's gradient is only that of its last channel"),
    Mutation("backward_lines.h", "!decltype(any)::value || !(starts_here >> k & 1)", "true",
             "gates of the first line get gradients"),
    Mutation("backward.h", "in.sweep_ends && item.t0 + kLines >= in.end_line",
             "item.t0 + kLines >= in.sweep.lines", "a run receives another run's adjoint"),
    Mutation("backward.h", "item.last_of_gates()", "item.first_of_gates()",
             "gate gradients are stored before the last channel"),
    Mutation("backward.h", "in.carries && owns", "in.carries && inside",
             "halo positions overwrite another segment's line"),
    Mutation("backward_planes.h", "!first_sweep", "false", "a sweep's contribution to grad_x is dropped"),
    Mutation("backward_planes.h", "memory.keeps(array)", "true", "a plane that is not on chip is read"),
    Mutation("backward_stage.h", "in.direction == 0",
             "in.direction == 0 && in.x == static_cast<const S*>(b.x) + blockIdx.x * plan.channels * b.plane()",
             "planes of the previous task are used"),
    Mutation("backward_stage.h", "memory.template plane<V>(array, channel)", "memory.template plane<V>(array, 0)",
             "channels share one plane"),
    Mutation("backward.h", "in.direction + 1 == b.directions", "in.direction + 2 == b.directions",
             "grad_x is stored before the last sweep"),
    Mutation("resident.h", "line < lines", "line <= lines", "a line outside the map is read"),
    Mutation("merge.h", "k < parts", "k + 1 < parts", "one part of a sum is skipped"),
    Mutation("backward_sweep.h", "plan.chunks == 1", "true", "a chunk ignores the adjoint of the next chunk"),
    Mutation("backward_sweep.h", "plan.runs > 1 ? run.first : chunk.first", "0",
             "a chunk also processes earlier chunks"),
    Mutation("parts.h", "s.line_stride < 0 ? s.lines - chunk.end : chunk.first", "chunk.first",
             "parts of a mirrored sweep are misplaced"),
    Mutation("backward_stage.h", "b.reads_hidden()", "true", "an unneeded checkpoint is read"),
    Mutation("backward.h", "b.grad_source && item.last_of_source()", "in.source && item.last_of_source()",
             "a gradient that was not requested is stored"),
    Mutation("kernels.cu", "plan.split && b.grad_x", "plan.split",
             "parts of a gradient that was not requested are summed"),
)  # fmt: skip
# These cost time alone: the counts of test_traffic.py have to notice them.
NO_SPREAD = Mutation("tile.h", "row / kRowsOfBanks % kPiecesOfRow * kTogether", "0", "bank conflicts")
EVEN_ROWS = Mutation(
    "resident.h", "make_sweep(static_cast<Direction>(d), p.height, p.width, plan.resident_pitch)",
    "make_sweep(static_cast<Direction>(d), p.height, p.width)", "bank conflicts",
)  # fmt: skip
PLANTED = Build(mutations=(*MUTATIONS, NO_SPREAD, EVEN_ROWS))


def ties(machine: Machine) -> None:
    """Check that the first direction is selected if all directions are equal."""
    x, gates = torch.randn(1, 1, 9, 20), torch.zeros(1, 4, 3, 1, 9, 20)
    _, winner, _ = machine.propagate(x, gates, None, "four_way", "none", "max", True)
    assert not winner.any(), "a tie does not select the first direction"


def frozen(machine: Machine) -> None:
    """Check each gradient alone, for channels that share gates."""
    case = Case(20, 39, channels=4, gate_groups=1, source_groups=2)
    alone = ((True, False, False), (False, True, False), (False, False, True))
    for multiprocessors, speed in ((1, SLOW), (1000, FAST)):
        check_wanted(case, replace(machine, multiprocessors=multiprocessors, bytes_per_clock=speed), *alone)


def nan_stays(machine: Machine) -> None:
    """Check that nothing crosses a restart, not even a NaN, which a weight of zero would not remove."""
    x, gates = torch.randn(1, 1, 40, 40), torch.rand(1, 1, 3, 1, 40, 40)
    x[..., 21, 5] = float("nan")
    options = ("top_to_bottom", "abs", "none")
    out, _, saved = machine.propagate(x, gates, None, *options, True, 10)
    grad_x, grad_gates, _ = machine.propagate_backward(
        out, x, gates, None, None, saved, *options, restart_every=10
    )
    for found in (out, grad_x, grad_gates):
        nans = found.isnan().flatten(0, -3).any(0)
        assert nans[21].any() and not nans[:20].any() and not nans[30:].any(), "a NaN crosses a restart"


# These cases cover lines across warps, segments, all or some planes on chip, channels that share gates, alone and in
# parts, one and two stages, several tasks per block, parts in chunks of lines, and restarts, in one piece and in runs.
CASES = (
    (Case(37, 40, channels=1, gate_groups=1), Machine()),
    (Case(20, 100, channels=2, gate_groups=1), Machine(threads=96)),
    (
        Case(32, 18, channels=2, gate_groups=1, source_groups=2),
        Machine(multiprocessors=100, bytes_per_clock=FAST),
    ),
    (Case(70, 41, channels=1, gate_groups=1), Machine(shared_bytes=33000)),
    (Case(70, 41, channels=1, gate_groups=1), Machine(shared_bytes=58000)),
    (
        Case(40, 70, channels=4, gate_groups=1, source_groups=1),
        Machine(multiprocessors=16, bytes_per_clock=FAST, least_room=400_000),
    ),
    (Case(50, 37, gate_groups=1, restart_every=5), Machine()),
    (
        Case(50, 70, gate_groups=1, restart_every=8),
        Machine(multiprocessors=1000, bytes_per_clock=FAST, threads=64),
    ),
    (Case(2, 32, batch=9, channels=18, gate_groups=1), Machine(shared_bytes=40250, blocks=4)),
)


def noticed(**changes) -> Iterator[str]:
    """Yield the errors that the changes to the machine cause, one per failing case."""
    calls = [partial(check, case, replace(machine, **changes)) for case, machine in CASES]
    calls += [partial(other, Machine(**changes)) for other in (ties, frozen, nan_stays)]
    for call in calls:
        try:
            call()
        except KernelError as error:
            yield re.sub(r",? \(block.*|,? at \S+", "", str(error))
        except (AssertionError, RuntimeError):
            yield "wrong result"


def everything() -> Iterator[tuple[str, str, str | None]]:
    """(where, what, what noticed it first)"""
    for barrier in barriers():
        yield barrier, "barrier removed", next(noticed(without_barrier=barrier), None)
    for number, mutation in enumerate(MUTATIONS):
        yield mutation.file, mutation.meaning, next(noticed(build=PLANTED, fault=number), None)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "--markdown", action="store_true", help="print a Markdown table, as in docs/cuda_kernels.md"
    )
    arguments = parser.parse_args()
    missed = 0
    if arguments.markdown:
        print(markdown_head(("file", "fault", "detected as")))
    for where, what, how in everything():
        missed += how is None
        row = (where, what, how or "NOT NOTICED")
        print(markdown_row(row) if arguments.markdown else "{:22} {:50} {}".format(*row), flush=True)
    return int(missed > 0)


if __name__ == "__main__":
    sys.exit(main())
