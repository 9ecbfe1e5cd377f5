"""How masks of another tool are told apart: labels of objects, or scores of one."""

MASKS_HOLD = ("auto", "labels", "scores")
SMALLEST_SCORE = 64  # grey values from here to 254 are no labels: few videos have so many objects
