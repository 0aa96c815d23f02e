"""What the audit did to a gateway: many callers, each of whom makes it keep something."""

import asyncio
import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress

from tests.support.upstream import Link

MIB = 2**20
_PIECE = bytes(64 * 1024)
_HEAD_BYTES = 126 * 1024
_BULK_BYTES = 16 * MIB

Attack = Callable[[int], Awaitable[list[socket.socket]]]
"""Connects to a port; returns the connections, to be kept open for as long as the attack lasts."""


async def bulk_service(link: Link) -> None:
    """Answer a GET with 16 MiB; read a POST as it comes and never answer."""
    while True:
        request = await link.head()
        if request.line.startswith(b"GET "):
            link.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % _BULK_BYTES)
            for _ in range(_BULK_BYTES // len(_PIECE)):
                link.send(_PIECE)
                await link.flush()
        else:
            while await link._more():
                link.received.clear()
            return


async def connected(
    port: int, count: int, data: bytes, *, read_buffer: int = 0
) -> list[socket.socket]:
    """Open connections that send `data` as far as the gateway takes it, and never read."""
    loop = asyncio.get_running_loop()
    opened: list[socket.socket] = []
    limit = asyncio.Semaphore(200)

    async def one() -> None:
        async with limit:
            sock = socket.socket()
            if read_buffer:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, read_buffer)
            sock.setblocking(False)  # the socket's own way
            opened.append(sock)
            with suppress(OSError, TimeoutError):
                async with asyncio.timeout(5):
                    await loop.sock_connect(sock, ("127.0.0.1", port))
                    await loop.sock_sendall(sock, data)

    await asyncio.gather(*(one() for _ in range(count)))
    return opened


async def unfinished_heads(port: int) -> list[socket.socket]:
    """1000 heads of 126 KiB without an end."""
    line = b"X-Filler: " + b"x" * 2000 + b"\r\n"
    head = b"GET /bulk HTTP/1.1\r\nHost: localhost\r\n" + line * (_HEAD_BYTES // len(line))
    return await connected(port, 1000, head)


async def readers_of_nothing(port: int) -> list[socket.socket]:
    """1000 requests for 16 MiB that nobody reads."""
    get = b"GET /bulk HTTP/1.1\r\nHost: localhost\r\n\r\n"
    return await connected(port, 1000, get, read_buffer=4096)


async def stalled_uploads(port: int) -> list[socket.socket]:
    """1000 bodies of 900 KiB of which the last byte is missing."""
    head = b"POST /bulk HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % (900 * 1024)
    return await connected(port, 1000, head + bytes(900 * 1024 - 1))


async def one_byte_chunks(port: int) -> list[socket.socket]:
    """4000 bodies in chunks of one byte, without an end."""
    head = b"POST /bulk HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
    return await connected(port, 4000, head + b"1\r\nx\r\n" * 100)


async def everything(port: int) -> list[socket.socket]:
    """All of them at once."""
    parts = await asyncio.gather(*(attack(port) for attack in ATTACKS))
    return [sock for part in parts for sock in part]


ATTACKS: tuple[Attack, ...] = (
    unfinished_heads, readers_of_nothing, stalled_uploads, one_byte_chunks
)  # fmt: skip
