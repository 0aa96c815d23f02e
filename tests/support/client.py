"""A raw client: sends exactly what it is told, and takes answers apart without forgiving."""

import asyncio
import socket
import struct
from contextlib import suppress
from dataclasses import dataclass

from tests.support.upstream import fields_of

_CHUNK = 64 * 1024
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


@dataclass(frozen=True)
class Reply:
    """One response as received."""

    head: bytes
    """With the empty line."""
    body: bytes
    """Without framing."""
    complete: bool
    """Whether the body has ended by its own framing (or, without any, by a clean close)."""

    @property
    def status(self) -> int:
        return int(self.head[9:12])

    @property
    def fields(self) -> list[tuple[bytes, bytes]]:
        return fields_of(self.head)

    def values(self, name: bytes) -> list[bytes]:
        """Values of every field called `name`, in any letter case."""
        return [value for other, value in self.fields if other.lower() == name.lower()]

    @property
    def closes(self) -> bool:
        """Whether it says that it is the last on its connection."""
        return b"close" in self.values(b"connection")


class Caller:
    """One connection to the gateway."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.received = bytearray()
        self.was_reset = False
        self._reader = reader
        self._writer = writer
        self._unread = b""

    def send(self, data: bytes) -> None:
        """Write without waiting."""
        self._writer.write(data)

    async def flush(self) -> None:
        """Wait until the gateway takes more."""
        await self._writer.drain()

    @property
    def unsent(self) -> int:
        """Bytes written that the kernel has not taken, because the gateway does not read."""
        return self._writer.transport.get_write_buffer_size()

    def half_close(self) -> None:
        """Send FIN, go on reading."""
        with suppress(RuntimeError, OSError):  # closed already
            self._writer.write_eof()

    def leave(self) -> None:
        """Close."""
        self._writer.close()

    def abandon_unsent(self) -> None:
        """Send FIN at once, in spite of what has not been written yet."""
        sock: socket.socket = self._writer.get_extra_info("socket")
        with socket.socket(fileno=socket.dup(sock.fileno())) as raw:
            raw.shutdown(socket.SHUT_RDWR)

    def reset(self) -> None:
        """Send RST."""
        sock: socket.socket | None = self._writer.get_extra_info("socket")
        if sock is None:  # closed already, from the other side
            return
        if sock.family != socket.AF_UNIX:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        self._writer.transport.abort()

    async def _more(self) -> bool:
        try:
            data = await self._reader.read(_CHUNK)
        except ConnectionError:
            self.was_reset = True
            return False
        self.received += data
        self._unread += data
        return bool(data)

    async def head(self) -> bytes:
        """Read a head, interim ones included. Raises EOFError when none comes."""
        while b"\r\n\r\n" not in self._unread:
            if not await self._more():
                raise EOFError(bytes(self._unread))
        head, mark, self._unread = self._unread.partition(b"\r\n\r\n")
        return head + mark

    async def reply(self, *, to_head: bool = False) -> Reply:
        """Read one final response; interim ones fail."""
        head = await self.head()
        reply = Reply(head, b"", complete=True)
        assert reply.status >= 200, head
        if to_head or reply.status in {204, 304}:
            return reply
        if reply.values(b"transfer-encoding"):
            body, complete = await self._chunks()
        elif lengths := reply.values(b"content-length"):
            [length] = lengths
            body = await self.take(int(length))
            complete = len(body) == int(length)
        else:
            body = await self.rest()
            complete = not self.was_reset
        return Reply(head, body, complete)

    async def take(self, count: int) -> bytes:
        """Read `count` bytes, or fewer when the connection ends."""
        pieces: list[bytes] = []
        have = 0
        while True:
            piece, self._unread = self._unread[: count - have], self._unread[count - have :]
            pieces.append(piece)
            have += len(piece)
            if have == count or not await self._more():
                return b"".join(pieces)

    async def rest(self) -> bytes:
        """Read until the gateway closes or resets."""
        while await self._more():
            pass
        rest, self._unread = self._unread, b""
        return rest

    async def _line(self) -> bytes | None:
        while b"\r\n" not in self._unread:
            if not await self._more():
                return None
        line, _, self._unread = self._unread.partition(b"\r\n")
        return line

    async def _chunks(self) -> tuple[bytes, bool]:
        body = b""
        while (size := await self._line()) is not None:
            piece = await self.take(int(size, 16))
            body += piece
            end = await self._line()
            if end is None:
                break
            assert end == b"", "a chunk is too long, or a trailer came"
            if size == b"0":
                return body, True
        return body, False


async def connect(port: int, *, read_buffer: int = 256 * 1024) -> Caller:
    """Open a connection; `read_buffer` bounds what the kernel keeps for a caller that is slow."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, read_buffer)
    sock.setblocking(False)
    try:
        await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", port))
    except OSError:
        sock.close()
        raise
    return Caller(*await asyncio.open_connection(sock=sock, limit=_CHUNK))
