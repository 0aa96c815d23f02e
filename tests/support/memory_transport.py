"""The two peers of the gateway without sockets: what each sends, receives, and does to its end.

A transport behaves as the event loop's do where the gateway can see it. While reading is paused,
nothing is delivered, not even the end of the stream. A close waits for unread bytes, an abort drops
them. `connection_lost` is called one turn of the loop later.
"""

import asyncio
import os
import socket
from collections import deque
from enum import Enum, auto
from typing import Any

from tests.support.client import Reply
from tests.support.upstream import fields_of


class Fate(Enum):
    """What has become of a connection, as its peer sees it."""

    OPEN = auto()
    HALF_CLOSED = auto()
    """The gateway writes no more, but still reads."""
    CLOSED = auto()
    """The gateway closed it after everything that it had written was read."""
    ABORTED = auto()
    """The gateway closed it at once; bytes that were not read are lost."""
    RESET = auto()
    """The same, and the peer's system reports an error instead of an end."""
    LOST = auto()
    """The peer reset it."""


class _Socket:
    """Stands in for the socket below a transport: it takes options and can be polled."""

    family = socket.AF_INET

    def __init__(self) -> None:
        self.resets_on_close = False
        self._pipe: tuple[int, int] | None = None
        self._hung_up = False

    def setsockopt(self, _level: int, option: int, _value: object) -> None:
        self.resets_on_close |= option == socket.SO_LINGER

    def fileno(self) -> int:
        """Return a descriptor that polls as hung up once the peer has left."""
        if self._pipe is None:
            self._pipe = os.pipe()
            if self._hung_up:
                os.close(self._pipe[1])
        return self._pipe[0]

    def hang_up(self) -> None:
        if not self._hung_up and self._pipe is not None:
            os.close(self._pipe[1])
        self._hung_up = True

    def close(self) -> None:
        self.hang_up()
        if self._pipe is not None:
            os.close(self._pipe[0])
            self._pipe = None


class MemoryTransport(asyncio.Transport):
    """The gateway's side of one connection."""

    def __init__(self, protocol: asyncio.Protocol) -> None:
        super().__init__()
        self.received = bytearray()
        """What the peer has received."""
        self.writes: list[bytes] = []
        """The same bytes as the gateway wrote them, those that were not read yet included."""
        self.fate = Fate.OPEN
        self.is_read = True
        self.socket = _Socket()
        self._protocol = protocol
        self._loop = asyncio.get_running_loop()
        self._undelivered: deque[bytes | ConnectionError | None] = deque()
        self._unread = bytearray()
        self._peer_reads = True
        self._writing_paused = False
        self._half_closed = False
        self._closing = False
        self._lost = False
        protocol.connection_made(self)

    # What the gateway does.

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self.socket if name == "socket" else default

    def is_closing(self) -> bool:
        return self._closing

    def pause_reading(self) -> None:
        self.is_read = False

    def resume_reading(self) -> None:
        if not self.is_read:
            self.is_read = True
            self._loop.call_soon(self._deliver)

    def get_write_buffer_size(self) -> int:
        return len(self._unread)

    def write(self, data: Any) -> None:
        if self._half_closed:
            raise RuntimeError("written after write_eof")
        if self._closing:
            return
        self.writes.append(bytes(data))
        if self._peer_reads:
            self.received += data
            return
        self._unread += data
        if self._unread and not self._writing_paused:
            self._writing_paused = True
            self._protocol.pause_writing()

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self._half_closed = True
        if not self._unread and self.fate is Fate.OPEN:
            self.fate = Fate.HALF_CLOSED

    def close(self) -> None:
        if not self._closing:
            self._closing = True
            if not self._unread:
                self._end(Fate.CLOSED)

    def abort(self) -> None:
        if self.fate in {Fate.OPEN, Fate.HALF_CLOSED}:
            self._closing = True
            self._unread.clear()
            self._end(Fate.RESET if self.socket.resets_on_close else Fate.ABORTED)

    # What the peer does.

    def feed(self, item: bytes | ConnectionError | None) -> None:
        """Take bytes, the end of the stream (None) or a reset from the peer."""
        if not isinstance(item, bytes):
            self.socket.hang_up()
        if isinstance(item, ConnectionError):
            self._undelivered.clear()
        self._undelivered.append(item)
        self._deliver()

    def break_off(self) -> None:
        """Fail in a way that the protocol is told of only one turn later."""
        self._closing = True
        self._end(Fate.LOST, ConnectionResetError())

    def vanish(self) -> None:
        """Tell the protocol at once that the connection is lost, also while it does not read."""
        if not self._lost:
            self._closing = True
            self._lose(None)

    def stop_peer(self) -> None:
        """Let the peer read nothing from here on; every write then fills the buffer."""
        self._peer_reads = False

    def resume_peer(self) -> None:
        """Let the peer read everything that waits, and whatever follows."""
        self._peer_reads = True
        self.received += self._unread
        self._unread.clear()
        if self._writing_paused and not self._lost:
            self._writing_paused = False
            self._protocol.resume_writing()
        if self._closing and self.fate in {Fate.OPEN, Fate.HALF_CLOSED}:
            self._end(Fate.CLOSED)
        elif self._half_closed and self.fate is Fate.OPEN:
            self.fate = Fate.HALF_CLOSED

    def _deliver(self) -> None:
        while self._undelivered and self.is_read and not self._closing:
            item = self._undelivered.popleft()
            if isinstance(item, bytes):
                self._protocol.data_received(item)
            elif item is not None:
                self._closing = True
                self.fate = Fate.LOST
                self._lose(item)
            elif not self._protocol.eof_received():
                self.close()

    def _end(self, fate: Fate, error: Exception | None = None) -> None:
        self.fate = fate
        self._loop.call_soon(self._lose, error)

    def _lose(self, error: Exception | None) -> None:
        if not self._lost:
            self._lost = True
            self._protocol.connection_lost(error)
            self.socket.close()


