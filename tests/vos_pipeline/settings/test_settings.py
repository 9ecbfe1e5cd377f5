"""Presets and schedules."""

import dataclasses

import pytest

from vos_pipeline.errors import PipelineError
from vos_pipeline.settings import SPN_PRESETS, NetSchedule, Schedule, SPNTraining, get_preset

PAPER = get_preset("paper")


def test_constant_and_halved_rates():
    halved = [PAPER.instance.rate(step) for step in (0, 9_999, 10_000, 29_999)]
    assert halved == pytest.approx([1e-8, 1e-8, 5e-9, 2.5e-9])
    assert PAPER.foreground.rate(0) == PAPER.foreground.rate(99_999) == 1e-8


def test_cosine_rates_after_a_warm_up():
    schedule = Schedule(steps=1000, batch=1, learning_rate=2.0, warmup=50)
    assert schedule.rate(500) == pytest.approx(1.0)
    assert schedule.rate(24) == pytest.approx(1.0, rel=0.01)
    assert schedule.rate(0) == pytest.approx(0.04)
    rates = [schedule.rate(step) for step in range(50, 1000)]
    assert rates == sorted(rates, reverse=True) and rates[-1] < 1e-4


def test_the_rate_of_the_refiner_ends_at_one_hundredth():
    schedule = SPNTraining()
    assert schedule.rate(99) == pytest.approx(2e-3, rel=1e-3)
    assert schedule.rate(49) == pytest.approx(1e-3, rel=1e-3)
    assert schedule.rate(8_999) == pytest.approx(2e-5, rel=1e-3)


def test_poly_rates_are_a_power_of_the_remaining_steps():
    schedule = Schedule(steps=100, batch=1, learning_rate=2.0, decay="poly", power=0.5)
    assert [schedule.rate(step) for step in (0, 75, 99)] == pytest.approx([2.0, 1.0, 0.2])
    assert dataclasses.replace(schedule, power=1.0).rate(75) == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("kind", "options", "says"),
    [
        (Schedule, {"decay": "polly"}, "unknown decay 'polly': choose one of cosine, halve, poly, constant$"),
        (Schedule, {"optimizer": "adam"}, "unknown optimizer 'adam': choose one of adamw, sgd$"),
        (Schedule, {"decay": "halve"}, "decay 'halve' needs halve_every >= 1, got 0$"),
        (NetSchedule, {"decay": "halve"}, "decay 'halve' needs halve_every >= 1, got 0$"),
        (NetSchedule, {"reduction": "none"}, "unknown reduction 'none': choose one of mean, sum$"),
        (SPNTraining, {"optimizer": "adam"}, "unknown optimizer 'adam': choose one of adamw, sgd$"),
        (SPNTraining, {"guidance": "vgg"}, "unknown guidance 'vgg': choose one of lite, lite-image, vgg16$"),
        (SPNTraining, {"form": "convex"}, "unknown form 'convex': choose one of embedded, direct$"),
        (SPNTraining, {"precision": "half"}, "unknown precision 'half': choose one of float32, bfloat16"),
        (SPNTraining, {"convex": True}, "is for the direct form, got 'embedded': add --form direct"),
    ],
)
def test_invalid_names_and_values_are_refused(kind, options, says):
    with pytest.raises(PipelineError, match=says):
        kind(**{"steps": 1, "batch": 1, "learning_rate": 1.0, **options})


def test_the_refiner_of_the_paper():
    paper = SPN_PRESETS["paper"]
    assert (paper.guidance, paper.form, paper.convex, paper.size) == ("vgg16", "direct", False, 256)
    assert (paper.optimizer, paper.momentum, paper.decay, paper.power) == ("sgd", 0.9, "poly", 0.5)
    assert (paper.boundary_weight, paper.warmup, paper.clip, paper.average) == (0, 0, None, 0)
    assert (paper.rate(0), paper.rate(37_500)) == pytest.approx((1e-4, 5e-5))
    assert SPN_PRESETS["lite"] == SPNTraining() and SPNTraining().scratch_factor == 1


def test_the_constants_of_the_small_preset():
    small = get_preset("small")
    schedules = (small.foreground, small.first_frames, small.instance)
    assert [s.steps for s in schedules] == [2000, 300, 600]
    assert [s.learning_rate for s in schedules] == [3e-3, 1.5e-3, 2e-3]
    assert {(s.batch, s.optimizer, s.warmup, s.balance, s.reduction) for s in schedules} == {
        (4, "adamw", 50, 0.5, "mean")
    }
    assert (small.height, small.joint, small.model) == (240, False, "per-video")


def test_unknown_preset():
    with pytest.raises(PipelineError, match="paper, small, demo"):
        get_preset("large")


@pytest.mark.parametrize(
    ("field", "value"), [("model", "per-pixel"), ("precision", "float8")], ids=["model", "precision"]
)
def test_an_unknown_choice_is_refused(field, value):
    with pytest.raises(PipelineError, match=f"unknown {field} '{value}': choose one of"):
        dataclasses.replace(PAPER, **{field: value})


def test_the_constants_of_the_paper():
    foreground, instance = PAPER.foreground, PAPER.instance
    assert (foreground.steps, instance.steps, instance.halve_every) == (100_000, 30_000, 10_000)
    assert {s.learning_rate for s in (foreground, PAPER.first_frames, instance)} == {1e-8}
    assert {s.batch for s in (foreground, PAPER.first_frames, instance)} == {1}
    assert {s.reduction for s in (foreground, PAPER.first_frames, instance)} == {"sum"}
    assert PAPER.instance_augmentation.samples == 1000
    assert (PAPER.backbone, PAPER.height, PAPER.joint, PAPER.model) == ("resnet101", None, True, "per-object")
