"""One connection to the admin listener: bounded in bytes and time before aiohttp gets anything.

aiohttp bounds neither: it waits for a head for an hour, collects every body, and decompresses it.
It is handed one whole head at a time, which our own strict reader has accepted.
"""

import asyncio
from collections.abc import Callable
from enum import Enum, auto
from http import HTTPStatus
from typing import Final, Protocol, cast

from aiohttp import web

from gateway.errors import DownstreamError, ErrorCode
from gateway.http.date import DateField
from gateway.http.request_head import RequestHead
from gateway.http.request_reader import RequestReader

MAX_HEAD_BYTES: Final = 16 * 1024
"""A browser's head takes 2 KiB, a scraper's less."""
HEAD_TIMEOUT_S: Final = 5.0
"""From the first to the last byte of a head."""
IDLE_TIMEOUT_S: Final = 75.0
"""Longer than a minute, the scrape interval of most; also the limit for reading a response."""
_ANSWER_S: Final = 60.0
"""How long the handler may take: a reload may have to wait for a disk."""
_LINGER_S: Final = 1.0
"""How long the rest of a rejected request is read and dropped, so that the response arrives."""

_NO_BODY: Final = (HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "Send no body: nothing here reads one.")


class ConnectionOwner(Protocol):
    """The listener that accepted a connection, as the connection sees it."""

    def opened(self, connection: "AdminConnection") -> None:
        """Called when the connection has been accepted."""
        ...

    def heard(self, connection: "AdminConnection") -> None:
        """Called when bytes have arrived on it."""
        ...

    def lost(self, connection: "AdminConnection") -> None:
        """Called when the connection is gone."""
        ...


class _State(Enum):
    """What a connection does with the bytes that arrive."""

    READING = auto()
    ANSWERING = auto()
    """A request is with its handler; nothing more is read meanwhile."""
    LINGERING = auto()
    """The last response has been written; bytes that arrive are dropped."""


