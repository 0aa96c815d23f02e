"""Which request targets may be decided on. Pure: the bytes judged here are the bytes forwarded."""

import re
from typing import Final
from urllib.parse import unquote_to_bytes

from gateway.errors import DownstreamError, ErrorCode

MAX_TARGET_BYTES: Final = 8192
"""As Apache and nginx; the vendor's API gateway documents no larger figure."""

# Unreserved characters, harmless sub-delimiters, percent-encoded octets and slashes. Left out on
# purpose: `;` (path parameters), `@`, `\`.
_PATH: Final = re.compile(rb"/[A-Za-z0-9\-._~!$&'()*+,=:%/]*")
# Empty and dot segments; `%` that encodes nothing; and, encoded, what a careless server would act
# on after decoding: control octets, `#`, `%`, `.`, `/`, `;`, `?`, `\`.
# Two patterns because one, with a group per segment, took 1.5 MiB for a path of 8 KiB.
_AMISS: Final = re.compile(
    rb"//|/\.\.?(?:/|\Z)|%(?:0|1|7[Ff]|2[35EeFf]|3[BbFf]|5[Cc]|(?![0-9A-Fa-f]{2}))"
)
# RFC 9112 section 3.2.2. Our listener is plain HTTP, so no other scheme names us. The authority has
# no other octets than RFC 3986 section 3.2 gives it; which host it names is decided later.
_ABSOLUTE: Final = re.compile(
    rb"[Hh][Tt][Tt][Pp]://([A-Za-z0-9\-._~!$&'()*+,;=:%@\[\]]+)((?:[/?].*)?)"
)
_QUERY: Final = re.compile(rb"[!\"$-~]*")  # visible ASCII but `#`


def split_absolute(target: bytes) -> tuple[bytes, bytes]:
    """Return authority, as received, and origin form of a target in absolute form.

    Raises:
        DownstreamError: not absolute form.
    """
    if len(target) > MAX_TARGET_BYTES:
        raise DownstreamError(ErrorCode.TARGET_TOO_LONG)
    parts = _ABSOLUTE.fullmatch(target)
    if parts is None:
        raise DownstreamError(ErrorCode.BAD_TARGET)
    rest = parts[2]
    return parts[1], rest if rest.startswith(b"/") else b"/" + rest


def split_target(target: bytes) -> tuple[bytes, bytes]:
    """Return path and query (with its `?`, or empty) of a target in origin form, both as received.

    Raises:
        DownstreamError: not origin form, or a form that another server may resolve elsewhere.
    """
    if len(target) > MAX_TARGET_BYTES:
        raise DownstreamError(ErrorCode.TARGET_TOO_LONG)
    path, mark, query = target.partition(b"?")
    if not _PATH.fullmatch(path) or _AMISS.search(path) or not _QUERY.fullmatch(query):
        raise DownstreamError(ErrorCode.BAD_TARGET)
    if b"%" in path and not _decodes_to_utf8(path):
        raise DownstreamError(ErrorCode.BAD_TARGET, "encoded octets are not UTF-8")
    return path, mark + query


def _decodes_to_utf8(path: bytes) -> bool:
    """Refuse overlong and other invalid UTF-8, which decoders disagree about."""
    try:
        unquote_to_bytes(path).decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True
