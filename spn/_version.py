"""The version of the package: its single source of truth."""

__version__ = "0.2.0"
