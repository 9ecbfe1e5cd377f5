"""Tables of the paper, next to our results."""

import csv
import json
import re
import zipfile
from dataclasses import astuple
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import tiny
from davis_cases import files_in

from vos_pipeline import __main__ as cli
from vos_pipeline.pipeline import paper_figures, paper_tables, run_nets, stages
from vos_pipeline.settings import PRESETS, TABLES
from vos_pipeline.training.checkpoint import load_checkpoint

pytestmark = pytest.mark.slow


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setattr(stages, "load_refiner", lambda name, device: tiny.Unrefined())
    monkeypatch.setitem(PRESETS, "tiny", tiny.TINY)
    return tiny.write_root(tmp_path / "davis")


def make(table, root, out, *options):
    """Make a table with the command line; return the exit code."""
    options = ("--sets", "2017/val", "2016/val", "--preset", "tiny", *options)
    return cli.main(["tables", table, "--data", str(root), "--out", str(out), *options])


def read(path):
    with path.open(newline="") as file:
        return list(csv.reader(file))


def trained(monkeypatch):
    """Record the files of the nets trained from now on."""
    files = []

    def noting(train, checkpoint_at):
        def call(*args, **options):
            net = train(*args, **options)
            if load_checkpoint(args[checkpoint_at])["step"]:
                files.append(str(args[checkpoint_at]))
            return net

        return call

    for name, checkpoint_at in (("train_foreground", 2), ("tune_foreground", 3), ("train_instance", 4)):
        monkeypatch.setattr(run_nets, name, noting(getattr(run_nets, name), checkpoint_at))
    return files


def test_ablation_has_our_rows_and_then_the_papers(root, tmp_path, capsys):
    make("ablation", root, tmp_path / "out")
    header, *rows = read(tmp_path / "out" / "ablation.csv")
    assert header == ["", "J&F", "J", "J recall", "F", "F recall"]
    variants = ["-CRAF-SPN-FT", "-CRAF-SPN", "-CRAF", "full"]
    ours = [*variants, "flow filter instead of CRAF", "first mask repeated"]
    assert [row[0] for row in rows] == [*ours, *(f"paper, {v}" for v in variants)]
    # 18 columns wide, moved by 6 and 12: J = 12 / 24 and 6 / 30. The last frame is not scored. Recall counts J > 0.5.
    assert float(rows[5][2]) == pytest.approx((12 / 24 + 6 / 30) / 2) and float(rows[5][3]) == 0
    for row in rows[:6]:
        assert float(row[1]) == pytest.approx((float(row[2]) + float(row[4])) / 2)
    _, *objects = read(tmp_path / "out" / "ablation-per-object.csv")
    assert [row[0] for row in objects] == ["pair_1", "pair_2", "single_1"]
    assert np.mean([float(row[4]) for row in objects]) == pytest.approx(float(rows[3][2]))
    page = (tmp_path / "out" / "ablation.md").read_text()
    assert (
        page in capsys.readouterr().out and "validation set; ours: pair, single; preset tiny on cpu" in page
    )
    report = (tmp_path / "out" / "ablation.html").read_text()
    assert "Table 2, ablation" in report and "0.448" in report and "data:image" in report


def test_the_papers_figures_agree_with_one_another():
    """The figures are copied by hand. A global mean must be the mean of J and F, and the tables must agree."""
    tables = (paper_figures.MODELS, paper_figures.ABLATION, paper_figures.CHALLENGE)
    for figures in (figures for table in tables for figures in table.values()):
        if figures.j_and_f is not None:
            assert figures.j_and_f == pytest.approx((figures.j + figures.f) / 2, abs=0.00051)
    assert paper_figures.MODELS["per-object"] == paper_figures.ABLATION["-CRAF-SPN"]
    for better, worse in pairwise(reversed(paper_figures.ABLATION.values())):
        assert all(a > b for a, b in zip(astuple(better), astuple(worse), strict=True))
    assert paper_figures.CHALLENGE["full"].j_and_f == paper_figures.CHALLENGE_RANKING[5]  # sixth
    assert list(paper_figures.CHALLENGE_RANKING) == sorted(paper_figures.CHALLENGE_RANKING, reverse=True)


