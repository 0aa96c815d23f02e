"""The bytes to and from one client: flow control, and whether the client is still there."""

import asyncio
import fcntl
import select
import socket
import struct
import termios
from typing import Final, cast

from gateway.http.pieces import joined_if_small
from gateway.proxy.deadlines import Watched
from gateway.proxy.downstream import Downstream

LOOK_S: Final = 0.5
"""How often to look whether a client that is made to wait is still there."""

# Why nothing is read from a client; there may be several reasons.
FOR_EXCHANGE: Final = 1
FOR_MEMORY: Final = 2
FOR_TURN: Final = 4

_RESET: Final = struct.pack("ii", 1, 0)
_INT: Final = struct.Struct("i")
_NO_BYTES: Final = _INT.pack(0)
_TCP: Final = frozenset({socket.AF_INET, socket.AF_INET6})


class StreamOwner(Watched):
    """The connection that a stream belongs to; deadlines watch it."""

    __slots__ = ()

    @property
    def busy(self) -> bool:
        """Whether a request is being answered, or its response is still on its way."""
        raise NotImplementedError

    def exchange_ended(self, keep_alive: bool, now: float) -> None:
        """Called when the request has been answered or given up (see `Downstream`)."""
        raise NotImplementedError

    def data_received(self, data: bytes) -> None:
        """Called when what the client has sent is to be acted on."""
        raise NotImplementedError

    def client_vanished(self) -> bool:
        """Called when the client has left while nothing is read; return whether that ends it."""
        raise NotImplementedError

    def resume_writing(self) -> None:
        """Called when more of the response may be written, after `writing_paused`."""
        raise NotImplementedError


class _Nobody(StreamOwner):
    __slots__ = ()

    @property
    def busy(self) -> bool:
        """Never."""
        return False

    def exchange_ended(self, keep_alive: bool, now: float) -> None:
        """Do nothing."""

    def data_received(self, data: bytes) -> None:
        """Do nothing."""

    def client_vanished(self) -> bool:
        """Do nothing."""
        return False

    def resume_writing(self) -> None:
        """Do nothing."""


NOBODY: Final[StreamOwner] = _Nobody()
"""Owns a stream that has ended: with its owner it would be a cycle."""


class Turns:
    """What has been read in a turn of the event loop that was long already waits for another."""

    def due(self, client: "ClientStream", data: bytes, in_head: bool) -> bytes:
        """Return the bytes to process now; empty if they wait for their turn.

        `in_head`: no request is under way, so the bytes are a head, or a part of one.
        """
        raise NotImplementedError

    def wait(self, client: "ClientStream") -> None:
        """Read nothing from a client until it is its turn."""
        raise NotImplementedError

    def rest(self, client: "ClientStream") -> None:
        """Read nothing more of a response to a client until it is its turn."""
        raise NotImplementedError

    def forget(self, client: "ClientStream") -> None:
        """Drop what waits of a client."""
        raise NotImplementedError


