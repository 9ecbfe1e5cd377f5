"""The command line, ``python -m vos_pipeline`` or ``spn-vos``.

Exit codes: 0 success, 1 failure (one line says why and what to do), 2 usage error.
"""

from __future__ import annotations

import errno
import sys

from vos_pipeline.cli import command_line
from vos_pipeline.errors import PipelineError

# Import names of the packages that the extra "vos" installs.
EXTRA = {"PIL", "av", "cv2", "numpy", "safetensors", "scipy", "skimage", "torchvision", "tqdm"}


def main(argv: list[str] | None = None) -> int:
    """Run one command and return the exit code."""
    try:
        args = command_line().parse_args(argv)
    except SystemExit as stop:  # argparse has printed the reason
        return int(stop.code or 0)
    later = ": finished work is kept, --resume continues it" if hasattr(args, "resume") else ""
    try:
        args.command(args)
    except PipelineError as error:
        return _fail(error)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] not in EXTRA:
            raise
        return _fail(
            f"{error.name} is not installed: run pip install 'spatial-propagation[vos]' to install all requirements"
        )
    except KeyboardInterrupt:
        return _fail(f"interrupted{later}")
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        return _fail(
            f"the disk is full, free some space ({_reason(error)}){later}" if full else _reason(error)
        )
    except MemoryError:
        return _fail("out of memory: choose --preset small or smaller frames")
    except RuntimeError as error:
        if "out of memory" not in str(error):
            raise
        return _fail("the device ran out of memory: choose --preset small or --device cpu")
    return 0


def _reason(error: OSError) -> str:
    reason = (error.strerror or str(error) or type(error).__name__).lower()
    return f"{error.filename}: {reason}" if error.filename else reason


def _fail(why: object) -> int:
    print("error:", " ".join(str(why).split()), file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
