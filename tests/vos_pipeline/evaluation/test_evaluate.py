"""evaluate: official CSV files, clear errors, sequences of any length."""

import csv

import numpy as np
import pytest
from PIL import Image

from vos_pipeline.data import write_image, write_labels
from vos_pipeline.errors import PipelineError
from vos_pipeline.evaluation import evaluate


def square(x, label=1, size=(40, 60)):
    labels = np.zeros(size, np.uint8)
    labels[10:20, x : x + 10] = label
    return labels


def write_sequence(root, name, maps):
    for t, labels in enumerate(maps):
        write_labels(root / "Annotations/480p" / name / f"{t:05d}.png", labels)
    listing = root / "ImageSets/2017/val.txt"
    listing.parent.mkdir(parents=True, exist_ok=True)
    with listing.open("a") as file:
        file.write(name + "\n")


def write_results(folder, name, maps):
    for t, labels in enumerate(maps):
        write_labels(folder / name / f"{t:05d}.png", labels)


@pytest.fixture
def case(tmp_path):
    """Write two sequences: a perfect result with two objects, and one object shifted by half its width."""
    root, results = tmp_path / "davis", tmp_path / "results"
    two = [square(5 + t) + square(40, 2) for t in range(6)]
    write_sequence(root, "two", two)
    write_results(results, "two", two)
    write_sequence(root, "one", [square(5)] * 6)
    write_results(results, "one", [square(10)] * 6)
    return root, results


def read_csv(path):
    with path.open(newline="") as file:
        return list(csv.reader(file))


def test_official_files(case):
    root, results = case
    evaluate(root, results).write(results, "val")
    header, values = read_csv(results / "global_results-val.csv")
    assert header == ["J&F-Mean", "J-Mean", "J-Recall", "J-Decay", "F-Mean", "F-Recall", "F-Decay"]
    rows = read_csv(results / "per-sequence_results-val.csv")
    assert rows[0] == ["Sequence", "J-Mean", "F-Mean"]
    assert [row[0] for row in rows[1:]] == ["two_1", "two_2", "one_1"]
    assert rows[1][1:] == rows[2][1:] == ["1.000", "1.000"]
    # A shift by half: J = 5 / 15. All objects have equal weight, independent of their sequence.
    assert rows[3][1] == "0.333"
    assert values[1] == f"{(1 + 1 + 1 / 3) / 3:.3f}" and values[2] == "0.667" and values[3] == "0.000"
    j, f = float(values[1]), float(values[4])
    assert float(values[0]) == pytest.approx((j + f) / 2, abs=0.001)
    assert b"\r" not in (results / "global_results-val.csv").read_bytes()


def test_returned_figures_and_frames(case):
    evaluation = evaluate(*case, processes=1)
    assert evaluation.objects["one_1"].j.shape == (4,)  # without the first and the last frame
    assert evaluation.summary()["J-Mean"] == pytest.approx((2 + 1 / 3) / 3)
    assert evaluation.per_object()[0] == ("two_1", 1.0, 1.0)


def test_first_and_last_result_are_not_scored(case):
    root, results = case
    before = evaluate(root, results).summary()
    for t in (0, 5):
        (results / f"one/{t:05d}.png").unlink()
    assert evaluate(root, results).summary() == before


def test_void_in_the_ground_truth_is_background(tmp_path):
    root, results = tmp_path / "davis", tmp_path / "results"
    write_sequence(root, "s", [square(5) + square(30, 255)] * 3)
    write_results(results, "s", [square(5)] * 3)
    assert evaluate(root, results).summary()["J&F-Mean"] == 1
    write_results(results, "s", [square(5) + square(30)] * 3)
    assert evaluate(root, results).summary()["J-Mean"] == 0.5


def test_objects_are_those_of_the_first_frame(tmp_path):
    root, results = tmp_path / "davis", tmp_path / "results"
    write_sequence(root, "s", [square(5), square(5) + square(30, 2), square(5)])
    write_results(results, "s", [square(5)] * 3)
    assert list(evaluate(root, results).objects) == ["s_1"]


