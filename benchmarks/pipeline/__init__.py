"""The pipeline: the speed of its evaluation, and filters over time."""
