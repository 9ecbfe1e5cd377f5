"""Command train spn: the effects of its options."""

import json
from dataclasses import replace

import pytest
from PIL import Image
from spn_cases import masked_folder, tiny_refiner

from spn.refiner import SPNRefiner
from vos_pipeline.__main__ import main
from vos_pipeline.cli.options import command_line
from vos_pipeline.cli.train_spn import configuration
from vos_pipeline.settings import SPN_PRESETS


def run(*options):
    return main(["train", "spn", "--workers", "0", *map(str, options)])


def test_command_trains_on_folders_from_given_weights(tmp_path):
    images, masks = masked_folder(tmp_path)
    tiny_refiner().save_pretrained(tmp_path / "start.safetensors")
    sizes = ["--steps", "2", "--batch", "2", "--size", "32"]
    folders = ["--images", images, "--masks", masks]
    out = tmp_path / "out"
    assert run("--out", out, *folders, "--init", tmp_path / "start.safetensors", *sizes) == 0
    assert SPNRefiner.from_pretrained(out / "spn.safetensors").config["hidden"] == 4


def test_masks_are_checked_before_training(tmp_path, fails):
    images, masks = masked_folder(tmp_path, count=12)
    Image.new("RGB", (60, 40), "red").save(masks / "9.png")  # a mask that only the validation reads
    why = fails(["train", "spn", "--out", tmp_path / "out", "--images", images, "--masks", masks])
    assert f"{masks / '9.png'}: a mask must be" in why
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--images", "x"), "--images and --masks belong together"),
        (("--images", "x", "--masks", "y", "--voc", "z"), "--voc and --images are two training sets"),
        (
            ("--preset", "paper"),
            "needs the paper's images: give --voc FOLDER --download, or --images and --masks",
        ),
        (("--convex",), "convex (--convex) is for the direct form, got 'embedded': add --form direct"),
    ],
)
def test_conflicting_options(tmp_path, fails, options, says):
    assert says in fails(["train", "spn", "--out", tmp_path, *options])


def of(*options):
    return configuration(command_line().parse_args(["train", "spn", "--out", "x", *options]))


def test_the_papers_crops_and_loss_are_the_default_for_voc():
    assert of() == SPN_PRESETS["lite"]
    assert of("--voc", "y") == replace(SPN_PRESETS["lite"], size=256, boundary_weight=0)
    given = of("--voc", "y", "--size", "128", "--boundary-weight", "2")
    assert given == replace(SPN_PRESETS["lite"], size=128, boundary_weight=2)


def test_options_override_the_preset():
    assert of("--preset", "paper", "--voc", "y") == of("--preset", "paper") == SPN_PRESETS["paper"]
    options = {"guidance": "lite", "steps": 3, "batch": 2, "size": 64, "learning_rate": 0.5, "seed": 7}
    options |= {"boundary_weight": 1.5, "precision": "bfloat16", "checkpoint_every": 4}
    words = [word for name, value in options.items() for word in (f"--{name.replace('_', '-')}", str(value))]
    given = of("--preset", "paper", *words, "--convex")
    assert given == replace(SPN_PRESETS["paper"], **options, convex=True)
    assert of("--form", "direct", *words) == replace(SPN_PRESETS["lite"], **options, form="direct")


def test_the_note_names_the_network_of_the_initial_weights(tmp_path, fails):
    images, masks = masked_folder(tmp_path)
    tiny_refiner().save_pretrained(tmp_path / "start.safetensors")
    options = ["--images", images, "--masks", masks, "--init", tmp_path / "start.safetensors"]
    sizes = ["--steps", "1", "--batch", "1", "--size", "32"]
    assert run("--preset", "paper", *options, *sizes, "--out", tmp_path / "out") == 0
    settings = json.loads((tmp_path / "out/run.json").read_text())["work"]["settings"]
    assert (settings["guidance"], settings["form"], settings["convex"]) == ("lite", "embedded", False)
    assert settings["optimizer"] == "sgd"
    why = fails(["train", "spn", *options, "--guidance", "vgg16", "--out", tmp_path / "other"])
    assert "--guidance vgg16: the refiner of --init has guidance lite: omit one of the two options" in why
