"""One client's connection: begins an exchange for each request in turn, and ends.

aiohttp's `web.Server` accepts and keeps the connections, and shuts them down. Its own protocol is
not inherited: it would parse with another parser, and make request objects and a task for each
connection, which cost more than the rest of an exchange (`gateway/README.md`).
"""

import asyncio
import logging
import socket
from enum import Enum, auto
from typing import Final, cast

from gateway.downstream.client_stream import NOBODY, ClientStream, StreamOwner
from gateway.downstream.interfaces import Listener
from gateway.errors import (
    DownstreamError,
    ErrorCode,
    GatewayError,
    Rejection,
    UnavailableError,
)
from gateway.http.reader_state import DONE, REFUSED, TUNNEL
from gateway.http.request import Request, unreadable_request
from gateway.http.request_reader import RequestReader
from gateway.proxy.exchange import Exchange
from gateway.proxy.phase import Phase

HEAD_TIMEOUT_S: Final = 10.0
"""From the first to the last byte of a head. nginx: 60 s; a client on this machine needs none."""
IDLE_TIMEOUT_S: Final = 75.0
"""As nginx: longer than the 60 s after which most clients drop an idle connection themselves."""
LINGER_S: Final = 2.0
"""How long the rest of a refused request is read and dropped, so that the response arrives."""

CROWD: Final = 32
"""Beyond so many connections, the kernel keeps less of what a further one sends ahead, so that what
150 of them have in memory at a time is bounded. It makes their large uploads 1.4 times as dear."""
_CROWD_BUFFER_BYTES: Final = 48 * 1024
_CROWD_SEND_BYTES: Final = 128 * 1024
"""What the kernel keeps for a client that does not read: it would take 4 MiB, and in a container
that counts as ours."""

_LARGE_BYTES: Final = 4 * 1024
"""A request that arrives whole is counted from here on: it may wait for its response."""

_HEAD_END: Final = b"\r\n\r\n"
_SWITCHED: Final = Phase.TUNNEL

_log: Final = logging.getLogger("gateway.downstream")


class _State(Enum):
    """What is done with what the client sends."""

    SERVING = auto()
    LINGERING = auto()
    """The last response has been written; what still comes is read and dropped."""
    CLOSING = auto()
    """Nothing more is read; what has been written may still leave."""


_SERVING: Final = _State.SERVING
_LINGERING: Final = _State.LINGERING
_CLOSING: Final = _State.CLOSING


