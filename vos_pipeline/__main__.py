"""The command line, ``python -m vos_pipeline`` or ``spn-vos``.

Exit codes: 0 done, 1 failed (one line says why and what to do), 2 usage.
"""

from __future__ import annotations

import errno
import sys

from vos_pipeline.cli import command_line
from vos_pipeline.errors import PipelineError, readable


def main(argv: list[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    try:
        args = command_line().parse_args(argv)
    except SystemExit as stop:  # argparse has said why
        return int(stop.code or 0)
    for argument in sys.argv[1:] if argv is None else argv:
        if readable(argument) != argument:  # noticed late otherwise: what is printed and the report are UTF-8
            return _fail(f"{readable(argument)}: this name is not UTF-8; rename it")
    later = ": finished work is kept, --resume goes on with it" if hasattr(args, "resume") else ""
    try:
        args.command(args)
    except PipelineError as error:
        return _fail(error)
    except KeyboardInterrupt:
        return _fail(f"interrupted{later}")
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        return _fail(
            f"the disk is full, free some space ({_reason(error)}){later}" if full else _reason(error)
        )
    except MemoryError:
        return _fail("out of memory: choose --preset small, or smaller frames")
    except RuntimeError as error:
        if "out of memory" not in str(error):
            raise
        return _fail("the device ran out of memory: choose --preset small, or --device cpu")
    return 0


def _reason(error: OSError) -> str:
    reason = (error.strerror or str(error) or type(error).__name__).lower()
    return f"{error.filename}: {reason}" if error.filename else reason


def _fail(why: object) -> int:
    print("error:", " ".join(str(why).split()), file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
