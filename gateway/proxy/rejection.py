"""Who answered with an error, and whether it means that our token is no longer good. Pure.

Source: the vendor's error code pages; the table is in `gateway/README.md`. Decided on status and
code together: APIG.0201, for one, comes with seven different statuses.
"""

import json
import zlib
from typing import Any, Final

from gateway.errors import Layer

PEEK_BYTES: Final = 8 * 1024
"""How much of an error body is looked at: the vendor's are a few hundred bytes."""

_REJECTED_401: Final = frozenset(
    ["APIG.0301", "APIG.0307", "ModelArts.4127", "ModelArts.4201"]
    + [f"ModelArts.020{n}" for n in (1, 2, 3, 4)]
)
_REJECTED_403: Final = frozenset(["ModelArts.0203"])
_CODE_KEYS: Final = ("error_code", "errorCode", "code")

_WINDOWS: Final = {b"gzip": 31, b"x-gzip": 31, b"deflate": 15}
"""By coding, what zlib must be told of its format."""
_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"


def readable(body: bytes, coding: bytes) -> bytes:
    """Return the beginning of an error's text, at most `PEEK_BYTES`; empty if it cannot be read.

    Args:
        body: its beginning, as it was sent.
        coding: of Content-Encoding; gateways compress errors as well for clients that take it.
    """
    window = _WINDOWS.get(coding.lower())
    if window is not None:
        try:
            body = zlib.decompressobj(window).decompress(body, PEEK_BYTES)
        except zlib.error:
            return b""
    return body.removeprefix(_BYTE_ORDER_MARK)


def vendor_code(body: bytes) -> str:
    """Return the error code in a JSON body, which may be nested one level; empty if there is none.

    Args:
        body: the beginning of a body; one that was cut off has no code.
    """
    if body.lstrip()[:1] != b"{":
        return ""
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        return ""
    return _code_in(document) or next(filter(None, map(_code_in, document.values())), "")


def is_token_rejection(status: int, code: str, *, server: bytes, keystone: bool) -> bool:
    """Return whether a response rejects the token itself, not what the caller may do.

    Args:
        status: of the response.
        code: from `vendor_code`.
        server: its Server field; the model itself answers as `ModelArts`.
        keystone: it carries a `WWW-Authenticate: Keystone` challenge (keystonemiddleware).
    """
    if status == 401:
        if code:
            return code in _REJECTED_401
        return keystone and server != b"ModelArts"
    return status == 403 and code in _REJECTED_403


def layer_of(code: str) -> Layer:
    """Name the layer that answered with an error status."""
    if code.startswith("APIG."):
        return Layer.APIG
    if code.startswith("ModelArts."):
        return Layer.MODELARTS
    return Layer.MODEL


def _code_in(value: Any) -> str:
    if isinstance(value, dict):
        for key in _CODE_KEYS:
            code = value.get(key)
            if isinstance(code, str):
                return code
    return ""
