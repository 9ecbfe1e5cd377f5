"""Constants of CRAF, the connected region-aware filter: four from the paper, and choices that the paper leaves open."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class CRAFParameters:
    """Constants of CRAF, the connected region-aware filter.

    :class:`vos_pipeline.temporal.ConnectedRegionFilter` describes its three steps. The first four constants are from
    the paper (section 4.2). The others are choices that the paper leaves open.

    Args:
        alpha: step 1 selects a region larger than alpha times the largest region of the object.
        beta: step 2 removes a region if more than this fraction of it is covered.
        gamma: step 3 searches for another region if less than this fraction of the reference area remains.
        delta: that region must exceed this Jaccard index with the previous region.
        connectivity: number of neighbours of a pixel in a region, 8 or 4.
        threshold: minimum score of the pixels of an object.
        small_best: selection of step 1 if the region with the largest Jaccard index is not larger than alpha times the
            largest region. "next": the best of the regions that are larger. "largest": the largest region. "none": no
            region, so that step 3 handles the object.
        mutual_cover: treatment of two regions that cover each other. "jaccard" assigns the overlap to the object with
            the better matching previous region. On a tie, both keep it, and each pixel goes to the object with the
            larger score. "both" removes it from both objects, the literal reading of step 2.
        gamma_reference: reference area of gamma. "previous_area": the region of the object in the previous frame.
            "selected_area": the region that step 1 selected, before step 2 removed parts of it.
        previous: region of the object in the previous frame. "filtered": the region that the filter kept.
            "labelled": the part of it that received the label of the object, as in the authors' script if
            ``threshold`` is also the threshold of the labels.
    """

    alpha: float = 0.2
    beta: float = 0.9
    gamma: float = 0.1
    delta: float = 0.4
    connectivity: int = 8
    threshold: float = 0.5
    small_best: str = "next"
    mutual_cover: str = "jaccard"
    gamma_reference: str = "previous_area"
    previous: str = "filtered"

    def __post_init__(self) -> None:
        for name in ("alpha", "beta", "gamma", "delta", "threshold"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must be in [0, 1], got {getattr(self, name)}")
        for name, allowed in (
            ("connectivity", (4, 8)),
            ("small_best", ("next", "largest", "none")),
            ("mutual_cover", ("jaccard", "both")),
            ("gamma_reference", ("previous_area", "selected_area")),
            ("previous", ("filtered", "labelled")),
        ):
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} must be one of {allowed}, got {getattr(self, name)!r}")
