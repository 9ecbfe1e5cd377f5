"""Masks drawn over frames."""

import numpy as np
import pytest
from davis_cases import labels_with

from vos_pipeline.report import label_contours, overlay

# --- overlay ------------------------------------------------------------------------------------------------


def test_overlay_tints_objects_and_draws_boundaries():
    frame = np.full((20, 30, 3), 100, np.uint8)
    labels = labels_with(1, 255)
    picture = overlay(frame, labels, alpha=0.5)
    np.testing.assert_array_equal(picture[labels == 0], 100)
    np.testing.assert_array_equal(picture[labels == 255], 100)
    np.testing.assert_array_equal(picture[3, 4], (128, 0, 0))  # boundary
    np.testing.assert_array_equal(picture[5, 6], (114, 50, 50))  # half of the palette colour
    assert picture.dtype == np.uint8 and frame.min() == 100
    with pytest.raises(ValueError, match="labels must be"):
        overlay(frame, labels[:-1])


def test_boundaries_separate_touching_objects():
    labels = np.zeros((6, 8), np.uint8)
    labels[:, :4], labels[:, 4:] = 1, 2
    contours = label_contours(labels)
    assert contours[:, 3:5].all() and not contours[:, :3].any() and not contours[:, 5:].any()
