"""Data augmentation applies the same transform to a frame and its mask."""

from dataclasses import replace

import pytest
import torch
from torch import Generator

from vos_pipeline.nets import ComposedFrame, color_jitter, sampling_grid, warp
from vos_pipeline.settings import Affine

WIDE = Affine(shift=0.2, rotation=40, scale=0.5, flip=0.5, bend=0.05)
STILL = Affine(shift=0, rotation=0, scale=0, flip=0)


def square(height=40, width=60):
    labels = torch.zeros(height, width, dtype=torch.int64)
    labels[10:26, 20:44] = 1
    return labels


def two_objects():
    """A red and a blue object on grey: image (3, H, W) in [0, 1], labels (H, W)."""
    labels = square()
    labels[30:36, 5:15] = 2
    colors = torch.tensor([[90, 90, 90], [250, 20, 20], [20, 20, 250]]) / 255
    return colors[labels].permute(2, 0, 1), labels


@pytest.mark.parametrize("seed", range(5))
def test_image_and_mask_get_the_same_transform(seed):
    labels = square().expand(3, -1, -1)
    image = labels[:, None].float().expand(-1, 3, -1, -1)
    moved, moved_labels = warp(image, labels, sampling_grid(3, (40, 60), WIDE, Generator().manual_seed(seed)))
    assert moved_labels.dtype == labels.dtype
    # Bilinear and nearest sampling agree wherever the four neighbours are equal.
    assert (moved_labels[moved[:, 0] > 0.75] == 1).all()
    assert (moved_labels[moved[:, 0] < 0.25] == 0).all()
    assert not torch.equal(moved_labels, labels)


def test_no_range_is_the_identity():
    image, labels = torch.rand(2, 3, 40, 60), square().expand(2, -1, -1)
    moved, moved_labels = warp(image, labels, sampling_grid(2, (40, 60), STILL, Generator()))
    torch.testing.assert_close(moved, image, atol=1e-5, rtol=0)
    assert torch.equal(moved_labels, labels)


def test_flip_mirrors():
    image, labels = torch.rand(1, 3, 40, 60), square()[None]
    flip = Affine(shift=0, rotation=0, scale=0, flip=1)
    moved, moved_labels = warp(image, labels, sampling_grid(1, (40, 60), flip, Generator()))
    torch.testing.assert_close(moved, image.flip(-1), atol=1e-5, rtol=0)
    assert torch.equal(moved_labels, labels.flip(-1))


def test_rotation_keeps_shapes_for_any_aspect_ratio():
    """A disk in a frame with aspect ratio 3 stays a disk of the same area."""
    y, x = torch.meshgrid(torch.arange(60), torch.arange(180), indexing="ij")
    disk = ((y - 29.5) ** 2 + (x - 89.5) ** 2 < 20**2).long()[None].expand(8, -1, -1)
    turn = Affine(shift=0, rotation=90, scale=0, flip=0)
    _, moved = warp(torch.zeros(8, 1, 60, 180), disk, sampling_grid(8, (60, 180), turn, Generator()))
    around = (..., slice(60, 120))  # farther out, the mirrored border shows the disk again
    assert (moved[around] != disk[around]).float().mean() < 0.01


def test_scale_and_shift_stay_in_range():
    generator = Generator().manual_seed(0)
    labels = torch.zeros(400, 101, 101, dtype=torch.int64)
    labels[:, 40:61, 40:61] = 1
    ranges = Affine(shift=0.1, rotation=0, scale=0.5, flip=0)
    _, moved = warp(torch.zeros(400, 1, 101, 101), labels, sampling_grid(400, (101, 101), ranges, generator))
    side = moved.sum((1, 2)).sqrt()
    assert 21 / 1.5 - 1.5 < side.min() < 16
    assert 29 < side.max() < 21 * 1.5 + 1.5
    center = (moved.sum(1) * torch.arange(101)).sum(1) / moved.sum((1, 2)) - 50
    assert 8.5 < center.abs().max() < 11.5


def test_bending_is_relative_to_the_output_frame():
    ranges = Affine(shift=0, rotation=0, scale=3, flip=0)
    straight, bent = (
        sampling_grid(50, (24, 36), replace(ranges, bend=bend), Generator().manual_seed(0))
        for bend in (0.0, 0.05)
    )
    zoom = (2 / 36) / (straight[:, 0, 1, 0] - straight[:, 0, 0, 0])
    moved = (bent - straight).abs().amax((1, 2, 3)) * zoom  # the frame is two units wide
    assert zoom.min() < 0.5 and zoom.max() > 2
    assert moved.min() > 0.05 and moved.max() < 0.15


def test_the_generator_determines_the_sample():
    grids = [sampling_grid(2, (8, 9), WIDE, Generator().manual_seed(seed)) for seed in (3, 3, 4)]
    assert torch.equal(grids[0], grids[1])
    assert not torch.equal(grids[0], grids[2])


def test_color_jitter_stays_in_range_and_zero_is_the_identity():
    images = torch.rand(4, 3, 10, 10)
    assert torch.equal(color_jitter(images, 0, Generator()), images)
    jittered = color_jitter(images, 0.5, Generator())
    assert jittered.min() >= 0 and jittered.max() <= 1 and not torch.equal(jittered, images)


def test_composed_objects_move_over_a_background_without_them():
    composed = ComposedFrame(*two_objects())
    assert (composed.background - 90 / 255).abs().max() < 0.02  # both objects are inpainted
    images, labels = composed.sample(6, STILL, WIDE, 0.0, Generator().manual_seed(0))
    red, blue = torch.tensor([250, 20, 20]) / 255, torch.tensor([20, 20, 250]) / 255
    for k, color in ((1, red), (2, blue)):
        inside = images.permute(0, 2, 3, 1)[labels == k]
        assert len(inside) > 0
        assert ((inside - color).abs().max(1).values < 0.5).all()
        assert ((inside - color).abs().max(1).values < 0.02).float().mean() > 0.7
    _, dropped = composed.sample(6, STILL, WIDE, 1.0, Generator())
    assert not dropped.any()


def test_small_objects_may_be_enlarged():
    image, labels = two_objects()
    composed = ComposedFrame(image, (labels == 2).long() * 2)  # 10 of 60 pixels wide
    far = Affine(shift=0, rotation=0, scale=0.2, flip=0)

    def widest(near):
        _, moved = composed.sample(60, STILL, far, 0.0, Generator().manual_seed(0), near=near)
        return max(int((m == 2).any(0).sum()) for m in moved)

    assert widest(0.0) <= 13
    assert 20 < widest(0.5) <= 31
