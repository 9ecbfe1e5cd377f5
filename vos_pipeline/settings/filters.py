"""Filters over time, and how the one to use is chosen."""

FILTERS = ("none", "craf", "flow")