def test_an_absent_object_that_is_not_found_scores_one(tmp_path):
    root, results = tmp_path / "davis", tmp_path / "results"
    nothing = np.zeros((40, 60), np.uint8)
    write_sequence(root, "s", [square(5), nothing, square(5)])
    write_results(results, "s", [square(5), nothing, square(5)])
    assert evaluate(root, results).summary()["J&F-Mean"] == 1


def test_more_than_256_frames(tmp_path):
    root, results = tmp_path / "davis", tmp_path / "results"
    write_sequence(root, "long", [square(5)] * 300)
    write_results(results, "long", [square(5)] * 150 + [square(30)] * 150)
    evaluate(root, results).write(results, "val")
    values = read_csv(results / "global_results-val.csv")[1]
    assert values[1] == f"{149 / 298:.3f}" and values[3] == "1.000" and "nan" not in values


def test_2016_ground_truth_accepts_2016_and_palette_results(tmp_path):
    root, results = tmp_path / "davis", tmp_path / "results"
    write_sequence(root, "s", [square(5)] * 4)
    for path in (root / "Annotations/480p/s").iterdir():
        Image.fromarray(square(5, 255)).save(path)
    write_results(results, "s", [square(5)] * 4)
    Image.fromarray(square(5, 255)).save(results / "s/00002.png")
    assert evaluate(root, results).summary()["J&F-Mean"] == 1


def test_sequences_can_be_chosen(case):
    assert list(evaluate(*case, sequences=["one"]).objects) == ["one_1"]
    with pytest.raises(PipelineError, match="no sequence 'three'"):
        evaluate(*case, sequences=["three"])


def spoil_missing(results):
    (results / "one/00003.png").unlink()


def spoil_size(results):
    write_labels(results / "one/00003.png", square(5, size=(20, 60)))


def spoil_label(results):
    write_labels(results / "one/00003.png", square(5, label=7))


def spoil_void(results):
    write_labels(results / "one/00003.png", square(5) + square(30, 255))


def spoil_colour(results):
    Image.new("RGB", (60, 40), "red").save(results / "one/00003.png")


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (spoil_missing, "no such file"),
        (spoil_size, "is 60x20, but the ground truth is 60x40"),
        (spoil_label, r"contains label 7, but the objects of this sequence are \(1,\)"),
        (spoil_void, "contains label 255"),
        (spoil_colour, r"a mask must be .* got a colour image \(RGB\)"),
    ],
)
@pytest.mark.parametrize("processes", [1, None])
def test_a_bad_result_is_an_error(case, spoil, why, processes):
    root, results = case
    spoil(results)
    with pytest.raises(PipelineError, match=r"one/00003\.png: " + why) as error:
        evaluate(root, results, processes=processes)
    assert "\n" not in str(error.value)


def save_grey(results, maps, name="one"):
    for t, values in enumerate(maps):
        Image.fromarray(values).save(results / f"{name}/{t:05d}.png")


def test_grey_results_of_0_and_255_are_one_object(case):
    root, results = case
    expected = evaluate(root, results).summary()
    save_grey(results, [square(10, 255)] * 6)
    assert evaluate(root, results).summary() == expected


def test_results_with_an_antialiased_boundary_are_one_object(case):
    root, results = case
    expected = evaluate(root, results).summary()
    soft = square(10, 255)
    soft[9, 10:20], soft[20, 10:20] = np.arange(20, 120, 10), np.arange(30, 130, 10)
    save_grey(results, [square(10, 255)] * 3 + [soft] * 3)
    assert evaluate(root, results).summary() == expected


