"""The constants of CRAF, the connected region-aware filter: the paper's four, and what it leaves open."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class CRAFParameters:
    """The constants of the filter. The first four are the paper's (section 4.2); the others settle what it leaves open.

    Args:
        alpha: step 1 selects a region larger than alpha times the object's largest one.
        beta: step 2 removes a region of which more than beta is covered.
        gamma: step 3 looks for another region if less than gamma of the reference area is left.
        delta: the Jaccard index with the previous region that such another region must exceed.
        connectivity: 8 or 4 neighbours make a region.
        threshold: pixels with a score of at least this belong to the object.
        small_best: what step 1 selects where the region of the largest Jaccard index is not larger than alpha times
            the largest: "next" (the best of those that are), "largest" (the largest region) or "none" (no region,
            which leaves the object to step 3).
        mutual_cover: two regions that cover each other: "jaccard" leaves the overlap to the object whose
            previous region fits better (to both if they tie; scores decide then), "both" takes it from both,
            the literal reading of step 2.
        gamma_reference: what gamma is relative to: "previous_area" (the object's region in the previous
            frame) or "selected_area" (its region of step 1, before step 2 took something away).
        previous: the object's region in the previous frame is "filtered" (what the filter kept of the object) or
            "labelled" (what the object got of it once labels were decided, as in the authors' script, if
            ``threshold`` is also that of the labels).
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
