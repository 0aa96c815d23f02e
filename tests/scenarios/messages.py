"""Messages as they are on the wire, for scenarios."""

import json

from tests.support.client import Reply

VIA = b"Via: 1.1 modelarts-gateway\r\n"
POST = (
    b"POST /iris/predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    b"Content-Length: 2\r\n\r\n{}"
)
GET = b"GET /iris HTTP/1.1\r\nHost: localhost\r\n\r\n"
DATE = b"Date: Sun, 29 Nov 2026 03:00:00 GMT\r\n"
"""Real services send one; where it is missing the gateway adds its own."""
OK = b"HTTP/1.1 200 OK\r\n" + DATE + b"Content-Length: 2\r\n\r\nok"


def token(number: int) -> bytes:
    """The header line of a token of the gateway's."""
    return b"X-Auth-Token: token-%d\r\n" % number


def request(
    method: bytes = b"POST",
    body: bytes | None = None,
    *fields: bytes,
    target: bytes = b"/iris",
    version: bytes = b"1.1",
) -> bytes:
    """A client's request, with Content-Length if it has a body."""
    lines = [*fields, *([] if body is None else [b"Content-Length: %d" % len(body)])]
    head = b"".join(line + b"\r\n" for line in [b"Host: localhost", *lines])
    return b"%b %b HTTP/%b\r\n%b\r\n%b" % (method, target, version, head, body or b"")


def upload(length: int, begun: bytes = b"", method: bytes = b"POST") -> bytes:
    """The beginning of a request whose body is `length` bytes long."""
    return (b"%b /iris HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n%b") % (
        method,
        length,
        begun,
    )


CHUNKED = b"POST /iris HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
"""The head of a chunked upload."""


def chunks(*pieces: bytes, end: bool = False) -> bytes:
    """Pieces as one chunk each, and perhaps the last chunk."""
    return b"".join(b"%x\r\n%b\r\n" % (len(p), p) for p in pieces) + (b"0\r\n\r\n" if end else b"")


def forwarded(
    method: bytes, target: bytes, *fields: bytes, number: int = 1, body: bytes = b""
) -> bytes:
    """A request as the service gets it, with the token of that number."""
    lines = b"".join(field + b"\r\n" for field in fields)
    return (
        b"%b /v1/infers/abc%b HTTP/1.1\r\nHost: service.test\r\n" % (method, target)
        + lines
        + VIA
        + token(number)
        + b"\r\n"
        + body
    )


def answer(status: int, body: bytes = b"", *fields: bytes) -> bytes:
    """A response with a Content-Length."""
    lines = b"".join(field + b"\r\n" for field in fields)
    return b"HTTP/1.1 %d Any\r\n%b%bContent-Length: %d\r\n\r\n%b" % (
        status, DATE, lines, len(body), body,
    )  # fmt: skip


def head_of(*fields: bytes, status: bytes = b"200 OK") -> bytes:
    """The head of a response."""
    date = b"" if status.startswith(b"1") else DATE
    return b"HTTP/1.1 %b\r\n" % status + date + b"".join(f + b"\r\n" for f in fields) + b"\r\n"


def error_in(reply: Reply) -> tuple[int, str]:
    """Status and name of an error response of the gateway's own."""
    name = json.loads(reply.body)["error_code"]
    assert name.startswith("Gateway."), reply
    return reply.status, name.removeprefix("Gateway.")
