"""Results published in the paper: tables 1 to 4 of Cheng et al. 2017."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Figures:
    """Means over objects; None if the paper reports no value."""

    j_and_f: float | None  # the paper's "global mean"
    j: float
    j_recall: float | None
    f: float
    f_recall: float | None


# Table 1, DAVIS 2017 validation set, nets without SPN and CRAF.
MODELS = {
    "per-video": Figures(0.460, 0.442, 0.513, 0.478, 0.501),
    "per-object": Figures(0.481, 0.457, 0.536, 0.504, 0.526),
}

# Table 2, DAVIS 2017 validation set.
ABLATION = {
    "-CRAF-SPN-FT": Figures(0.448, 0.442, 0.528, 0.453, 0.501),
    "-CRAF-SPN": Figures(0.481, 0.457, 0.536, 0.504, 0.526),
    "-CRAF": Figures(0.537, 0.506, 0.582, 0.568, 0.602),
    "full": Figures(0.576, 0.540, 0.601, 0.611, 0.683),
}

# Table 3: seconds per frame and object, and the additional time of fine-tuning.
SECONDS = {"foreground net": 0.3, "instance net": 0.3, "SPN": 0.08, "CRAF": 0.1}
TUNING_SECONDS = 10.0

# Table 4, DAVIS 2017 challenge set, trained on train + val. The full system ranked sixth.
CHALLENGE = {
    "-CRAF": Figures(None, 0.516, None, 0.579, None),
    "full": Figures(0.569, 0.536, None, 0.602, None),
}
CHALLENGE_RANKING = (0.699, 0.678, 0.638, 0.615, 0.577, 0.569, 0.569, 0.558, 0.548, 0.539)  # global means
