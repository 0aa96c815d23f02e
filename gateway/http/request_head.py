"""What the head of a request says: its first line, its fields, its framing. Pure.

What makes two readers disagree about where the request ends is refused when it is read
(RFC 9112 sections 6.3, 11.2). What leaves the framing intact is noted as `fault`, for admission to
refuse in its own order, after which the connection can go on.
"""

import re
from typing import Final

from gateway.errors import DownstreamError, ErrorCode
from gateway.http.fields import (
    DROPPED_FROM_REQUESTS,
    NO_NAMES,
    is_dropped_from_requests,
    named_by,
    options_of,
    without,
)
from gateway.http.framing import is_chunked_coding, is_plain_length
from gateway.http.lines import FieldReader, Head, Judge, is_clean
from gateway.http.request_id import is_plain_id
from gateway.http.target import MAX_TARGET_BYTES, split_absolute, split_target

METHODS: Final = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
"""RFC 9110 section 9 without CONNECT and TRACE, which no gateway with a credential forwards, plus
PATCH (RFC 5789)."""

_METHODS: Final = {name.encode("ascii"): name for name in METHODS}
_PREFACE: Final = b"PRI * HTTP/2.0"  # RFC 9113 section 3.4
_VERSION: Final = re.compile(rb"HTTP/([0-9])\.([0-9])")
_ANY_VERSION: Final = b"HTTP/0.0\r"  # once every digit is a zero; with the line end under way
_DIGITS_TO_ZERO: Final = bytes.maketrans(b"123456789", b"0" * 9)

_WEBSOCKET: Final = b"websocket"

_MAX_REMEMBERED: Final = 256
_MAX_REMEMBERED_BYTES: Final = 256
"""Together 64 KiB of request lines that need not be read again."""


class RequestLine:
    """The first line of a request. Not changed; a remembered one is shared by requests."""

    __slots__ = (
        "authority",
        "fault",
        "http_1_0",
        "method",
        "path",
        "query",
        "supported",
        "target",
    )

    def __init__(self, method: str, target: bytes, major: bytes, minor: bytes) -> None:
        self.method = method
        """One of `METHODS`."""
        self.target = target
        """As received."""
        self.supported = major == b"1"
        """Whether it is HTTP/1.x; a minor version above ours is processed as ours (RFC 9110
        section 2.5)."""
        self.http_1_0 = self.supported and minor == b"0"
        self.path = b""
        self.query = b""
        """With its `?`, or empty; both as received."""
        self.authority: bytes | None = None
        """In a target in absolute form: it takes the place of Host (RFC 9112 section 3.2.2)."""
        self.fault: DownstreamError | None = None
        """Why the target cannot be decided on; None: `path` and `query` are its parts."""
        try:
            if target[:1] != b"/":
                self.authority, target = split_absolute(target)
            self.path, self.query = split_target(target)
        except DownstreamError as fault:
            self.fault = fault


_known_lines: Final[dict[bytes, RequestLine]] = {}


def read_request_line(line: bytes) -> RequestLine:
    """Return what a request's first line says.

    Raises:
        DownstreamError: it is no request line, or its method is unknown.
    """
    known = _known_lines.get(line)
    if known is not None:
        return known
    check_start(line + b"\r")
    method, _, rest = line.partition(b" ")
    target, space, version = rest.rpartition(b" ")
    if not space:
        target, version = version, b"HTTP/0.9"  # before there were versions
    parts = _VERSION.fullmatch(version)
    if parts is None or b" " in target or not target:
        raise _bad("the request line is not `method target version`")
    read = RequestLine(_METHODS[method], target, parts[1], parts[2])
    if read.fault is None and not read.query and len(line) <= _MAX_REMEMBERED_BYTES:
        if len(_known_lines) >= _MAX_REMEMBERED:
            _known_lines.clear()
        _known_lines[line] = read
    return read


