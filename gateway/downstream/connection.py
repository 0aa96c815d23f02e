"""One caller's connection: begins an exchange for each request in turn, and ends.

aiohttp's `RequestHandler` gives the life of the connection, its flow control and its shutdown.
Its parser, request objects and a task per request are not used: they cost more than the rest of
an exchange, and most of what is known against aiohttp as a proxy (`gateway/README.md`).
"""

import asyncio
import logging
import select
import socket
import struct
from typing import Protocol

from aiohttp import web

from gateway.downstream.request_parser import RequestParser
from gateway.errors import ErrorCode
from gateway.http.framing import joined_if_small
from gateway.proxy.exchange import Exchange, Proxy
from gateway.proxy.inbound import Inbound

HEAD_TIMEOUT_S = 10.0
"""From the first to the last byte of a head. nginx: 60 s; a caller on this machine needs none."""
IDLE_TIMEOUT_S = 75.0
"""As nginx: longer than the 60 s after which most clients drop an idle connection themselves."""
LOOK_S = 0.5
"""How often to look whether a caller that is made to wait is still there."""
LINGER_S = 2.0
"""How long the rest of a refused request is read and thrown away, so that the answer arrives."""

CROWD = 32
"""Beyond so many connections, the kernel keeps less of what a further one sends ahead, so that what
150 of them have in memory at a time is bounded. It makes their large uploads 1.4 times as dear."""
_CROWD_BUFFER_BYTES = 48 * 1024

_RESET = struct.pack("ii", 1, 0)

_log = logging.getLogger("gateway.serve")


class Listener(Protocol):
    """What a connection asks of the listener it came in by."""

    proxy: Proxy
    draining: bool
    closed: bool

    @property
    def full(self) -> bool:
        """Whether there are more connections than are served."""
        ...

    @property
    def flooded(self) -> bool:
        """Whether there are more than can be answered that they are not."""
        ...

    @property
    def crowded(self) -> bool:
        """Whether there are more than `CROWD` connections, the newest included."""
        ...

    def note_end(self) -> None:
        """Hear that an exchange has ended."""
        ...


