"""Signatures with an access key: SDK-HMAC-SHA256, without the body. No I/O; clocks are passed in.

Source: Huawei Cloud "API Gateway: AK/SK signing" and its SDKs, which tests compare with. Only Host,
date and the mark for an unsigned body are signed, so a signature depends on method, path, query,
host and second: it is computed once for all of a second's requests for a target.
"""

import hashlib
from datetime import date, timedelta
from functools import lru_cache
from typing import Final
from urllib.parse import quote_from_bytes, unquote_to_bytes

from gateway.clock import Clock
from gateway.identity.credential import Credential

LARGEST_CLOCK_ERROR_S: Final = 30.0
"""A service's time that differs from ours by more is used instead of ours. It refuses at 900 s."""
_CURED_S: Final = 60.0
"""For how long after a correction a rejection is taken for one of an earlier signature."""
_LOOK_AGAIN_S: Final = 10.0
"""How often the time in responses is looked at, if nothing is refused."""
_MOST_TARGETS: Final = 512
"""Targets and signatures that are remembered for a host; then the memory is emptied."""
_LONGEST_TARGET: Final = 512
"""Bytes of a target that is remembered: any caller can send many that are long."""
_LAST_INSTANT: Final = 253370764800.0
"""The year 9999: a date in it is no service's time, and soon there would be no day to sign for."""
_MARK: Final = b"X-Sdk-Content-Sha256: UNSIGNED-PAYLOAD\r\n"


class ServiceClocks:
    """What time it is at each service, as its responses tell. Outlives the keys.

    Instants are kept as the difference to the gateway's own clock, which nobody sets, so that a
    correction of this machine's wall clock makes none of them wrong.
    """

    def __init__(self, clock: Clock, wall_clock: Clock) -> None:
        """Begin with the machine's time for every service."""
        self._clock = clock
        self._wall_clock = wall_clock
        self._offsets: dict[bytes, float] = {}
        self._corrected_at = float("-inf")
        self.skew_s: float | None = None
        """Our wall clock minus a service's, as last measured."""
        self.look_at = float("-inf")
        """When a service's time is to be looked at next."""

    def offset_s(self, host_line: bytes) -> float:
        """Return the seconds from the gateway's clock to the service's time since the epoch."""
        known = self._offsets.get(host_line)
        return self._wall_clock() - self._clock() if known is None else known

    def note(self, host_line: bytes, date: float, now: float) -> bool:
        """Note the time at a service; return whether that changes the time used in signatures."""
        self.look_at = now + _LOOK_AGAIN_S
        if date >= _LAST_INSTANT:
            return False
        theirs = date + 0.5 - now  # a date leaves out up to a second
        ours = self._wall_clock() - self._clock()
        self.skew_s = ours - theirs
        before = self._offsets.get(host_line, ours)
        if abs(self.skew_s) <= LARGEST_CLOCK_ERROR_S:
            self._offsets.pop(host_line, None)
            after = ours
        elif abs(theirs - before) > 1.0:
            self._offsets[host_line] = after = theirs
        else:
            after = before
        if abs(after - before) <= LARGEST_CLOCK_ERROR_S:
            return False
        self._corrected_at = now
        return True

    def is_corrected(self, now: float) -> bool:
        """Return whether a signature that is refused at `now` may be one of the wrong time."""
        return now < self._corrected_at + _CURED_S


class _KeyedHash:
    """HMAC-SHA256 (RFC 2104) with one key, whose two first blocks are hashed beforehand.

    A third of the time of `hmac.digest`, which looks the hash up and the key's blocks anew.
    """

    __slots__ = ("_inner", "_outer")

    def __init__(self, key: bytes) -> None:
        block = (hashlib.sha256(key).digest() if len(key) > 64 else key).ljust(64, b"\0")
        self._inner = hashlib.sha256(bytes(byte ^ 0x36 for byte in block))
        self._outer = hashlib.sha256(bytes(byte ^ 0x5C for byte in block))

    def hexdigest(self, text: bytes) -> str:
        """Return the HMAC of `text` in hexadecimal digits."""
        inner, outer = self._inner.copy(), self._outer.copy()
        inner.update(text)
        outer.update(inner.digest())
        return outer.hexdigest()


class _HostSignatures:
    """Signatures for one host, of one second, and what they are made of."""

    __slots__ = ("canonical", "date", "head", "lines", "offset_s", "second")

    def __init__(self) -> None:
        self.second = -1
        """Of the signatures at hand, since the epoch."""
        self.offset_s = 0.0
        self.date = b""
        """The same as it is written."""
        self.head = b""
        """Header lines that are the same for all targets."""
        self.lines: dict[tuple[str, bytes, bytes], bytes] = {}
        self.canonical: dict[tuple[str, bytes, bytes], bytes] = {}
        """First three lines of the canonical request; they outlive the second."""


