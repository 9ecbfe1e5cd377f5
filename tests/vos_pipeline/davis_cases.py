"""Small DAVIS roots for several test files, and real ones if the machine has them."""

import os
from pathlib import Path

import numpy as np
import pytest

from vos_pipeline.data import write_image, write_labels

# A DAVIS root (2016 and 2017, 480p), and predicted masks for it as <sequence>/%05d.png.
REAL_ROOT = Path(os.environ.get("SPN_DAVIS_ROOT", "/nowhere"))
REAL_RESULTS = Path(os.environ.get("SPN_DAVIS_RESULTS", "/nowhere"))
needs_root = pytest.mark.skipif(not REAL_ROOT.is_dir(), reason="no DAVIS: set SPN_DAVIS_ROOT")
needs_results = pytest.mark.skipif(
    not (REAL_ROOT.is_dir() and REAL_RESULTS.is_dir()), reason="set SPN_DAVIS_ROOT and SPN_DAVIS_RESULTS"
)


def labels_with(*ids, size=(20, 30)):
    """Return one square per label, side by side."""
    labels = np.zeros(size, np.uint8)
    for k, label in enumerate(ids):
        labels[3:9, 4 + 6 * k : 9 + 6 * k] = label
    return labels


def make_root(root, masks=("00000", "00001", "00002"), ids=(1, 2), names=("alpha", "beta"), size=(20, 30)):
    """Write a DAVIS root with three frames per sequence and the named masks."""
    rng = np.random.default_rng(0)
    for name in names:
        for t in range(3):
            picture = rng.integers(0, 255, (*size, 3), dtype=np.uint8)
            write_image(root / "JPEGImages/480p" / name / f"{t:05d}.jpg", picture)
        for stem in masks:
            write_labels(root / "Annotations/480p" / name / f"{stem}.png", labels_with(*ids, size=size))
    listing = root / "ImageSets/2017/val.txt"
    listing.parent.mkdir(parents=True)
    listing.write_text("\n".join(names) + "\n")
    return root


def files_in(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def one_line(error):
    """Return the message of a raised error, which must be one line."""
    message = str(error.value)
    assert "\n" not in message
    return message
