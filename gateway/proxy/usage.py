"""Token counts that a model reports at the end of its response, in OpenAI's format. Pure."""

import re
from typing import Final

KEPT_BYTES: Final = 4096
"""Of a response's end. OpenAI's and vLLM's `usage` objects have 100 to 600 bytes, and little or
nothing follows them."""
_MOST_BYTES: Final = 2 * KEPT_BYTES
_MOST_PIECES: Final = 64
"""Kept before they are joined: an object of a few bytes takes many times that in memory."""

_USAGE: Final = re.compile(rb'"usage"\s*:\s*\{')
# Chat and completions; the Responses API calls them `input_tokens` and `output_tokens`.
_INPUT: Final = re.compile(rb'"(?:prompt|input)_tokens"\s*:\s*([0-9]{1,12})(?![0-9.eE])')
_OUTPUT: Final = re.compile(rb'"(?:completion|output)_tokens"\s*:\s*([0-9]{1,12})(?![0-9.eE])')


class Tail:
    """Keeps the last `KEPT_BYTES` of a body, and at most twice that.

    Pieces are kept by reference, and joined now and then.
    """

    __slots__ = ("_bytes", "_pieces", "is_readable")

    def __init__(self, *, is_readable: bool = True) -> None:
        """Keep nothing if the body is not readable, because it is compressed."""
        self.is_readable = is_readable
        self._pieces: list[bytes] = []
        self._bytes = 0

    def add(self, body: list[bytes]) -> None:
        """Keep the end of what has been added so far."""
        if not self.is_readable:
            return
        pieces = self._pieces
        for piece in body:
            # A large piece is copied in part, so that the rest of it does not stay in memory.
            kept = piece[-KEPT_BYTES:] if len(piece) > KEPT_BYTES else piece
            pieces.append(kept)
            self._bytes += len(kept)
            if self._bytes > _MOST_BYTES or len(pieces) > _MOST_PIECES:
                joined = b"".join(pieces)[-KEPT_BYTES:]
                pieces[:] = [joined]
                self._bytes = len(joined)

    def last_bytes(self) -> bytes:
        """Return what has been kept, at most `KEPT_BYTES`."""
        return b"".join(self._pieces)[-KEPT_BYTES:]


def usage_in(end: bytes) -> tuple[int, int] | None:
    """Return the tokens of input and output that a response reports, or None.

    Args:
        end: last bytes of a JSON or event-stream body. A `"usage"` inside a text has its quotes
            escaped, so it is not found. The last one counts; before it, streams say null.
    """
    at = end.rfind(b'"usage"')
    while at >= 0:
        found = _USAGE.match(end, at)
        if found is not None:
            given = _INPUT.search(end, found.end())
            made = _OUTPUT.search(end, found.end())
            if given is None and made is None:
                return None
            return (int(given[1]) if given else 0), (int(made[1]) if made else 0)
        at = end.rfind(b'"usage"', 0, at)
    return None