def test_without_fine_tuning_the_shared_foreground_net_is_unchanged(root, tmp_path, monkeypatch):
    names = trained(monkeypatch)
    make("ablation", root, tmp_path / "out")
    nets = [name.split("out/")[1] for name in names]
    assert nets.count("full/nets/foreground.pt") == 1
    assert "full/nets/pair/foreground.pt" in nets
    again = [name for name in nets if name.startswith("without-ft")]
    assert sorted(again) == ["without-ft/nets/pair/per-video.pt", "without-ft/nets/single/object-1.pt"]


def test_models_train_only_what_differs(root, tmp_path, monkeypatch):
    make("timing", root, tmp_path / "out")
    names = trained(monkeypatch)
    make("models", root, tmp_path / "out")
    nets = sorted(name.split("out/")[1] for name in names)
    assert nets == [
        "per-object/nets/pair/object-1.pt",
        "per-object/nets/pair/object-2.pt",
    ]
    header, *rows = read(tmp_path / "out" / "models.csv")
    assert header[-1] == "s/frame/object"
    models = ("per-video", "per-object")
    assert [row[0] for row in rows] == [*models, *(f"paper, {model}" for model in models)]
    assert [bool(row[-1]) for row in rows] == [True, True, False, False]


def test_timing_adds_up(root, tmp_path):
    make("timing", root, tmp_path / "out")
    _, *rows = read(tmp_path / "out" / "timing.csv")
    stages = ["foreground net", "instance net", "SPN", "CRAF"]
    assert [row[0] for row in rows] == [*stages, "sum", "flow filter instead of CRAF", "fine-tuning"]
    seconds = [float(row[1]) for row in rows]
    assert all(value > 0 for value in seconds)
    assert sum(seconds[:4]) == pytest.approx(seconds[4])


def test_fine_tuning_time_includes_all_nets_per_frame_and_object(root, tmp_path):
    make("timing", root, tmp_path / "out")
    nets = tmp_path / "out" / "full" / "nets"
    files = ("pair/foreground.pt", "pair/per-video.pt", "single/foreground.pt", "single/object-1.pt")
    total = sum(load_checkpoint(nets / file)["seconds"] for file in files)
    seconds = {row[0]: row[1] for row in read(tmp_path / "out" / "timing.csv")}
    # Three frames after the first one, with two objects and with one.
    assert float(seconds["fine-tuning"]) == pytest.approx(total / (3 * 2 + 3 * 1))


def test_the_challenge_writes_submissions_with_and_without_craf(root, tmp_path, capsys):
    """The nets are trained on train and val, without the sequences under test."""
    assert make("challenge", root, tmp_path / "out", "--train-sets", "2016/train", "2016/val") == 0
    assert "submission-without-craf.zip" in capsys.readouterr().out
    run = tmp_path / "out" / "challenge"
    assert list(json.loads((run / "run.json").read_text())["work"]["training data"]) == ["other"]
    for file, stage in (
        ("submission.zip", "craf"),
        ("submission-without-craf.zip", "spn"),
        ("submission-flow-filter.zip", "flow"),
    ):
        with zipfile.ZipFile(tmp_path / "out" / file) as archive:
            assert sorted(archive.namelist()) == [
                f"{name}/{t:05d}.png" for name in ("pair", "single") for t in range(4)
            ]
            expected = run / "labels" / stage / "pair" / "00002.png"
            assert archive.read("pair/00002.png") == expected.read_bytes()
    _, *rows = read(tmp_path / "out" / "challenge.csv")
    assert [row[0] for row in rows] == [
        "-CRAF",
        "full",
        "flow filter instead of CRAF",
        "paper, -CRAF",
        "paper, full",
    ]


def test_a_table_reuses_existing_runs(root, tmp_path, monkeypatch):
    make("ablation", root, tmp_path / "out")
    before = (tmp_path / "out" / "ablation.csv").read_bytes()

    def never(*args, **kwargs):
        raise AssertionError

    monkeypatch.setattr(stages, "_segment", never)
    make("ablation", root, tmp_path / "out")
    assert (tmp_path / "out" / "ablation.csv").read_bytes() == before


