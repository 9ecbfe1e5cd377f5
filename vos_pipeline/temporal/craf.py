"""CRAF, the connected region-aware filter: keep, for each object, the region that best continues the previous frame.

Cheng et al., "Learning to Segment Instances in Videos with Spatial Propagation Network", section 4.2. The
paper gives the three steps and alpha, beta, gamma and delta. :class:`vos_pipeline.settings.CRAFParameters` lists the
choices that it leaves open.
"""

from __future__ import annotations

import cv2
import numpy as np

from vos_pipeline.settings import CRAFParameters
from vos_pipeline.temporal.memory import restored


class ConnectedRegionFilter:
    """CRAF, the connected region-aware filter, for a video. Its state is the objects' regions in the previous frame.

    A region is a connected set of pixels. The filter keeps one region per object, in three steps:

    1. For each object, select the region with the largest Jaccard index with the object's previous region, if it is
       larger than ``alpha`` times the object's largest region.
    2. If more than the fraction ``beta`` of the selected region of object j lies in the selected region of object i,
       remove the region of j from that of i.
    3. If an object has less than the fraction ``gamma`` of its reference area left, replace its region by its
       unselected region with the largest Jaccard index with the previous region, if that index exceeds ``delta``. Then
       repeat step 2.

    Args:
        first: bool (K, H, W), the objects' masks in the first frame.
        parameters: the constants, see :class:`vos_pipeline.settings.CRAFParameters`.

    Example:
        >>> import numpy as np
        >>> from vos_pipeline.temporal import ConnectedRegionFilter
        >>> first = np.zeros((1, 4, 8), bool); first[0, 1:3, 1:3] = True
        >>> scores = first.astype(np.float32); scores[0, 0, 7] = 0.9  # a false alarm far away
        >>> float(ConnectedRegionFilter(first).step(scores)[0, 0, 7])
        0.0
    """

    def __init__(self, first: np.ndarray, parameters: CRAFParameters | None = None) -> None:
        if first.ndim != 3:
            raise ValueError(f"first must be bool (K, H, W), got shape {first.shape}")
        self.regions = first.astype(bool)
        self.parameters = parameters or CRAFParameters()

    def step(self, scores: np.ndarray, frame: np.ndarray | None = None) -> np.ndarray:
        """Filter the scores (K, H, W) of the next frame; the result is 0 outside the kept regions.

        Shape and dtype stay the same. CRAF ignores ``frame``, which other filters use.
        """
        filtered, self.regions = craf_step(scores, self.regions, self.parameters)
        if self.parameters.previous == "labelled":
            self.regions = _labelled(filtered, self.regions)
        return filtered

    def state(self) -> dict[str, np.ndarray]:
        """Return the state, for :meth:`restore`."""
        return {"regions": self.regions}

    def restore(self, state: dict[str, np.ndarray]) -> None:
        """Continue from the state of a filter with the same number of objects and the same frame size."""
        self.regions = restored(state["regions"], self.regions)


def _labelled(scores: np.ndarray, regions: np.ndarray) -> np.ndarray:
    """Return the part of each region where its object has the largest score (the first object on ties)."""
    objects = np.arange(len(scores))[:, None, None]
    return regions & (scores.argmax(0) == objects)


