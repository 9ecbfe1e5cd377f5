"""The training loop: resuming gives the same weights, and checkpoints contain what they should."""

import dataclasses

import pytest
import torch

from vos_pipeline.errors import PipelineError
from vos_pipeline.nets import ForegroundNet, train_net
from vos_pipeline.nets.batches import made_ahead
from vos_pipeline.settings import NetSchedule, Schedule
from vos_pipeline.training import Compute, Ranks, Trainer, is_finished, load_average, training_seconds
from vos_pipeline.training import trainer as trainer_module
from vos_pipeline.training.checkpoint import load_checkpoint, save_checkpoint

SCHEDULE = NetSchedule(steps=6, batch=2, learning_rate=3e-3, average=0.5, checkpoint_every=2)


def batches(step):
    generator = torch.Generator().manual_seed(step)
    images = torch.rand(2, 3, 4, 4, generator=generator).repeat_interleave(8, 2).repeat_interleave(8, 3)
    return images, (images[:, 0] > 0.5).long()


def trained(checkpoint, schedule=SCHEDULE, batches=batches, **options):
    torch.manual_seed(0)
    return train_net(ForegroundNet("small"), batches, schedule, checkpoint, **options)


def same_weights(one, other):
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


class Killed(Exception):
    pass


@pytest.mark.parametrize(
    ("optimizer", "killed_at", "precision"),
    [("adamw", 1, "float32"), ("adamw", 3, "bfloat16"), ("sgd", 3, "float32"), ("adamw", 3, "float16")],
)
def test_resumes_to_the_same_weights(tmp_path, optimizer, killed_at, precision):
    schedule = dataclasses.replace(SCHEDULE, optimizer=optimizer)
    unbroken = trained(tmp_path / "unbroken.pt", schedule, compute=Compute(precision=precision))

    def until_killed(step):
        if step == killed_at:
            raise Killed
        return batches(step)

    with pytest.raises(Killed):
        trained(tmp_path / "net.pt", schedule, batches=until_killed, compute=Compute(precision=precision))
    assert same_weights(
        trained(tmp_path / "net.pt", schedule, resume=True, compute=Compute(precision=precision)), unbroken
    )


def test_a_finished_training_is_loaded_without_training(tmp_path):
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


def test_the_head_has_a_separate_learning_rate(tmp_path):
    torch.manual_seed(0)
    before = ForegroundNet("small")
    net = trained(tmp_path / "net.pt", dataclasses.replace(SCHEDULE, head_factor=0.0, average=0.0))
    assert torch.equal(net.head.weight, before.head.weight)
    assert not torch.equal(net.features.stem[0].weight, before.features.stem[0].weight)


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_half_precision_gives_nearly_the_same_step(tmp_path, precision):
    schedule = dataclasses.replace(SCHEDULE, steps=1, average=0.0, optimizer="sgd", learning_rate=1e-2)
    torch.manual_seed(0)
    start = ForegroundNet("small").head.weight
    full = trained(tmp_path / "full.pt", schedule).head.weight - start
    half = trained(tmp_path / "half.pt", schedule, compute=Compute(precision=precision)).head.weight
    assert half.dtype == torch.float32
    assert not torch.equal(half - start, full)
    assert (half - start - full).norm() < 0.1 * full.norm()