class AdminConnection(asyncio.Protocol):
    """The event loop's protocol, before aiohttp's.

    Invariants: it holds one unfinished head of at most `MAX_HEAD_BYTES` and what one read brought;
    aiohttp holds one request of it at most; something always has a deadline.
    """

    def __init__(
        self,
        owner: ConnectionOwner,
        make_handler: Callable[[], web.RequestHandler],
        dates: DateField,
    ) -> None:
        """Prepare; what `make_handler` returns answers requests, and is made for the first one.

        So a flood of connections that ask nothing costs little.
        """
        self._dates = dates
        self._owner = owner
        self._make_handler = make_handler
        self._handler: web.RequestHandler | None = None  # once there has been a request
        self._state = _State.READING
        self._reader = RequestReader()
        self._unread = bytearray()
        self._timer: asyncio.TimerHandle | None = None
        self.transport: asyncio.Transport | None = None
        """While it is open."""

    @property
    def answering(self) -> bool:
        """Whether a request is with its handler."""
        return self._state is _State.ANSWERING

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin to count the time."""
        self.transport = cast(asyncio.Transport, transport)
        self._limit(IDLE_TIMEOUT_S)
        self._owner.opened(self)

    def data_received(self, data: bytes) -> None:
        """Read on, up to the end of a head."""
        self._owner.heard(self)
        if self._state is _State.READING:
            self._read(data)
        elif self._state is _State.ANSWERING:
            self._unread += data  # one read may still arrive although reading is paused

    def eof_received(self) -> None:
        """Let the transport close after what has been written."""
        if self._handler is not None:
            self._handler.eof_received()

    def connection_lost(self, exc: BaseException | None) -> None:
        """Release the owner and aiohttp's handler."""
        self.transport = None
        if self._timer is not None:
            self._timer.cancel()
        self._owner.lost(self)
        if self._handler is not None:
            self._handler.connection_lost(exc)

    def pause_writing(self) -> None:
        """Make aiohttp wait while the client reads slowly."""
        if self._handler is not None:
            self._handler.pause_writing()

    def resume_writing(self) -> None:
        """Let aiohttp write again."""
        if self._handler is not None:
            self._handler.resume_writing()

    def answered(self) -> None:
        """Called when the handler is done, and its answer is about to be written."""
        asyncio.get_running_loop().call_soon(self._go_on)

    def close(self) -> None:
        """Close at once, to make room for another connection."""
        if self.transport is not None:
            self.transport.abort()

    def _go_on(self) -> None:
        """Read the next request; some of it may have arrived."""
        transport = self.transport
        if transport is None or transport.is_closing() or self._state is not _State.ANSWERING:
            return
        self._state = _State.READING
        self._reader = RequestReader()
        self._limit(IDLE_TIMEOUT_S)
        transport.resume_reading()
        unread, self._unread = bytes(self._unread), bytearray()
        if unread:
            self._read(unread)

    def _read(self, data: bytes) -> None:
        reader, unread = self._reader, self._unread
        was_in_head = reader.in_head()
        reader.feed(data)
        if not unread:
            data = data.lstrip(b"\r\n")
        searched = max(0, len(unread) - 3)
        unread += data
        if reader.request is not None:
            self._hand_over(reader.request.head, unread.index(b"\r\n\r\n", searched) + 4)
        elif reader.refusal is not None:
            self._refuse(*_answer_to(reader.refusal))
        elif len(unread) > MAX_HEAD_BYTES:
            self._refuse(*_answer_to(DownstreamError(ErrorCode.HEADERS_TOO_LARGE)))
        elif reader.in_head() and not was_in_head:
            self._limit(HEAD_TIMEOUT_S)

    def _hand_over(self, head: RequestHead, end: int) -> None:
        """Hand the request whose head ends at offset `end` to aiohttp."""
        transport = self.transport
        if transport is None:
            return
        if end > MAX_HEAD_BYTES:
            self._refuse(*_answer_to(DownstreamError(ErrorCode.HEADERS_TOO_LARGE)))
        elif not head.line.supported:
            self._refuse(*_answer_to(DownstreamError(ErrorCode.VERSION_NOT_SUPPORTED)))
        elif head.fault is not None or head.line.fault is not None:
            fault = head.fault or head.line.fault
            self._refuse(*_answer_to(fault or DownstreamError(ErrorCode.BAD_REQUEST)))
        elif head.chunked or head.content_length:
            self._refuse(*_NO_BODY)
        else:
            self._state = _State.ANSWERING
            self._limit(_ANSWER_S)
            transport.pause_reading()
            request, self._unread = bytes(self._unread[:end]), self._unread[end:]
            if self._handler is None:
                self._handler = self._make_handler()
                self._handler.connection_made(transport)
            self._handler.data_received(request)

    def _refuse(self, status: HTTPStatus, sentence: str) -> None:
        transport = self.transport
        if transport is None:
            return
        self._unread = bytearray()
        self._state = _State.LINGERING
        self._limit(_LINGER_S)
        lines = [
            f"HTTP/1.1 {status} {status.phrase}",
            self._dates.line().decode("ascii"),
            "Content-Type: text/plain; charset=utf-8",
            f"Content-Length: {len(sentence) + 1}",
            "Connection: close",
        ]
        transport.write(("\r\n".join(lines) + f"\r\n\r\n{sentence}\n").encode())
        if transport.can_write_eof():
            transport.write_eof()

    def _limit(self, seconds: float) -> None:
        """Set the deadline of the present step, in seconds from now."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(seconds, self._expire)

    def _expire(self) -> None:
        if self._state is _State.READING and self._reader.in_head():
            self._refuse(*_answer_to(DownstreamError(ErrorCode.SLOW_REQUEST)))
        else:
            self.close()


def _answer_to(error: DownstreamError) -> tuple[HTTPStatus, str]:
    answer = error.code.value
    return HTTPStatus(answer.status), answer.sentence
