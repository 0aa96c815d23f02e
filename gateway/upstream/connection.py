"""One HTTP/1.1 connection to a service.

Writes a request, parses or recognises the response, and knows whether it may be used again;
decides nothing.
"""

import asyncio
import re
from collections.abc import Sequence
from enum import Enum, auto
from typing import Any, Protocol, cast

import httptools

from gateway.errors import ErrorCode, UpstreamError
from gateway.http.framing import bytes_to_come, gathered, joined_if_small

MAX_HEAD_BYTES = 64 * 1024
"""nginx: 4-8 KiB, Envoy: 60 KiB, Go: 1 MiB. A large token echoed back still fits."""
MAX_FIELDS = 256
_MAX_INTERIM = 16
"""1xx responses before the final one; a flood of 102 would otherwise last for ever."""
_ENCRYPTED_BYTES = 32 * 1024
"""At a time. Each piece is copied twice on its way through OpenSSL, and these stay in the
processor's first cache: a tenth less CPU for a large upload than as it comes, 256 KiB at a time."""
_MAX_KNOWN_BYTES = 2048
"""Of a head that is remembered."""
_END = b"\r\n\r\n"


class ResponseHead:
    """Status line and fields of a final response, as received. Not changed.

    One that its connection brings again and again, byte for byte, is one object, for what it is
    judged to mean to be kept in.
    """

    __slots__ = ("body_bytes", "fields", "judged", "reason", "status")

    def __init__(self, status: int, reason: bytes, fields: list[tuple[bytes, bytes]]) -> None:
        self.status = status
        self.reason = reason
        self.fields = fields
        self.body_bytes = -1
        """How long the body is that it announces, once that is known of it."""
        self.judged: Any = None
        """What sinks have made of it; theirs, and None of a head that is not repeated."""


class ResponseSink(Protocol):
    """Who hears of the response to one request. Called synchronously, never after the end."""

    def on_response(self, head: ResponseHead | None, body: list[bytes], *, complete: bool) -> None:
        """Take what one read has brought.

        Args:
            head: the final response's head, the first time; then None.
            body: pieces of the body in order, without any framing; may be empty.
            complete: this was all, and the connection is no longer ours.
        """
        ...

    def on_failure(self, error: UpstreamError) -> None:
        """Learn that the response will not come, or not to its end. The connection is closed."""
        ...

    def on_writable(self) -> None:
        """Learn that the service reads again, after `writing_paused`."""
        ...


class _Phase(Enum):
    """Where the response of the exchange under way has got to."""

    IDLE = auto()
    HEAD = auto()
    BODY = auto()
    DONE = auto()
    SWITCHED = auto()
    """Whatever comes belongs to the protocol that was switched to."""


# Looking a member up costs as much as the comparison that it is for (Python 3.11).
_IDLE, _HEAD, _BODY, _DONE = _Phase.IDLE, _Phase.HEAD, _Phase.BODY, _Phase.DONE
_SWITCHED = _Phase.SWITCHED


class _RefusedResponseError(Exception):
    """Raised inside a parser callback for what the parser itself would let through."""