class ClientStream(Downstream):
    """A client's transport, as an exchange and its connection use it.

    Invariant: while an exchange pauses reading, the socket is looked at, since nobody tells us then
    that the client has left. The other pauses are short.
    """

    __slots__ = (
        "_looking",
        "held_by",
        "owner",
        "reads_slowly",
        "rests",
        "transport",
        "turns",
        "waiting_bytes",
    )

    def __init__(self, owner: StreamOwner) -> None:
        self.transport: asyncio.Transport | None = None
        """While it is open."""
        self.owner = owner
        """Who acts on what the client sends; `NOBODY` once the stream has ended."""
        self.held_by = 0
        """Why nothing is read from the client now, whatever it sends: reasons, added up."""
        self.reads_slowly = False
        """Whether the event loop says that the client reads more slowly than we write."""
        self.turns: Turns | None = None
        """Where there are many clients, or this one sends a large head."""
        self.rests = False
        """Whether nothing more of a response is read until its turn."""
        self.waiting_bytes = 0
        """Bytes that have been read from the client and wait for its turn."""
        self._looking: asyncio.TimerHandle | None = None

    def is_open(self) -> bool:
        """Return whether something can still be written."""
        return self.transport is not None and not self.transport.is_closing()

    @property
    def unsent_bytes(self) -> int:
        """Bytes that have been written and that the client has not read yet, as far as we know."""
        return 0 if self.transport is None else self.transport.get_write_buffer_size()

    def writing_paused(self) -> bool:
        """Return whether the client reads more slowly than we write, or waits for its turn."""
        return self.reads_slowly or self.rests

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
            if self.turns is not None:
                self.turns.rest(self)

    def go_on(self) -> bool:
        """Let go on what had to wait for its turn; return whether something had."""
        if not self.rests and not self.held_by & FOR_TURN:
            return False
        self.release(FOR_TURN)
        if self.rests:
            self.rests = False
            if not self.reads_slowly:
                self.owner.resume_writing()
        return True

    def pause_reading(self) -> None:
        """Leave what the client sends in the kernel, and look from time to time whether it left."""
        self.hold(FOR_EXCHANGE)

    def resume_reading(self) -> None:
        """Go on reading."""
        self.release(FOR_EXCHANGE)

    def hold(self, reason: int) -> None:
        """Read nothing until `release` with the same reason: one of those above."""
        transport = self.transport
        if transport is None:
            return
        if not self.held_by and not transport.is_closing():
            transport.pause_reading()
        self.held_by |= reason
        if reason == FOR_EXCHANGE and self._looking is None:
            self._look_later()

    def release(self, reason: int) -> None:
        """Go on reading, if there is no other reason not to."""
        if not self.held_by & reason:
            return
        self.held_by &= ~reason
        transport = self.transport
        if not self.held_by and transport is not None and not transport.is_closing():
            transport.resume_reading()

    def has_left(self) -> bool:
        """Return whether the client has closed its side, by a look at the socket."""
        transport = self.transport
        if transport is None or transport.is_closing():
            return True
        return _polls(transport, select.POLLRDHUP)

    def has_arrived(self) -> bool:
        """Return whether something is there to be read, by a look at the socket."""
        return self.transport is not None and _polls(self.transport, select.POLLIN)

    def abort(self) -> None:
        """Reset the connection; a mere close would end a body that has no length."""
        transport = self.transport
        if transport is None:
            return
        sock = transport.get_extra_info("socket")
        if sock is not None and sock.family in _TCP:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        transport.abort()

    def close(self) -> None:
        """Close after what has been written."""
        if self.transport is not None:
            self.transport.close()

    def end_writing(self) -> None:
        """Tell the client that nothing more will come, and go on reading."""
        if self.transport is not None and self.transport.can_write_eof():
            self.transport.write_eof()
        self.resume_reading()

    def lost(self) -> None:
        """Note that the transport is gone."""
        self.transport = None
        if self._looking is not None:
            self._looking.cancel()
            self._looking = None

    def exchange_ended(self, keep_alive: bool, now: float) -> None:
        """Let the connection go on (see `Downstream`)."""
        self.rests = False
        self.owner.exchange_ended(keep_alive, now)

    def _look_later(self) -> None:
        self._looking = asyncio.get_running_loop().call_later(LOOK_S, self._look)

    def _look(self) -> None:
        """See whether the client has left; while nothing is read, nobody tells us."""
        self._looking = None
        if not self.held_by & FOR_EXCHANGE or self.transport is None:
            return
        if not (self.owner.busy and self.has_left() and self.owner.client_vanished()):
            self._look_later()


def unread_bytes(stream: ClientStream) -> int:
    """Return how much of a client is there to be read, by a look at the socket."""
    transport = stream.transport
    if transport is None or transport.is_closing():
        return 0
    fd = transport.get_extra_info("socket").fileno()
    [size] = _INT.unpack(fcntl.ioctl(fd, termios.FIONREAD, _NO_BYTES))
    return cast(int, size)


def _polls(transport: asyncio.Transport, event: int) -> bool:
    poll = select.poll()
    poll.register(transport.get_extra_info("socket").fileno(), event)
    return bool(poll.poll(0))
