import dataclasses

import numpy as np
import pytest
import torch

from vos_pipeline import train as training
from vos_pipeline.augment import Affine, Augmentation
from vos_pipeline.data import Sequence, write_image, write_labels
from vos_pipeline.errors import PipelineError
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


def trained(checkpoint, schedule=SCHEDULE, resume=False, batches=batches):
    torch.manual_seed(0)
    return training.train(
        ForegroundNet("small"), batches, schedule, checkpoint=checkpoint, resume=resume, title="test"
    )


def same_weights(one, other):
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


class Killed(Exception):
    pass


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
@pytest.mark.parametrize("killed_at", [1, 3])
def test_resumes_to_the_same_weights(tmp_path, optimizer, killed_at):
    schedule = dataclasses.replace(SCHEDULE, optimizer=optimizer)
    unbroken = trained(tmp_path / "unbroken.pt", schedule)

    def until_killed(step):
        if step == killed_at:
            raise Killed
        return batches(step)

    with pytest.raises(Killed):
        trained(tmp_path / "net.pt", schedule, batches=until_killed)
    assert same_weights(trained(tmp_path / "net.pt", schedule, resume=True), unbroken)


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


def test_a_failed_write_leaves_the_old_checkpoint(tmp_path, monkeypatch):
    training.save_checkpoint(tmp_path / "net.pt", {"step": 1})

    def fail(state, file):
        file.write(b"half a file")
        raise OSError("disk full")

    monkeypatch.setattr(torch, "save", fail)
    with pytest.raises(OSError, match="disk full"):
        training.save_checkpoint(tmp_path / "net.pt", {"step": 2})
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
