"""Which Host values are ours: the guard against web pages that rebind a name to loopback. Pure."""

import re
from collections.abc import Iterable
from typing import Final

from gateway.errors import DownstreamError, ErrorCode

_ADDRESS: Final = re.compile(rb"[0-9]{1,3}(?:\.[0-9]{1,3}){3}|\[.*\]")
# RFC 9110 section 7.2: uri-host [ ":" port ]; no user information, no zone, no percent-encoding.
_HOST: Final = re.compile(rb"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::([0-9]{1,5}))?")
_OCTET: Final = (
    rb"(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"  # 127.0.0.256 is a name, not an address
)
_LOOPBACK: Final = re.compile(rb"localhost|127(?:\." + _OCTET + rb"){3}|\[::1\]")
_CACHE_SIZE: Final = 64


class AllowedHosts:
    """The names under which this gateway may be called.

    Invariants: what is remembered was admitted by the rule, and at most 64 values are remembered,
    so no caller can make it grow.
    """

    def __init__(self, names: Iterable[str], *, addresses: bool = False) -> None:
        """Take names without port; `*` admits every well-formed Host. Loopback is always in.

        `addresses` admits every IP address as well: to rebind, a page must come from a name.
        """
        self._names = frozenset(name.lower().encode("ascii") for name in names)
        self._every = b"*" in self._names
        self._addresses = addresses
        self._admitted: set[bytes] = set()

    def admit(self, host: bytes) -> None:
        """Return if `host`, a Host value, is one of ours.

        Raises:
            DownstreamError: malformed (400), or somebody else's (421).
        """
        if host in self._admitted:
            return
        parts = _HOST.fullmatch(host)
        if parts is None or int(parts[2] or 0) > 65535:
            raise DownstreamError(ErrorCode.BAD_REQUEST, "malformed Host")
        name = parts[1].lower()
        if not (
            self._every
            or name in self._names
            or _LOOPBACK.fullmatch(name)
            or (self._addresses and _ADDRESS.fullmatch(name))
        ):
            raise DownstreamError(ErrorCode.WRONG_HOST)
        if len(self._admitted) < _CACHE_SIZE:
            self._admitted.add(host)


class AnyHost(AllowedHosts):
    """Of a listener that no web page can reach: what Host says decides nothing."""

    def __init__(self) -> None:
        super().__init__(())

    def admit(self, host: bytes) -> None:
        """Accept any `host`."""
