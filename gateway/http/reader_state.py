"""Where a reader of messages is. Pure."""

from enum import Enum, auto
from typing import Final


class ReaderState(Enum):
    """What a reader of messages expects next."""

    HEAD = auto()
    BODY_COUNTED = auto()
    BODY_CHUNKED = auto()
    BODY_UNTIL_CLOSE = auto()
    """Of a response only."""
    TUNNEL = auto()
    """The connection speaks, or may speak, another protocol: bytes are passed as they come."""
    DONE = auto()
    """The message is complete; what follows is not part of it."""
    REFUSED = auto()
    """The bytes make no valid message; none of what follows is read."""


# Looking a member up costs as much as the comparison it is for (Python 3.11).
HEAD: Final = ReaderState.HEAD
BODY_COUNTED: Final = ReaderState.BODY_COUNTED
BODY_CHUNKED: Final = ReaderState.BODY_CHUNKED
BODY_UNTIL_CLOSE: Final = ReaderState.BODY_UNTIL_CLOSE
TUNNEL: Final = ReaderState.TUNNEL
DONE: Final = ReaderState.DONE
REFUSED: Final = ReaderState.REFUSED
