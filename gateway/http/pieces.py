"""Bytes that come or leave in pieces: when a copy of them costs less than keeping them apart."""

from collections.abc import Sequence
from typing import Final

_SMALL_BYTES: Final = 16 * 1024
"""One TLS record; up to here a copy costs less than a second buffer (or record) on the way out."""
_FEW_PIECES: Final = 16
"""Up to 16 pieces are forwarded unmerged, whatever their size."""
_SMALL_PIECE_BYTES: Final = 512
"""On average; below it the pieces cost more, as objects, than a copy of them, however many."""


def joined_if_small(pieces: list[bytes]) -> bytes | None:
    """Return `pieces` as one, or None when a copy would cost more than writing them one by one."""
    count = len(pieces)
    if count == 2:  # a head and a body: most of all
        first, second = pieces[0], pieces[1]  # compiled, a third of what unpacking costs
        return first + second if len(first) + len(second) <= _SMALL_BYTES else None
    if count == 1:
        return pieces[0]
    return b"".join(pieces) if size_of(pieces) <= _SMALL_BYTES else None


def gathered(pieces: list[bytes]) -> list[bytes]:
    """Return `pieces`, as one if they are small: as an object, two bytes take 28 times that."""
    count = len(pieces)
    if count <= _FEW_PIECES or size_of(pieces) >= _SMALL_PIECE_BYTES * count:
        return pieces
    return [b"".join(pieces)]


def size_of(pieces: Sequence[bytes]) -> int:
    """Return how many bytes `pieces` hold."""
    return len(pieces[0]) if len(pieces) == 1 else sum(map(len, pieces))
