"""Which header fields cross the gateway. Pure: bytes in, bytes out, one pass over a field list.

Facts these functions stand on:

- A field list is ordered pairs of bytes. Order and duplicates are meaning (RFC 9110 section 5.3),
  values are opaque octets (section 5.5). Hence no dict and no str.
- "Intermediaries MUST parse a received Connection header field before a message is forwarded and,
  for each connection-option in this field, remove any header or trailer field(s) from the message
  with the same name" (RFC 9110 section 7.6.1). So a caller can delete, by naming it, whatever is
  already there when we strip: ours is written after (golang/go#50580).
- Servers that turn names into environment variables cannot tell `X_Auth_Token` from
  `X-Auth-Token`: a name with an underscore is judged by its twin.
"""

from collections.abc import Callable, Iterable, Sequence

from gateway.errors import DownstreamError, ErrorCode
from gateway.http.framing import MAX_LENGTH, content_length_of, is_chunked_coding

RawFields = Sequence[tuple[bytes, bytes]]

# RFC 9110 section 7.6.1 names the first six; section 11.7 makes Proxy-Auth* single-hop; trailers
# are not forwarded, so announcing them would be untrue (section 6.6.2).
_HOP_BY_HOP = (
    b"connection keep-alive proxy-connection te transfer-encoding upgrade proxy-authenticate "
    b"proxy-authorization proxy-authentication-info trailer http2-settings"
).split()

# Whoever the caller says it is, upstream hears only of us. A leftover `Authorization` even makes
# the vendor's gateway ignore the token (APIG.0301).
_IDENTITY = (
    b"authorization x-auth-token x-subject-token x-service-token x-security-token "
    b"x-apig-appcode apikey x-domain-id x-project-id cookie "
    # What keystonemiddleware tells an application of a token, and what it is then believed on.
    b"x-identity-status x-service-identity-status x-roles x-service-roles x-role x-service-catalog "
    b"x-is-admin-project x-domain-name x-project-name x-project-domain-id x-project-domain-name "
    b"x-user-domain-id x-user-domain-name x-tenant-id x-tenant-name x-tenant"
).split()

# Claims about an earlier hop, and ways to ask for another method than the admitted one.
_CLAIMS = (
    b"forwarded x-real-ip x-client-ip true-client-ip x-http-method x-http-method-override "
    b"x-method-override"
).split()

_DROPPED_PREFIXES = (b"proxy-", b"x-sdk-", b"x-forwarded")

_NO_NAMES: frozenset[bytes] = frozenset()

# `Connection` options that are not field names.
_OPTIONS = frozenset({b"close", b"keep-alive", b""})


class RequestFields:
    """What one pass over a request's fields has found out. Owned by the exchange."""

    __slots__ = (
        "chunked",
        "content_length",
        "expects_continue",
        "fetch_site",
        "host",
        "lines",
        "named",
        "origin",
        "traceparent",
        "upgrade",
    )

    def __init__(self) -> None:
        self.host: bytes | None = None
        self.content_length: int | None = None
        self.chunked = False
        self.expects_continue = False
        self.origin: bytes | None = None
        self.fetch_site: bytes | None = None
        self.upgrade: bytes | None = None
        """Protocol that the caller would like to switch to, in lower case."""
        self.traceparent: bytes | None = None
        """As received; empty when there is more than one, which makes all of them void."""
        self.named: frozenset[bytes] = _NO_NAMES
        """Names that Connection lists, in lower case."""
        self.lines: list[bytes] = []
        """End-to-end fields as `name: value`, in order, duplicates kept, without line ends."""


def _host(found: RequestFields, value: bytes) -> None:
    if found.host is not None:
        raise _bad("more than one Host")
    found.host = value


def _content_length(found: RequestFields, value: bytes) -> None:
    if found.content_length is not None:
        raise _bad("more than one Content-Length")
    found.content_length = content_length_of(value)


def _transfer_encoding(found: RequestFields, value: bytes) -> None:
    if found.chunked or not is_chunked_coding(value):
        raise _bad("Transfer-Encoding other than one `chunked`")
    found.chunked = True


def _connection(found: RequestFields, value: bytes) -> None:
    found.named |= _options_of(value)


def _expect(found: RequestFields, value: bytes) -> None:
    if value.lower() != b"100-continue":
        raise DownstreamError(ErrorCode.EXPECTATION_FAILED)
    found.expects_continue = True


def _upgrade(found: RequestFields, value: bytes) -> None:
    if found.upgrade is not None:
        raise DownstreamError(ErrorCode.UPGRADE_REFUSED)
    found.upgrade = value.lower()


