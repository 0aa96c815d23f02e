"""Which request targets may be decided on. Pure: the bytes judged here are the bytes forwarded."""

import re

from gateway.errors import DownstreamError, ErrorCode

MAX_TARGET_BYTES = 8192
"""As Apache and nginx; the vendor's API gateway documents no larger figure."""

# Non-empty segments of unreserved characters, harmless sub-delimiters and percent-encoded octets.
# Left out on purpose: `;` (path parameters), `@`, `\`, empty and dot segments; and, encoded, what
# a careless server would act on after decoding: control octets, `#`, `%`, `.`, `/`, `;`, `?`, `\`.
_SEGMENT = (
    rb"(?!\.\.?(?:/|\Z))"
    rb"(?:[A-Za-z0-9\-._~!$&'()*+,=:]|%(?!0|1|7[Ff]|2[35EeFf]|3[BbFf]|5[Cc])[0-9A-Fa-f]{2})+"
)
_PATH = re.compile(rb"(?:/" + _SEGMENT + rb")*/?")
_QUERY = re.compile(rb"[!\"$-~]*")  # visible ASCII but `#`


def split_target(target: bytes) -> tuple[bytes, bytes]:
    """Return path and query (with its `?`, or empty) of a target in origin form, both as received.

    Raises:
        DownstreamError: not origin form, or a form that another server may resolve elsewhere.
    """
    if len(target) > MAX_TARGET_BYTES:
        raise DownstreamError(ErrorCode.TARGET_TOO_LONG)
    path, mark, query = target.partition(b"?")
    if not path or not _PATH.fullmatch(path) or not _QUERY.fullmatch(query):
        raise DownstreamError(ErrorCode.BAD_TARGET)
    if b"%" in path and not _decodes_to_utf8(path):
        raise DownstreamError(ErrorCode.BAD_TARGET, "encoded octets are not UTF-8")
    return path, mark + query


_ENCODED = re.compile(rb"%([0-9A-Fa-f]{2})")


def _decodes_to_utf8(path: bytes) -> bool:
    """Refuse overlong and other invalid UTF-8, which decoders disagree about."""
    try:
        _ENCODED.sub(lambda found: bytes([int(found[1], 16)]), path).decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True
