"""Reads HTTP/1.1 messages and forgives nothing: the judge of both sides of the gateway.

Shares no code with the gateway or its parsers. What is read here and what the gateway makes of
the same bytes must agree; the gateway may refuse more, never less. Source: RFC 9110, RFC 9112.
"""

import re
from dataclasses import dataclass

Fields = list[tuple[bytes, bytes]]

_TEXT = rb"[\t -~\x80-\xff]*"
_VALUE = rb"(?:[!-~\x80-\xff](?:" + _TEXT + rb"[!-~\x80-\xff])?)?"
_FIELD = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+):[ \t]*(" + _VALUE + rb")[ \t]*")
_CHUNK_SIZE = re.compile(rb"([0-9A-Fa-f]{1,15})(?:[ \t]*;" + _TEXT + rb")?")
_STATUS_LINE = re.compile(rb"HTTP/1\.([01]) ([1-5][0-9][0-9])(?: " + _TEXT + rb")?")
_METHOD = rb"GET|HEAD|POST|PUT|PATCH|DELETE|OPTIONS"
_REQUEST_LINE = re.compile(rb"(" + _METHOD + rb") ([!-~]+) HTTP/1\.([01])")
# From callers, a higher minor version is taken as well (RFC 9110 section 2.5).
_CALLERS_REQUEST_LINE = re.compile(rb"(" + _METHOD + rb") ([!-~]+) HTTP/1\.([0-9])")


class MalformedError(Exception):
    """The bytes are no HTTP/1.1 message, whatever may follow."""


class PartialError(Exception):
    """The message has not ended yet. `body` is what there is of it once the head is complete."""

    def __init__(self, body: bytes | None = None) -> None:
        super().__init__()
        self.body = body


@dataclass(frozen=True)
class Request:
    """One whole request."""

    method: bytes
    target: bytes
    fields: Fields
    body: bytes
    old: bool
    """It is HTTP/1.0."""
    chunked: bool

    def values(self, name: bytes) -> list[bytes]:
        """Values of every field called `name`, in any letter case."""
        return values_of(self.fields, name)


@dataclass(frozen=True)
class Response:
    """One response, whole or not."""

    status: int
    fields: Fields
    body: bytes
    whole: bool
    """It has ended by its own framing; or it has none, and its connection ended with a FIN."""
    framed: bool
    """It says itself where it ends."""
    last: bool = False
    """It says that its connection ends with it."""

    def values(self, name: bytes) -> list[bytes]:
        """Values of every field called `name`, in any letter case."""
        return values_of(self.fields, name)


def values_of(fields: Fields, name: bytes) -> list[bytes]:
    """Return values of every field called `name`, in any letter case."""
    return [value for other, value in fields if other.lower() == name.lower()]


class _Bytes:
    """A place in bytes."""

    def __init__(self, data: bytes, at: int) -> None:
        self.data = data
        self.at = at

    def line(self) -> bytes:
        end = self.data.find(b"\r\n", self.at)
        line = self.data[self.at :] if end < 0 else self.data[self.at : end]
        if b"\n" in line or b"\r" in (line[:-1] if end < 0 else line):
            raise MalformedError("a bare CR or LF")
        if end < 0:
            raise PartialError
        self.at = end + 2
        return line

    def take(self, count: int) -> bytes:
        taken = self.data[self.at : self.at + count]
        self.at += len(taken)
        return taken

    def fields(self) -> Fields:
        found: Fields = []
        while line := self.line():
            parts = _FIELD.fullmatch(line)
            if parts is None:
                raise MalformedError(f"field line {line[:80]!r}")
            found.append((parts[1], parts[2]))
        return found

    def length(self, count: int) -> bytes:
        body = self.take(count)
        if len(body) < count:
            raise PartialError(body)
        return body

    def chunks(self) -> bytes:
        body = b""
        try:
            while True:
                line = self.line()
                size = _CHUNK_SIZE.fullmatch(line)
                if size is None:
                    raise MalformedError(f"chunk size {line[:80]!r}")
                count = int(size[1], 16)
                if count == 0:
                    self.fields()
                    return body
                piece = self.take(count)
                body += piece
                end = self.take(2)
                if not b"\r\n".startswith(end):
                    raise MalformedError("no CRLF behind a chunk")
                if len(end) < 2:
                    raise PartialError
        except PartialError:
            raise PartialError(body) from None


