"""A cheap look at the first bytes of a client. Pure.

Only the order in which clients are read depends on it, never what is read of them.
"""

import re
from typing import Final

SMALL_BYTES: Final = 4 * 1024
"""A normal request is not longer."""

_HEAD_END: Final = b"\r\n\r\n"
_LENGTH: Final = re.compile(rb"\ncontent-length: ?([0-9]{1,9})\r", re.IGNORECASE)


def is_small_request(data: bytes) -> bool:
    """Return whether `data` looks like a small request that is there whole, or soon.

    Some clients send a small body by itself, right behind the head. An unfinished head or chunked
    body may never end: who sends one waits behind those who could be served at once.
    """
    if len(data) > SMALL_BYTES:
        return False
    head, head_end, body = data.partition(_HEAD_END)
    if not head_end:
        return False
    length = _LENGTH.search(head + b"\r")
    if length is not None:
        return int(length[1]) <= SMALL_BYTES
    return not body or body.endswith(_HEAD_END)  # none, or the end of a chunked one
