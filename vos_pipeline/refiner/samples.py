"""The sample type of the refiner's training sets."""

import numpy as np

# Image (S, S, 3), coarse mask (S, S) and exact mask (S, S), all float32 in [0, 1]. The exact mask is -1 where it is
# unknown. A data set of samples is endless, and a sample depends only on its index.
Sample = tuple[np.ndarray, np.ndarray, np.ndarray]

TRIES = 20  # to find a crop with object and background