class DownstreamConnection(web.RequestHandler):
    """A caller's connection (a `Downstream`, and `Watched`).

    Requests are answered one at a time, in order. A caller that closes its side, or half of it,
    has left: its exchange is abandoned. The two cannot be told apart, and nginx and Go do likewise.
    """

    __slots__ = (
        "_body_due",
        "_current",
        "_exchange",
        "_lingering",
        "_listener",
        "_looking",
        "_proxy",
        "_reading_held",
        "_requests",
        "_starting",
        "deadline",
        "received_at",
    )

    def __init__(self, listener: Listener, server: web.Server) -> None:
        super().__init__(
            server,
            loop=asyncio.get_running_loop(),
            access_log=None,  # type: ignore[arg-type]  # None is taken, and means none
            logger=_log,
            keepalive_timeout=0,  # deadlines are ours
        )
        self.deadline = float("inf")
        self.received_at = 0.0
        self._listener = listener
        self._proxy = listener.proxy
        self._requests = RequestParser()
        self._current: Inbound | None = None
        self._exchange: Exchange | None = None
        self._body_due = False
        self._starting = False
        self._reading_held = False
        self._lingering = False
        self._looking: asyncio.TimerHandle | None = None

    @property
    def busy(self) -> bool:
        """Whether a request is being answered."""
        return self._exchange is not None

    async def start(self) -> None:
        """Nothing to run: requests are begun as they are parsed (aiohttp would wait here)."""

    # What the event loop tells us.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin to count the time."""
        super().connection_made(transport)
        if self._listener.crowded:
            # Later would be too late: what is above a smaller bound then is dropped and sent again.
            sock = transport.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _CROWD_BUFFER_BYTES)
        self.deadline = self._proxy.clock() + IDLE_TIMEOUT_S
        self._proxy.deadlines.watch(self)
        if self._listener.flooded:
            self.abort()
        elif self._listener.full:
            self._refuse(ErrorCode.OVERLOADED)

    def data_received(self, data: bytes) -> None:
        """Parse what has arrived, and act on it."""
        if self._lingering:
            return
        requests = self._requests
        was_in_head = requests.in_head
        clock = self._proxy.clock
        now = self.received_at = clock()
        requests.feed(data, now, self._proxy.rules.known_heads)
        if requests.in_head and not was_in_head and self._exchange is None:
            self.deadline = now + HEAD_TIMEOUT_S
        if self._exchange is None:
            self._start_next(now)
        else:
            try:
                self._go_on()
            except Exception:  # noqa: BLE001  # logged, counted and answered
                self._own_up()

    def eof_received(self) -> None:
        """Let the transport close: whoever says no more has left, but for half a head."""
        if self._exchange is not None:
            self._exchange.caller_ended()  # and reset, lest what was answered look complete
        elif self._requests.in_head and not self._lingering:
            self._refuse(ErrorCode.BAD_REQUEST)

    def connection_lost(self, exc: BaseException | None) -> None:
        """Abandon the exchange under way."""
        self._proxy.deadlines.forget(self)
        super().connection_lost(exc)
        self._requests.queue.clear()
        if self._exchange is not None:
            self._exchange.abandon()

    def resume_writing(self) -> None:
        """Let the service go on as well."""
        super().resume_writing()
        if self._exchange is not None:
            self._exchange.downstream_writable()
        elif not self._lingering:
            self.resume_reading()
            self._start_next(self._proxy.clock())

    def drain(self) -> None:
        """End unless a request is being answered: that one is let finish, as the last."""
        if self._exchange is not None:
            return
        if self._requests.in_head and not self._lingering:
            self._refuse(ErrorCode.DRAINING)
        else:
            self.force_close()

    def expire(self) -> None:
        """Decide what being past `deadline` means (see `Watched`)."""
        if self._exchange is not None:
            self._exchange.expire(self._proxy.clock())
        elif self._requests.in_head and not self._lingering:
            self._refuse(ErrorCode.SLOW_REQUEST)
        elif self.transport is not None and self.transport.get_write_buffer_size():
            self.abort()  # its reader would keep a mere close waiting for ever
        else:
            self.force_close()

    # What the exchange does with it (`Downstream`); `writing_paused` is aiohttp's own.

    def write(self, pieces: list[bytes]) -> None:
        """Send pieces in order; they leave in one segment when they fit."""
        transport = self.transport
        if transport is None or transport.is_closing():
            return
        data = joined_if_small(pieces)
        if data is not None:
            transport.write(data)
        else:
            transport.writelines(pieces)

    def pause_reading(self) -> None:
        """Leave what the caller sends in the kernel."""
        if not self._reading_held and self.transport is not None:
            self._reading_held = True
            self._pause_transport_reading()
            if self._looking is None:
                self._look_later()

    def resume_reading(self, resume_parser: bool = True) -> None:  # noqa: ARG002  # aiohttp's signature
        """Go on reading."""
        if self._reading_held:
            self._reading_held = False
            self._resume_transport_reading()

    def abort(self) -> None:
        """Reset the connection; a mere close would end a body that has no length."""
        transport = self.transport
        if transport is None:
            return
        sock = transport.get_extra_info("socket")
        if sock is not None and sock.family in {socket.AF_INET, socket.AF_INET6}:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        transport.abort()

    def exchange_ended(self, *, keep_alive: bool, now: float) -> None:
        """Go on with the next request, or end the connection."""
        current = self._current
        # A caller that has asked for more than this, or may, must not have its answer reset away.
        last = current is not None and current.ended and not current.keep_alive
        self._exchange = self._current = None
        if self._listener.draining:
            self._listener.note_end()
        if self.transport is None or self.transport.is_closing():
            return
        if not keep_alive or self._listener.draining:
            requests = self._requests
            said_more = requests.queue or requests.refusal or requests.switching
            self._leave(now, linger=not last or bool(said_more))
            return
        self.deadline = now + (HEAD_TIMEOUT_S if self._requests.in_head else IDLE_TIMEOUT_S)
        if self.writing_paused:
            self.pause_reading()  # a caller that only asks and never reads waits for itself
            return
        if self._reading_held:
            self.resume_reading()
        if self._requests.queue or self._requests.refusal is not None:
            self._start_next(now)

    # One request after the other.

    def _go_on(self) -> None:
        if self._exchange is None:
            return
        if self._body_due and self._current is not None:
            if self._requests.refusal is not None and not self._current.ended:
                self._exchange.malformed()
                return
            self._body_due = not self._current.ended
            self._exchange.body_arrived()
        switching = self._requests.switching
        if self._requests.queue or (switching is not None and switching.ended):
            self.pause_reading()  # the next request, or protocol, waits for this one
        elif switching is not None:
            self._exchange.body_arrived()

    def _start_next(self, now: float) -> None:
        if self._starting:
            return  # an exchange that ended as it began: the loop below goes on
        self._starting = True
        requests = self._requests
        while requests.queue and self._exchange is None:
            inbound = self._current = requests.queue.popleft()
            self._body_due = not inbound.ended
            if self._listener.draining:
                if self._listener.closed:
                    self._refuse(ErrorCode.DRAINING)
                    break
                inbound.keep_alive = False
            self._exchange = Exchange(self._proxy, inbound, self)
            try:
                self._exchange.begin(now)
            except Exception:  # noqa: BLE001  # logged, counted and answered
                self._own_up()
            if requests.queue and self.writing_paused:
                break
        self._starting = False
        if self._exchange is None and requests.refusal is not None and not self._lingering:
            self._refuse(requests.refusal)

    def _look_later(self) -> None:
        self._looking = asyncio.get_running_loop().call_later(LOOK_S, self._look)

    def _look(self) -> None:
        """See whether the caller has left; while nothing is read, nobody tells us."""
        self._looking = None
        if not self._reading_held or self._exchange is None or self.transport is None:
            return
        poll = select.poll()
        poll.register(self.transport.get_extra_info("socket").fileno(), select.POLLRDHUP)
        switching = self._requests.switching
        # After a switch its last words are still to be read; the end comes behind them.
        if poll.poll(0) and (switching is None or switching.ended):
            self._exchange.abandon()
        else:
            self._look_later()

    def _own_up(self) -> None:
        """Let a bug of ours cost one request, and answer that."""
        _log.exception("request failed by a bug of the gateway")
        if self._exchange is not None:
            self._exchange.failed_by_a_bug()

    def _refuse(self, code: ErrorCode) -> None:
        """Answer what is no request, or not a whole one, and leave."""
        method = self._requests.refused_method
        inbound = Inbound(method, b"", "1.1", (), keep_alive=False, received_at=self.received_at)
        self._current = inbound
        self._exchange = Exchange(self._proxy, inbound, self)
        self._exchange.refuse(code)

    def _leave(self, now: float, *, linger: bool) -> None:
        """Close, but let the answer arrive: closing with unread bytes would reset it away."""
        self._requests.queue.clear()
        if self.transport is None:
            return
        if not linger:
            self.deadline = now + IDLE_TIMEOUT_S
            self.transport.close()
            return
        self._lingering = True
        unread = self.transport.get_write_buffer_size()
        self.deadline = now + (IDLE_TIMEOUT_S if unread else LINGER_S)
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self.resume_reading()
