"""The command line: the options of every command, and what each command does."""

from vos_pipeline.cli.options import command_line

__all__ = ["command_line"]