def test_a_summed_loss_is_scaled_for_the_mean_over_ranks(tmp_path):
    """Ranks average their gradients, but a summed loss needs the sum."""
    moved = {}
    for size in (2, 4):  # size of the whole batch; `batches` gives this rank 2 images
        schedule = NetSchedule(
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
    assert compiled == [trained(tmp_path / "net.pt", compute=Compute(compiled=True))]


def test_batches_are_prepared_one_step_ahead_and_in_order():
    made = []

    def noting(step):
        made.append(step)
        return step

    for step, batch in enumerate(made_ahead(noting, range(3, 8)), 3):
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
    assert load_checkpoint(tmp_path / "net.pt")["step"] == 2


# --- the trainer itself, on one weight --------------------------------------------------------------------------


def trainer_of_one_weight(tmp_path, schedule, **options):
    net = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.zeros_(net.weight)

    def loss(forward, wanted):
        return (forward(torch.ones(1, 1)).float() - wanted).square().sum()

    return Trainer(net, loss, schedule, tmp_path / "net.pt", **options)


PLAIN = Schedule(
    steps=4, batch=1, learning_rate=0.1, optimizer="sgd", momentum=0, weight_decay=0, decay="constant"
)
WANTED = [(torch.ones(1, 1),)] * 4


def test_the_average_lags_behind_the_weights(tmp_path):
    trainer = trainer_of_one_weight(tmp_path, dataclasses.replace(PLAIN, average=0.5))
    # Gradient steps towards 1 give 1 - 0.8 ** (t + 1); the average decays by min(0.5, (1 + t) / (10 + t)).
    average = 0.0
    for step in range(3):
        trainer.step(WANTED[0])
        decay = min(0.5, (1 + step) / (10 + step))
        average = decay * average + (1 - decay) * (1 - 0.8 ** (step + 1))
        assert trainer.net.weight.item() == pytest.approx(1 - 0.8 ** (step + 1))
        assert trainer.average["weight"].item() == pytest.approx(average)
    with trainer.averaged():
        assert trainer.net.weight.item() == pytest.approx(average) and not trainer.net.training
    assert trainer.net.weight.item() == pytest.approx(1 - 0.8**3) and trainer.net.training
    trainer.finish()
    assert trainer.net.weight.item() == pytest.approx(average) and not trainer.net.training


def test_without_an_average_the_weights_are_stored_once(tmp_path):
    torch.manual_seed(0)
    for average in (0.0, 0.5):
        net = torch.nn.Linear(1000, 100)
        schedule = dataclasses.replace(PLAIN, average=average)
        trainer = Trainer(net, lambda forward, x: forward(x).sum(), schedule, tmp_path / f"{average}.pt")
        trainer.run([(torch.ones(1, 1000),)] * 4)
        expected = load_average(torch.nn.Linear(1000, 100), trainer.checkpoint)
        assert torch.equal(expected.weight, net.weight)
    alone, averaged = ((tmp_path / f"{average}.pt").stat().st_size for average in (0.0, 0.5))
    assert alone == pytest.approx(4 * 100_100, rel=0.05) and averaged == pytest.approx(2 * alone, rel=0.05)
    assert trainer.average["weight"].data_ptr() != net.weight.data_ptr()


def test_the_duration_of_a_resumed_training_is_cumulative(tmp_path, monkeypatch):
    clock = iter(range(0, 1000, 10))  # each read of the clock adds 10 s
    monkeypatch.setattr(trainer_module.time, "perf_counter", lambda: next(clock))
    schedule = dataclasses.replace(PLAIN, checkpoint_every=2)
    trainer_of_one_weight(tmp_path, schedule).run(WANTED[:2])
    assert training_seconds(tmp_path / "net.pt") == 10
    again = trainer_of_one_weight(tmp_path, schedule)
    again.resume()
    again.run(WANTED[2:])
    assert training_seconds(tmp_path / "net.pt") == 20


# In float16 the first two gradients overflow, and their steps are skipped.
@pytest.mark.parametrize(("precision", "steps"), [("float32", 1), ("float16", 3)])
def test_gradients_are_clipped(tmp_path, precision, steps):
    schedule = dataclasses.replace(PLAIN, clip=0.5)
    trainer = trainer_of_one_weight(tmp_path, schedule, compute=Compute(precision=precision))
    for _ in range(steps):
        trainer.step(WANTED[0])  # the gradient is -2, whatever the loss scale
    assert trainer.net.weight.item() == pytest.approx(0.05)


def test_callbacks_after_steps_and_checkpoints(tmp_path):
    trainer = trainer_of_one_weight(tmp_path, dataclasses.replace(PLAIN, checkpoint_every=3))
    told = []
    trainer.run(
        WANTED,
        after_step=lambda loss: told.append(round(loss.item(), 4)),
        at_checkpoint=lambda: told.append(load_checkpoint(trainer.checkpoint)["step"]),
    )
    assert told == [1.0, 0.64, 0.4096, 3, 0.2621, 4]


def test_a_diverging_training_stops_and_keeps_the_last_checkpoint(tmp_path):
    trainer = trainer_of_one_weight(tmp_path, dataclasses.replace(PLAIN, checkpoint_every=2))
    with pytest.raises(
        PipelineError,
        match="the training diverged: weights are infinite or NaN after 4 steps, and are not saved",
    ):
        trainer.run([*WANTED[:3], (torch.tensor([[-3e38]]),)])
    state = load_checkpoint(trainer.checkpoint)
    assert state["step"] == 2 and state["net"]["weight"].isfinite().all()


def test_a_finished_checkpoint_contains_only_weights(tmp_path):
    trainer = trainer_of_one_weight(tmp_path, dataclasses.replace(PLAIN, checkpoint_every=3))
    assert not is_finished(trainer.checkpoint, PLAIN)
    trainer.run(WANTED[:3])
    assert "optimizer" in load_checkpoint(trainer.checkpoint) and not is_finished(trainer.checkpoint, PLAIN)
    trainer.run(WANTED[3:])
    assert "optimizer" not in load_checkpoint(trainer.checkpoint) and is_finished(trainer.checkpoint, PLAIN)
    net = load_average(torch.nn.Linear(1, 1, bias=False), trainer.checkpoint)
    assert torch.equal(net.weight, trainer.net.weight) and not net.training


def test_a_training_without_steps_leaves_the_network_unchanged(tmp_path):
    none = dataclasses.replace(PLAIN, steps=0)
    trainer_of_one_weight(tmp_path, none).run([])
    assert is_finished(tmp_path / "net.pt", none)
    assert load_average(torch.nn.Linear(1, 1, bias=False), tmp_path / "net.pt").weight.item() == 0


def test_a_training_can_be_run_in_parts(tmp_path):
    whole = trainer_of_one_weight(tmp_path, dataclasses.replace(PLAIN, average=0.5))
    whole.run(WANTED)
    parts = trainer_of_one_weight(tmp_path, dataclasses.replace(PLAIN, average=0.5))
    parts.run(WANTED[:3])
    parts.run(WANTED[3:])
    assert torch.equal(parts.net.weight, whole.net.weight)


def test_only_one_rank_writes_checkpoints(tmp_path, monkeypatch):
    monkeypatch.setattr(trainer_module, "DistributedDataParallel", lambda net, process_group: net)
    monkeypatch.setattr(trainer_module, "take_from_first_rank", lambda values, ranks: None)
    for rank, name in ((1, "other"), (0, "first")):
        (tmp_path / name).mkdir()
        trainer_of_one_weight(tmp_path / name, PLAIN, ranks=Ranks(rank, 2)).run(WANTED)
    assert [path.parent.name for path in tmp_path.rglob("net.pt")] == ["first"]


def of_other_settings(tmp_path):
    trainer_of_one_weight(tmp_path, PLAIN, settings={"seed": 0}).run(WANTED)
    return trainer_of_one_weight(tmp_path, PLAIN, settings={"seed": 1})


def of_another_program(tmp_path):
    save_checkpoint(tmp_path / "net.pt", {"step": 2, "model": {}})
    return trainer_of_one_weight(tmp_path, PLAIN)


def finished_with_fewer_steps(tmp_path):
    trainer_of_one_weight(tmp_path, PLAIN).run(WANTED)
    return trainer_of_one_weight(tmp_path, dataclasses.replace(PLAIN, steps=8))


@pytest.mark.parametrize("resumed", [of_other_settings, of_another_program, finished_with_fewer_steps])
def test_a_checkpoint_of_another_training_is_refused(tmp_path, resumed):
    with pytest.raises(PipelineError, match="other settings: delete it or choose another folder"):
        resumed(tmp_path).resume()