def _reroute(_found: RequestFields, _value: bytes) -> None:
    raise DownstreamError(ErrorCode.BAD_TARGET, "a field names another target")


def _origin(found: RequestFields, value: bytes) -> None:
    found.origin = _listed(found.origin, value)
    found.lines.append(b"Origin: " + value)  # reaches the service only if it is an allowed one


def _fetch_site(found: RequestFields, value: bytes) -> None:
    found.fetch_site = _listed(found.fetch_site, value)


def _listed(before: bytes | None, value: bytes) -> bytes:
    """Combine repeated fields (RFC 9110 section 5.2), so that none hides behind another."""
    return value if before is None else before + b", " + value


def _traceparent(spelling: bytes) -> Callable[[RequestFields, bytes], None]:
    def judge(found: RequestFields, value: bytes) -> None:
        found.traceparent = value if found.traceparent is None else b""
        found.lines.append(b": ".join((spelling, value)))

    return judge


def _drop(_found: RequestFields, _value: bytes) -> None:
    pass


_DROPPED = dict.fromkeys([*_HOP_BY_HOP, *_IDENTITY, *_CLAIMS], _drop)
_JUDGES: dict[bytes, Callable[[RequestFields, bytes], None]] = _DROPPED | {
    b"connection": _connection,
    b"content-length": _content_length,
    b"transfer-encoding": _transfer_encoding,
    b"host": _host,
    b"expect": _expect,
    b"upgrade": _upgrade,
    b"origin": _origin,
    b"sec-fetch-site": _fetch_site,
    # Some servers take the path from these instead of the request line.
    b"x-original-url": _reroute,
    b"x-rewrite-url": _reroute,
    b"traceparent": _traceparent(b"traceparent"),
}
"""Fields that end here, each with the one place that judges its value; a trace goes on."""

# Spelling of names that need no thought: whole requests are judged by one look-up per field.
_COMMON = (
    b"accept accept-charset accept-encoding accept-language cache-control content-disposition "
    b"content-encoding content-language content-type date etag expires last-modified pragma "
    b"tracestate user-agent vary x-request-id"
).split()


def _spellings(name: bytes) -> tuple[bytes, bytes]:
    return name, b"-".join(part.capitalize() for part in name.split(b"-"))


_SPELLED: dict[bytes, Callable[[RequestFields, bytes], None] | None] = {
    spelling: judge
    for name, judge in [*_JUDGES.items(), *((name, None) for name in _COMMON)]
    for spelling in _spellings(name)
} | {spelling: _traceparent(spelling) for spelling in _spellings(b"traceparent")}


def read_request_fields(raw: RawFields, *, http_1_0: bool) -> RequestFields:
    """Judge every field of a request and keep those that go upstream.

    Args:
        raw: names and values as received, values without surrounding white space.
        http_1_0: the request is HTTP/1.0, which has no transfer codings and no expectations.

    Raises:
        DownstreamError: framing that two servers could read differently (RFC 9112 section 6.3),
            an unknown expectation, two upgrades, a second Host, a field that reroutes.
    """
    found = RequestFields()
    kept = found.lines
    for field in raw:
        name, value = field
        try:
            judge = _SPELLED[name]
        except KeyError:
            judge = _judge_of(name.lower())
        if judge is None:
            kept.append(b": ".join(field))
        else:
            judge(found, value)
    if found.chunked and (http_1_0 or found.content_length is not None):
        raise _bad("Transfer-Encoding with Content-Length, or on HTTP/1.0")
    if found.host is None and not http_1_0:
        raise _bad("no Host")
    if http_1_0:
        found.expects_continue = False  # RFC 9110 section 10.1.1: ignored from HTTP/1.0
    if found.named:
        found.lines = _without(kept, found.named)
    return found


# Of these a head is not remembered: secrets, and what makes more of a message than head and body.
_NOT_REMEMBERED = frozenset(
    [*_IDENTITY, b"proxy-authorization", b"transfer-encoding", b"expect", b"upgrade"]
)


def may_be_remembered(raw: RawFields) -> bool:
    """Say whether a request's fields may stay in memory after it, to know the next one by."""
    return _NOT_REMEMBERED.isdisjoint(name.lower().replace(b"_", b"-") for name, _ in raw)


