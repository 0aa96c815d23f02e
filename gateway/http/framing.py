"""How the length of a body is known. Pure: the rules of RFC 9112 section 6, read strictly."""

from enum import Enum, auto
from typing import Final

_MAX_DIGITS: Final = 15
"""888 TiB: more than any body, less than any integer's trouble."""


class BodyFraming(Enum):
    """How a receiver finds the end of a message."""

    NO_BODY = auto()
    """No body at all, whatever Content-Length says (HEAD, 204, 304)."""
    LENGTH = auto()
    CHUNKED = auto()
    CLOSE = auto()
    """The end of the connection is the end of the body; a cut cannot be told from the end."""


# Looking a member up costs as much as the decision it is for (Python 3.11).
NO_BODY: Final = BodyFraming.NO_BODY
LENGTH: Final = BodyFraming.LENGTH
CHUNKED: Final = BodyFraming.CHUNKED
CLOSE: Final = BodyFraming.CLOSE


def is_plain_length(value: bytes) -> bool:
    """Return whether a Content-Length is plain digits: nothing that `int()` also takes, or absurd.

    `int()` itself raises ValueError above some thousands of digits.
    """
    return value.isdigit() and len(value) <= _MAX_DIGITS  # of bytes, isdigit knows ASCII only


def is_chunked_coding(value: bytes) -> bool:
    """Return whether a Transfer-Encoding is exactly `chunked`; no other coding is ours to undo."""
    return value.lower() == b"chunked"
