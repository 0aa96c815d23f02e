"""What the head of a response says: its status, its fields, its framing. Pure.

This is the one place that decides what a valid response is; the proxy and everything that asks a
service or IAM a question in `diagnose/` read responses by it.
"""

import re
from typing import Final

from gateway.errors import ErrorCode, UpstreamError
from gateway.http.fields import (
    DROPPED_FROM_RESPONSES,
    NO_NAMES,
    named_by,
    options_of,
    without,
)
from gateway.http.framing import (
    CHUNKED,
    CLOSE,
    LENGTH,
    NO_BODY,
    is_chunked_coding,
    is_plain_length,
)
from gateway.http.lines import FieldReader, Head, Judge

# RFC 9112 section 4: HTAB, SP, VCHAR and obs-text in the reason, which may be missing.
_STATUS_LINE: Final = re.compile(rb"HTTP/1\.([01]) ([1-5][0-9]{2})(?: ([\t -~\x80-\xff]*))?")

_MAX_REMEMBERED: Final = 64
_MAX_REMEMBERED_BYTES: Final = 128


class StatusLine:
    """The first line of a response. Not changed; a remembered one is shared by responses."""

    __slots__ = ("http_1_0", "reason", "status", "text")

    def __init__(self, status: int, reason: bytes, *, http_1_0: bool) -> None:
        self.status = status
        """100 to 599."""
        self.reason = reason
        self.http_1_0 = http_1_0
        self.text = b"HTTP/1.1 %d %b" % (status, reason)
        """The line as it is forwarded, without its end."""


_known_lines: Final[dict[bytes, StatusLine]] = {}


def read_status_line(line: bytes) -> StatusLine:
    """Return what a response's first line says.

    Raises:
        UpstreamError: it is no status line of HTTP/1.0 or 1.1.
    """
    known = _known_lines.get(line)
    if known is not None:
        return known
    parts = _STATUS_LINE.fullmatch(line)
    if parts is None:
        raise malformed("the response does not begin with a status line")
    read = StatusLine(int(parts[2]), parts[3] or b"", http_1_0=parts[1] == b"0")
    if len(line) <= _MAX_REMEMBERED_BYTES:
        if len(_known_lines) >= _MAX_REMEMBERED:
            _known_lines.clear()
        _known_lines[line] = read
    return read


class ResponseHead(Head):
    """What one pass over the fields of a response has found out."""

    __slots__ = (
        "challenges_for_keystone",
        "chunked",
        "content_length",
        "dated",
        "framing",
        "is_event_stream",
        "keep_alive",
        "line",
        "options",
        "redirects",
        "request_id",
        "server",
        "status",
        "upgrade",
    )

    def __init__(self, line: StatusLine) -> None:
        self.lines = []
        """Fields for the client; Content-Length is among them, Transfer-Encoding is not."""
        self.line = line
        self.status = line.status
        self.content_length: int | None = None
        self.chunked = False
        self.is_event_stream = False
        """Whether its Content-Type is text/event-stream."""
        self.dated = False
        """Whether it has a Date."""
        self.redirects = False
        """Whether it has a Location."""
        self.server = b""
        self.challenges_for_keystone = False
        """Whether it says `WWW-Authenticate: Keystone …`, as keystonemiddleware does."""
        self.request_id = b""
        self.options = NO_NAMES
        """Of Connection, in lower case; and `close`, if Proxy-Connection says it."""
        self.upgrade = b""
        """Protocols that the service switches to, in lower case, joined by commas."""
        self.framing = NO_BODY
        """How the body ends."""
        self.keep_alive = False
        """Whether the service's connection may be kept. Not with HTTP/1.0, whose keep-alive has no
        specification to rely on (RFC 9112 appendix C.2.2), nor behind a response to HEAD that does
        not say how long a body would be: a service that sends one all the same ends it so."""

    def value_of(self, name: bytes) -> bytes:
        """Return the first value of a forwarded field, or nothing.

        Args:
            name: in lower case.
        """
        for line in self.lines:
            found, _, value = line.partition(b": ")
            if found.lower() == name:
                return value
        return b""


