"""The command line: the options and the implementation of every command."""

from vos_pipeline.cli.options import command_line

__all__ = ["command_line"]
