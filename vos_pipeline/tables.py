"""The paper's tables with our figures beside its own: ablation, per-video against per-object, seconds.

Each table comes from runs of the pipeline under ``--out``, one folder a variant. Runs and nets that are there
already are reused, so one table after the other costs only what is new in it.
"""

from __future__ import annotations

import argparse
import csv
import io
import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from vos_pipeline.errors import PipelineError
from vos_pipeline.files import replacing

# Everything heavy is imported when a table is made: --help starts without torch.
if TYPE_CHECKING:
    from vos_pipeline.data import Sequence
    from vos_pipeline.presets import Preset
    from vos_pipeline.run_folder import RunResult

# J&F, J, F of table 2, measured on DAVIS 2017 test-dev.
PAPER_ABLATION = {
    "full": (0.576, 0.540, 0.611),
    "-CRAF": (0.537, 0.506, 0.568),
    "-CRAF-SPN": (0.481, 0.457, 0.504),
    "-CRAF-SPN-FT": (0.448, 0.442, 0.453),
}
PAPER_MODELS = {"per-video": 0.460, "per-object": 0.481}  # J&F of table 1
PAPER_SECONDS = {"foreground net": 0.3, "instance net": 0.3, "SPN": 0.08, "CRAF": 0.1}  # table 3


# --- command line -------------------------------------------------------------------------------------------


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``tables``."""
    parser.add_argument("table", choices=TABLES, help="table 2, 1 or 3 of the paper")
    parser.add_argument("--data", type=Path, required=True, metavar="ROOT", help="a DAVIS root")
    parser.add_argument(
        "--out",
        type=Path,
        required=True,
        metavar="DIR",
        help="for <table>.csv, <table>.md and a run a variant; what is there is reused",
    )
    parser.add_argument(
        "--sets", nargs="+", default=["2017/val"], metavar="YEAR/SET", help="default: 2017/val"
    )
    parser.add_argument("--sequences", nargs="+", metavar="NAME", help="only these of the sets")
    parser.add_argument("--preset", default="small", help="paper, small or demo (default: %(default)s)")
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1, ... (default: %(default)s)")
    parser.add_argument(
        "--precision", choices=("float32", "bfloat16", "float16"), default="float32", help="of the nets"
    )
    parser.add_argument(
        "--compile", action="store_true", help="let torch.compile make the training's kernels"
    )


def main_tables(args: argparse.Namespace) -> None:
    """Make one table, print it, and write it as CSV and markdown."""
    from vos_pipeline.presets import get_preset
    from vos_pipeline.train import join_process_group, process_rank

    device = join_process_group(args.device)
    sequences = load_sets(args.data, args.sets, args.sequences)
    preset = replace(get_preset(args.preset), precision=args.precision, compile=args.compile)
    variants = Variants(args.data, sequences, args.out, preset, device)
    tables = TABLES[args.table](variants)
    if process_rank()[0] != 0:
        return  # one rank tells what all of them did
    for table in tables:
        print(table.markdown())
        for path in table.write(args.out):
            print(f"table   {path}")
    print(f"report  {_write_report(args.out / f'{args.table}.html', variants, tables)}")


def _write_report(path: Path, variants: Variants, tables: list[Table]) -> Path:
    """The page of the whole system's run, these tables first."""
    from vos_pipeline.outputs import report_data
    from vos_pipeline.report import write_report

    data = report_data(variants.sequences, variants.full(), f"{variants.preset.name} preset")
    own = [(table.title, list(table.header), table.numbers()) for table in tables]
    return write_report(path, replace(data, tables=[*own, *data.tables]))


def load_sets(root: Path, sets: list[str], names: list[str] | None) -> list[Sequence]:
    """The sequences of several sets of one root, or those of them that are named."""
    from vos_pipeline.data import load_davis

    found: dict[str, Sequence] = {}
    for spec in sets:
        year, separator, set_name = spec.partition("/")
        if not separator:
            raise PipelineError(f"--sets takes YEAR/SET such as 2017/val, got {spec!r}")
        found |= {sequence.name: sequence for sequence in load_davis(root, year, set_name)}
    unknown = [name for name in names or () if name not in found]
    if unknown:
        raise PipelineError(f"no sequence {unknown[0]!r} in {', '.join(sets)}; there are {', '.join(found)}")
    return [found[name] for name in names or found]


# --- runs ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Variants:
    """Runs of the pipeline that differ in one thing, in folders side by side.

    ``out/full`` is the run of ``preset`` itself; the others start from those of its nets that they share.
    """

    data: Path
    sequences: list[Sequence]
    out: Path
    preset: Preset
    device: str

    def full(self) -> RunResult:
        """The whole system."""
        return self._run("full", self.preset)

    def without_fine_tuning(self) -> RunResult:
        """The foreground net never sees the first frames of the test videos."""
        self.full()
        preset = replace(self.preset, first_frames=replace(self.preset.first_frames, steps=0))
        return self._run("without-ft", preset, shared=("foreground.pt",))

    def of_model(self, model: str) -> RunResult:
        """Another way to tell the objects of a video apart."""
        if model == self.preset.model:
            return self.full()
        self.full()
        shared = ("foreground.pt", "first-frames.pt", "*/foreground.pt", "*/object-*.pt")
        return self._run(model, replace(self.preset, model=model), shared)

    def _run(self, name: str, preset: Preset, shared: tuple[str, ...] = ()) -> RunResult:
        from vos_pipeline import pipeline
        from vos_pipeline.train import process_rank

        if process_rank()[0] == 0:
            for pattern in shared:
                self._copy_nets(pattern, self.out / name / "nets")
        return pipeline.run(
            self.data, self.sequences, self.out / name, preset=preset, device=self.device, resume=True
        )

    def _copy_nets(self, pattern: str, target: Path) -> None:
        source = self.out / "full" / "nets"
        for path in source.glob(pattern):
            copy = target / path.relative_to(source)
            if not copy.exists():
                with replacing(copy) as file:
                    file.write(path.read_bytes())