class ClientConnection(StreamOwner):
    """A client's connection: the event loop's protocol.

    Requests are answered one at a time, in order; while one is answered, what has arrived behind it
    waits, and nothing more is read. A client that closes its side, or half of it, has left: its
    exchange is abandoned. The two cannot be told apart, and nginx and Go do likewise.
    """

    __slots__ = (
        "_context",
        "_deadline",
        "_listener",
        "_memory",
        "_starting",
        "_state",
        "exchange",
        "reader",
        "received_at",
        "request",
        "stream",
    )

    _task_handler: Final = None  # what `web.Server` looks for: no task belongs to a connection

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self._context = listener.context
        self._memory = listener.memory
        self.stream = ClientStream(self)
        self.reader = RequestReader()
        self.exchange: Exchange | None = None
        self.request: Request | None = None  # which the exchange answers
        self._state = _SERVING
        self._deadline = _NEVER  # between exchanges
        self.received_at = 0.0  # the last read
        self._starting = False

    @property
    def busy(self) -> bool:
        """Whether a request is being answered, or its response is still on its way."""
        return self.exchange is not None or self._state is _LINGERING

    # What the event loop tells us.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin to count the time."""
        opened = self.stream.transport = cast(asyncio.Transport, transport)
        listener = self._listener
        listener.connection_made(self, opened)
        if listener.crowded:
            self.stream.turns = listener.turns
            # Later would be too late: what is above a smaller bound then is dropped and sent again.
            sock = opened.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _CROWD_BUFFER_BYTES)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _CROWD_SEND_BYTES)
        self._deadline = self._context.clock() + IDLE_TIMEOUT_S
        self._context.deadlines.watch(self)
        if listener.full:
            listener.make_room()
            if listener.flooded:
                listener.turned_away()
                self.stream.abort()
                return
            if listener.full:
                self.refuse(UnavailableError(ErrorCode.OVERLOADED, Rejection.CONNECTIONS))
                return
        if listener.bars(opened):
            self.refuse(DownstreamError(ErrorCode.CLIENT_NOT_ALLOWED))

    def data_received(self, data: bytes) -> None:
        """Read what has arrived, and act on it."""
        if self._state is not _SERVING:
            return
        now = self.received_at = self._context.clock()
        reader, exchange, request = self.reader, self.exchange, self.request
        stream = self.stream
        if request is None and len(data) > _LARGE_BYTES and _HEAD_END not in data:
            stream.turns = self._listener.turns  # a millisecond's work; no usual client sends that
        turns = stream.turns
        if turns is not None and not (data := turns.due(stream, data, request is None)):
            return
        if exchange is not None and request is not None:
            was_ended = request.ended
            reader.feed(data)
            self._memory.note(len(data))
            try:
                self._go_on(exchange, was_ended=was_ended)
            except Exception:  # noqa: BLE001  # logged, counted and answered
                self._fail_internal(exchange)
            return
        was_in_head = reader.in_head()
        reader.feed(data)
        if reader.request is None and reader.in_head():
            if not was_in_head:
                self._deadline = now + HEAD_TIMEOUT_S
            self._memory.note(len(data))
        elif len(data) > _LARGE_BYTES:
            self._memory.note(len(data))
        self._start_next(now)

    def eof_received(self) -> None:
        """Let the transport close; an unfinished head gets 400, an open exchange is aborted."""
        if self.exchange is not None:
            self.exchange.client_ended()  # and reset, lest what was answered look complete
        elif self.reader.in_head() and self._state is _SERVING:
            self.refuse(DownstreamError(ErrorCode.BAD_REQUEST))

    def connection_lost(self, exc: BaseException | None) -> None:
        """Abandon the exchange under way."""
        self.stream.lost()
        self._context.deadlines.forget(self)
        self._listener.connection_lost(self, exc)
        if self.exchange is not None:
            self.exchange.break_off(DownstreamError(ErrorCode.CLIENT_DISCONNECTED))
        if self.stream.turns is not None:
            self.stream.turns.forget(self.stream)
        self.reader.forget()
        self.stream.owner = NOBODY  # the two are a cycle, and the collector may come late

    def pause_writing(self) -> None:
        """Note that the client reads more slowly than we write."""
        self.stream.reads_slowly = True
        self._memory.note(self.stream.unsent_bytes)

    def resume_writing(self) -> None:
        """Let the service go on as well."""
        self.stream.reads_slowly = False
        if self.exchange is not None:
            self.exchange.client_writable()
        elif self._state is _SERVING:
            self.stream.resume_reading()
            self._next_request(self._context.clock())

    # What the listener does with it (`web.Server` among them).

    def expects_request(self, within_s: float) -> bool:
        """Return whether a request may be on its way, though the gateway is about to end.

        Either some of it has arrived, or the client connected or was answered less than `within_s`
        seconds ago.
        """
        if self.exchange is not None or self._state is not _SERVING or not self.stream.is_open():
            return False
        idle_s = self._context.clock() - (self._deadline - IDLE_TIMEOUT_S)
        is_unread = self.stream.waiting_bytes > 0
        return idle_s < within_s or self.reader.in_head() or is_unread or self.stream.has_arrived()

    async def shutdown(self, timeout: float | None = None) -> None:  # noqa: ARG002, ASYNC109  # aiohttp's signature
        """Close; `web.Server` calls it for each connection at the end."""
        self.stream.close()

    # What the deadlines ask (`Watched`).

    def deadline(self) -> float:
        """Return when to look at it again."""
        return self._deadline if self.exchange is None else self.exchange.deadline()

    def expire(self) -> None:
        """Decide what being past the deadline means."""
        if self.exchange is not None:
            self.exchange.expire()
        elif self.reader.in_head() and self._state is _SERVING:
            self.refuse(DownstreamError(ErrorCode.SLOW_REQUEST))
        elif self.stream.unsent_bytes:
            self.stream.abort()  # its reader would keep a mere close waiting for ever
        else:
            self.stream.close()

    # What the stream tells us (`StreamOwner`).

    def client_vanished(self) -> bool:
        """Abandon the exchange, but after a switch: then the client's last words are unread."""
        exchange = self.exchange
        if exchange is None or exchange.phase is _SWITCHED:
            return False
        exchange.break_off(DownstreamError(ErrorCode.CLIENT_DISCONNECTED))
        return True

    def exchange_ended(self, keep_alive: bool, now: float) -> None:
        """Go on with the next request, or end the connection."""
        request, reader, listener = self.request, self.reader, self._listener
        stream = self.stream
        self.exchange = self.request = None
        if not stream.is_open():
            self._state = _CLOSING
            return
        if keep_alive:
            self._deadline = now + (LINGER_S if listener.closed else IDLE_TIMEOUT_S)
            if stream.writing_paused():
                stream.pause_reading()  # a client that only asks and never reads waits for itself
            else:
                stream.resume_reading()
                self._next_request(now)
            return
        is_last = request is not None and request.ended and not request.head.keep_alive
        if listener.draining:
            is_last = False  # for us: the client may have sent another request meanwhile
        if is_last and not (
            reader.has_unread() or reader.state is REFUSED or reader.state is TUNNEL
        ):
            self._state = _CLOSING
            self._deadline = now + IDLE_TIMEOUT_S
            stream.close()
        else:
            # Closing with unread bytes would reset the response away.
            self._state = _LINGERING
            self._deadline = now + (IDLE_TIMEOUT_S if stream.unsent_bytes else LINGER_S)
            stream.end_writing()

    # One request after the other.

    def _next_request(self, now: float) -> None:
        """Begin to read the request behind the one that was answered."""
        reader = self.reader
        if reader.state is DONE and not reader.begin_next():
            return
        if reader.request is not None or reader.refusal is not None:
            self._start_next(now)
        elif reader.in_head():
            self._deadline = now + HEAD_TIMEOUT_S

    def _start_next(self, now: float) -> None:
        """Begin an exchange for a request that has arrived, and others while they end at once."""
        if self._starting:
            return  # an exchange has ended as it began: the loop below goes on
        self._starting = True
        reader, stream = self.reader, self.stream
        while self.exchange is None and self._state is _SERVING and not stream.writing_paused():
            if reader.refusal is not None:
                self.refuse(reader.refusal)
            elif reader.request is not None:
                self._begin(reader.request, now)
            else:
                break
        self._starting = False
        if self.exchange is not None and reader.has_unread():
            self.stream.pause_reading()  # the next request waits for this one

    def _begin(self, request: Request, now: float) -> None:
        if self._listener.draining:
            if self._listener.closed:
                self.refuse(UnavailableError(ErrorCode.DRAINING, Rejection.DRAINING))
                return
            request.head.keep_alive = False
        exchange = self.exchange = Exchange(self._context, request, self.stream, self.received_at)
        self.request = request
        try:
            exchange.begin(now)
        except Exception:  # noqa: BLE001  # logged, counted and answered
            self._fail_internal(exchange)

    def _go_on(self, exchange: Exchange, *, was_ended: bool) -> None:
        """Let the exchange have what has arrived."""
        reader = self.reader
        if reader.refusal is not None:
            if not was_ended:
                exchange.break_off(reader.refusal)
        elif not was_ended or exchange.phase is _SWITCHED:
            exchange.body_arrived()
        if reader.has_unread() or (reader.state is TUNNEL and exchange.phase is not _SWITCHED):
            self.stream.pause_reading()

    def _fail_internal(self, exchange: Exchange) -> None:
        """Answer 500 after a defect of ours: only this request fails."""
        _log.exception("a request failed because of a defect in the gateway; please report it")
        exchange.break_off(GatewayError(ErrorCode.INTERNAL))

    def refuse(self, error: GatewayError) -> None:
        """Answer an invalid or unfinished request with an error, and close the connection."""
        request = self.request = unreadable_request(self.reader.refused_method)
        self.exchange = Exchange(self._context, request, self.stream, self.received_at)
        self.exchange.break_off(error)


_NEVER: Final = float("inf")
