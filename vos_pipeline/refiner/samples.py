"""A sample of the refiner's training sets."""

import numpy as np

# Picture (S, S, 3), coarse mask (S, S), exact mask (S, S), all float32 in [0, 1]; the exact mask is -1 where it is
# not known. A data set of samples is a function of the index alone and has no end.
Sample = tuple[np.ndarray, np.ndarray, np.ndarray]

TRIES = 20  # to draw a crop in which object and background occur
