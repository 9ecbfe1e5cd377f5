"""The synthetic clips are a valid DAVIS root, deterministic, offline and sufficiently difficult."""

import hashlib
import socket
from pathlib import Path

import numpy as np
import pytest

from vos_pipeline.data import load_davis, synthetic
from vos_pipeline.errors import PipelineError
from vos_pipeline.evaluation import jaccard


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("clips")
    synthetic.make_clips(root, clips=2, frames=12)
    synthetic.make_clips(root, clips=2, frames=3, set_name="train")
    return root


def digest(root: Path) -> dict[str, str]:
    files = sorted(p for p in root.rglob("*") if p.is_file())
    return {str(p.relative_to(root)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def test_it_is_a_davis_root_with_two_sets(root):
    sequences, train = load_davis(root), load_davis(root, set_name="train")
    assert [s.name for s in sequences] == ["val-00", "val-01"]
    assert [s.name for s in train] == ["train-00", "train-01"]
    assert [s.object_ids for s in sequences] == [(1, 2), (1, 2, 3)]
    for sequence in sequences:
        assert len(sequence) == 12 and sequence.has_all_masks and sequence.size == (240, 428)


def test_every_object_can_be_seen_and_moves(root):
    for sequence in load_davis(root):
        masks = [sequence.read_mask(t) for t in range(len(sequence))]
        for label in sequence.object_ids:
            areas = [np.count_nonzero(m == label) for m in masks]
            assert areas[0] > 0.02 * masks[0].size
            assert sum(a > 0 for a in areas) > len(areas) / 2
        repeated = np.mean(
            [[jaccard(m == k, masks[0] == k) for k in sequence.object_ids] for m in masks[1:-1]]
        )
        assert 0.1 < repeated < 0.5


def test_objects_occlude_one_another(root):
    for sequence in load_davis(root):
        areas = [
            [np.count_nonzero(sequence.read_mask(t) == k) for k in sequence.object_ids]
            for t in range(len(sequence))
        ]
        total = np.sum(areas, axis=1)
        assert total.min() < 0.9 * total[0]


def test_masks_fit_the_images(root):
    # The image changes more across a mask's edge than elsewhere.
    for sequence in load_davis(root):
        frame, labels = sequence.read_frame(0).astype(float).mean(2), sequence.read_mask(0)
        step = np.abs(frame[:, 2:] - frame[:, :-2])
        edge = labels[:, 2:] != labels[:, :-2]
        assert step[edge].mean() > 2 * step[~edge].mean()


def test_the_same_seed_writes_the_same_bytes(root, tmp_path):
    synthetic.make_clips(tmp_path / "a", clips=1, frames=3, size=(96, 160), seed=7)
    synthetic.make_clips(tmp_path / "b", clips=1, frames=3, size=(96, 160), seed=7)
    synthetic.make_clips(tmp_path / "c", clips=1, frames=3, size=(96, 160), seed=8)
    assert digest(tmp_path / "a") == digest(tmp_path / "b")
    assert digest(tmp_path / "a") != digest(tmp_path / "c")


def test_more_clips_do_not_change_the_first_ones(root, tmp_path):
    synthetic.make_clips(tmp_path, clips=1, frames=12)
    more = digest(root)
    for name, value in digest(tmp_path).items():
        if "val-00" in name:
            assert more[name] == value


def test_train_shares_no_photograph_with_the_others():
    train, other = ({f for files in synthetic.PHOTOS[k].values() for f in files} for k in ("train", "other"))
    assert not train & other


def test_no_network_is_needed(tmp_path, monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("network used")

    monkeypatch.setattr(socket, "create_connection", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    synthetic.make_clips(tmp_path, clips=4, frames=1, size=(64, 96))
    synthetic.make_clips(tmp_path, clips=5, frames=1, size=(64, 96), set_name="train")
    for files in synthetic.PHOTOS.values():
        for file in {f for names in files.values() for f in names}:
            assert synthetic._photo(file, np.random.default_rng(0)).ndim == 3


def test_year_and_size_are_respected(tmp_path):
    synthetic.make_clips(tmp_path, clips=1, frames=1, size=(64, 90), set_name="test-dev", year="2019")
    (sequence,) = load_davis(tmp_path, "2019", "test-dev")
    assert sequence.size == (64, 90) and len(sequence) == 1


@pytest.mark.parametrize("bad", [{"clips": 0}, {"frames": 0}, {"size": (16, 200)}])
def test_bad_arguments_are_named(tmp_path, bad):
    with pytest.raises(ValueError, match="must be >="):
        synthetic.make_clips(tmp_path, **bad)


def test_a_missing_photograph_is_named(monkeypatch):
    with pytest.raises(PipelineError, match=r"does not contain none\.png"):
        synthetic._photo("none.png", np.random.default_rng(0))
