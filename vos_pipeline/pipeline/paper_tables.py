"""Reproduce the tables of the paper: ablation, per-video against per-object nets, runtime, the challenge.

Each table needs runs of the pipeline under one folder, one run per variant. Existing runs and nets are reused, so a
further table computes only the missing ones.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import astuple, dataclass, field, replace
from pathlib import Path

from vos_pipeline.data import Sequence
from vos_pipeline.evaluation import Cell, Table
from vos_pipeline.files import replacing
from vos_pipeline.output_folder import KIND, TABLES, OutputFolder
from vos_pipeline.pipeline import paper_figures
from vos_pipeline.pipeline.outputs import report_data, write_submission
from vos_pipeline.pipeline.run_folder import RunResult
from vos_pipeline.pipeline.run_nets import TRAINED, net_files
from vos_pipeline.pipeline.stage_names import CRAF, FLOW, FOREGROUND, INSTANCE, REPEATED, SPN, TUNING
from vos_pipeline.pipeline.stages import run
from vos_pipeline.report import write_report
from vos_pipeline.settings import MODELS, Preset
from vos_pipeline.training import first_rank_first, join_process_group, process_rank

FULL, WITHOUT_TUNING, CHALLENGE = "full", "without-ft", "challenge"
RUNS = {  # per table; its report shows the first run
    "ablation": (FULL, WITHOUT_TUNING),
    "models": (FULL, *MODELS),
    "timing": (FULL,),
    "challenge": (CHALLENGE,),
}
VARIANTS = (FULL, WITHOUT_TUNING, *MODELS, CHALLENGE)  # folders in the folder of the tables
FILES = ("ablation", "ablation-per-object", "models", "timing", "challenge")
SUBMISSIONS = {
    CRAF: "submission.zip",
    SPN: "submission-without-craf.zip",
    FLOW: "submission-flow-filter.zip",
}
MEANS = ("J&F-Mean", "J-Mean", "J-Recall", "F-Mean", "F-Recall")
MOST_NAMED = 6  # sequences in a title
COLUMNS = ("", "J&F", "J", "J recall", "F", "F recall")

Runs = dict[str, RunResult]


def make_table(
    name: str,
    data: Path,
    sequences: list[Sequence],
    out: Path,
    preset: Preset,
    device: str = "cpu",
    overwrite: bool = False,
    train_sequences: list[Sequence] | None = None,
) -> None:
    """Make one table, print it, and write it as CSV, Markdown and a report.

    Args:
        name: one of ``vos_pipeline.settings.TABLES``.
        data: DAVIS root. Its train set trains the foreground nets unless ``train_sequences`` is given.
        sequences: sequences to segment.
        out: folder for ``<name>.csv``, ``<name>.md``, ``<name>.html`` and one run per variant. Existing runs are
            reused. The challenge table also writes submissions, with and without CRAF.
        preset: constants of the runs.
        device: device of the computation.
        overwrite: delete the files of earlier tables in ``out``, and compute everything again.
        train_sequences: sequences that train the foreground nets.

    Raises:
        PipelineError: ``out`` contains files that belong to no table, or runs with other constants or data.
    """
    variants = Variants(data, sequences, out, preset, join_process_group(device), train_sequences)
    with first_rank_first() as first:
        if first:
            _claim(out, overwrite, [Path(preset.chosen_refiner)])
    runs = {variant: variants.run(variant) for variant in RUNS[name]}  # all ranks share the work
    if process_rank()[0] != 0:
        return  # one rank reports for all
    what = _what_ours_are(variants)
    tables = {
        file: replace(table, title=f"{table.title}; ours: {what}")
        for file, table in MAKERS[name](runs).items()
    }
    _write_tables(tables, out)
    first_run = runs[RUNS[name][0]]
    if name == CHALLENGE:
        for stage, file in SUBMISSIONS.items():
            print(f"submission  {write_submission(out / file, sequences, first_run.label_dirs[stage])}")
    of_run = report_data(sequences, first_run, what)
    report = replace(of_run, tables=[*tables.values(), *of_run.tables])
    print(f"report      {write_report(out / f'{name}.html', report)}")


def _what_ours_are(variants: Variants) -> str:
    """Return a description of our runs for titles: sequences, preset, device."""
    names = [sequence.name for sequence in variants.sequences]
    of = ", ".join(names) if len(names) <= MOST_NAMED else f"{len(names)} sequences"
    return f"{of}; preset {variants.preset.name} on {variants.device}"


def _write_tables(tables: Mapping[str, Table], out: Path) -> None:
    for file, table in tables.items():
        print(table.markdown())
        for path, content in ((out / f"{file}.csv", table.csv()), (out / f"{file}.md", table.markdown())):
            with replacing(path) as handle:
                handle.write(content.encode())
            print(f"table       {path}")


def _claim(out: Path, overwrite: bool, inputs: list[Path]) -> None:
    """Claim the folder of all tables. Its contents are reused unless ``overwrite`` is set."""
    folder, runs = OutputFolder(out), [OutputFolder(out / name) for name in VARIANTS]
    if overwrite and folder.work().get(KIND) == TABLES:  # otherwise the runs are not ours
        for run_folder in runs:  # before the note that marks them as ours
            if run_folder.note.exists():
                run_folder.claim(overwrite=True, inputs=inputs)
    folder.claim(resume=folder.note.exists(), overwrite=overwrite, inputs=inputs)
    folder.identify(KIND, TABLES)
    folder.add(f"{table}.{suffix}" for table in FILES for suffix in ("csv", "md", "html"))
    folder.add(SUBMISSIONS.values())


# --- runs ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Variants:
    """Runs of the pipeline that differ in one setting, one folder each.

    ``out/full`` is the run of ``preset``. The other runs start from the nets that they share with it.
    """

    data: Path
    sequences: list[Sequence]
    out: Path
    preset: Preset
    device: str
    train_sequences: list[Sequence] | None = None
    results: Runs = field(default_factory=dict)  # by folder

    def run(self, variant: str) -> RunResult:
        """Return the run of one variant. All except "full" and "challenge" require an existing run "full".

        Args:
            variant: "full" or "challenge", the whole system; "without-ft", with a foreground net that never sees the
                first frames of the test videos; or one of ``vos_pipeline.settings.MODELS``, the ways to distinguish
                the objects of a video.
        """
        if variant in (FULL, CHALLENGE, self.preset.model):
            return self._run(CHALLENGE if variant == CHALLENGE else FULL, self.preset)
        if variant == WITHOUT_TUNING:
            untuned = replace(self.preset, first_frames=replace(self.preset.first_frames, steps=0))
            return self._run(variant, untuned, shared=[Path(TRAINED)])
        other = replace(self.preset, model=variant)
        return self._run(variant, other, shared=net_files(other, self.sequences))

    def _run(self, name: str, preset: Preset, shared: Iterable[Path] = ()) -> RunResult:
        """Run a variant, starting from the nets in ``shared`` that exist in the run "full"."""
        if name in self.results:
            return self.results[name]
        source = self.out / FULL / "nets"

        def copy_nets(target: Path) -> None:
            for net in shared:
                if (source / net).exists() and not (target / net).exists():
                    with replacing(target / net) as file:
                        file.write((source / net).read_bytes())

        self.results[name] = run(
            self.data,
            self.sequences,
            self.out / name,
            preset=preset,
            device=self.device,
            resume=True,
            train_sequences=self.train_sequences,
            copy_nets=copy_nets,
        )
        return self.results[name]


# --- tables ---------------------------------------------------------------------------------------------------


def ablation(runs: Runs) -> dict[str, Table]:
    """Return table 2: the whole system, and the system without CRAF, without the SPN and without fine-tuning."""
    full = runs[FULL]
    stages = {
        "-CRAF-SPN-FT": (runs[WITHOUT_TUNING], INSTANCE),
        "-CRAF-SPN": (full, INSTANCE),
        "-CRAF": (full, SPN),
        "full": (full, CRAF),
        "flow filter instead of CRAF": (full, FLOW),
        "first mask repeated": (full, REPEATED),
    }
    means = _means_table("Table 2, ablation", stages, paper_figures.ABLATION, "DAVIS 2017 validation set")
    objects = Table(
        "J of each object",
        ("object", *stages),
        [(name, *scores) for name, scores in _per_object(stages).items()],
    )
    return {"ablation": means, "ablation-per-object": objects}


def models(runs: Runs) -> dict[str, Table]:
    """Return table 1: one net for all objects of a video against one net per object, before SPN and CRAF."""
    stages = {model: (runs[model], INSTANCE) for model in MODELS}
    title = "Table 1, nets without SPN and CRAF"
    means = _means_table(title, stages, paper_figures.MODELS, "DAVIS 2017 validation set")
    seconds = [runs[model].seconds[INSTANCE] for model in MODELS] + [None] * len(paper_figures.MODELS)
    rows = [(*row, value) for row, value in zip(means.rows, seconds, strict=True)]
    return {"models": Table(means.title, (*means.header, "s/frame/object"), rows)}


def timing(runs: Runs) -> dict[str, Table]:
    """Return table 3: seconds per frame and object of every stage and of fine-tuning."""
    seconds = runs[FULL].seconds
    ours = (seconds[FOREGROUND], seconds[INSTANCE] - seconds[FOREGROUND], seconds[SPN], seconds[CRAF])
    papers = paper_figures.SECONDS
    rows: list[tuple[Cell, ...]] = [
        (name, own, paper) for (name, paper), own in zip(papers.items(), ours, strict=True)
    ]
    rows.append(("sum", sum(ours), sum(papers.values())))
    rows.append(("flow filter instead of CRAF", seconds[FLOW], None))
    rows.append((TUNING, seconds[TUNING], paper_figures.TUNING_SECONDS))
    return {"timing": Table("Table 3, seconds per frame and object", ("", "seconds", "seconds paper"), rows)}


def challenge(runs: Runs) -> dict[str, Table]:
    """Return table 4: the challenge with and without CRAF. Our rows need sequences with ground truth."""
    run = runs[CHALLENGE]
    stages = {"-CRAF": (run, SPN), "full": (run, CRAF), "flow filter instead of CRAF": (run, FLOW)}
    title = "Table 4, challenge"
    return {"challenge": _means_table(title, stages, paper_figures.CHALLENGE, "DAVIS 2017 challenge set")}


MAKERS: dict[str, Callable[[Runs], dict[str, Table]]] = {
    "ablation": ablation,
    "models": models,
    "timing": timing,
    "challenge": challenge,
}


def _means_table(
    title: str,
    stages: Mapping[str, tuple[RunResult, str]],
    paper: Mapping[str, paper_figures.Figures],
    papers_set: str,
) -> Table:
    """Return our means, then those of the paper, in the same order."""
    rows: list[tuple[Cell, ...]] = [(name, *_means(*of)) for name, of in stages.items()]
    rows += [(f"paper, {name}", *astuple(figures)) for name, figures in paper.items()]
    return Table(f"{title}: means over objects; paper: {papers_set}", COLUMNS, rows)


def _means(result: RunResult, stage: str) -> tuple[float | None, ...]:
    evaluation = result.evaluations[stage]
    means = evaluation.summary() if evaluation else {}
    return tuple(means.get(name) for name in MEANS)


def _per_object(stages: Mapping[str, tuple[RunResult, str]]) -> dict[str, list[float]]:
    scores: dict[str, list[float]] = {}
    for result, stage in stages.values():
        evaluation = result.evaluations[stage]
        for name, j, _ in evaluation.per_object() if evaluation else ():
            scores.setdefault(name, []).append(j)
    return scores