def _framing(fields: Fields) -> tuple[int | None, bool]:
    """Return Content-Length and whether the body is chunked."""
    codings, lengths = (
        values_of(fields, b"transfer-encoding"),
        values_of(fields, b"content-length"),
    )
    if len(codings) + len(lengths) > 1:
        raise MalformedError("more than one framing")
    if codings and codings[0].lower() != b"chunked":
        raise MalformedError("a coding other than chunked")
    if lengths and not re.fullmatch(rb"[0-9]{1,15}", lengths[0]):
        raise MalformedError("Content-Length is not a plain number")
    return int(lengths[0]) if lengths else None, bool(codings)


def read_request(data: bytes, at: int = 0, *, from_caller: bool) -> tuple[Request, int]:
    """Return the request that begins at `at`, and where it ends.

    Args:
        data: the bytes of one connection.
        at: where to begin.
        from_caller: take empty lines before it, and a higher minor version.

    Raises:
        MalformedError: it is none.
        PartialError: it has not ended.
    """
    source = _Bytes(data, at)
    pattern = _CALLERS_REQUEST_LINE if from_caller else _REQUEST_LINE
    while from_caller and source.at < len(data) and data[source.at] in b"\r\n":
        source.at += 1
    line = source.line()
    start = pattern.fullmatch(line)
    if start is None:
        raise MalformedError(f"request line {line[:80]!r}")
    fields = source.fields()
    length, chunked = _framing(fields)
    old = start[3] == b"0"
    if chunked and old:
        raise MalformedError("a coding on HTTP/1.0")
    body = source.chunks() if chunked else source.length(length or 0)
    request = Request(start[1], start[2], fields, body, old=old, chunked=chunked)
    return request, source.at


def read_requests(data: bytes) -> tuple[list[Request], bytes, bool]:
    """Return the whole requests of a caller, what follows them, and whether it is malformed."""
    found: list[Request] = []
    at = 0
    try:
        while data[at:].strip(b"\r\n"):
            request, at = read_request(data, at, from_caller=True)
            found.append(request)
    except MalformedError:
        return found, data[at:].lstrip(b"\r\n"), True
    except PartialError:
        pass
    return found, data[at:].lstrip(b"\r\n"), False


def read_response(
    data: bytes, at: int, *, to_head: bool, ended: bool, was_reset: bool
) -> tuple[Response, int]:
    """Return the response that begins at `at`, whole or not, and where it ends.

    Args:
        data: the bytes of one connection.
        at: where to begin.
        to_head: it answers HEAD.
        ended: nothing more will come.
        was_reset: because of a reset, not of a FIN.

    Raises:
        MalformedError: it is none.
        PartialError: its head has not ended.
    """
    source = _Bytes(data, at)
    line = source.line()
    start = _STATUS_LINE.fullmatch(line)
    if start is None:
        raise MalformedError(f"status line {line[:80]!r}")
    status = int(start[2])
    fields = source.fields()
    length, chunked = _framing(fields)
    if (status < 200 or status == 204) and (chunked or length):
        raise MalformedError("a body where none may be")
    options = b",".join(values_of(fields, b"connection")).lower().split(b",")
    last = start[1] == b"0" or b"close" in [option.strip(b" \t") for option in options]
    if 100 <= status < 200 or status in {204, 304} or to_head:
        return Response(status, fields, b"", whole=True, framed=True, last=last), source.at
    framed = chunked or length is not None
    try:
        if chunked:
            body = source.chunks()
        else:
            body = source.take(len(data)) if length is None else source.length(length)
    except PartialError as partial:
        body = partial.body or b""
        return Response(status, fields, body, whole=False, framed=True), len(data)
    whole = framed or (ended and not was_reset)
    last = last or not framed
    return Response(status, fields, body, whole=whole, framed=framed, last=last), source.at