class SignedCredential(Credential):
    """An access key and its secret, perhaps temporary: signs each request.

    Invariants: the lines for a request are those of the SDK; memory is bounded per host.
    """

    __slots__ = ("_access_key", "_clocks", "_hosts", "_keyed", "_security_token")

    def __init__(
        self,
        access_key: str,
        secret_key: str,
        security_token: str | None,
        clocks: ServiceClocks,
        *,
        stale_at: float,
        expires_at: float,
        wall_expires_at: float = float("inf"),
    ) -> None:
        """Prepare to sign; the three texts are visible ASCII. See `Credential` for the rest."""
        super().__init__(b"", stale_at, expires_at, wall_expires_at)
        self.signs = True
        self._access_key = access_key.encode("ascii")
        self._keyed = _KeyedHash(secret_key.encode("ascii"))
        self._security_token = (security_token or "").encode("ascii")
        self._clocks = clocks
        self._hosts: dict[bytes, _HostSignatures] = {}

    @property
    def sends(self) -> bool:
        """See `Credential`."""
        return True

    def lines_for(  # keywords cost a dict per call
        self, method: str, host_line: bytes, path: bytes, query: bytes, now: float
    ) -> bytes:
        """See `Credential`."""
        host = self._hosts.get(host_line)
        if host is None:
            host = self._hosts[host_line] = _HostSignatures()
        second = int(now + host.offset_s)
        if second != host.second:
            host.offset_s = self._clocks.offset_s(host_line)
            self._begin(host, int(now + host.offset_s))
        key = (method, path, query)
        lines = host.lines.get(key)
        if lines is None:
            lines = self._sign(host, host_line, key)
            if len(path) + len(query) <= _LONGEST_TARGET:
                if len(host.lines) >= _MOST_TARGETS:
                    host.lines.clear()
                host.lines[key] = lines
        return lines

    def wants_date(self, status: int, now: float) -> bool:
        """See `Credential`: always of a refusal, else now and then: reading a date takes time."""
        return status == 401 or now >= self._clocks.look_at

    def note_date(self, host_line: bytes, date: float, now: float) -> None:
        """See `Credential`."""
        host = self._hosts.get(host_line)
        if self._clocks.note(host_line, date, now) and host is not None:
            host.second = -1

    def skew_s(self, measured_s: float | None) -> float | None:
        """See `Credential`: services judge a signature by their own clock."""
        return measured_s if self._clocks.skew_s is None else self._clocks.skew_s

    def is_cured(self, now: float) -> bool:
        """See `Credential`."""
        return self._clocks.is_corrected(now)

    def _begin(self, host: _HostSignatures, second: int) -> None:
        """Forget the signatures of another second."""
        host.second = second
        host.lines.clear()
        host.date = date_text(second)
        host.head = b"X-Sdk-Date: %b\r\n" % host.date + _MARK
        if self._security_token:
            host.head += b"X-Security-Token: %b\r\n" % self._security_token

    def _sign(
        self, host: _HostSignatures, host_line: bytes, key: tuple[str, bytes, bytes]
    ) -> bytes:
        canonical = host.canonical.get(key)
        if canonical is None:
            method, path, query = key
            canonical = b"%b\n%b\n%b\n" % (
                method.encode("ascii"),
                canonical_path(path),
                canonical_query(query),
            )
            if len(path) + len(query) <= _LONGEST_TARGET:
                if len(host.canonical) >= _MOST_TARGETS:
                    host.canonical.clear()
                host.canonical[key] = canonical
        fields = b"host:%b\nx-sdk-content-sha256:UNSIGNED-PAYLOAD\nx-sdk-date:%b\n" % (
            host_line[6:],
            host.date,
        )
        names = b"host;x-sdk-content-sha256;x-sdk-date"
        if self._security_token:
            fields += b"x-security-token:%b\n" % self._security_token
            names += b";x-security-token"
        request = b"%b%b\n%b\nUNSIGNED-PAYLOAD" % (canonical, fields, names)
        text = b"SDK-HMAC-SHA256\n%b\n%b" % (
            host.date,
            hashlib.sha256(request).hexdigest().encode("ascii"),
        )
        signature = self._keyed.hexdigest(text).encode("ascii")
        return b"%bAuthorization: SDK-HMAC-SHA256 Access=%b, SignedHeaders=%b, Signature=%b\r\n" % (
            host.head,
            self._access_key,
            names,
            signature,
        )


def date_text(second: int) -> bytes:
    """Return an instant, in seconds since the epoch, as `20261126T023000Z`."""
    day, left = divmod(second, 86400)
    hours, left = divmod(left, 3600)
    return b"%bT%02d%02d%02dZ" % (_day_text(day), hours, left // 60, left % 60)


@lru_cache(maxsize=4)
def _day_text(day: int) -> bytes:
    return (date(1970, 1, 1) + timedelta(days=day)).strftime("%Y%m%d").encode("ascii")


def canonical_path(path: bytes) -> bytes:
    """Return a path as it is signed: each segment decoded, encoded anew, and a slash at the end."""
    encoded = quote_from_bytes(unquote_to_bytes(path), safe="/~").encode("ascii")
    return encoded if encoded.endswith(b"/") else encoded + b"/"


def canonical_query(query: bytes) -> bytes:
    """Return a query, with or without its question mark, as it is signed.

    Pairs are decoded (a plus sign stays one), sorted by name and value, and encoded anew; a name
    alone has an empty value, and what has no name is left out.
    """
    if not query:
        return b""
    pairs = []
    for pair in query.removeprefix(b"?").split(b"&"):
        name, _, value = pair.partition(b"=")
        if name:
            pairs.append((unquote_to_bytes(name), unquote_to_bytes(value)))
    pairs.sort()
    return b"&".join(b"%b=%b" % (_encoded(name), _encoded(value)) for name, value in pairs)


def _encoded(text: bytes) -> bytes:
    return quote_from_bytes(text, safe="~").encode("ascii")