class _Peer:
    """What a client and a service have in common."""

    def __init__(self, transport: MemoryTransport) -> None:
        self._transport = transport

    @property
    def received(self) -> bytes:
        """Every byte that has arrived so far."""
        return bytes(self._transport.received)

    @property
    def writes(self) -> list[bytes]:
        """The same bytes, one item for each write of the gateway."""
        return self._transport.writes

    @property
    def fate(self) -> Fate:
        """What has become of the connection."""
        return self._transport.fate

    @property
    def is_open(self) -> bool:
        """Whether neither side has ended it, not even in one direction."""
        return self.fate is Fate.OPEN

    @property
    def is_read(self) -> bool:
        """Whether the gateway reads what this peer sends."""
        return self._transport.is_read

    def stops_reading(self) -> None:
        """Leave everything unread that the gateway writes from here on."""
        self._transport.stop_peer()

    def reads_again(self) -> None:
        """Read what was left unread, and whatever follows."""
        self._transport.resume_peer()

    def resets(self) -> None:
        """Break the connection."""
        self._transport.feed(ConnectionResetError())

    def vanish(self) -> None:
        """Be gone at once; only for the end of a test."""
        self._transport.vanish()


class Client(_Peer):
    """A client of the gateway."""

    def sends(self, *pieces: bytes) -> None:
        """Send pieces; each arrives in one read."""
        for piece in pieces:
            self._transport.feed(piece)

    def leaves(self) -> None:
        """End the stream. The gateway cannot tell a close from a half-close."""
        self._transport.feed(None)

    @property
    def replies(self) -> list[Reply]:
        """The responses that have arrived, the last one perhaps incomplete; none is to HEAD."""
        return _replies_in(self.received, at_end=self.fate in {Fate.CLOSED, Fate.HALF_CLOSED})

    @property
    def reply(self) -> Reply:
        """The only response."""
        [reply] = self.replies
        return reply


class ServiceEnd(_Peer):
    """The service's end of one connection."""

    def answers(self, *pieces: bytes) -> None:
        """Send pieces; each arrives in one read."""
        for piece in pieces:
            self._transport.feed(piece)

    def closes(self) -> None:
        """End the stream, after everything that was sent."""
        self._transport.feed(None)

    def breaks(self) -> None:
        """Be unreachable from here on; the gateway is told one turn of the loop later."""
        self._transport.break_off()


def _replies_in(data: bytes, *, at_end: bool) -> list[Reply]:
    replies: list[Reply] = []
    while data:
        head, mark, data = data.partition(b"\r\n\r\n")
        if not mark:
            return [*replies, Reply(head, b"", complete=False)]
        reply = Reply(head + mark, b"", complete=True)
        values = {name.lower(): value for name, value in fields_of(reply.head)}
        body = b""
        complete = True
        if reply.status >= 200 and reply.status not in {204, 304}:
            if b"transfer-encoding" in values:
                body, data, complete = _unchunked(data)
            elif b"content-length" in values:
                length = int(values[b"content-length"])
                complete = len(data) >= length
                body, data = data[:length], data[length:]
            else:
                body, data, complete = data, b"", at_end
        elif reply.status == 101:
            body, data = data, b""
        replies.append(Reply(reply.head, body, complete))
    return replies


def _unchunked(data: bytes) -> tuple[bytes, bytes, bool]:
    """Return the body of whole chunks, what is behind it, and whether it has ended."""
    body = b""
    while True:
        size, mark, rest = data.partition(b"\r\n")
        if not mark or len(rest) < int(size, 16) + 2:
            return body, b"", False
        length = int(size, 16)
        body += rest[:length]
        assert rest[length : length + 2] == b"\r\n", data
        data = rest[length + 2 :]
        if not length:
            return body, data, True
