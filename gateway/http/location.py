"""Where a redirect leads, seen from the client. Pure: no redirect is ever followed here."""

import re
from typing import Final

from gateway.errors import DownstreamError
from gateway.http.target import split_target

# RFC 3986 appendix B without user information, which no redirect to a service of ours carries.
_REFERENCE: Final = re.compile(rb"(?:(?:([Hh][Tt][Tt][Pp][Ss]?):)?//([^/?#@\\]*))?([^#]*)(#.*)?")


def location_for_client(value: bytes, *, origin: bytes, path: bytes, prefix: bytes) -> bytes:
    """Return `Location` as the client must read it (RFC 9110 section 10.2.2).

    What leads to the service itself becomes a path on the gateway, else the client would call the
    service without the token. Everything else is returned untouched: relative references hold
    for both, and another origin is none of ours.

    Args:
        value: as received.
        origin: `scheme://authority` of the service, lower case, without the scheme's own port.
        path: of the service's URL, without a final slash.
        prefix: of the client's target, in place of `path`.
    """
    parts = _REFERENCE.fullmatch(value)
    if parts is None:
        return value
    scheme, authority, target, fragment = parts.groups()
    if authority is not None and _origin(scheme or origin.split(b":")[0], authority) != origin:
        return value
    target = target or b"/"
    if not target.startswith(path) or target[len(path) : len(path) + 1] not in {b"", b"/", b"?"}:
        return value
    if authority is None and not target.startswith(b"/"):
        return value
    try:
        split_target(target)
    except DownstreamError:
        return value  # another reader may resolve it elsewhere: not ours to interpret
    mapped = prefix + target[len(path) :]
    return (mapped if mapped.startswith(b"/") else b"/" + mapped) + (fragment or b"")


def _origin(scheme: bytes, authority: bytes) -> bytes:
    scheme, authority = scheme.lower(), authority.lower()
    return scheme + b"://" + authority.removesuffix(b":443" if scheme == b"https" else b":80")
