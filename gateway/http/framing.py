"""How the length of a body is known. Pure: the rules of RFC 9112 section 6, read strictly."""

from collections.abc import Iterable, Sequence
from enum import Enum, auto

from gateway.errors import DownstreamError, ErrorCode

_MAX_DIGITS = 15
MAX_LENGTH = 10**_MAX_DIGITS - 1
"""888 TiB: more than any body, less than any integer's trouble."""


class BodyFraming(Enum):
    """How a receiver finds the end of a message."""

    NONE = auto()
    """No body at all, whatever Content-Length says (HEAD, 204, 304)."""
    LENGTH = auto()
    CHUNKED = auto()
    CLOSE = auto()
    """The end of the connection is the end of the body; a cut cannot be told from the end."""


def content_length_of(value: bytes) -> int:
    """Parse a request's Content-Length: plain digits, nothing that `int()` also takes.

    Raises:
        DownstreamError: a list, sign, space, hexadecimal, empty or absurd value.
    """
    if not value.isdigit() or len(value) > _MAX_DIGITS:  # of bytes, isdigit knows ASCII only
        raise DownstreamError(ErrorCode.BAD_REQUEST, "Content-Length is not a plain number")
    return int(value)


def bytes_to_come(fields: Iterable[tuple[bytes, bytes]], body: Iterable[bytes]) -> int:
    """Return how much of a message's body is still to come behind `body`, where that is plain.

    Returns:
        0 unless exactly one Content-Length, of plain digits, says it, and nothing says that the
        end of the message is more than that: then only a parser can know.
    """
    length = 0
    for name, value in fields:
        lower = name.lower()
        if lower in {b"transfer-encoding", b"upgrade"}:
            return 0
        if lower == b"content-length":
            if length or not value.isdigit() or len(value) > _MAX_DIGITS:
                return 0
            length = int(value)
    return length and length - sum(map(len, body))


def is_chunked_coding(value: bytes) -> bool:
    """Say whether a Transfer-Encoding is exactly `chunked`; no other coding is ours to undo."""
    return value.lower() == b"chunked"


def response_framing(
    status: int, *, head_request: bool, content_length: int | None, chunked: bool
) -> BodyFraming:
    """Decide how the body of a final response ends (RFC 9112 section 6.3, its steps in order)."""
    if head_request or status in {204, 304}:
        return _NONE
    if chunked:
        return _CHUNKED
    if content_length is not None:
        return _LENGTH
    return _CLOSE


# Looking a member up costs as much as the rest of the decision (Python 3.11).
_NONE, _LENGTH = BodyFraming.NONE, BodyFraming.LENGTH
_CHUNKED, _CLOSE = BodyFraming.CHUNKED, BodyFraming.CLOSE


def chunk(data: bytes) -> bytes:
    """Wrap non-empty `data` as one chunk (RFC 9112 section 7.1)."""
    return b"%x\r\n%b\r\n" % (len(data), data)


LAST_CHUNK = b"0\r\n\r\n"
"""Ends a chunked body; written only when the other side's body has ended, too."""


_SMALL_BYTES = 16 * 1024
"""One TLS record; up to here a copy costs less than a second buffer (or record) on the way out."""


def joined_if_small(pieces: Sequence[bytes]) -> bytes | None:
    """Return `pieces` as one, or None when a copy would cost more than writing them one by one."""
    if len(pieces) == 1:
        return pieces[0]
    if len(pieces) == 2:  # a head and a body: most of all
        first, second = pieces
        return first + second if len(first) + len(second) <= _SMALL_BYTES else None
    return b"".join(pieces) if sum(map(len, pieces)) <= _SMALL_BYTES else None


_FEW_PIECES = 16
"""So many may be of any size: who has sent few chunks is passed on as many."""
_SMALL_PIECE_BYTES = 512
"""On average; below it the pieces cost more, as objects, than a copy of them, however many."""


def gathered(pieces: list[bytes]) -> list[bytes]:
    """Return `pieces`, as one if they are small: as an object, two bytes take 28 times that."""
    return [b"".join(pieces)] if is_fragmented(pieces, sum(map(len, pieces))) else pieces


def is_fragmented(pieces: Sequence[bytes], size: int) -> bool:
    """Say whether `pieces`, of `size` bytes together, take many times that in memory."""
    return len(pieces) > _FEW_PIECES and size < _SMALL_PIECE_BYTES * len(pieces)
