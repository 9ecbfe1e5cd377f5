"""The flow filter: keep, for each object, every region near the place to which optical flow carries the object."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from vos_pipeline.data import check_frame, described
from vos_pipeline.settings import FlowFilterParameters
from vos_pipeline.temporal.memory import restored
from vos_pipeline.temporal.optical_flow import OpticalFlow

NOBODY = -1  # owner of a region that no object gets
LARGEST_COUNT = 255  # objects; labels are uint8, and 0 is background
FLOATS = (np.float16, np.float32, np.float64)
Box = tuple[slice, slice]  # rows, columns
Places = tuple[np.ndarray, np.ndarray]  # row and column of the flow for each row and column of the frame


class FlowFilter:
    r"""Filter the score maps of a video, and follow its objects by optical flow.

    CRAF (:class:`ConnectedRegionFilter`) keeps one connected region per object, so it loses parts of an object with
    several regions. This filter keeps
    every region near the object's carried mask, and gives a region that lies on another object to that object.

    The state of each object k is a mask :math:`B_k`, the object's usual area :math:`A_k` in pixels, and how long the
    object has been missing, :math:`n_k` (in frames; 0 while its area is at least :math:`\text{missing} \cdot A_k`).
    In frame t, with the optical flow f from frame t back to frame t - 1:

    1. Carry the mask: :math:`C_k(x) = B_k(x + f(x))`, or :math:`C_k = B_k` if the carried mask lies outside the frame.
    2. A region R of object k is a connected set of pixels with label k, as in
       ``vos_pipeline.nets.labels_from_scores``. Its cover by object j is :math:`c_j(R) = |R \cap C_j| / |R|`. It is
       near if its distance to :math:`C_k` is at most

       .. math:: r_k = (\text{reach} + \text{growth} \cdot n_k) \sqrt{A_k}.

    3. Object k is complete if its regions with :math:`c_k \ge \text{own}` have a total area of at least
       :math:`\text{complete} \cdot A_k`. Region R of object k is loose if :math:`c_k(R) < \text{own}` and either R is
       not near or object k is complete. A loose region goes to the other object j with the largest cover, if
       :math:`c_j(R) \ge \text{other}` and no third object has the same cover. Regions that go to no other object
       stay with object k if they are near, and are removed otherwise. If object k has no region left, it keeps the
       largest removed region, if that has an area of at least :math:`\text{found} \cdot A_k`.
    4. Let a be the area of all regions that object k has now, and
       :math:`m = \max(0, 1 - a / (\text{missing} \cdot A_k))`, or m = 1 for an object that kept a region that is not
       near. Then

       .. math:: n_k \leftarrow (n_k + 1)\,m, \qquad B_k \leftarrow R_k \cup (C_k \text{ if } m \ge 1/2), \qquad
                 A_k \leftarrow A_k + \text{rate}\,(a - A_k) \text{ if } m < 1/2,

       where :math:`R_k` is the union of its regions. A hidden object is therefore expected where it was last seen,
       moved along by the flow, within a distance that grows with every frame.

    An object that has not appeared yet (:math:`A_k = 0`) keeps all of its regions, and :math:`A_k = a` when it appears.
    Steps 1 to 3 only use the state after frame t - 1, so the order of the objects matters only where their scores are
    equal.

    Args:
        first_frame: uint8 RGB (H, W, 3).
        first: bool (K, H, W), the objects' masks in the first frame; at most 255 objects.
        parameters: the constants, see :class:`vos_pipeline.settings.FlowFilterParameters`.

    Complexity: O(K H W) per frame if few regions lie on other objects, and at most O(K^2 H W). The cost of optical flow
    depends on the aspect ratio of the frames, but not on their size.

    Example:
        >>> import numpy as np
        >>> from vos_pipeline.temporal import FlowFilter
        >>> frame = np.zeros((40, 80, 3), np.uint8)
        >>> first = np.zeros((1, 40, 80), bool); first[0, 10:30, 10:30] = True
        >>> scores = first.astype(np.float32); scores[0, 5:9, 70:74] = 0.9  # a false alarm far away
        >>> float(FlowFilter(frame, first).step(scores, frame)[0, 5, 70])
        0.0

    Source: this package; the paper's filter is :class:`vos_pipeline.temporal.ConnectedRegionFilter`.
    """

    def __init__(
        self, first_frame: np.ndarray, first: np.ndarray, parameters: FlowFilterParameters | None = None
    ) -> None:
        check_frame("first_frame", first_frame)
        _check_first(first, first_frame.shape[:2])
        first = first.astype(bool)
        self.parameters = parameters or FlowFilterParameters()
        self.size = first.shape[1:]
        self._flow = OpticalFlow(first_frame, self.parameters.side)
        rows, columns = (
            np.arange(full) * small // full for full, small in zip(self.size, self._flow.size, strict=True)
        )
        self._places = rows, columns
        self._pixels = rows[:, None] * self._flow.size[1] + columns
        self._masks = np.stack([self._small(mask) for mask in first])
        self._areas = first.sum((1, 2), dtype=np.float64)
        self._missing = np.zeros(len(first))

    def step(self, scores: np.ndarray, frame: np.ndarray) -> np.ndarray:
        """Filter the scores of the next frame.

        Args:
            scores: float16, float32 or float64 (K, H, W) in [0, 1]. A pixel with NaN belongs to no object.
            frame: uint8 RGB (H, W, 3).

        Returns:
            Scores of the same shape and dtype. A removed region has score 0 for all objects. A region that goes to
            another object keeps its scores for that object, and has score 0 for all others.

        Raises:
            ValueError: scores or frame differ in shape or dtype from the first frame and masks.
        """
        _check_scores(scores, (len(self._masks), *self.size))
        check_frame("frame", frame, self.size)
        carried = self._carried(self._flow.step(frame))
        labels = _labels(scores, self.parameters.threshold)
        regions = [_Regions.of(labels, k + 1, self.parameters.connectivity) for k in range(len(scores))]
        owners = [self._owners(k, regions[k], carried) for k in range(len(scores))]
        far = [self._keep_largest(k, regions[k], owners[k]) for k in range(len(scores))]

        filtered = scores.copy()
        for k, (of_object, owner) in enumerate(zip(regions, owners, strict=True)):
            for new in np.unique(owner[owner != k]):
                self._move(of_object, owner == new, k, int(new), labels, filtered)
        self._remember(labels, carried, far)
        return filtered

    def state(self) -> dict[str, np.ndarray]:
        """Return the state, for :meth:`restore`."""
        return {
            "masks": self._masks,
            "areas": self._areas,
            "missing": self._missing,
            "before": self._flow.before,
        }

    def restore(self, state: dict[str, np.ndarray]) -> None:
        """Continue from the state of a filter with the same number of objects and the same frame size."""
        old = self.state()
        new = {name: restored(state[name], memory) for name, memory in old.items()}
        self._masks, self._areas, self._missing = new["masks"], new["areas"], new["missing"]
        self._flow.before = new["before"]

    # --- steps 1 to 4 -----------------------------------------------------------------------------------------

    def _carried(self, flow: np.ndarray) -> np.ndarray:
        """Step 1: return the carried masks, uint8 (K, h, w), at the size of the flow."""
        height, width = flow.shape[:2]
        x = flow[..., 0] + np.arange(width, dtype=np.float32)
        y = flow[..., 1] + np.arange(height, dtype=np.float32)[:, None]
        carried = self._masks.copy()
        for k, mask in enumerate(self._masks):
            moved = cv2.remap(mask, x, y, cv2.INTER_NEAREST, borderMode=cv2.BORDER_CONSTANT, borderValue=0)
            if moved.any():
                carried[k] = moved
        return carried

    def _owners(self, k: int, regions: _Regions, carried: np.ndarray) -> np.ndarray:
        """Steps 2 and 3: return, for each region of object k, the object that gets it, or NOBODY."""
        p = self.parameters
        owners = np.full(len(regions.areas), k)
        if not self._areas[k]:
            return owners
        cover = regions.cover(carried[k], self._places)
        covered, near = cover >= p.own, cover > 0
        if not near[1:].all():
            near |= regions.touched(self._within_reach(k, carried[k]), self._places)
            owners[~near] = NOBODY
        complete = regions.areas[covered].sum() >= p.complete * self._areas[k]
        loose = ~covered & (~near | complete)
        if loose[1:].any():
            other = self._other_owner(k, regions, carried)
            owners = np.where(loose & (other != NOBODY), other, owners)
        owners[0] = k  # pixels outside all regions stay unchanged
        return owners

    def _keep_largest(self, k: int, regions: _Regions, owners: np.ndarray) -> bool:
        """End of step 3: let an object that would lose all regions keep the largest; return whether it did."""
        areas = np.where(owners == NOBODY, regions.areas, 0)
        largest = int(areas.argmax())
        kept = not (owners[1:] == k).any() and 0 < areas[largest] >= self.parameters.found * self._areas[k]
        if kept:
            owners[largest] = k
        return bool(kept)

    def _other_owner(self, k: int, regions: _Regions, carried: np.ndarray) -> np.ndarray:
        """Return, for each region of object k, the other object with the largest cover; NOBODY if small or tied."""
        best, largest = np.full(len(regions.areas), NOBODY), np.zeros(len(regions.areas))
        for j, mask in enumerate(carried):
            if j == k or not regions.meet(mask, self._places):
                continue
            cover = regions.cover(mask, self._places)
            best = np.where(cover > largest, j, np.where(cover == largest, NOBODY, best))
            largest = np.maximum(largest, cover)
        return np.where(largest >= self.parameters.other, best, NOBODY)

    def _within_reach(self, k: int, mask: np.ndarray) -> np.ndarray:
        """Return bool (h, w): where the distance to the carried mask of object k is at most r_k."""
        p = self.parameters
        area = self._areas[k] * mask.size / self._pixels.size
        reach = (p.reach + p.growth * self._missing[k]) * np.sqrt(area)
        return cv2.distanceTransform(1 - mask, cv2.DIST_L2, cv2.DIST_MASK_5) <= reach

    def _move(
        self, regions: _Regions, which: np.ndarray, k: int, new: int, labels: np.ndarray, filtered: np.ndarray
    ) -> None:
        """Give regions of object k to another object, or remove them."""
        pixels = which[regions.map]
        labels[regions.box][pixels] = new + 1
        scores = filtered[(slice(None), *regions.box)]
        taken = scores[k][pixels]
        scores[:, pixels] = 0
        if new != NOBODY:
            scores[new][pixels] = taken

    def _remember(self, labels: np.ndarray, carried: np.ndarray, far: list[bool]) -> None:
        """Step 4: update the state."""
        p = self.parameters
        for k, mask in enumerate(carried):
            now = labels == k + 1
            area = np.count_nonzero(now)
            usual = self._areas[k] or area
            seen = 0.0 if far[k] else area
            missing = max(0.0, 1 - seen / (p.missing * usual)) if usual else 0.0
            self._missing[k] = (self._missing[k] + 1) * missing
            self._masks[k] = self._small(now)
            if missing >= 0.5:
                self._masks[k] |= mask
            else:
                self._areas[k] = usual + p.rate * (area - usual)

    def _small(self, mask: np.ndarray) -> np.ndarray:
        """Resize a mask to the size of the flow, uint8; touched pixels are set, so that thin objects stay connected."""
        small = np.zeros(self._flow.size, np.uint8)
        small.reshape(-1)[self._pixels[mask]] = 1
        return small


@dataclass(frozen=True)
class _Regions:
    """The connected regions of one object: their bounding box, and the region number of each pixel in it.

    Region 0 means no region and has no pixels.
    """

    box: Box
    map: np.ndarray
    areas: np.ndarray

    @classmethod
    def of(cls, labels: np.ndarray, label: int, connectivity: int) -> _Regions:
        mask = (labels == label).view(np.uint8)
        x, y, width, height = cv2.boundingRect(mask)
        box = slice(y, y + height), slice(x, x + width)
        if not width:
            return cls(box, np.zeros((0, 0), np.int32), np.zeros(1, np.int64))
        count, numbers = cv2.connectedComponents(np.ascontiguousarray(mask[box]), connectivity=connectivity)
        areas = np.bincount(numbers.ravel(), minlength=count)
        areas[0] = 0
        return cls(box, numbers, areas)

    def cover(self, mask: np.ndarray, places: Places) -> np.ndarray:
        """Return the share of each region that lies on a mask with the size of the flow."""
        count = np.bincount(self.map[self._sampled(mask, places)], minlength=len(self.areas))
        count[0] = 0
        return count / np.maximum(self.areas, 1)

    def touched(self, mask: np.ndarray, places: Places) -> np.ndarray:
        """Return which regions have a pixel on a mask with the size of the flow."""
        touched = np.zeros(len(self.areas), bool)
        touched[self.map[self._sampled(mask, places)]] = True
        return touched

    def meet(self, mask: np.ndarray, places: Places) -> bool:
        """Return whether the box, which must not be empty, contains a pixel of a mask; cheaper than the others."""
        rows, columns = self._within(places)
        return bool(mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].any())

    def _sampled(self, mask: np.ndarray, places: Places) -> np.ndarray:
        rows, columns = self._within(places)
        return mask[rows][:, columns].astype(bool)

    def _within(self, places: Places) -> Places:
        return places[0][self.box[0]], places[1][self.box[1]]


def _labels(scores: np.ndarray, threshold: float) -> np.ndarray:
    """Return uint8 (H, W): k + 1 where object k has the largest score (first on ties) and it is >= ``threshold``."""
    if scores.dtype == np.float16:  # NumPy does not vectorise float16 comparisons
        scores = scores.astype(np.float32)
    best, labels = scores[0].copy(), np.ones(scores.shape[1:], np.uint8)
    for k, score in enumerate(scores[1:], 1):
        # Labels increase with k, so the maximum keeps the label of the last object that exceeded all before it.
        ahead = cv2.compare(score, best, cv2.CMP_GT)
        cv2.max(labels, ahead & np.uint8(k + 1), labels)
        np.maximum(best, score, out=best)  # propagates NaN, unlike OpenCV's maximum
    return np.where(best >= threshold, labels, np.uint8(0))


def _check_first(first: np.ndarray, size: tuple[int, ...]) -> None:
    if (
        not isinstance(first, np.ndarray)
        or first.dtype.kind not in "bui"
        or first.ndim != 3
        or not 1 <= len(first) <= LARGEST_COUNT
        or first.shape[1:] != size
    ):
        raise ValueError(
            f"first must be bool (K, H, W) = (K, {size[0]}, {size[1]}) with K from 1 to {LARGEST_COUNT}, "
            f"got {described(first)}"
        )


def _check_scores(scores: np.ndarray, shape: tuple[int, ...]) -> None:
    if not isinstance(scores, np.ndarray) or scores.dtype not in FLOATS or scores.shape != shape:
        raise ValueError(f"scores must be float (K, H, W) = {shape}, got {described(scores)}")
