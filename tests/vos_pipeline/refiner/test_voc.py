"""VOC and SBD as a training set for refiners, with FCN scores as coarse masks."""

import json
import pickle
import urllib.error
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from davis_cases import one_line
from PIL import Image
from scipy.io import savemat
from spn_cases import tiny_refiner
from torchvision.models.segmentation import FCN_ResNet50_Weights, fcn_resnet50

from spn.guidance import VGG16Guidance
from spn.refiner import SPNRefiner
from vos_pipeline import refiner
from vos_pipeline.__main__ import main
from vos_pipeline.cli import command_line, train_spn
from vos_pipeline.data import davis_palette
from vos_pipeline.errors import PipelineError
from vos_pipeline.refiner import CoarseMasks, VOCObjects, VOCPictures, load_fcn, validation
from vos_pipeline.settings import SPN_PRESETS

TRAIN, VALIDATION = ("2007_01", "2007_02"), ("2008_01",)
SBD_TRAIN, SBD_VALIDATION = ("2007_02", "2009_01"), ("2008_01", "2009_02")


def labels(size=(48, 64)):
    """Return a dog (12), a person (15) and void along their boundaries."""
    labels = np.zeros(size, np.uint8)
    labels[8:32, 6:30], labels[10:30, 8:28] = 255, 12
    labels[18:44, 38:58], labels[20:42, 40:56] = 255, 15
    return labels


def picture(name):
    """Return a grey image, darker where there is a label, for the networks below."""
    rng = np.random.default_rng(sum(map(ord, name)))
    shade = 60 + 10 * labels().astype(int) % 200
    return np.clip(shade[..., None] + rng.integers(0, 20, (48, 64, 3)), 0, 255).astype(np.uint8)


def write_voc(root):
    base = root / "VOCdevkit/VOC2012"
    for folder in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (base / folder).mkdir(parents=True)
    for image_set, names in (("train", TRAIN), ("val", VALIDATION)):
        (base / f"ImageSets/Segmentation/{image_set}.txt").write_text("\n".join(names) + "\n")
        for name in names:
            Image.fromarray(picture(name)).save(base / f"JPEGImages/{name}.jpg")
            mask = Image.fromarray(labels())
            mask.putpalette(davis_palette().tobytes())
            mask.save(base / f"SegmentationClass/{name}.png")
    return root


def write_sbd(root):
    for folder in ("img", "cls"):
        (root / folder).mkdir(parents=True)
    for image_set, names in (("train", SBD_TRAIN), ("val", SBD_VALIDATION)):
        (root / f"{image_set}.txt").write_text("\n".join(names) + "\n")
        for name in names:
            Image.fromarray(picture(name)).save(root / f"img/{name}.jpg")
            segmentation = np.empty((1, 1), object)
            segmentation[0, 0] = labels()
            content = np.empty((1, 1), [("Segmentation", object)])
            content[0, 0]["Segmentation"] = labels()
            savemat(root / f"cls/{name}.mat", {"GTcls": content})
    return root


@pytest.fixture
def roots(tmp_path):
    return write_voc(tmp_path / "voc"), write_sbd(tmp_path / "sbd")


class Knows(torch.nn.Module):
    """A network that locates the dog and the person, with blurred scores like those of an FCN."""

    calls = 0

    def forward(self, image):
        self.calls += 1
        truth = torch.from_numpy(labels().astype(np.int64))[None]
        one_hot = torch.nn.functional.one_hot(truth % 255, 21).permute(0, 3, 1, 2).float()
        return {"out": 8 * torch.nn.functional.avg_pool2d(one_hot, 9, 1, 4)}


def test_sbd_joins_without_validation_pictures_and_duplicates(roots):
    assert VOCPictures(*roots).names == ["2007_01", "2007_02", "2009_01", "2009_02"]
    assert VOCPictures(roots[0]).names == ["2007_01", "2007_02"]
    assert VOCPictures(*roots, part="validation").names == ["2008_01"]
    for name in ("2007_01", "2009_02"):
        image, mask = VOCPictures(*roots)[name]
        assert image.shape == (48, 64, 3) and image.dtype == np.uint8
        assert np.array_equal(mask, labels()) and mask.dtype == np.uint8


def test_coarse_masks_are_computed_once_and_resemble_the_object(roots, tmp_path):
    net = Knows()
    coarse = CoarseMasks(tmp_path / "coarse", lambda: net)
    coarse.fill(VOCPictures(*roots))
    assert net.calls == 4
    CoarseMasks(tmp_path / "coarse", lambda: pytest.fail("loaded for nothing")).fill(VOCPictures(*roots))
    for label in (12, 15):
        scores = coarse.read("2009_01", label, (48, 64))
        assert scores.shape == (48, 64) and scores.dtype == np.float32
        assert scores[labels() == label].mean() > 0.55 and scores[labels() == 0].mean() < 0.3


