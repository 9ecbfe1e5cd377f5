"""benchmarks.refiner.quality: tuning of the alternatives, measures, and the commands of the README."""

import json
import re
import shlex
import time
from itertools import product
from pathlib import Path

import numpy as np
import pytest

from benchmarks.refiner.alternatives import Alternative
from benchmarks.refiner.quality import SEQUENCES, Case, main, measure, score, seconds_a_frame, tuned
from vos_pipeline.data import write_image, write_labels

README = Path(__file__).parents[2] / "README.md"
TRUTH = np.zeros((480, 854), bool)
TRUTH[100:300, 200:500] = True


def case(sequence="a", scores=TRUTH):
    return Case("1/16", sequence, np.zeros((480, 854, 3), np.float32), scores.astype(np.float32), TRUTH)


def test_f2_tolerates_two_pixels_and_f_eight():
    for shift, f, f2 in ((2, 1, 1), (3, 1, 0), (8, 1, 0), (9, 0, 0)):
        moved = np.roll(TRUTH, (shift, shift), (0, 1))
        _, contour, within_two = score(TRUTH, moved.astype(np.float32))
        assert (contour > 0.9) == f and (within_two > 0.9) == f2, shift


def test_measures_are_averaged_over_frames_then_over_sequences():
    half = TRUTH.copy()
    half[:, 350:] = False
    tests = [case("a"), case("a", half), case("b", half)]
    rows = measure(tests, lambda image, scores: scores)
    assert [(row["sequence"], round(row["J"], 3)) for row in rows] == [
        ("a", 0.75),
        ("b", 0.5),
        ("mean", 0.625),
    ]


def test_time_is_the_fastest_call():
    pauses = iter((0.05, 0.001, 0.05))
    seconds = seconds_a_frame(lambda image, scores: time.sleep(next(pauses)), case(), threads=1, repeats=3)
    assert 0.001 <= seconds < 0.05


def test_an_alternative_gets_the_best_of_its_grid():
    alternative = Alternative(
        lambda image, scores, shift, gain: np.roll(scores, int(shift), 1) * gain,
        {"shift": (-5, 0, 5), "gain": (0.4, 1.0)},
        lambda: True,
    )
    assert len(alternative.settings()) == 6
    assert tuned(alternative, [case()]) == {"shift": 0, "gain": 1.0}


COMMANDS = re.findall(r"^ +python -m benchmarks\.refiner\.quality (.*)", README.read_text(), re.MULTILINE)


@pytest.mark.parametrize("command", COMMANDS)
def test_the_commands_of_the_readme_run(command, tmp_path, monkeypatch, capsys):
    sets = {f"{year}/val": names for year, names in SEQUENCES.items()} | {"2016/train": ("bear",)}
    for year_and_set, names in sets.items():
        listed = tmp_path / "DAVIS/ImageSets" / f"{year_and_set}.txt"
        listed.parent.mkdir(parents=True, exist_ok=True)
        listed.write_text("\n".join(names))
        for name, t in product(names, range(3)):
            mask = np.zeros((64, 96), np.uint8)
            mask[16:48, 24 : 60 + t] = 1
            write_image(tmp_path / f"DAVIS/JPEGImages/480p/{name}/{t:05d}.jpg", np.dstack([200 * mask] * 3))
            for folder in ("DAVIS/Annotations/480p", "OSVOS"):
                write_labels(tmp_path / folder / name / f"{t:05d}.png", mask)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["quality", *shlex.split(command), "--json", "results.json"])
    main()
    printed, record = capsys.readouterr().out, json.loads((tmp_path / "results.json").read_text())
    for kind in ["1/16", "1/32"] + ["predictions"] * ("OSVOS" in command):
        (mean,) = (
            row
            for row in record["table"]
            if (row["kind"], row["method"], row["sequence"]) == (kind, "SPN refiner", "mean")
        )
        assert 0.5 < mean["J"] <= 1 and re.search(rf"{kind} +SPN refiner +{mean['J']:.3f} ", printed)
        assert re.search(rf"{kind} +SPN refiner +[\d.]+ s per frame", printed)
