"""Which ids of requests are written into log lines and fields as they are. Pure."""

import string
from typing import Final

_MAX_BYTES: Final = 64
_PLAIN: Final = (string.ascii_letters + string.digits + "._:-").encode()
_WITHOUT_OTHERS: Final = bytes(octet if octet in _PLAIN else _PLAIN[0] for octet in range(256))


def is_plain_id(value: bytes) -> bool:
    """Return whether it is 1 to 64 letters, digits, dots, underscores, colons and dashes."""
    return 0 < len(value) <= _MAX_BYTES and value.translate(_WITHOUT_OTHERS) == value
