"""Training of a refiner: the loss, resuming, and several ranks."""

import math
import os
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import spn_cases
import torch
from davis_cases import files_in
from spn_cases import TINY, photographs, square, tiny_refiner

from spn import guidance
from spn.refiner import SPNRefiner
from vos_pipeline.errors import PipelineError
from vos_pipeline.refiner import Composites, refinement_loss, train_refiner, training, validate
from vos_pipeline.refiner.curves import Curves
from vos_pipeline.settings import SPN_PRESETS, SPNTraining


def test_loss_is_two_class_cross_entropy_with_more_weight_at_the_boundary():
    mask = torch.from_numpy(square())[None, None]
    half = torch.full_like(mask, 0.5)
    assert refinement_loss(half, mask).item() == pytest.approx(math.log(2))
    assert refinement_loss(mask, mask).item() < 1e-4
    wrong_edge, wrong_inside = mask.clone(), mask.clone()
    wrong_edge[..., 12, 12] = 0
    wrong_inside[..., 24, 20] = 0
    assert torch.isclose(refinement_loss(wrong_edge, mask), refinement_loss(wrong_inside, mask))
    assert refinement_loss(wrong_edge, mask, 3.0) > 2 * refinement_loss(wrong_inside, mask, 3.0)


@pytest.mark.slow
def test_training_resumes_to_the_same_losses_and_weights(tmp_path):
    samples = Composites(photographs(), TINY.size)
    whole = tiny_refiner()
    losses = train_refiner(whole, samples, tmp_path / "whole", TINY)
    assert len(losses) == 6 and all(map(math.isfinite, losses))

    class Stop(Exception):
        pass

    class Interrupted(Composites):
        def __getitem__(self, index):
            if index == 4 * TINY.batch:  # after the checkpoint of step 4
                raise Stop
            return super().__getitem__(index)

    with pytest.raises(Stop):
        train_refiner(tiny_refiner(), Interrupted(photographs(), TINY.size), tmp_path / "parts", TINY)
    resumed = tiny_refiner()
    assert train_refiner(resumed, samples, tmp_path / "parts", TINY, resume=True, workers=1) == losses[4:]
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name
    assert {"spn.pt", "spn.safetensors"} <= {path.name for path in (tmp_path / "parts").iterdir()}
    SPNRefiner.from_pretrained(tmp_path / "parts" / "spn.safetensors")
    whole_curves, resumed_curves = (tmp_path / run / "curves.csv" for run in ("whole", "parts"))
    assert resumed_curves.read_text() == whole_curves.read_text()


@pytest.mark.slow
def test_training_lowers_the_loss(tmp_path):
    samples = [Composites(photographs(), 32)[i % 4] for i in range(160)]  # four images to memorise
    losses = train_refiner(
        tiny_refiner(), samples, tmp_path, SPNTraining(steps=40, batch=4, learning_rate=1e-2)
    )
    assert np.mean(losses[-5:]) < 0.9 * np.mean(losses[:5])


def test_layers_outside_vgg16_have_a_separate_learning_rate(tmp_path, monkeypatch):
    monkeypatch.setattr(guidance, "_VGG16", ((4, 1),) * 5)
    refiner = SPNRefiner(guidance.VGG16Guidance(None), form="direct")
    before = {name: value.clone() for name, value in refiner.named_parameters()}
    config = replace(SPN_PRESETS["paper"], steps=1, batch=1, size=32, learning_rate=10.0, scratch_factor=0.0)
    train_refiner(refiner, Composites(photographs(), 32), tmp_path, config)
    changed = {name for name, value in refiner.named_parameters() if not torch.equal(value, before[name])}
    assert changed == {name for name in before if name.startswith("guidance.features.")}


def test_resuming_with_other_settings_is_refused(tmp_path):
    samples = Composites(photographs(), TINY.size)
    train_refiner(tiny_refiner(), samples, tmp_path, SPNTraining(steps=1, batch=1, size=32))
    before = files_in(tmp_path)
    with pytest.raises(PipelineError, match=r"holds another run \(different settings\)"):
        train_refiner(tiny_refiner(), samples, tmp_path, TINY, resume=True)
    with pytest.raises(PipelineError, match="holds a run"):
        train_refiner(tiny_refiner(), samples, tmp_path, TINY)
    assert files_in(tmp_path) == before


def test_unknown_pixels_have_no_weight():
    mask = torch.from_numpy(square())[None, None]
    refined = torch.rand(mask.shape, generator=torch.Generator().manual_seed(0))
    half = mask.clone()
    half[..., 24:, :] = -1
    for weight in (0.0, 3.0):
        known = refinement_loss(refined, half, weight)
        other = refined.clone()
        other[..., 24:, :] = 0.9
        assert torch.equal(refinement_loss(other, half, weight), known)
    assert torch.isclose(
        refinement_loss(refined, half), refinement_loss(refined[..., :24, :], mask[..., :24, :])
    )


def test_islands_of_the_coarse_mask_have_boundary_weight():
    mask, coarse = torch.zeros(1, 1, 32, 32), torch.zeros(1, 1, 32, 32)
    coarse[..., 10:14, 10:14] = 1
    kept, elsewhere = torch.zeros_like(mask), torch.zeros_like(mask)
    kept[..., 12, 12], elsewhere[..., 28, 28] = 0.9, 0.9
    assert refinement_loss(kept, mask, 3.0, coarse) > 2 * refinement_loss(elsewhere, mask, 3.0, coarse)


