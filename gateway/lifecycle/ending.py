"""The end of a process with the exit code that it means, whatever can be written."""

import os
import sys
from typing import NoReturn


def end_with(code: int) -> NoReturn:
    """Exit with `code`, also if standard output or error cannot be written.

    Python keeps what a full disk does not take, tries again at its end, and exits with 120 if that
    fails too (`sys.exit`). That rest is dropped.
    """
    for fd, stream in ((1, sys.stdout), (2, sys.stderr)):
        try:
            if stream is not None:  # it was closed at the start
                stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), fd)
    sys.exit(code)
