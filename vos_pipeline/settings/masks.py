"""Contents of the masks of another tool: labels of objects, or scores of one object."""

MASKS_HOLD = ("auto", "labels", "scores")
SMALLEST_SCORE = 64  # grey values from 64 to 254 are not labels, because few videos have 64 objects
