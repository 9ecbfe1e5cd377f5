"""The paper's tables with our figures beside its own: ablation, per-video against per-object, seconds.

Each table comes from runs of the pipeline under one folder, one run per variant. Runs and nets that are there
already are reused, so one table after the other costs only what is new in it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from vos_pipeline.data import Sequence
from vos_pipeline.evaluation import Cell, Table
from vos_pipeline.files import replacing
from vos_pipeline.output_folder import KIND, TABLES, OutputFolder
from vos_pipeline.pipeline.outputs import report_data
from vos_pipeline.pipeline.run_folder import CRAF, FOREGROUND, INSTANCE, REPEATED, SPN, RunResult
from vos_pipeline.pipeline.stages import run
from vos_pipeline.report import write_report
from vos_pipeline.settings import MODELS, Preset
from vos_pipeline.training import first_rank_first, join_process_group, process_rank

# J&F, J, F of table 2, measured on DAVIS 2017 test-dev.
PAPER_ABLATION = {
    "full": (0.576, 0.540, 0.611),
    "-CRAF": (0.537, 0.506, 0.568),
    "-CRAF-SPN": (0.481, 0.457, 0.504),
    "-CRAF-SPN-FT": (0.448, 0.442, 0.453),
}
PAPER_MODELS = {"per-video": 0.460, "per-object": 0.481}  # J&F of table 1
FILES = ("ablation", "ablation-per-object", "models", "timing")
PAPER_SECONDS = {"foreground net": 0.3, "instance net": 0.3, "SPN": 0.08, "CRAF": 0.1}  # table 3


def make_table(
    name: str,
    data: Path,
    sequences: list[Sequence],
    out: Path,
    preset: Preset,
    device: str = "cpu",
    overwrite: bool = False,
) -> None:
    """Make one table, print it, and write it as CSV, markdown and a report.

    Args:
        name: one of ``vos_pipeline.settings.TABLES``.
        data: a DAVIS root; its train set is what foreground nets are trained on.
        sequences: what to segment.
        out: for ``<name>.csv``, ``<name>.md``, ``<name>.html`` and one run per variant; what is there is reused.
        preset: constants of the runs.
        device: where to compute.
        overwrite: remove what earlier tables left in ``out``, and make everything anew.

    Raises:
        PipelineError: ``out`` holds files that are of no table, or runs with other constants or data.
    """
    variants = Variants(data, sequences, out, preset, join_process_group(device))
    with first_rank_first() as first:
        if first:
            _claim(out, overwrite)
    tables, full = MAKERS[name](variants), variants.full()
    if process_rank()[0] != 0:
        return  # one rank tells what all of them did
    for file, table in tables.items():
        print(table.markdown())
        for path, content in ((out / f"{file}.csv", table.csv()), (out / f"{file}.md", table.markdown())):
            with replacing(path) as handle:
                handle.write(content.encode())
            print(f"table   {path}")
    of_run = report_data(sequences, full, f"{preset.name} preset")
    report = replace(of_run, tables=[*tables.values(), *of_run.tables])
    print(f"report  {write_report(out / f'{name}.html', report)}")


def _claim(out: Path, overwrite: bool) -> None:
    """Claim the folder of all tables; what it holds is reused unless it is to be overwritten."""
    folder, runs = OutputFolder(out), [OutputFolder(out / name) for name in ("full", "without-ft", *MODELS)]
    if overwrite and folder.work().get(KIND) == TABLES:  # else the runs are not ours
        for run_folder in runs:  # before the note that says so
            if run_folder.note.exists():
                run_folder.claim(overwrite=True)
    folder.claim(resume=folder.note.exists(), overwrite=overwrite)
    folder.identify(KIND, TABLES)
    folder.add(f"{table}.{suffix}" for table in FILES for suffix in ("csv", "md", "html"))


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
        """The run of a variant, which starts from the nets of the full one whose files match ``shared``."""
        source = self.out / "full" / "nets"

        def copy_nets(target: Path) -> None:
            for path in (path for pattern in shared for path in source.glob(pattern)):
                copy = target / path.relative_to(source)
                if not copy.exists():
                    with replacing(copy) as file:
                        file.write(path.read_bytes())

        return run(
            self.data,
            self.sequences,
            self.out / name,
            preset=preset,
            device=self.device,
            resume=True,
            copy_nets=copy_nets,
        )


# --- tables ---------------------------------------------------------------------------------------------------


def ablation(variants: Variants) -> dict[str, Table]:
    """Table 2: the whole system, and what is left of it without CRAF, the SPN, the fine-tuning."""
    full, without = variants.full(), variants.without_fine_tuning()
    stages = {
        "full": (full, CRAF),
        "-CRAF": (full, SPN),
        "-CRAF-SPN": (full, INSTANCE),
        "-CRAF-SPN-FT": (without, INSTANCE),
        "first mask repeated": (full, REPEATED),
    }
    unknown = (None, None, None)
    means = Table(
        "Table 2, ablation: means over objects; the paper's are of DAVIS 2017 test-dev",
        ("", "J&F", "J", "F", "J&F paper", "J paper", "F paper"),
        [(name, *_means(*of), *PAPER_ABLATION.get(name, unknown)) for name, of in stages.items()],
    )
    objects = Table(
        "J of each object",
        ("object", *stages),
        [(name, *scores) for name, scores in _per_object(stages).items()],
    )
    return {"ablation": means, "ablation-per-object": objects}


def models(variants: Variants) -> dict[str, Table]:
    """Table 1: one net for all objects of a video against one net each, before SPN and CRAF."""
    rows: list[tuple[Cell, ...]] = []
    for model in MODELS:
        result = variants.of_model(model)
        rows.append((model, *_means(result, INSTANCE), result.seconds[INSTANCE], PAPER_MODELS.get(model)))
    header = ("", "J&F", "J", "F", "s/frame/object", "J&F paper")
    title = "Table 1, nets without SPN and CRAF: means over objects; the paper's are of DAVIS 2017 test-dev"
    return {"models": Table(title, header, rows)}


def timing(variants: Variants) -> dict[str, Table]:
    """Table 3: seconds per frame and object of every stage."""
    seconds = variants.full().seconds
    ours = (seconds[FOREGROUND], seconds[INSTANCE] - seconds[FOREGROUND], seconds[SPN], seconds[CRAF])
    rows = [(name, own, paper) for (name, paper), own in zip(PAPER_SECONDS.items(), ours, strict=True)]
    rows.append(("sum", sum(ours), sum(PAPER_SECONDS.values())))
    title = f"Table 3, seconds per frame and object: preset {variants.preset.name} on {variants.device}"
    return {"timing": Table(title, ("", "seconds", "seconds paper"), rows)}


MAKERS: dict[str, Callable[[Variants], dict[str, Table]]] = {
    "ablation": ablation,
    "models": models,
    "timing": timing,
}


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
