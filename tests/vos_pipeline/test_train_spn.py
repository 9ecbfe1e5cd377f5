"""The refiner's training: samples, degradations, loss, and that stopping and resuming changes nothing."""

import argparse
import math

import cv2
import numpy as np
import pytest
import torch

from spn.guidance import LiteGuidance
from spn.refiner import SPNRefiner
from vos_pipeline.composites import SHAPES, Composites
from vos_pipeline.degrade import degrade, lose_resolution
from vos_pipeline.errors import PipelineError
from vos_pipeline.train_spn import (
    MaskedPictures,
    SPNTraining,
    add_arguments,
    bundled_photographs,
    main_train,
    refinement_loss,
    train,
)

TINY = SPNTraining(steps=6, batch=2, size=32, learning_rate=3e-3, checkpoint_every=2)


def photographs():
    rng = np.random.default_rng(0)
    return [cv2.resize(rng.integers(0, 255, (8, 8, 3), dtype=np.uint8), (96, 80)) for _ in range(3)]


def tiny_refiner():
    torch.manual_seed(0)
    return SPNRefiner(LiteGuidance(widths=(4, 4, 4, 4), sees_mask=True), hidden=4, groups=2)


def square(size=48):
    mask = np.zeros((size, size), np.float32)
    mask[12:36, 8:32] = 1
    return mask


@pytest.mark.parametrize("phase", [(0, 0), (3, 5)])
def test_lost_resolution_keeps_constants_and_blurs_edges(phase):
    assert np.allclose(lose_resolution(np.ones((33, 47), np.float32), 8, phase), 1)
    coarse = lose_resolution(square(), 8, phase)
    assert coarse.shape == (48, 48) and coarse.dtype == np.float32
    assert ((coarse > 0.05) & (coarse < 0.95)).mean() > 0.1


def test_lost_resolution_averages_over_cells():
    mask = np.zeros((4, 4), np.float32)
    mask[:2, :2] = 1
    assert np.array_equal(lose_resolution(mask, 4), np.full((4, 4), 0.25, np.float32))


def test_degraded_masks_stay_scores_resemble_the_mask_and_repeat():
    similarities = []
    for seed in range(60):
        coarse = degrade(square(), np.random.default_rng(seed))
        assert coarse.dtype == np.float32 and coarse.min() >= 0 and coarse.max() <= 1
        assert np.array_equal(coarse, degrade(square(), np.random.default_rng(seed)))
        cut = coarse > 0.5
        similarities.append((cut & (square() > 0)).sum() / (cut | (square() > 0)).sum())
    assert 0.5 < np.mean(similarities) < 0.95 and len(set(similarities)) > 30


@pytest.mark.parametrize("shape", SHAPES)
def test_shapes_are_outlines_of_about_unit_extent(shape):
    for seed in range(10):
        parts = shape(np.random.default_rng(seed))
        assert parts[0][1], "the first part is filled"
        for outline, _ in parts:
            assert outline.ndim == 2 and outline.shape[1] == 2 and np.abs(outline).max() < 4


def test_composites_are_a_function_of_seed_and_index():
    first, again = (Composites(photographs(), size=48, seed=1) for _ in range(2))
    other = Composites(photographs(), size=48, seed=2)
    for index in range(6):
        image, coarse, mask = first[index]
        assert image.shape == (48, 48, 3) and coarse.shape == mask.shape == (48, 48)
        for array in (image, coarse, mask):
            assert array.dtype == np.float32 and array.min() >= 0 and array.max() <= 1
        assert all(np.array_equal(a, b) for a, b in zip(first[index], again[index], strict=True))
        assert not np.array_equal(image, other[index][0])


def test_an_object_differs_from_its_surroundings_along_the_mask():
    """The mask is the drawn coverage: across its outline the picture changes more than elsewhere."""
    inside, across = [], []
    composites = Composites(photographs(), size=64, seed=0)
    for index in range(20):
        image, _, mask = composites[index]
        change = np.abs(np.diff(image, axis=1)).sum(2)
        outline = np.abs(np.diff(mask, axis=1)) > 0.3
        if outline.any():
            across.append(change[outline].mean())
            inside.append(change[~outline].mean())
    assert np.mean(across) > 2 * np.mean(inside)


def test_the_mask_is_what_can_be_seen_of_the_object(monkeypatch):
    def planes(self, rng, extent, centre, decorated):
        """The object is the left half; whatever else there is, behind or in front, the upper half."""
        cover = np.zeros((32, 32), np.float32)
        cover[(slice(None), slice(16)) if decorated else slice(16)] = 1
        return np.ones((32, 32, 3), np.float32), cover

    monkeypatch.setattr(Composites, "_object", planes)
    masks = [Composites(photographs(), 32, seed=3)[i][2] for i in range(24)]
    for mask in masks:
        assert mask[20:, :10].min() > 0.9 and mask[:, 28:].max() < 0.1
    in_front = [mask[4:12, 4:12].mean() for mask in masks]
    assert min(in_front) < 0.1 and max(in_front) > 0.9


