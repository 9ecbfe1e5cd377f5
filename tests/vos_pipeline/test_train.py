"""The training loop and the foreground net's two stages."""

import dataclasses
import io
from contextlib import contextmanager
from urllib.error import URLError

import numpy as np
import pytest
import torch

from vos_pipeline import train as training
from vos_pipeline.augment import Affine, Augmentation
from vos_pipeline.data import Sequence
from vos_pipeline.errors import PipelineError
from vos_pipeline.files import replacing
from vos_pipeline.images import write_image, write_labels
from vos_pipeline.model import ForegroundNet
from vos_pipeline.presets import PRESETS, Schedule, get_preset

SCHEDULE = Schedule(steps=6, batch=2, learning_rate=3e-3, average=0.5, checkpoint_every=2)
TINY = dataclasses.replace(
    PRESETS["small"],
    height=32,
    foreground=SCHEDULE,
    first_frames=SCHEDULE,
    instance=SCHEDULE,
    foreground_augmentation=Augmentation(Affine(), color=0.1),
)


@pytest.fixture
def sequence(tmp_path):
    labels = np.zeros((48, 64), np.uint8)
    labels[10:30, 20:50] = 1
    frame = np.where(labels[..., None] > 0, np.uint8([230, 60, 30]), np.uint8([40, 90, 60]))
    paths = []
    for t in range(3):
        write_image(tmp_path / f"{t}.png", np.roll(frame, 4 * t, 1))
        write_labels(tmp_path / f"mask{t}.png", np.roll(labels, 4 * t, 1))
        paths.append((tmp_path / f"{t}.png", tmp_path / f"mask{t}.png"))
    frames, masks = zip(*paths, strict=True)
    return Sequence("square", frames, masks)


def batches(step):
    generator = torch.Generator().manual_seed(step)
    images = torch.rand(2, 3, 4, 4, generator=generator).repeat_interleave(8, 2).repeat_interleave(8, 3)
    return images, (images[:, 0] > 0.5).long()


def trained(checkpoint, schedule=SCHEDULE, batches=batches, **options):
    torch.manual_seed(0)
    return training.train(
        ForegroundNet("small"), batches, schedule, checkpoint=checkpoint, title="test", **options
    )


def same_weights(one, other):
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


PAPER = get_preset("paper")


class Killed(Exception):
    pass


@pytest.mark.parametrize(
    ("optimizer", "killed_at", "precision"),
    [("adamw", 1, "float32"), ("adamw", 3, "bfloat16"), ("sgd", 3, "float32"), ("adamw", 3, "float16")],
)
def test_resumes_to_the_same_weights(tmp_path, optimizer, killed_at, precision):
    schedule = dataclasses.replace(SCHEDULE, optimizer=optimizer)
    unbroken = trained(tmp_path / "unbroken.pt", schedule, precision=precision)

    def until_killed(step):
        if step == killed_at:
            raise Killed
        return batches(step)

    with pytest.raises(Killed):
        trained(tmp_path / "net.pt", schedule, batches=until_killed, precision=precision)
    assert same_weights(trained(tmp_path / "net.pt", schedule, resume=True, precision=precision), unbroken)


def test_a_finished_training_is_loaded(tmp_path):
    net = trained(tmp_path / "net.pt")

    def never(step):
        raise AssertionError

    assert same_weights(trained(tmp_path / "net.pt", resume=True, batches=never), net)


def test_without_resume_it_starts_over(tmp_path):
    steps = []
    trained(tmp_path / "net.pt")
    trained(tmp_path / "net.pt", batches=lambda step: steps.append(step) or batches(step))
    assert steps == list(range(6))


def test_it_learns(tmp_path):
    net = trained(tmp_path / "net.pt", dataclasses.replace(SCHEDULE, steps=60, average=0.0))
    images, target = batches(1000)
    with torch.no_grad():
        assert ((net(images).argmax(1) == target).float().mean()) > 0.8