def test_damaged_or_wrong_coarse_masks_are_errors(roots, tmp_path):
    pictures = VOCPictures(roots[0])
    coarse = CoarseMasks(tmp_path / "coarse", Knows)
    coarse.fill(pictures)
    path = tmp_path / "coarse/2007_01.npz"
    with pytest.raises(
        PipelineError, match=r"2007_01\.npz: has no coarse mask of label 7.*: delete it"
    ) as error:
        coarse.read("2007_01", 7, (48, 64))
    one_line(error)
    whole = path.read_bytes()
    for content in (whole[:-50], b"", b"junk", whole[:60] + bytes(40) + whole[100:]):
        path.write_bytes(content)
        with pytest.raises(PipelineError, match=r"2007_01\.npz: cannot be read .*: delete it") as error:
            VOCObjects(pictures, coarse, size=32).coarse.read("2007_01", 12, (48, 64))
        one_line(error)
    path.unlink()
    coarse.fill(pictures)
    assert coarse.read("2007_01", 12, (48, 64)).shape == (48, 64)


def test_untrained_fcn(roots, tmp_path):
    """A network with the real layout has scores for each label of the image."""
    net = fcn_resnet50(weights=None, weights_backbone=None, num_classes=21)
    coarse = CoarseMasks(tmp_path / "coarse", lambda: net)
    coarse.fill(VOCPictures(roots[0]))
    assert 0 < coarse.read("2007_01", 15, (48, 64)).mean() < 1


def test_crops_have_both_classes_in_both_masks(roots, tmp_path):
    pictures = VOCPictures(*roots)
    coarse = CoarseMasks(tmp_path / "coarse", Knows)
    coarse.fill(pictures)
    samples = VOCObjects(pictures, coarse, size=32, seed=1)
    seen, unknown = set(), 0
    for index in range(24):
        image, scores, mask = samples[index]
        assert image.shape == (32, 32, 3) and scores.shape == mask.shape == (32, 32)
        assert image.dtype == scores.dtype == mask.dtype == np.float32
        assert {-1, 0, 1} >= set(np.unique(mask)) >= {0, 1}
        assert scores.min() >= 0 and scores.min() <= 0.5 < scores.max() <= 1
        assert np.corrcoef(scores.ravel()[mask.ravel() >= 0], mask[mask >= 0])[0, 1] > 0.5
        assert all(np.array_equal(a, b) for a, b in zip(samples[index], (image, scores, mask), strict=True))
        unknown += (mask == -1).sum()
        seen.add(round(float(image[mask == 1].mean()), 1))
    assert len(seen) > 1, "both labels are drawn"
    assert unknown > 0, "the void along the outlines is not background"


def test_pictures_smaller_than_a_crop_end_in_unknown_pixels(roots, tmp_path):
    pictures = VOCPictures(roots[0])
    coarse = CoarseMasks(tmp_path / "coarse", Knows)
    coarse.fill(pictures)
    image, _, mask = VOCObjects(pictures, coarse, size=80)[0]
    assert image.shape == (80, 80, 3) and (mask[48:] == -1).all() and (mask[:48] >= 0).any()


def test_masks_that_never_show_both_classes_are_an_error(roots, tmp_path):
    class Blank(torch.nn.Module):
        def forward(self, image):
            return {"out": torch.zeros(1, 21, *image.shape[2:])}

    pictures = VOCPictures(roots[0])
    coarse = CoarseMasks(tmp_path / "coarse", Blank)
    coarse.fill(pictures)
    with pytest.raises(PipelineError, match="check that the FCN is trained"):
        VOCObjects(pictures, coarse, size=32)[0]


def test_missing_data_sets_are_errors(tmp_path):
    with pytest.raises(PipelineError, match=r"has no VOCSegmentation \(VOCdevkit/VOC2012\).*--download"):
        VOCPictures(tmp_path)
    with pytest.raises(PipelineError, match="has no SBDataset"):
        VOCPictures(write_voc(tmp_path / "voc"), tmp_path / "nowhere")


def test_weights_that_cannot_be_downloaded_are_an_error(monkeypatch, tmp_path):
    def offline(self, *args, **options):
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr(FCN_ResNet50_Weights, "get_state_dict", offline)
    with pytest.raises(PipelineError, match=r"URLError.*download https://.*--fcn FILE"):
        load_fcn()
    with pytest.raises(PipelineError, match="are not available"):
        load_fcn(str(tmp_path / "missing.pth"))