def test_validation_measures_before_and_after(tmp_path):
    scores, picture = validate(tiny_refiner().eval(), Composites(photographs(), 32, seed=1))
    assert 0 < scores["J coarse"] < 1 and 0 <= scores["J refined"] <= 1 and scores["validation loss"] > 0
    assert picture.shape == (4 * 32, 8 * 32, 3) and picture.dtype == np.uint8


def test_a_checkpoint_comes_with_pictures_and_curves(tmp_path):
    tensorboard = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    composites = Composites(photographs(), TINY.size)
    before = set(threading.enumerate())
    losses = train_refiner(tiny_refiner(), composites, tmp_path, TINY, validation=composites)
    writing = [
        thread for thread in set(threading.enumerate()) - before if "tensorboard" in type(thread).__module__
    ]
    assert not writing, "what has ended still writes"
    assert [path.name for path in sorted((tmp_path / "validation").iterdir())] == [
        "000002.jpg",
        "000004.jpg",
        "000006.jpg",
    ]
    events = tensorboard.EventAccumulator(str(tmp_path)).Reload()
    assert {"loss", "learning_rate", "J coarse", "J refined", "validation loss"} <= set(
        events.Tags()["scalars"]
    )
    assert [round(e.value, 4) for e in events.Scalars("loss")] == [round(loss, 4) for loss in losses]
    rows = np.genfromtxt(tmp_path / "curves.csv", delimiter=",", names=True)
    assert list(rows["step"]) == [2, 4, 6]
    assert np.allclose(rows["loss"], np.reshape(losses, (3, 2)).mean(1), atol=1e-4)
    assert ((rows["J_refined"] > 0) & (rows["J_refined"] < 1)).all()


def test_an_incomplete_row_of_the_curves_is_dropped(tmp_path):
    curves = Curves(tmp_path, 0)
    for step in (2, 4, 6):
        curves.add_step(step, 1.0, 0.1)
        curves.add_checkpoint(step)
    whole = curves.path.read_text().splitlines()
    curves.path.write_text("\n".join([*whole[:2], "x,1,2,3,4", *whole[2:]])[:-5])
    Curves(tmp_path, 6)
    assert curves.path.read_text().splitlines() == whole[:3]


def test_training_works_without_tensorboard(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    train_refiner(tiny_refiner(), Composites(photographs(), TINY.size), tmp_path, TINY)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "curves.csv",
        "run.json",
        "spn.pt",
        "spn.safetensors",
    ]


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_mixed_precision_trains(tmp_path, precision):
    config = replace(TINY, precision=precision, steps=3)
    losses = train_refiner(tiny_refiner(), Composites(photographs(), TINY.size), tmp_path, config)
    plain = replace(config, precision="float32")
    exact = train_refiner(tiny_refiner(), Composites(photographs(), TINY.size), tmp_path / "exact", plain)
    assert losses != exact and np.allclose(losses, exact, rtol=0.05)


def by_hand(steps):
    """Two ranks computed in one process: shares 0::2 and 1::2 of each batch, mean gradients, rank 0's buffers."""
    refiner, samples = tiny_refiner().train(), Composites(photographs(), TINY.size)
    optimizer = torch.optim.AdamW(refiner.parameters(), lr=TINY.learning_rate, weight_decay=TINY.weight_decay)
    losses = []
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = TINY.rate(step)
        optimizer.zero_grad()
        before = {name: value.clone() for name, value in refiner.named_buffers()}
        shares, after = [], {}
        for rank in (0, 1):
            for name, value in refiner.named_buffers():
                value.copy_(before[name])
            image, coarse, mask = (torch.from_numpy(v)[None] for v in samples[step * TINY.batch + rank])
            coarse, mask = coarse[None], mask[None]
            refined = refiner(image.permute(0, 3, 1, 2), coarse)
            loss = refinement_loss(refined, mask, TINY.boundary_weight, coarse)
            (loss / 2).backward()
            shares.append(loss.item())
            after = after or {name: value.clone() for name, value in refiner.named_buffers()}
        for name, value in refiner.named_buffers():
            value.copy_(after[name])
        torch.nn.utils.clip_grad_norm_(refiner.parameters(), 1.0)
        optimizer.step()
        losses.append(np.mean(shares))
    return losses, refiner


@pytest.mark.slow
def test_two_ranks_end_with_the_same_weights_as_one_process(tmp_path):
    program = Path(spn_cases.__file__).with_name("spn_ranks.py")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([*command, str(program), str(tmp_path)], env=environment, check=True, capture_output=True)
    first, second = (torch.load(tmp_path / f"rank{rank}.pt") for rank in (0, 1))
    assert first["losses"] == second["losses"]
    for name, value in first["weights"].items():
        assert torch.equal(value, second["weights"][name]), name

    losses, refiner = by_hand(TINY.steps)
    assert np.allclose(first["losses"], losses, rtol=1e-4)
    trained = torch.load(tmp_path / "spn.pt")["net"]
    for name, value in refiner.state_dict().items():
        torch.testing.assert_close(trained[name], value, rtol=1e-3, atol=1e-5)


def test_a_batch_that_ranks_cannot_share_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(training, "process_rank", lambda: (0, 3))
    with pytest.raises(PipelineError, match="--batch must be a multiple of the 3 processes, got 2"):
        train_refiner(tiny_refiner(), Composites(photographs(), TINY.size), tmp_path, TINY)
