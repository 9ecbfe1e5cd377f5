"""The one exception that is meant for the user's eyes."""


class PipelineError(Exception):
    """Something the user can mend: a missing file, a wrong layout, a mask of the wrong kind.

    The message is one line that says why and what to do. The command line prints it as ``error: ...`` and
    exits with 1; anything else that escapes is a defect and keeps its traceback.
    """
