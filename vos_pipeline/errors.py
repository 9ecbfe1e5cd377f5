"""Messages for the user: the exception for errors, warnings, and readable paths in both."""

from __future__ import annotations

import os
import sys


class PipelineError(Exception):
    """An error that the user can fix: a missing file, a wrong layout, a mask of the wrong kind.

    The message is one line that says what is wrong and what to do. The command line prints it as ``error: ...`` and
    exits with code 1. Other exceptions are defects and keep their traceback.
    """


def warn(message: str) -> None:
    """Print ``warning: ...`` as one line on stderr, for a condition that does not stop the command."""
    print("warning:", " ".join(message.split()), file=sys.stderr)


def readable(path: str | os.PathLike[str]) -> str:
    """Return a path for a message: bytes that are not UTF-8 become escapes such as ``\\xe9``."""
    return os.fsencode(path).decode(errors="backslashreplace")
