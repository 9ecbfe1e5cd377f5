"""The train spn command."""

import argparse

import pytest
from spn_cases import masked_folder, tiny_refiner

from spn.refiner import SPNRefiner
from vos_pipeline.errors import PipelineError
from vos_pipeline.train_spn import add_arguments, main_train


def run(*options):
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    main_train(parser.parse_args(["--workers", "0", *options]))


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
