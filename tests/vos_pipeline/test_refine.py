"""The refine command: masks of any other tool in, refined masks out."""

import numpy as np
import pytest

from vos_pipeline import __main__ as cli
from vos_pipeline.data import load_davis, read_labels, write_image, write_labels


@pytest.fixture
def identity_refiner(monkeypatch):
    import torch

    import spn

    class Identity(torch.nn.Module):
        def forward(self, image, coarse):
            assert image.shape[1] == 3 and image.min() >= 0 and image.max() <= 1
            assert coarse.dtype == torch.float32 and image.shape[2:] == coarse.shape[2:]
            return coarse

    monkeypatch.setattr(spn.SPNRefiner, "from_pretrained", staticmethod(lambda name: Identity()))


def with_false_alarm(labels):
    labels = labels.copy()
    labels[:4, :4] = 1
    return labels


def test_refine_a_folder(identity_refiner, clips_root, tmp_path):
    (clip, _) = load_davis(clips_root)
    frames, masks = clip.frame_paths[0].parent, tmp_path / "masks"
    for t, path in enumerate(clip.mask_paths):
        write_labels(masks / path.name, with_false_alarm(clip.read_mask(t)) if t == 3 else clip.read_mask(t))
    argv = ["refine", "--frames", str(frames), "--masks", str(masks), "--out"]
    assert cli.main([*argv, str(tmp_path / "craf")]) == 0
    assert cli.main([*argv, str(tmp_path / "plain"), "--no-craf"]) == 0
    name = clip.mask_paths[3].name
    assert read_labels(tmp_path / "plain" / name)[0, 0] == 1
    assert read_labels(tmp_path / "craf" / name)[0, 0] == 0
    assert len(list((tmp_path / "craf").glob("*.png"))) == 5


def test_refine_many_sequences_and_late_objects(identity_refiner, clips_root, tmp_path):
    frames, masks = clips_root / "JPEGImages/480p", tmp_path / "masks"
    for clip in load_davis(clips_root):
        for t, path in enumerate(clip.mask_paths):
            labels = clip.read_mask(t)
            if t == 0:
                labels[labels == 2] = 0  # the tool finds the second object later
            write_labels(masks / clip.name / path.name, labels)
    argv = ["refine", "--frames", frames, "--masks", masks, "--out", tmp_path / "out"]
    assert cli.main([str(a) for a in argv]) == 0
    for clip in load_davis(clips_root):
        assert 2 in read_labels(tmp_path / "out" / clip.name / "00002.png")


def test_refine_names_a_missing_mask(identity_refiner, clips_root, tmp_path, fails):
    (clip, _) = load_davis(clips_root)
    write_labels(tmp_path / "masks/00000.png", clip.read_mask(0))
    argv = [
        "refine",
        "--frames",
        clip.frame_paths[0].parent,
        "--masks",
        tmp_path / "masks",
        "--out",
        tmp_path / "out",
    ]
    assert "no mask 00001.png for frame 00001 (4 missing)" in fails(argv)


def test_refine_empty_masks(identity_refiner, tmp_path, fails):
    write_image(tmp_path / "frames/0.png", np.zeros((32, 32, 3), np.uint8))
    write_labels(tmp_path / "masks/0.png", np.zeros((32, 32), np.uint8))
    argv = ["refine", "--frames", tmp_path / "frames", "--masks", tmp_path / "masks", "--out", tmp_path]
    assert "masks: these masks mark no object" in fails(argv)