def test_a_broken_checkpoint_says_what_to_do(tmp_path):
    (tmp_path / "net.pt").write_bytes(b"half a file")
    with pytest.raises(PipelineError, match="delete it"):
        trained(tmp_path / "net.pt", resume=True)


@pytest.mark.parametrize("reason", [OSError("disk full"), KeyboardInterrupt()], ids=repr)
def test_a_write_that_is_broken_off_leaves_the_old_checkpoint(reason, tmp_path, monkeypatch):
    training.save_checkpoint(tmp_path / "net.pt", {"step": 1})

    class Failing(io.BytesIO):
        def write(self, data):
            if self.tell():
                raise reason
            return super().write(data)

    @contextmanager
    def failing(path):
        with replacing(path):
            yield Failing()

    monkeypatch.setattr(training, "replacing", failing)
    with pytest.raises(type(reason)) as caught:
        training.save_checkpoint(tmp_path / "net.pt", {"step": 2})
    assert caught.value is reason
    assert training.load_checkpoint(tmp_path / "net.pt", "cpu") == {"step": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["net.pt"]


def test_learning_rates():
    halve = get_preset("paper").instance
    rates = [training.learning_rate(halve, step) for step in (0, 9_999, 10_000, 29_999)]
    assert rates == pytest.approx([1e-8, 1e-8, 5e-9, 2.5e-9])
    cosine = dataclasses.replace(SCHEDULE, steps=1000)
    assert training.learning_rate(cosine, 500) == pytest.approx(cosine.learning_rate / 2)
    assert training.learning_rate(cosine, 0) < training.learning_rate(cosine, 49)
    constant = get_preset("paper").foreground
    assert training.learning_rate(constant, 0) == training.learning_rate(constant, 99_999) == 1e-8


def test_the_head_learns_at_a_rate_of_its_own(tmp_path):
    torch.manual_seed(0)
    before = ForegroundNet("small")
    net = trained(tmp_path / "net.pt", dataclasses.replace(SCHEDULE, head_factor=0.0, average=0.0))
    assert torch.equal(net.head.weight, before.head.weight)
    assert not torch.equal(net.features.stem[0].weight, before.features.stem[0].weight)


def test_the_average_lags_behind_the_weights():
    net, average = torch.nn.Linear(1, 1, bias=False), torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.ones_(net.weight)
    torch.nn.init.zeros_(average.weight)
    training.update_average(average, net, 0.9, step=10_000)
    assert average.weight.item() == pytest.approx(0.1)
    training.update_average(average, net, 0.0, step=10_000)
    assert average.weight.item() == 1


def test_foreground_stages(sequence, tmp_path):
    net = training.train_foreground([sequence], TINY, "cpu", tmp_path / "nets")
    assert (tmp_path / "nets" / "foreground.pt").exists()
    before = [p.clone() for p in net.parameters()]
    tuned = training.finetune_foreground(net, [sequence], TINY, "cpu", tmp_path / "nets" / "tuned.pt")
    assert all(torch.equal(a, b) for a, b in zip(before, net.parameters(), strict=True))
    assert not same_weights(net, tuned)


def test_nothing_to_train_on(tmp_path):
    with pytest.raises(PipelineError, match="at least one sequence"):
        training.train_foreground([], TINY, "cpu", tmp_path)


def test_unknown_preset():
    with pytest.raises(PipelineError, match="paper, small, demo"):
        get_preset("large")


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_half_the_precision_is_nearly_the_same_step(tmp_path, precision):
    schedule = dataclasses.replace(SCHEDULE, steps=1, average=0.0, optimizer="sgd", learning_rate=1e-2)
    torch.manual_seed(0)
    start = ForegroundNet("small").head.weight
    full = trained(tmp_path / "full.pt", schedule).head.weight - start
    half = trained(tmp_path / "half.pt", schedule, precision=precision).head.weight
    assert half.dtype == torch.float32
    assert not torch.equal(half - start, full)
    assert (half - start - full).norm() < 0.1 * full.norm()


def test_a_rank_with_half_of_the_batch_makes_up_for_the_mean_over_ranks(tmp_path):
    """Ranks average their gradients, where a summed loss wants their sum."""
    moved = {}
    for size in (2, 4):  # of the whole batch; `batches` gives this rank 2 images
        schedule = Schedule(
            steps=1, batch=size, learning_rate=1e-4, optimizer="sgd", decay="constant", reduction="sum"
        )
        schedule = dataclasses.replace(schedule, weight_decay=0.0)
        torch.manual_seed(0)
        start = ForegroundNet("small").head.weight
        moved[size] = trained(tmp_path / f"{size}.pt", schedule).head.weight - start
    torch.testing.assert_close(moved[4], 2 * moved[2], rtol=1e-3, atol=1e-6)


def test_the_net_is_compiled_if_asked(tmp_path, monkeypatch):
    compiled = []
    monkeypatch.setattr(torch, "compile", lambda net: compiled.append(net) or net)
    trained(tmp_path / "net.pt")
    assert not compiled
    assert compiled == [trained(tmp_path / "net.pt", compiled=True)]


def test_batches_are_made_one_ahead_and_in_order():
    made = []

    def noting(step):
        made.append(step)
        return step

    for step, batch in training.made_ahead(noting, range(3, 8)):
        assert batch == step
        assert made[-1] <= step + 1
    assert made == [3, 4, 5, 6, 7]


def test_an_error_in_a_batch_surfaces_at_its_step(tmp_path):
    def fails(step):
        if step == 2:
            raise PipelineError("frame 2 is damaged")
        return batches(step)

    with pytest.raises(PipelineError, match="frame 2"):
        trained(tmp_path / "net.pt", batches=fails)
    assert training.load_checkpoint(tmp_path / "net.pt", "cpu")["step"] == 2


def test_one_step_of_the_papers_net(sequence, tmp_path):
    preset = dataclasses.replace(
        get_preset("paper"), pretrained=False, foreground=dataclasses.replace(PAPER.foreground, steps=1)
    )
    torch.manual_seed(preset.seed)
    before = training.initial_net(preset)
    net = training.train_foreground([sequence], preset, "cpu", tmp_path)
    moved = [not torch.equal(a, b) for a, b in zip(before.parameters(), net.parameters(), strict=True)]
    assert all(moved) and len(moved) == 104 + 4  # convolutions; the fused one and the head have biases
    assert all(p.isfinite().all() for p in net.parameters())
    with torch.no_grad():
        assert net(torch.rand(1, 3, 48, 64)).shape == (1, 2, 48, 64)


def test_a_known_net_asks_for_no_imagenet_weights(monkeypatch):
    def offline(*args, **kwargs):
        raise URLError("no network")

    monkeypatch.setattr("torchvision.models.ResNet101_Weights.get_state_dict", offline)
    with pytest.raises(PipelineError, match="ImageNet weights"):
        training.initial_net(PAPER)
    assert training.initial_net(PAPER, known=True).head.out_channels == 2


@pytest.mark.parametrize(
    ("field", "value"), [("model", "per-pixel"), ("precision", "float8")], ids=["model", "precision"]
)
def test_a_preset_names_its_choices(field, value):
    with pytest.raises(PipelineError, match=f"unknown {field} '{value}': choose one of"):
        dataclasses.replace(PAPER, **{field: value})


def test_the_papers_constants():
    foreground, instance = PAPER.foreground, PAPER.instance
    assert (foreground.steps, instance.steps, instance.halve_every) == (100_000, 30_000, 10_000)
    assert {s.learning_rate for s in (foreground, PAPER.first_frames, instance)} == {1e-8}
    assert {s.batch for s in (foreground, PAPER.first_frames, instance)} == {1}
    assert {s.reduction for s in (foreground, PAPER.first_frames, instance)} == {"sum"}
    assert PAPER.instance_augmentation.samples == 1000
    assert (PAPER.backbone, PAPER.height, PAPER.joint, PAPER.model) == ("resnet101", None, True, "per-object")