def finish(head: ResponseHead, head_request: bool) -> None:
    """Judge what only all fields together tell, once they have been read.

    Args:
        head: of an interim or final response.
        head_request: the request's method is HEAD, so the response has no body.

    Raises:
        UpstreamError: framing that two clients could read differently.
    """
    status, length, options = head.status, head.content_length, head.options
    ends_connection = head.line.http_1_0 or b"close" in options
    has_body = status >= 200 and status not in _WITHOUT_BODY
    if head.chunked and length is not None:
        raise malformed("both Content-Length and Transfer-Encoding")
    if not has_body and status != 304 and (head.chunked or length):
        # A client that believed the field would wait for a body (RFC 9110 section 8.6).
        raise malformed("a response without body announces one")
    if status < 200 and status != 101 and ends_connection:
        # HTTP/1.0 knows none, and behind a close nothing may follow; some readers stop there.
        raise malformed("an interim response that ends the connection")
    if options and (named := named_by(options)):
        # Framing is not an option that can be listed (RFC 9110 section 7.6.1).
        head.lines = without(head.lines, named - _FRAMING)
    # RFC 9112 section 6.3, its steps in order.
    if head_request or not has_body:
        head.framing = NO_BODY
    elif head.chunked:
        head.framing = CHUNKED
    elif length is not None:
        head.framing = LENGTH
    else:
        head.framing = CLOSE
    has_end = head.chunked or length is not None or status in _WITHOUT_BODY
    head.keep_alive = has_end and not ends_connection


_WITHOUT_BODY: Final = frozenset({204, 304})
_CLOSE_OPTION: Final = frozenset({b"close"})
_FRAMING: Final = frozenset({b"content-length"})


def malformed(detail: str) -> UpstreamError:
    """Return the error for a response that is not valid HTTP."""
    return UpstreamError(ErrorCode.HTTP_PROTOCOL_ERROR, detail)


def _content_type(head: ResponseHead, value: bytes, text: bytes) -> None:
    head.is_event_stream = _is_event_stream(value)
    head.lines.append(text)


def _is_event_stream(value: bytes) -> bool:
    return value.partition(b";")[0].rstrip().lower() == b"text/event-stream"


def _content_length(head: ResponseHead, value: bytes, text: bytes) -> None:
    if head.content_length is not None:
        raise malformed("more than one Content-Length")
    if not is_plain_length(value):
        raise malformed("Content-Length is not a plain number")
    head.content_length = int(value)
    head.lines.append(text)


def _transfer_encoding(head: ResponseHead, value: bytes, _text: bytes) -> None:
    # Any other coding would be lost with the field.
    if head.chunked or not is_chunked_coding(value):
        raise malformed("Transfer-Encoding other than one `chunked`")
    head.chunked = True


def _connection(head: ResponseHead, value: bytes, _text: bytes) -> None:
    options = options_of(value)
    head.options = head.options | options if head.options else options


def _proxy_connection(head: ResponseHead, value: bytes, _text: bytes) -> None:
    """Heed it only where a service announces its end by it: that connection is not kept."""
    head.options |= options_of(value) & _CLOSE_OPTION


def _upgrade(head: ResponseHead, value: bytes, _text: bytes) -> None:
    protocol = value.lower()
    head.upgrade = head.upgrade + b"," + protocol if head.upgrade else protocol


def _server(head: ResponseHead, value: bytes, text: bytes) -> None:
    head.server = value
    head.lines.append(text)


def _date(head: ResponseHead, _value: bytes, text: bytes) -> None:
    head.dated = True
    head.lines.append(text)


def _request_id(head: ResponseHead, value: bytes, text: bytes) -> None:
    head.request_id = value
    head.lines.append(text)


def _location(head: ResponseHead, _value: bytes, text: bytes) -> None:
    head.redirects = True
    head.lines.append(text)


def _challenge(head: ResponseHead, value: bytes, text: bytes) -> None:
    head.challenges_for_keystone |= value[:9].lower() == b"keystone "
    head.lines.append(text)


def _drop(_head: ResponseHead, _value: bytes, _text: bytes) -> None:
    """Let a field end here."""


_JUDGES: Final[dict[bytes, Judge[ResponseHead]]] = {
    **dict.fromkeys(DROPPED_FROM_RESPONSES, _drop),
    b"connection": _connection,
    b"proxy-connection": _proxy_connection,
    b"content-length": _content_length,
    b"content-type": _content_type,
    b"date": _date,
    b"location": _location,
    b"server": _server,
    b"transfer-encoding": _transfer_encoding,
    b"upgrade": _upgrade,
    b"www-authenticate": _challenge,
    b"x-request-id": _request_id,
}
"""Fields that do not simply cross, each with the one place that judges its value."""


def _forward(_name: bytes) -> Judge[ResponseHead] | None:
    return None


def _only_forwards(judge: Judge[ResponseHead], value: bytes) -> bool:
    return judge is _content_type and not _is_event_stream(value)


RESPONSE_FIELDS: Final = FieldReader[ResponseHead](
    _JUDGES, judge_of=_forward, malformed=malformed, only_forwards=_only_forwards
)
"""Reads the fields of every response; the memory of lines is the process's."""