# --- tables -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Table:
    """Rows under a header, as text for a terminal, markdown and CSV; a None is a figure that is not known."""

    name: str
    title: str
    header: tuple[str, ...]
    rows: list[tuple[str | float | None, ...]]

    def markdown(self) -> str:
        """The title and the table, columns aligned."""
        cells = [[_text(value) for value in row] for row in (self.header, *self.rows)]
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        lines = []
        for row in cells:
            numbers = (cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))
            lines.append(f"| {' | '.join((row[0].ljust(widths[0]), *numbers))} |")
        rule = [f":{'-' * (widths[0] - 1)}", *(f"{'-' * (width - 1)}:" for width in widths[1:])]
        lines.insert(1, f"| {' | '.join(rule)} |")
        return "\n".join((f"{self.title}\n", *lines, ""))

    def numbers(self) -> list[list[str | float]]:
        """The rows with NaN for what is not known."""
        return [[math.nan if value is None else value for value in row] for row in self.rows]

    def write(self, folder: Path) -> tuple[Path, Path]:
        """Write <name>.csv and <name>.md into a folder; returns their paths."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(self.header)
        writer.writerows([["" if value is None else value for value in row] for row in self.rows])
        contents = {folder / f"{self.name}.csv": text.getvalue(), folder / f"{self.name}.md": self.markdown()}
        for path, content in contents.items():
            with replacing(path) as file:
                file.write(content.encode())
        return tuple(contents)


def ablation(variants: Variants) -> list[Table]:
    """Table 2: the whole system, and what is left of it without CRAF, the SPN, the fine-tuning."""
    from vos_pipeline.run_folder import CRAF, INSTANCE, REPEATED, SPN

    full, without = variants.full(), variants.without_fine_tuning()
    stages = {
        "full": (full, CRAF),
        "-CRAF": (full, SPN),
        "-CRAF-SPN": (full, INSTANCE),
        "-CRAF-SPN-FT": (without, INSTANCE),
        "first mask repeated": (full, REPEATED),
    }
    ours = {name: _means(result, stage) for name, (result, stage) in stages.items()}
    nothing = (None, None, None)
    rows = [(name, *ours[name], *PAPER_ABLATION.get(name, nothing)) for name in stages]
    header = ("", "J&F", "J", "F", "J&F paper", "J paper", "F paper")
    title = "Table 2, ablation: means over objects; the paper's are of DAVIS 2017 test-dev"
    objects = Table(
        "ablation-per-object",
        "J of each object",
        ("object", *stages),
        [(name, *scores) for name, scores in _per_object(stages).items()],
    )
    return [Table("ablation", title, header, rows), objects]


def models(variants: Variants) -> list[Table]:
    """Table 1: one net for all objects of a video against one net each, before SPN and CRAF."""
    from vos_pipeline.presets import MODELS
    from vos_pipeline.run_folder import INSTANCE

    rows = []
    for model in MODELS:
        result = variants.of_model(model)
        rows.append((model, *_means(result, INSTANCE), result.seconds[INSTANCE], PAPER_MODELS.get(model)))
    header = ("", "J&F", "J", "F", "s/frame/object", "J&F paper")
    title = "Table 1, nets without SPN and CRAF: means over objects; the paper's are of DAVIS 2017 test-dev"
    return [Table("models", title, header, rows)]


def timing(variants: Variants) -> list[Table]:
    """Table 3: seconds a frame and object of every stage."""
    from vos_pipeline.run_folder import CRAF, FOREGROUND, INSTANCE, SPN

    seconds = variants.full().seconds
    ours = (seconds[FOREGROUND], seconds[INSTANCE] - seconds[FOREGROUND], seconds[SPN], seconds[CRAF])
    rows = [(name, own, paper) for (name, paper), own in zip(PAPER_SECONDS.items(), ours, strict=True)]
    rows.append(("sum", sum(ours), sum(PAPER_SECONDS.values())))
    title = f"Table 3, seconds a frame and object: preset {variants.preset.name} on {variants.device}"
    return [Table("timing", title, ("", "seconds", "seconds paper"), rows)]


TABLES = {"ablation": ablation, "models": models, "timing": timing}


def _means(result: RunResult, stage: str) -> tuple[float | None, ...]:
    evaluation = result.evaluations[stage]
    if evaluation is None:
        return (None, None, None)
    means = evaluation.summary()
    return tuple(means[name] for name in ("J&F-Mean", "J-Mean", "F-Mean"))


def _per_object(stages: dict[str, tuple[RunResult, str]]) -> dict[str, list[float]]:
    scores: dict[str, list[float]] = {}
    for result, stage in stages.values():
        evaluation = result.evaluations[stage]
        for name, j, _ in evaluation.per_object() if evaluation else ():
            scores.setdefault(name, []).append(j)
    return scores


def _text(value: str | float | None) -> str:
    if isinstance(value, str):
        return value
    return "-" if value is None or math.isnan(value) else f"{value:.3f}"
