"""What is meant for the user's eyes: the one exception, warnings, and names in them."""

from __future__ import annotations

import os
import sys


class PipelineError(Exception):
    """Something the user can mend: a missing file, a wrong layout, a mask of the wrong kind.

    The message is one line that says why and what to do. The command line prints it as ``error: ...`` and
    exits with 1; anything else that escapes is a defect and keeps its traceback.
    """


def warn(message: str) -> None:
    """Print ``warning: ...``, one line on stderr: something that the user should know, and that stops nothing."""
    print("warning:", " ".join(message.split()), file=sys.stderr)


def readable(path: str | os.PathLike[str]) -> str:
    """A path for a message: bytes that are not UTF-8 as escapes such as ``\\xe9``."""
    return os.fsencode(path).decode(errors="backslashreplace")