def test_the_papers_preset_trains_and_its_refiner_refines(roots, tmp_path, monkeypatch):
    monkeypatch.setattr(refiner, "load_fcn", lambda weights: Knows())
    monkeypatch.setattr(validation, "VALIDATION_SAMPLES", 2)
    out = tmp_path / "out"
    options = [
        "--preset",
        "paper",
        "--voc",
        roots[0],
        "--sbd",
        roots[1],
        "--out",
        out,
        "--vgg-weights",
        "none",
    ]
    sizes = ["--steps", "2", "--batch", "1", "--size", "32", "--workers", "0"]
    assert main(["train", "spn", *map(str, options), *sizes]) == 0
    settings = json.loads((out / "run.json").read_text())["work"]["settings"]
    assert settings == asdict(replace(SPN_PRESETS["paper"], steps=2, batch=1, size=32))
    trained = SPNRefiner.from_pretrained(out / "spn.safetensors")
    assert isinstance(trained.guidance, VGG16Guidance) and trained.guidance.stride == 1
    assert trained.config["form"] == "direct" and not trained.config["convex"]
    image = torch.from_numpy(picture("a") / 255).permute(2, 0, 1)[None].float()
    coarse = Knows()(image)["out"].softmax(1)[:, [12, 15]]
    refined = trained(image, coarse)
    assert refined.shape == coarse.shape and not torch.equal(refined, coarse)
    torch.testing.assert_close(refined, coarse, rtol=0, atol=0.2)  # a new refiner hardly changes masks


def test_a_changed_image_changes_the_inventory(roots):
    before = VOCPictures(*roots).inventory()
    assert VOCPictures(*roots).inventory() == before
    Image.fromarray(picture("b")).save(roots[0] / "VOCdevkit/VOC2012/JPEGImages/2007_02.jpg", quality=50)
    assert VOCPictures(*roots).inventory() != before


def test_samples_can_be_sent_to_worker_processes(roots, tmp_path):
    words = ["train", "spn", "--voc", str(roots[0]), "--out", str(tmp_path / "out"), "--size", "32"]
    args = command_line().parse_args(words)
    train, validation, _ = train_spn._samples(args, train_spn.configuration(args), "cpu")
    CoarseMasks(train.coarse.folder, Knows).fill(train.pictures)  # the real network is too large
    copy = pickle.loads(pickle.dumps((train, validation)))[0]
    assert all(np.array_equal(a, b) for a, b in zip(copy[3], train[3], strict=True))


def test_command(roots, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(refiner, "load_fcn", lambda weights: Knows())
    tiny_refiner().save_pretrained(tmp_path / "start.safetensors")
    options = [
        "--voc",
        roots[0],
        "--sbd",
        roots[1],
        "--out",
        tmp_path / "out",
        "--init",
        tmp_path / "start.safetensors",
    ]
    sizes = ["--steps", "2", "--batch", "2", "--size", "32", "--workers", "0"]
    assert main(["train", "spn", *map(str, options), *sizes]) == 0
    SPNRefiner.from_pretrained(tmp_path / "out/spn.safetensors")
    assert len(list((tmp_path / "out/coarse-masks").glob("*.npz"))) == 5
    assert (tmp_path / "out/validation/000002.jpg").is_file()

    # Masks are not reused for another network, and are kept after the training.
    (tmp_path / "fcn.pth").write_text("another network")
    options += sizes
    options[options.index(tmp_path / "out")] = tmp_path / "other"
    other = ["--coarse-masks", tmp_path / "out/coarse-masks", "--fcn", tmp_path / "fcn.pth"]
    assert main(["train", "spn", *map(str, (*options, *other))]) == 1
    told = capsys.readouterr().err
    assert "coarse-masks holds another run (different network): choose another --coarse-masks\n" in told
    mine = tmp_path / "mine/000000.npz"
    mine.parent.mkdir()
    mine.write_text("mine")
    assert main(["train", "spn", *map(str, options), "--coarse-masks", str(mine.parent)]) == 1
    told = capsys.readouterr().err
    assert told.endswith("(000000.npz): choose a new or empty folder for --coarse-masks\n")
    assert mine.read_text() == "mine"
    # The training folder is still empty, because the error comes first.
    assert main(["train", "spn", *map(str, options), "--coarse-masks", str(tmp_path / "new")]) == 0
    options[options.index(tmp_path / "other")] = tmp_path / "out"
    monkeypatch.setattr(refiner, "load_fcn", pytest.fail)  # the masks exist already
    assert main(["train", "spn", *map(str, options), "--overwrite"]) == 0
    assert len(list((tmp_path / "out/coarse-masks").glob("*.npz"))) == 5