def test_the_bundled_photographs_are_rgb_pictures():
    pictures = bundled_photographs()
    assert len(pictures) > 10
    assert all(p.ndim == 3 and p.shape[2] == 3 and p.dtype == np.uint8 for p in pictures)


def test_loss_is_two_class_cross_entropy_with_more_weight_at_the_outline():
    mask = torch.from_numpy(square())[None, None]
    half = torch.full_like(mask, 0.5)
    assert refinement_loss(half, mask).item() == pytest.approx(math.log(2))
    assert refinement_loss(mask, mask).item() < 1e-4
    wrong_edge, wrong_inside = mask.clone(), mask.clone()
    wrong_edge[..., 12, 12] = 0
    wrong_inside[..., 24, 20] = 0
    assert torch.isclose(refinement_loss(wrong_edge, mask), refinement_loss(wrong_inside, mask))
    assert refinement_loss(wrong_edge, mask, 3.0) > 2 * refinement_loss(wrong_inside, mask, 3.0)


def test_training_resumes_to_the_same_losses_and_weights(tmp_path):
    samples = Composites(photographs(), TINY.size)
    whole = tiny_refiner()
    losses = train(whole, samples, tmp_path / "whole", TINY)
    assert len(losses) == 6 and all(map(math.isfinite, losses))

    class Stop(Exception):
        pass

    class Interrupted(Composites):
        def __getitem__(self, index):
            if index == 4 * TINY.batch:  # after the checkpoint of step 4
                raise Stop
            return super().__getitem__(index)

    with pytest.raises(Stop):
        train(tiny_refiner(), Interrupted(photographs(), TINY.size), tmp_path / "parts", TINY)
    resumed = tiny_refiner()
    assert train(resumed, samples, tmp_path / "parts", TINY, resume=True) == losses[4:]
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name
    assert [path.name for path in sorted((tmp_path / "parts").iterdir())] == ["spn.pt", "spn.safetensors"]
    SPNRefiner.from_pretrained(tmp_path / "parts" / "spn.safetensors")


def test_training_lowers_the_loss(tmp_path):
    samples = [Composites(photographs(), 32)[i % 4] for i in range(160)]  # four pictures to learn by heart
    losses = train(tiny_refiner(), samples, tmp_path, SPNTraining(steps=40, batch=4, learning_rate=1e-2))
    assert np.mean(losses[-5:]) < 0.9 * np.mean(losses[:5])


def test_resuming_with_other_settings_is_refused(tmp_path):
    samples = Composites(photographs(), TINY.size)
    train(tiny_refiner(), samples, tmp_path, SPNTraining(steps=1, batch=1, size=32))
    with pytest.raises(PipelineError, match="other settings"):
        train(tiny_refiner(), samples, tmp_path, TINY, resume=True)


def masked_folder(root):
    for name in ("images", "masks"):
        (root / name).mkdir()
    labels = np.zeros((40, 60), np.uint8)
    labels[10:30, 5:25], labels[15:35, 35:50], labels[:2] = 1, 2, 255
    for i in range(2):
        cv2.imwrite(str(root / "images" / f"{i}.png"), photographs()[i][:40, :60])
        cv2.imwrite(str(root / "masks" / f"{i}.png"), labels)
    return root / "images", root / "masks"


def test_masked_pictures_give_crops_with_one_object(tmp_path):
    samples = MaskedPictures(*masked_folder(tmp_path), size=32)
    for index in range(8):
        image, coarse, mask = samples[index]
        assert image.shape == (32, 32, 3) and coarse.shape == mask.shape == (32, 32)
        assert image.dtype == coarse.dtype == mask.dtype == np.float32 and mask.any()
        assert all(np.array_equal(a, b) for a, b in zip(samples[index], samples[index], strict=True))


def test_masked_pictures_without_pairs_say_so(tmp_path):
    images, masks = masked_folder(tmp_path)
    for path in masks.iterdir():
        path.rename(path.with_name(f"other-{path.name}"))
    with pytest.raises(PipelineError, match="mask of the same name"):
        MaskedPictures(images, masks)


def run(*options):
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    main_train(parser.parse_args(options))


def test_command_trains_on_folders_from_given_weights(tmp_path):
    images, masks = masked_folder(tmp_path)
    tiny_refiner().save_pretrained(tmp_path / "start.safetensors")
    sizes = ["--steps", "2", "--batch", "2", "--size", "32"]
    folders = ["--images", str(images), "--masks", str(masks)]
    run("--out", str(tmp_path / "out"), *folders, "--init", str(tmp_path / "start.safetensors"), *sizes)
    assert SPNRefiner.from_pretrained(tmp_path / "out" / "spn.safetensors").config["hidden"] == 4


def test_command_wants_images_and_masks_together(tmp_path):
    with pytest.raises(PipelineError, match="belong together"):
        run("--out", str(tmp_path), "--images", str(tmp_path))