class Connection(asyncio.Protocol):
    """A connection to one origin.

    Invariants:
        - at most one request is under way; the sink of `start` hears `complete` or a failure
          exactly once, unless it calls `abort` first;
        - once a byte has arrived unasked, a request was not sent whole, or either side wants to
          close, it is never `reusable` again (pingora, httpcore: late bytes reach a stranger).
    """

    __slots__ = (
        "_body",
        "_encrypts",
        "_fields",
        "_head",
        "_head_request",
        "_interim",
        "_known",
        "_last_head",
        "_left",
        "_parser",
        "_parser_used_up",
        "_phase",
        "_read_bytes",
        "_reason",
        "_repeated",
        "_request_sent",
        "_silent_bytes",
        "_sink",
        "_start",
        "_switch_to",
        "_transport",
        "good_until",
        "heard",
        "opened_at",
        "requests",
        "reusable",
        "writing_paused",
    )

    def __init__(self, opened_at: float) -> None:
        self.opened_at = opened_at
        self.good_until = opened_at
        """While idle: when the pool must have closed it; the pool's own."""
        self.requests = 0
        """Requests started on this connection."""
        self.reusable = True
        self.heard = False
        """A byte of the response under way, or of an interim one, has arrived."""
        self.writing_paused = False
        """The service reads more slowly than we write; `on_writable` will say when it does not."""
        self._transport: asyncio.Transport | None = None
        self._encrypts = False
        self._parser = httptools.HttpResponseParser(self)
        self._parser_used_up = False
        self._sink: ResponseSink | None = None
        self._phase = _IDLE
        self._head_request = False
        self._switch_to = b""
        self._request_sent = True
        self._start = b""  # first bytes of the response under way, interim or final
        self._head: ResponseHead | None = None
        self._body: list[bytes] = []
        self._fields: list[tuple[bytes, bytes]] = []
        self._reason = b""
        self._interim = 0
        self._silent_bytes = 0
        self._read_bytes = 0
        self._left = 0  # of a body whose end is known, so that the parser, which copies, need not
        self._last_head = b""
        self._repeated = False  # the response under way has the head of the one before it
        self._known: ResponseHead | None = None  # the meaning of `_last_head`

    def __repr__(self) -> str:
        state = "closed" if self._transport is None else self._phase.name.lower()
        return f"<Connection {state} requests={self.requests} reusable={self.reusable}>"

    # What an exchange does with it.

    def start(
        self,
        sink: ResponseSink,
        pieces: list[bytes],
        *,
        head_request: bool,
        sent: bool,
        switch_to: bytes = b"",
    ) -> None:
        """Write the head of a request, and as much of its body as is at hand, in one piece.

        Args:
            sink: hears of everything that comes back.
            pieces: head and first body bytes, framed.
            head_request: the method is HEAD, so the response has no body.
            sent: `pieces` are the whole request; otherwise `write` and `end` follow.
            switch_to: protocol, in lower case, that a 101 may switch to; after that `write` takes
                its bytes and the sink's `body` brings them, until either side closes.
        """
        if self._parser_used_up:
            self._parser = httptools.HttpResponseParser(self)
            self._parser_used_up = False
        self.requests += 1
        self.heard = False
        self._sink = sink
        self._phase = _HEAD
        self._head_request = head_request
        self._switch_to = switch_to
        self._request_sent = sent
        self._interim = 0
        self._silent_bytes = 0
        self._read_bytes = 0
        self._left = 0
        transport = self._transport
        if transport is None or transport.is_closing():
            self._fail(
                ErrorCode.CONNECTION_TERMINATED, "closed before the request", replayable=True
            )
        else:
            self._send(transport, pieces)

    def write(self, pieces: Sequence[bytes]) -> None:
        """Write more of the request's body, framed. Nothing happens when we are closed."""
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        self._send(transport, pieces)

    def _send(self, transport: asyncio.Transport, pieces: Sequence[bytes]) -> None:
        data = joined_if_small(pieces)
        if self._encrypts and (data is None or len(data) > _ENCRYPTED_BYTES):
            for piece in pieces:
                view = memoryview(piece)
                for at in range(0, len(piece), _ENCRYPTED_BYTES):
                    transport.write(view[at : at + _ENCRYPTED_BYTES])
        elif data is not None:
            transport.write(data)
        else:
            transport.writelines(pieces)

    def end(self) -> None:
        """Say that the request has been written whole."""
        self._request_sent = True

    def pause_reading(self) -> None:
        """Leave what the service sends in the kernel until `resume_reading`."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        """Go on reading; does nothing when not paused."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()

    def abort(self) -> None:
        """Close at once, without a word to the sink.

        Unsent bytes are lost, so the service sees an aborted request, never a complete one.
        """
        self._sink = None
        self.reusable = False
        if self._transport is not None:
            self._transport.abort()

    def close(self) -> None:
        """Close after what has been written, without a word to the sink, if any."""
        self._sink = None
        self.reusable = False
        if self._transport is not None:
            self._transport.close()

    # What the event loop tells us.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Learn of the open transport."""
        self._transport = cast(asyncio.Transport, transport)
        self._encrypts = transport.get_extra_info("ssl_object") is not None

    def data_received(self, data: bytes) -> None:
        """Parse what has arrived and tell the sink once."""
        sink = self._sink
        if sink is None:
            self.abort()  # nobody asked: whatever it is, nobody may get it
            return
        if self._phase is _SWITCHED:
            sink.on_response(None, [data], complete=False)
            return
        if not self.heard:
            self.heard = True
            self._start = data[:9]
            if self._recognise(sink, data):
                return
        elif self._left:
            self._take(sink, data)
            return
        else:
            self._repeated = False  # what comes now has not come with that head
        if self._parse(data):
            self._tell(sink, data)

    def _tell(self, sink: ResponseSink, data: bytes) -> None:
        head = self._head
        body = self._body if len(self._body) < 2 else gathered(self._body)
        if head is None and not body and self._phase is not _DONE:
            self._bear_silence(len(data))
            return
        self._silent_bytes = 0
        self._head = None
        self._body = []
        if self._phase is _DONE:
            if self._repeated:
                self._get_to_know(head, body, data)
            self._release()
            sink.on_response(head, body, complete=True)
        else:
            if head is not None:
                self._left = bytes_to_come(head.fields, body)
            sink.on_response(head, body, complete=False)

    def _take(self, sink: ResponseSink, data: bytes) -> None:
        """Take `data` as what is left of a body, as it is."""
        left = self._left
        if len(data) < left:
            self._left = left - len(data)
            sink.on_response(None, [data], complete=False)
            return
        self._done()
        self._parser_used_up = True  # it still waits for the body
        if len(data) > left:
            self.reusable = False
        self._release()
        sink.on_response(None, [data[:left]], complete=True)

    def _recognise(self, sink: ResponseSink, data: bytes) -> bool:
        """Take a response that comes whole, behind the head of the two before it.

        It is the one that the parser would make of it, for half of what that costs. Otherwise note
        whether it may be remembered, if all of it is in `data`.
        """
        head = data[: data.find(_END) + 4]
        if head != self._last_head:
            self._last_head = head if len(head) <= _MAX_KNOWN_BYTES else b""
            self._known = None
            return False
        known, size = self._known, len(data) - len(head)
        if known is None or size != known.body_bytes or self._head_request or self._switch_to:
            self._repeated = True
            return False
        if not self._request_sent:
            self.reusable = False
        self._release()
        sink.on_response(known, [data[-size:]] if size else [], complete=True)
        return True

    def _get_to_know(self, head: ResponseHead | None, body: list[bytes], data: bytes) -> None:
        """Remember a head if `data` was exactly one plain response, as it has been understood."""
        self._repeated = False
        rest = data[len(self._last_head) :]
        if (
            head is not None
            and head.status < 300
            and not self._head_request
            and b"".join(body) == rest
        ):
            head.body_bytes = len(rest)
            self._known = head

    def _parse(self, data: bytes) -> bool:
        """Let the parser have `data`; return False if the sink has heard that it makes no sense."""
        self._read_bytes += len(data)
        try:
            doubtful = data[-1] in _LINE_END or self._head_request
            self._parser.feed_data(self._up_to_last(data) if doubtful else data)
        except httptools.HttpParserUpgrade as upgrade:
            self._parser_used_up = True
            if rest := data[upgrade.args[0] :]:
                self._body.append(rest)
        except httptools.HttpParserError as cause:
            self.reusable = False
            if self._phase is not _DONE:
                self._fail(ErrorCode.HTTP_PROTOCOL_ERROR, str(cause.__context__ or cause))
                return False
        return True

    def _up_to_last(self, data: bytes) -> bytes:
        """Parse `data` but for its last byte, which is returned.

        llhttp swallows line ends behind a message, and behind the head that answers HEAD may read
        a chunk's: the last byte must still be part of the message. Where protocols may be switched,
        nothing is reused and all of `data` is returned.
        """
        if self._switch_to or len(data) == 1:
            return data
        self._parser.feed_data(memoryview(data)[:-1])
        if self._phase is _DONE:
            self.reusable = False
        return data[-1:]

    def _bear_silence(self, count: int) -> None:
        """Bound an unfinished head, chunk extensions or trailers: each endless by itself."""
        self._silent_bytes += count
        if self._silent_bytes > MAX_HEAD_BYTES:
            self._fail(ErrorCode.HTTP_PROTOCOL_ERROR, "head or trailers are too large")

    def eof_received(self) -> None:
        """Take the end of the stream as the end of a body that has no other."""
        self.reusable = False
        sink = self._sink
        if sink is not None and (
            self._phase is _SWITCHED or (self._phase is _BODY and self._ends_with_connection())
        ):
            # Over TLS only a close_notify gets here; a bare FIN is `connection_lost`.
            self._release()
            sink.on_response(None, [], complete=True)

    def connection_lost(self, exc: Exception | None) -> None:
        """Fail the exchange under way, if any."""
        self._transport = None
        self.reusable = False
        if self._sink is not None:
            detail = "connection closed" if exc is None else type(exc).__name__
            if self._phase in {_BODY, _SWITCHED}:
                self._fail(ErrorCode.HTTP_RESPONSE_INCOMPLETE, detail)
            else:
                self._fail(ErrorCode.CONNECTION_TERMINATED, detail)

    def pause_writing(self) -> None:
        """Learn that the service reads more slowly than we write."""
        self.writing_paused = True

    def resume_writing(self) -> None:
        """Let the request's body go on."""
        self.writing_paused = False
        if self._sink is not None:
            self._sink.on_writable()

    # What the parser tells us.

    def on_message_begin(self) -> None:
        """Begin a head; a second final response to one request ends the connection."""
        if self._phase is not _HEAD:
            self.reusable = False
            return
        self._fields = []
        self._reason = b""

    def on_status(self, reason: bytes) -> None:
        """Collect the reason phrase, which may come in parts."""
        self._reason += reason

    def on_header(self, name: bytes, value: bytes) -> None:
        """Collect a field of the head; trailers are not passed on."""
        if self._phase is _HEAD:
            self._fields.append((name, value))

    def on_headers_complete(self) -> None:
        """Judge a complete head; 1xx is absorbed (RFC 9110 section 15.2)."""
        if self._phase is not _HEAD:
            return
        fields = self._fields
        if len(fields) > MAX_FIELDS or (
            self._read_bytes > MAX_HEAD_BYTES
            and len(self._reason) + _size_of(fields) > MAX_HEAD_BYTES
        ):
            raise _RefusedResponseError("head is too large")
        status: int = self._parser.get_status_code()
        if 100 <= status < 200:
            self._bear_interim(status)
            return
        if self._start == _USUAL and not self._interim:
            version = "1.1"
        else:
            self._check_start()
            version = self._parser.get_http_version()  # ten times as dear
        if not 200 <= status <= 599 or version not in _VERSIONS:
            raise _RefusedResponseError("status or version out of range")
        if version == "1.0":
            # Its keep-alive has no specification to rely on (RFC 9112 appendix C.2.2).
            self.reusable = False
        self._head = ResponseHead(status, self._reason, fields)
        if self._head_request:
            # The parser cannot know, and would take the next response for this one's body.
            self._parser_used_up = True
            self._done()
        else:
            self._phase = _BODY

    def _bear_interim(self, status: int) -> None:
        if status == 101:
            self._switch()
            return
        self._interim += 1
        if self._interim > _MAX_INTERIM:
            raise _RefusedResponseError("too many interim responses")
        if _CONTROL.search(self._reason) or any(map(_announces_body, self._fields)):
            raise _RefusedResponseError("malformed interim response")

    def on_body(self, body: bytes) -> None:
        """Collect a piece of the body."""
        if self._phase is _BODY:
            self._body.append(body)
        else:
            self.reusable = False  # a body where none may be

    def on_message_complete(self) -> None:
        """Note the end of a final response."""
        if self._phase is _BODY:
            self._done()

    def _check_start(self) -> None:
        """Refuse what llhttp would skip, line ends, or take, status lines of other protocols."""
        if not self._start.startswith(b"H"):
            raise _RefusedResponseError("no status line")

    def _switch(self) -> None:
        self._check_start()
        protocols = [value.lower() for name, value in self._fields if name.lower() == b"upgrade"]
        if protocols != [self._switch_to] or self._parser.get_http_version() != "1.1":
            raise _RefusedResponseError("101 that was not asked for")
        self.reusable = False
        self._phase = _SWITCHED
        self._head = ResponseHead(101, self._reason, self._fields)

    def _done(self) -> None:
        self._phase = _DONE
        if not self._request_sent or self._switch_to or not self._parser.should_keep_alive():
            self.reusable = False

    def _release(self) -> None:
        self._sink = None
        self._phase = _IDLE

    def _fail(self, code: ErrorCode, detail: str, *, replayable: bool = False) -> None:
        sink = self._sink
        self.abort()
        self._release()
        if sink is not None:
            sink.on_failure(UpstreamError(code, detail, replayable=replayable))

    def _ends_with_connection(self) -> bool:
        names = {name.lower() for name, _ in self._fields}
        return names.isdisjoint((b"content-length", b"transfer-encoding"))


_VERSIONS = frozenset({"1.1", "1.0"})
_USUAL = b"HTTP/1.1 "
_LINE_END = b"\r\n"
_CONTROL = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")


def _announces_body(field: tuple[bytes, bytes]) -> bool:
    name = field[0].lower()
    return name == b"transfer-encoding" or (name == b"content-length" and field[1] != b"0")


def _size_of(fields: list[tuple[bytes, bytes]]) -> int:
    return sum(len(name) + len(value) + 4 for name, value in fields)
