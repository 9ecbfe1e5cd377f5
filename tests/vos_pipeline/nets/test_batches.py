"""Batches depend only on the step, for any number of ranks."""

import numpy as np
import pytest
import torch

from vos_pipeline.data import Sequence, write_image, write_labels
from vos_pipeline.nets import Batches, MaskedFrame
from vos_pipeline.settings import Affine, Augmentation
from vos_pipeline.training import Ranks

WIDE = Affine(shift=0.2, rotation=40, scale=0.5, flip=0.5, bend=0.05)
STILL = Affine(shift=0, rotation=0, scale=0, flip=0)


@pytest.fixture
def sequence(tmp_path):
    labels = np.zeros((40, 60), np.uint8)
    labels[10:26, 20:44], labels[30:36, 5:15] = 1, 2
    frame = np.full((*labels.shape, 3), 90, np.uint8)
    frame[labels == 1], frame[labels == 2] = (250, 20, 20), (20, 20, 250)
    write_image(tmp_path / "0.png", frame)
    write_labels(tmp_path / "mask.png", labels)
    return Sequence("one", (tmp_path / "0.png",), (tmp_path / "mask.png",))


def make_batches(sequence, size=3, seed=7, **kwargs):
    augmentation = kwargs.pop(
        "augmentation", Augmentation(WIDE, color=0.3, compose=0.5, object=WIDE, drop=0.3)
    )
    return Batches([MaskedFrame(sequence, 0, 20)], augmentation, size, seed, **kwargs)


def test_batches_depend_only_on_the_step(sequence):
    forward, backward = make_batches(sequence), make_batches(sequence)
    a, b = [forward(step) for step in (0, 1)], [backward(step) for step in (1, 0)][::-1]
    for (images, labels), (same_images, same_labels) in zip(a, b, strict=True):
        assert images.shape == (3, 3, 20, 30) and labels.shape == (3, 20, 30)
        assert torch.equal(images, same_images) and torch.equal(labels, same_labels)
    assert not torch.equal(a[0][0], a[1][0])


def test_the_seed_determines_batches(sequence):
    one, other = make_batches(sequence, seed=1)(0), make_batches(sequence, seed=2)(0)
    assert not torch.equal(one[0], other[0])


def test_ranks_share_one_batch(sequence):
    whole, _ = make_batches(sequence, size=4)(5)
    halves = [make_batches(sequence, size=4, ranks=Ranks(rank, 2))(5)[0] for rank in (0, 1)]
    assert torch.equal(torch.cat(halves), whole)


def test_a_batch_that_ranks_cannot_share_is_an_error(sequence):
    with pytest.raises(ValueError, match="size must be a multiple of the 3 ranks that share a batch, got 4"):
        make_batches(sequence, size=4, ranks=Ranks(0, 3))


def test_a_limited_number_of_samples_per_frame(sequence):
    limited = make_batches(sequence, size=1, augmentation=Augmentation(WIDE, color=0.3, samples=3))
    seen = {limited(step)[0].numpy().tobytes() for step in range(40)}
    assert len(seen) == 3
    free = make_batches(sequence, size=1, augmentation=Augmentation(WIDE, color=0.3))
    assert len({free(step)[0].numpy().tobytes() for step in range(40)}) == 40


def test_all_samples_have_the_size_of_the_first_frame(sequence, tmp_path):
    write_image(tmp_path / "wide.png", np.zeros((40, 100, 3), np.uint8))
    write_labels(tmp_path / "widemask.png", np.ones((40, 100), np.uint8))
    wide = Sequence("wide", (tmp_path / "wide.png",), (tmp_path / "widemask.png",))
    frames = [MaskedFrame(sequence, 0, 20), MaskedFrame(wide, 0, 20)]
    images, labels = Batches(frames, Augmentation(STILL), 8, 0)(0)
    assert images.shape == (8, 3, 20, 30) and labels.shape == (8, 20, 30)
    assert {bool(y.all()) for y in labels} == {False, True}  # both frames were drawn


def test_objects_become_classes(sequence):
    def classes(objects):
        return Batches([MaskedFrame(sequence, 0, None)], Augmentation(STILL), 1, 0, objects=objects)(0)[1][0]

    labels = torch.from_numpy(sequence.read_mask(0)).long()
    assert torch.equal(classes(None), (labels > 0).long())
    assert torch.equal(classes([2]), (labels == 2).long())
    assert torch.equal(classes([2, 1]), torch.tensor([0, 2, 1])[labels])