def check_start(begin: bytes) -> None:
    """Refuse the beginning of a first line, whole or not, that no request can begin with.

    So nobody waits for the rest of a TLS handshake, of an endless line, or of one that ends
    without CR. Whatever is refused here is refused for its first octet that is amiss, so it does
    not matter how the line is cut.

    Raises:
        DownstreamError: what `read_request_line` raises for every line that begins so.
    """
    if begin.startswith(_PREFACE):
        raise _bad("the preface of HTTP/2")
    if _PREFACE.startswith(begin):
        return  # it may also become a method that begins alike
    method, space, rest = begin.partition(b" ")
    if method not in _METHODS and (space or not _may_become_a_method(method)):
        raise DownstreamError(ErrorCode.METHOD_UNKNOWN)
    target, space, version = rest.partition(b" ")
    if not space:
        target = target.removesuffix(b"\r")  # perhaps half of the line end
    if not is_clean(target[: MAX_TARGET_BYTES + 1]):
        raise DownstreamError(ErrorCode.BAD_TARGET, "control octets in the target")
    if len(target) > MAX_TARGET_BYTES:
        raise DownstreamError(ErrorCode.TARGET_TOO_LONG)
    if not _ANY_VERSION.startswith(version.translate(_DIGITS_TO_ZERO)):
        raise _bad("the request line is not `method target version`")


def method_in(begin: bytes) -> str:
    """Return the method in the beginning of a first line, or empty when there is no known one."""
    method, space, _ = begin.partition(b" ")
    return _METHODS.get(method, "") if space else ""


def _may_become_a_method(begin: bytes) -> bool:
    return any(name.startswith(begin) for name in _METHODS)


class RequestHead(Head):
    """What one pass over the fields of a request has found out."""

    __slots__ = (
        "chunked",
        "content_length",
        "expects_continue",
        "fault",
        "fetch_site",
        "host",
        "keep_alive",
        "line",
        "named",
        "options",
        "origin",
        "request_id",
        "traceparent",
        "upgrade",
    )

    def __init__(self, line: RequestLine) -> None:
        self.lines = []
        self.line = line
        self.host: bytes | None = None
        self.content_length: int | None = None
        self.chunked = False
        self.expects_continue = False
        self.origin: bytes | None = None
        self.fetch_site: bytes | None = None
        self.upgrade: bytes | None = None
        """Protocols that the client would like to switch to, in lower case, joined by commas, if
        WebSocket is among them. Others may be offered to anybody, and are ignored (RFC 9110 section
        7.8): Java's own client offers `h2c` in every request."""
        self.traceparent: bytes | None = None
        """As received; empty when there is more than one, which makes all of them void."""
        self.request_id = ""
        """The client's own `X-Request-Id` if it is plain, else empty."""
        self.options = NO_NAMES
        """Of Connection and Proxy-Connection, in lower case."""
        self.named = NO_NAMES
        """Names that Connection lists, in lower case."""
        self.keep_alive = False
        """Whether the client wants to use its connection again, and may."""
        self.fault: DownstreamError | None = None
        """Why the request cannot be accepted, although it can be read to its end."""

    @property
    def is_upgrade(self) -> bool:
        """Whether the connection speaks another protocol behind this request, if it is admitted."""
        return self.upgrade is not None and b"upgrade" in self.named


def finish(head: RequestHead) -> None:
    """Judge what only all fields together tell, once they have been read.

    Raises:
        DownstreamError: framing that two servers could read differently, or no Host.
    """
    line = head.line
    if head.chunked and (line.http_1_0 or head.content_length is not None):
        raise _bad("Transfer-Encoding with Content-Length, or on HTTP/1.0")
    if head.host is None and line.supported and not line.http_1_0:
        raise _bad("no Host")
    if line.authority is not None:
        head.host = line.authority
    if line.http_1_0:
        head.expects_continue = False  # RFC 9110 section 10.1.1: ignored from HTTP/1.0
    if head.upgrade is not None and _WEBSOCKET not in options_of(head.upgrade):
        head.upgrade = None
    if head.named:
        head.lines = without(head.lines, head.named)
    options = head.options
    head.keep_alive = (
        line.supported
        and (not line.http_1_0 or b"keep-alive" in options)
        and b"close" not in options
        # No request comes behind a switch, whether it is admitted or not.
        and (head.upgrade is None or not head.is_upgrade)
    )


