"""Which of the two builds runs: both are made from the same source."""

from importlib.machinery import EXTENSION_SUFFIXES
from importlib.util import find_spec
from typing import Final


def _is_compiled() -> bool:
    # Found, not imported: `--version` need not load what requests need.
    hot = find_spec("gateway.http.lines")
    return hot is not None and str(hot.origin).endswith(tuple(EXTENSION_SUFFIXES))


COMPILED: Final = _is_compiled()
"""Whether the rooms that each request passes through were compiled by mypyc."""
NAME: Final = "compiled" if COMPILED else "interpreted"
"""What people are told of it."""