def test_all_results_of_a_sequence_decide_what_255_means(case):
    """255 is not an object if other results have labels, so it is an error even in a frame without labels."""
    root, results = case
    save_grey(results, [square(10)] * 3 + [square(10, 255)] * 3)
    with pytest.raises(PipelineError, match=r"one/00003\.png: contains label 255"):
        evaluate(root, results)


def test_a_missing_result_among_grey_ones_is_named(case):
    root, results = case
    save_grey(results, [square(10, 255)] * 6)
    (results / "one/00003.png").unlink()
    with pytest.raises(PipelineError, match=r"one/00003\.png: no such file"):
        evaluate(root, results)


def test_missing_folders_are_named(case, tmp_path):
    root, results = case
    with pytest.raises(PipelineError, match="nowhere: no such folder of results"):
        evaluate(root, tmp_path / "nowhere")
    (root / "ImageSets/2017/val.txt").write_text("ghost\n")
    with pytest.raises(PipelineError, match="ghost: no such folder"):
        evaluate(root, results)


def test_too_short_a_sequence_is_named(tmp_path):
    write_sequence(tmp_path / "davis", "s", [square(5)] * 2)
    write_results(tmp_path / "results", "s", [square(5)] * 2)
    with pytest.raises(PipelineError, match=r"s: .* needs 3 frames or more, got 2"):
        evaluate(tmp_path / "davis", tmp_path / "results")


# --- the ground truth ---------------------------------------------------------------------------------------


def test_frames_are_scored_in_natural_order(tmp_path):
    root, results = tmp_path / "davis", tmp_path / "results"
    maps = [square(2 + 3 * t) for t in range(12)]
    write_sequence(root, "s", maps)
    write_results(results, "s", maps)
    write_labels(results / "s/00011.png", square(49))  # the last frame, which is not scored
    for folder in (root / "Annotations/480p/s", results / "s"):
        for path in folder.iterdir():
            path.rename(path.with_name(f"{int(path.stem)}.png"))
    evaluation = evaluate(root, results)
    assert evaluation.summary()["J&F-Mean"] == 1 and len(evaluation.objects["s_1"].j) == 10


def test_masks_may_have_suffixes_in_capitals(case):
    root, results = case
    before = evaluate(root, results).summary()
    for path in (root / "Annotations/480p/one").iterdir():
        path.rename(path.with_suffix(".PNG"))
    assert evaluate(root, results).summary() == before


def frames_of(root, name, count):
    for t in range(count):
        write_image(root / f"JPEGImages/480p/{name}/{t:05d}.jpg", np.zeros((40, 60, 3), np.uint8))


@pytest.mark.parametrize("frames", [0, 6])
def test_a_missing_mask_is_named(case, frames):
    root, results = case
    frames_of(root, "one", frames)
    (root / "Annotations/480p/one/00003.png").unlink()
    with pytest.raises(
        PipelineError, match=r"Annotations/480p/one/00003\.png: .* is missing \(1 missing in all\)"
    ):
        evaluate(root, results)


def test_a_missing_last_mask_is_known_by_its_frame(case):
    root, results = case
    frames_of(root, "one", 6)
    (root / "Annotations/480p/one/00005.png").unlink()
    with pytest.raises(PipelineError, match=r"one/00005\.png: this ground-truth mask is missing"):
        evaluate(root, results)


@pytest.mark.parametrize("frames", [0, 6])
def test_a_test_set_has_no_masks_to_score_against(case, frames):
    root, results = case
    frames_of(root, "one", frames)
    for t in range(1, 6):
        (root / f"Annotations/480p/one/{t:05d}.png").unlink()
    with pytest.raises(
        PipelineError, match=r"480p/one: contains only 00000\.png, so results cannot be scored"
    ):
        evaluate(root, results)
    assert not list(results.glob("*.csv"))


@pytest.mark.parametrize("names", [{"set_name": "../val"}, {"year": "../2017"}])
def test_names_with_paths_are_refused(case, names):
    with pytest.raises(PipelineError, match="is not a plain name"):
        evaluate(*case, **names)