class ResponseFields:
    """What one pass over a response's fields has found out."""

    __slots__ = (
        "challenges_for_keystone",
        "chunked",
        "content_length",
        "lines",
        "named",
        "redirects",
        "request_id",
        "server",
    )

    def __init__(self) -> None:
        self.content_length: int | None = None
        self.chunked = False
        self.redirects = False
        """It has a Location."""
        self.server = b""
        self.challenges_for_keystone = False
        """It says `WWW-Authenticate: Keystone …`, as keystonemiddleware does."""
        self.request_id = b""
        self.named: frozenset[bytes] = _NO_NAMES
        self.lines: list[bytes] = []
        """Fields for the caller as `name: value`, in order, duplicates kept; Content-Length is
        among them, Transfer-Encoding is not."""


# Cookies would mix callers that share one gateway; tokens are not for callers at all.
_RESPONSE_DROPPED = frozenset(
    [*_HOP_BY_HOP, b"set-cookie", b"set-cookie2", b"x-auth-token", b"x-subject-token"]
)
_RESPONSE_PLAIN = frozenset(
    spelling for name in _COMMON if name != b"x-request-id" for spelling in _spellings(name)
)


def read_response_fields(raw: RawFields) -> ResponseFields:
    """Judge every field of a response and keep those that the caller may see.

    Raises:
        ValueError: Content-Length is not a plain number, is repeated, or stands beside
            Transfer-Encoding; Transfer-Encoding is anything but one `chunked`, which would be lost
            with the field.
    """
    found = ResponseFields()
    lines = found.lines
    for field in raw:
        name, value = field
        if name not in _RESPONSE_PLAIN:
            lower = name.lower()
            judge = _RESPONSE_JUDGES.get(lower)
            if judge is not None:
                judge(found, value)
            if lower in _RESPONSE_DROPPED:
                continue
        lines.append(b": ".join(field))
    if found.chunked and found.content_length is not None:
        raise ValueError("both Content-Length and Transfer-Encoding")
    if found.named:
        # Framing is not an option that can be listed (RFC 9110 section 7.6.1).
        found.lines = _without(lines, found.named - {b"content-length"})
    return found


def _response_length(found: ResponseFields, value: bytes) -> None:
    if found.content_length is not None:
        raise ValueError("more than one Content-Length")
    if not value.isdigit() and not value.rstrip(b" \t").isdigit():
        raise ValueError("Content-Length is not a number")
    length = found.content_length = int(value)  # which takes white space, and raises the same
    if length > MAX_LENGTH:
        raise ValueError("Content-Length is absurd")


def _response_coding(found: ResponseFields, value: bytes) -> None:
    if found.chunked or not is_chunked_coding(value.rstrip(b" \t")):
        raise ValueError("Transfer-Encoding other than one `chunked`")
    found.chunked = True


def _response_connection(found: ResponseFields, value: bytes) -> None:
    found.named |= _options_of(value)


def _server(found: ResponseFields, value: bytes) -> None:
    found.server = value


def _request_id(found: ResponseFields, value: bytes) -> None:
    found.request_id = value


def _location(found: ResponseFields, _value: bytes) -> None:
    found.redirects = True


def _challenge(found: ResponseFields, value: bytes) -> None:
    found.challenges_for_keystone |= value[:9].lower() == b"keystone "


_RESPONSE_JUDGES: dict[bytes, Callable[[ResponseFields, bytes], None]] = {
    b"connection": _response_connection,
    b"content-length": _response_length,
    b"location": _location,
    b"server": _server,
    b"transfer-encoding": _response_coding,
    b"www-authenticate": _challenge,
    b"x-request-id": _request_id,
}


def _judge_of(lower: bytes) -> Callable[[RequestFields, bytes], None] | None:
    judge = _JUDGES.get(lower)
    if judge is not None:
        return judge
    if lower.startswith(_DROPPED_PREFIXES):
        return _drop
    if b"_" in lower:
        twin = lower.replace(b"_", b"-")
        if twin in _JUDGES or twin.startswith(_DROPPED_PREFIXES):
            return _drop
    return None


def _options_of(value: bytes) -> frozenset[bytes]:
    """Return the field names that a Connection value lists."""
    if b"," not in value:
        option = value.strip(b" \t").lower()
        return _NO_NAMES if option in _OPTIONS else frozenset((option,))
    return frozenset(option.strip(b" \t").lower() for option in value.split(b",")) - _OPTIONS


def _without(lines: Iterable[bytes], named: frozenset[bytes]) -> list[bytes]:
    return [line for line in lines if line.partition(b":")[0].lower() not in named]


def _bad(detail: str) -> DownstreamError:
    return DownstreamError(ErrorCode.BAD_REQUEST, detail)
