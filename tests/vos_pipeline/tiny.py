"""A pipeline for tests that runs in seconds: two clips of moving squares, networks trained for a few steps, no SPN.

As a program it is a run that tests can kill, or start by torchrun. "then" separates the arguments of several runs.
"""

import argparse
import dataclasses
import itertools
import sys
from pathlib import Path

import numpy as np
import torch

from vos_pipeline import pipeline
from vos_pipeline.data import load_davis, write_image, write_labels
from vos_pipeline.pipeline import stages
from vos_pipeline.settings import PRESETS, Affine, Augmentation, NetSchedule

FRAMES = 4
BRIEF = NetSchedule(steps=2, batch=2, learning_rate=1e-3, warmup=50)
STILL = Augmentation(Affine())
TINY = dataclasses.replace(
    PRESETS["small"],
    name="tiny",
    height=32,
    foreground=BRIEF,
    first_frames=BRIEF,
    instance=BRIEF,
    foreground_augmentation=STILL,
    first_frames_augmentation=STILL,
    instance_augmentation=STILL,
    foreground_threshold=0.0,
    flip_test=False,
)


class Unrefined(torch.nn.Module):
    """Replaces the SPN and returns the scores unchanged."""

    def forward(self, image, coarse):
        assert image.shape[-2:] == coarse.shape[-2:] and image.min() >= 0 and image.max() <= 1
        return coarse


def write_root(root: Path) -> Path:
    """Write a DAVIS root with squares that move to the right: clips of one object (2016) and of two objects (2017)."""
    for year, name, count in (("2016", "single", 1), ("2017", "pair", 2), ("2016", "other", 1)):
        for t in range(FRAMES):
            labels = np.zeros((40, 64), np.uint8)
            for k in range(count):
                labels[4 + 18 * k : 18 + 18 * k, 6 + 6 * t : 24 + 6 * t] = k + 1
            frame = np.uint8([[60, 90, 60], [230, 40, 40], [40, 40, 230]])[labels]
            write_image(root / "JPEGImages" / "480p" / name / f"{t:05d}.jpg", frame)
            write_labels(root / "Annotations" / "480p" / name / f"{t:05d}.png", labels)
        (root / "ImageSets" / year).mkdir(parents=True, exist_ok=True)
        set_name = "train" if name == "other" else "val"
        (root / "ImageSets" / year / f"{set_name}.txt").write_text(f"{name}\n")
    return root


def sequences_of(root: Path) -> list:
    return load_davis(root, "2017", "val") + load_davis(root, "2016", "val")


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("root", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--joint", action="store_true")
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--train", action="store_true", help="the foreground net, on the train set")
    args = parser.parse_args(argv)
    schedule = dataclasses.replace(BRIEF, steps=args.steps, batch=args.batch, checkpoint_every=2)
    pipeline.run(
        args.root,
        sequences_of(args.root),
        args.out,
        preset=dataclasses.replace(
            TINY,
            foreground=schedule,
            first_frames=schedule,
            instance=schedule,
            joint=args.joint,
            model="per-object",
        ),
        resume=args.resume,
        train_sequences=None if args.train else [],
    )


if __name__ == "__main__":
    stages.load_refiner = lambda name, device: Unrefined()
    for separates, words in itertools.groupby(sys.argv[1:], "then".__eq__):
        if not separates:
            main(list(words))
