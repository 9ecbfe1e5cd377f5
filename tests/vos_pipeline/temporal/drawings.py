"""Label maps drawn as text, scores for them, and a flow filter for videos drawn this way."""

import numpy as np

from vos_pipeline.temporal import FlowFilter, FlowFilterParameters

HEIGHT = 4  # pixel rows per drawn row; an object of width 4 has an area of 16, with square root 4


def labels(*rows):
    """Return labels, uint8 (H, W): 'a' is the first object, 'b' the second, '.' background. A lone row counts as 4."""
    rows = rows * HEIGHT if len(rows) == 1 else rows
    return np.array([[0 if c == "." else ord(c) - 96 for c in row] for row in rows], np.uint8)


def masks_of(drawn, objects):
    return np.arange(1, objects + 1)[:, None, None] == drawn


def scores_of(drawn, objects, dtype=np.float32):
    """Return scores: 0.9 - 0.1 k / objects for object k at its label, and values below the threshold elsewhere."""
    k = np.arange(objects)[:, None, None]
    return np.where(masks_of(drawn, objects), 0.9 - 0.1 * k / objects, 0.4 - 0.1 * k / objects).astype(dtype)


def text_of(scores):
    """Draw the labels of scores as text, with one row if all rows are equal."""
    drawn = np.where(scores.max(0) >= 0.5, scores.argmax(0) + 1, 0)
    rows = ["".join(chr(96 + v) if v else "." for v in row) for row in drawn]
    return rows[0] if len(set(rows)) == 1 else "\n".join(rows)


def known_flow(flow_filter, flow):
    """Replace the optical flow of a filter by (x, y) at every pixel."""
    flow_filter._flow.step = lambda frame: np.full((*flow_filter._flow.size, 2), flow, np.float32)


class Drawn:
    """A flow filter for drawn frames with a known optical flow."""

    def __init__(self, *rows, objects=1, flow=(0, 0), **parameters):
        first = labels(*rows)
        self.objects = objects
        self.frame = np.zeros((*first.shape, 3), np.uint8)
        self.filter = FlowFilter(self.frame, masks_of(first, objects), FlowFilterParameters(**parameters))
        known_flow(self.filter, flow)

    def scores(self, *rows):
        return self.filter.step(scores_of(labels(*rows), self.objects), self.frame)

    def step(self, *rows):
        return text_of(self.scores(*rows))