def _host(head: RequestHead, value: bytes, _text: bytes) -> None:
    if head.host is not None:
        raise _bad("more than one Host")
    head.host = value


def _content_length(head: RequestHead, value: bytes, _text: bytes) -> None:
    if head.content_length is not None:
        raise _bad("more than one Content-Length")
    if not is_plain_length(value):
        raise _bad("Content-Length is not a plain number")
    head.content_length = int(value)


def _transfer_encoding(head: RequestHead, value: bytes, _text: bytes) -> None:
    if head.chunked or not is_chunked_coding(value):
        raise _bad("Transfer-Encoding other than one `chunked`")
    head.chunked = True


def _connection(head: RequestHead, value: bytes, _text: bytes) -> None:
    options = options_of(value)
    head.options = head.options | options if head.options else options
    if named := named_by(options):
        head.named |= named


def _proxy_connection(head: RequestHead, value: bytes, _text: bytes) -> None:
    """Heed what old clients say of their connection; the field names no others."""
    head.options |= options_of(value)


def _expect(head: RequestHead, value: bytes, _text: bytes) -> None:
    if value.lower() == b"100-continue":
        head.expects_continue = True
    else:
        _note(head, ErrorCode.EXPECTATION_FAILED)


def _upgrade(head: RequestHead, value: bytes, _text: bytes) -> None:
    head.upgrade = _listed(head.upgrade, value.lower())


def _reroute(head: RequestHead, _value: bytes, _text: bytes) -> None:
    _note(head, ErrorCode.BAD_TARGET, "a field names another target")


def _origin(head: RequestHead, value: bytes, _text: bytes) -> None:
    head.origin = _listed(head.origin, value)
    # It reaches the service only if admission allows it.
    head.lines.append(b"Origin: " + value)


def _fetch_site(head: RequestHead, value: bytes, _text: bytes) -> None:
    head.fetch_site = _listed(head.fetch_site, value)


def _traceparent(head: RequestHead, value: bytes, text: bytes) -> None:
    head.traceparent = value if head.traceparent is None else b""
    head.lines.append(text)


def _request_id(head: RequestHead, value: bytes, text: bytes) -> None:
    if not head.request_id and is_plain_id(value):
        head.request_id = value.decode("ascii")
    head.lines.append(text)


def _drop(_head: RequestHead, _value: bytes, _text: bytes) -> None:
    """Let a field end here."""


def _listed(before: bytes | None, value: bytes) -> bytes:
    """Combine repeated fields (RFC 9110 section 5.2), so that none hides behind another."""
    return value if before is None else before + b", " + value


def _note(head: RequestHead, code: ErrorCode, detail: str = "") -> None:
    if head.fault is None:
        head.fault = DownstreamError(code, detail)


def _bad(detail: str) -> DownstreamError:
    return DownstreamError(ErrorCode.BAD_REQUEST, detail)


_JUDGES: Final[dict[bytes, Judge[RequestHead]]] = {
    **dict.fromkeys(DROPPED_FROM_REQUESTS, _drop),
    b"connection": _connection,
    b"proxy-connection": _proxy_connection,
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
    b"traceparent": _traceparent,
    b"x-request-id": _request_id,
}
"""Fields that do not simply cross, each with the one place that judges its value."""


def _judge_of(name: bytes) -> Judge[RequestHead] | None:
    return _drop if is_dropped_from_requests(name, _FOLDED) else None


# `X_Request_Id` is an ordinary name: believing its twin gives nobody anything.
_FOLDED: Final = frozenset(_JUDGES) - {b"x-request-id"}

REQUEST_FIELDS: Final = FieldReader[RequestHead](_JUDGES, judge_of=_judge_of, malformed=_bad)
"""Reads the fields of every request; the memory of lines is the process's."""
