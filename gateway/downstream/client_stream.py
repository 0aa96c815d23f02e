"""The bytes to and from one client: flow control, and whether the client is still there."""

import asyncio
import select
import socket
import struct
from typing import Final

from gateway.http.pieces import joined_if_small
from gateway.proxy.deadlines import Watched
from gateway.proxy.downstream import Downstream

LOOK_S: Final = 0.5
"""How often to look whether a client that is made to wait is still there."""

_RESET: Final = struct.pack("ii", 1, 0)
_TCP: Final = frozenset({socket.AF_INET, socket.AF_INET6})


class StreamOwner(Watched):
    """The connection that a stream belongs to; deadlines watch it."""

    __slots__ = ()

    def exchange_ended(self, *, keep_alive: bool, now: float) -> None:
        """Called when the request has been answered or given up (see `Downstream`)."""
        raise NotImplementedError

    def client_vanished(self) -> bool:
        """Called when the client has left while nothing is read; return whether that ends it."""
        raise NotImplementedError


class ClientStream(Downstream):
    """A client's transport, as an exchange and its connection use it.

    Invariant: while reading is paused, the socket is looked at, since nobody tells us then that the
    client has left.
    """

    __slots__ = (
        "_is_held",
        "_is_stopped",
        "_looking",
        "_owner",
        "_writing_paused",
        "is_held_up",
        "transport",
    )

    def __init__(self, owner: StreamOwner) -> None:
        self.transport: asyncio.Transport | None = None
        """While it is open."""
        self._owner = owner
        self.is_held_up = False
        """Whether nothing is read from the client now, whatever it sends."""
        self._is_held = False
        self._is_stopped = False
        self._writing_paused = False
        self._looking: asyncio.TimerHandle | None = None

    @property
    def is_open(self) -> bool:
        """Whether something can still be written."""
        return self.transport is not None and not self.transport.is_closing()

    @property
    def unsent_bytes(self) -> int:
        """Bytes that have been written and that the client has not read yet, as far as we know."""
        return 0 if self.transport is None else self.transport.get_write_buffer_size()

    @property
    def writing_paused(self) -> bool:
        """Whether the client reads more slowly than we write."""
        return self._writing_paused

    def note_writing(self, *, paused: bool) -> None:
        """Note what the event loop says of the client's reading."""
        self._writing_paused = paused

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
        """Leave what the client sends in the kernel, and look from time to time whether it left."""
        if not self._is_held and self.transport is not None:
            self._is_held = True
            self._read_no_more(self.transport)

    def resume_reading(self) -> None:
        """Go on reading."""
        if self._is_held:
            self._is_held = False
            self._read_again()

    def stop_reading(self, *, stopped: bool) -> None:
        """Read nothing while `stopped`, whatever `resume_reading` says."""
        if self._is_stopped is stopped or self.transport is None:
            return
        self._is_stopped = stopped
        if stopped:
            self._read_no_more(self.transport)
        else:
            self._read_again()

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

    def exchange_ended(self, *, keep_alive: bool, now: float) -> None:
        """Let the connection go on (see `Downstream`)."""
        self._owner.exchange_ended(keep_alive=keep_alive, now=now)

    def _read_no_more(self, transport: asyncio.Transport) -> None:
        self.is_held_up = True
        if not transport.is_closing():
            transport.pause_reading()
        if self._looking is None:
            self._look_later()

    def _read_again(self) -> None:
        self.is_held_up = self._is_held or self._is_stopped
        if self.is_held_up:
            return
        if self.transport is not None and not self.transport.is_closing():
            self.transport.resume_reading()

    def _look_later(self) -> None:
        self._looking = asyncio.get_running_loop().call_later(LOOK_S, self._look)

    def _look(self) -> None:
        """See whether the client has left; while nothing is read, nobody tells us."""
        self._looking = None
        if not self.is_held_up or self.transport is None:
            return
        if not (self.has_left() and self._owner.client_vanished()):
            self._look_later()


def _polls(transport: asyncio.Transport, event: int) -> bool:
    poll = select.poll()
    poll.register(transport.get_extra_info("socket").fileno(), event)
    return bool(poll.poll(0))
