"""A TCP gate before the stand-in IAM: lets connections through, or fails them as networks do."""

import asyncio
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from gateway.twin import Twin

_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


class Gate:
    """Invariant: always the same port, whatever it does with connections."""

    def __init__(self, target_port: int) -> None:
        self.attempts = 0
        """Connections accepted."""
        self.port = 0
        self._target_port = target_port
        self._resets = False
        self._parted = False
        self._server: asyncio.Server | None = None
        self._hole: list[socket.socket] = []
        self._links: set[asyncio.Task[None]] = set()

    @property
    def auth_url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v3"

    async def open(self) -> None:
        """Let connections through."""
        await self.refuse()
        self._resets = self._parted = False
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def reset(self) -> None:
        """Accept connections and reset them."""
        await self.open()
        self._resets = True

    def part(self) -> None:
        """Keep connections and accept new ones, but lose whatever they send, both ways."""
        self._parted = True

    async def refuse(self) -> None:
        """Do not listen."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for link in self._links:
            link.cancel()
        await asyncio.gather(*self._links, return_exceptions=True)
        for sock in self._hole:
            sock.close()
        self._hole.clear()

    async def swallow(self) -> None:
        """Drop whatever wants to connect, as a firewall does: Linux does with a full queue."""
        await self.refuse()
        full = socket.create_server(("127.0.0.1", self.port), backlog=0)
        self._hole.append(full)
        for _ in range(3):
            filler = socket.socket()
            filler.setblocking(False)
            self._hole.append(filler)
            with suppress(BlockingIOError):
                filler.connect(("127.0.0.1", self.port))

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.attempts += 1
        if self._resets:
            sock: socket.socket = writer.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
            writer.transport.abort()
            return
        link = asyncio.create_task(self._relay(reader, writer), name="gate")
        self._links.add(link)
        link.add_done_callback(self._links.discard)

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", self._target_port)
        try:
            await asyncio.gather(self._pass_on(reader, back), self._pass_on(there, writer))
        finally:
            back.close()
            writer.close()

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while data := await reader.read(65536):
                if not self._parted:
                    writer.write(data)
                    await writer.drain()
            writer.write_eof()


@asynccontextmanager
async def gate_before(twin: Twin) -> AsyncIterator[Gate]:
    """Run an open gate."""
    gate = Gate(int(twin.url.rpartition(":")[2]))
    await gate.open()
    try:
        yield gate
    finally:
        await gate.refuse()