def craf_step(
    scores: np.ndarray, previous: np.ndarray, parameters: CRAFParameters | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Filter one frame.

    1. For each object, select the region with the largest Jaccard index with the object's previous region (the larger
       region on a tie), if it is larger than alpha times the object's largest region.
    2. Where Coverage(i, j) = ``|R_i and R_j| / |R_j|`` > beta, remove R_j from R_i.
    3. If an object has less than gamma left, replace its region by its unselected region with the largest Jaccard
       index with the previous region, if that exceeds delta. Then repeat step 2.

    Every step processes all objects at once, so their order does not matter.

    Args:
        scores: float (K, H, W) in [0, 1].
        previous: bool (K, H, W), regions of the previous frame.
        parameters: the constants, see :class:`vos_pipeline.settings.CRAFParameters`.

    Returns:
        The scores, 0 outside the regions, and the regions, bool (K, H, W).

    Reference: Cheng et al. 2017, section 4.2.
    """
    if scores.ndim != 3 or scores.shape != previous.shape:
        raise ValueError(f"previous must be (K, H, W) like scores {scores.shape}, got {previous.shape}")
    p = parameters or CRAFParameters()
    previous = previous.astype(bool, copy=False)
    candidates = [
        _Candidates(score >= p.threshold, before, p) for score, before in zip(scores, previous, strict=True)
    ]
    chosen = [c.select() for c in candidates]
    regions = _uncover(candidates, chosen, p)

    changed = False
    for i, c in enumerate(candidates):
        reference = c.previous_area if p.gamma_reference == "previous_area" else c.areas[chosen[i]]
        if np.count_nonzero(regions[i]) < p.gamma * reference:
            other = c.select_other(chosen[i])
            changed |= other != chosen[i]
            chosen[i] = other
    if changed:
        regions = _uncover(candidates, chosen, p)
    return scores * regions, regions


class _Candidates:
    """The connected regions of one object. Region 0 means no region and has no pixels."""

    def __init__(self, mask: np.ndarray, previous: np.ndarray, parameters: CRAFParameters) -> None:
        # OpenCV's connectedComponentsWithStats is several times slower.
        count, self.labels = cv2.connectedComponents(
            mask.view(np.uint8), connectivity=parameters.connectivity
        )
        self.areas = np.bincount(self.labels.ravel(), minlength=count)
        self.areas[0] = 0
        self.previous_area = np.count_nonzero(previous)
        shared = np.bincount(self.labels[previous], minlength=count)
        shared[0] = 0
        self.jaccard = shared / np.maximum(self.areas + self.previous_area - shared, 1)
        self.parameters = parameters

    def select(self) -> int:
        """Select a region by step 1."""
        large = self.areas > self.parameters.alpha * self.areas.max()
        best = self._best(self.areas > 0)
        if large[best] or self.parameters.small_best == "next":
            return self._best(large)
        return self._largest() if self.parameters.small_best == "largest" else 0

    def select_other(self, chosen: int) -> int:
        """Select another region by step 3, or the chosen one if no other is good enough."""
        eligible = self.jaccard > self.parameters.delta
        eligible[chosen] = False
        return self._best(eligible) or chosen

    def _largest(self) -> int:
        indices = np.flatnonzero(self.areas == self.areas.max())
        return int(indices[np.argmax(self.jaccard[indices])])

    def _best(self, eligible: np.ndarray) -> int:
        indices = np.flatnonzero(eligible)
        if not indices.size:
            return 0
        return int(indices[np.lexsort((self.areas[indices], self.jaccard[indices]))[-1]])

    def region(self, chosen: int) -> np.ndarray:
        return self.labels == chosen if chosen else np.zeros(self.labels.shape, bool)


def _uncover(candidates: list[_Candidates], chosen: list[int], p: CRAFParameters) -> np.ndarray:
    """Apply step 2 to the selected regions of all objects and return bool (K, H, W)."""
    selected = [c.region(index) for c, index in zip(candidates, chosen, strict=True)]
    areas = [c.areas[index] for c, index in zip(candidates, chosen, strict=True)]
    fits = [c.jaccard[index] for c, index in zip(candidates, chosen, strict=True)]
    regions = np.array(selected)
    for i in range(len(selected)):
        for j in range(i + 1, len(selected)):
            shared = np.count_nonzero(selected[i] & selected[j])
            i_covers, j_covers = shared > p.beta * areas[j], shared > p.beta * areas[i]
            if i_covers and j_covers and p.mutual_cover == "jaccard":
                i_covers, j_covers = fits[j] > fits[i], fits[i] > fits[j]
            if i_covers:
                regions[i] &= ~selected[j]
            if j_covers:
                regions[j] &= ~selected[i]
    return regions