def test_other_constants_in_the_same_folder_are_refused(root, tmp_path, capsys):
    assert make("timing", root, tmp_path / "out", "--sequences", "single") == 0
    assert make("timing", root, tmp_path / "out", "--sequences", "single", "--precision", "bfloat16") == 1
    assert "another --out" in capsys.readouterr().err


def test_missing_scores_are_shown_as_a_dash(root, tmp_path):
    for t in range(1, 4):
        (root / "Annotations" / "480p" / "single" / f"{t:05d}.png").unlink()
    make("ablation", root, tmp_path / "out", "--sequences", "single")
    assert read(tmp_path / "out" / "ablation.csv")[4] == ["full", *[""] * 5]
    assert re.search(r"\| full +\| +- \|", (tmp_path / "out" / "ablation.md").read_text())


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--sequences", "nowhere"), "no sequence 'nowhere' in 2017/val, 2016/val; available: pair, single"),
    ],
)
def test_wrong_options(root, tmp_path, options, says, capsys):
    assert make("timing", root, tmp_path / "out", *options) == 1
    assert says in capsys.readouterr().err


def test_tables_replace_no_file_of_the_user(root, tmp_path, capsys):
    out = tmp_path / "out"
    out.mkdir()
    (out / "timing.csv").write_text("mine")
    assert make("timing", root, out) == 1
    assert "out holds files that belong to no run (timing.csv)" in capsys.readouterr().err
    assert make("timing", root, out, "--overwrite") == 1
    assert "timing.csv: exists already and does not belong to this run" in capsys.readouterr().err
    assert files_in(out)[Path("timing.csv")] == b"mine"


def test_overwrite_makes_tables_again(root, tmp_path, monkeypatch):
    out = tmp_path / "out"
    make("models", root, out)
    make("timing", root, out)
    (out / "full/nets/mine.pt").write_text("mine")
    names = trained(monkeypatch)
    assert make("timing", root, out, "--resume") == 0 and not names  # --resume is the default
    assert make("timing", root, out, "--overwrite") == 0
    assert {Path(name).parts[-3] for name in names if "pair" in name} == {"nets"}
    assert sorted(path.name for path in out.iterdir()) == [
        *("full", "per-object", "run.json", "timing.csv", "timing.html", "timing.md")
    ]
    # Variants that were not computed again keep only the note.
    assert [path.name for path in (out / "per-object").iterdir()] == ["run.json"]
    assert (out / "full/nets/mine.pt").read_text() == "mine"


def test_tables_keep_runs_of_other_commands(root, tmp_path, capsys):
    out = tmp_path / "out"
    options = ["--data", str(root), "--preset", "tiny", "--year", "2016"]
    assert cli.main(["davis", *options, "--out", str(out / "full")]) == 0
    before = {path: content for path, content in files_in(out).items() if path.name != "run.json"}
    assert make("timing", root, out) == 1
    assert make("timing", root, out, "--overwrite") == 0  # as the error message suggested
    after = files_in(out)
    assert "out holds files that belong to no run (full)" in capsys.readouterr().err
    assert {path: after.get(path) for path in before} == before


@pytest.mark.parametrize("table", TABLES)
def test_every_rank_makes_the_same_runs(root, tmp_path, monkeypatch, table):
    """A run that only one rank starts waits for the other ranks forever."""
    runs = {0: [], 1: []}
    for rank, names in runs.items():
        with monkeypatch.context() as patch:
            patch.setattr(paper_tables, "process_rank", lambda rank=rank: (rank, 2))
            make_one = paper_tables.run
            patch.setattr(
                paper_tables,
                "run",
                lambda *args, names=names, make_one=make_one, **options: (
                    names.append(args[2].name),
                    make_one(*args, **options),
                )[1],
            )
            assert make(table, root, tmp_path / f"rank{rank}", "--train-sets", "2016/train") == 0
    assert runs[0] == runs[1] and len(set(runs[0])) == len(runs[0]) > 0
    assert not list((tmp_path / "rank1").glob("*.html"))


def test_every_table_option_has_a_maker():
    assert set(paper_tables.MAKERS) == set(paper_tables.RUNS) == set(TABLES)
