"""Both ends of the gateway: a caller that says what it is told, a service that keeps everything."""

import asyncio
import socket
import struct
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Self, cast

from tests.programs.fuzz.strict import MalformedError, PartialError, Request, read_request

_RESET = struct.pack("ii", 1, 0)


class Peer(asyncio.Protocol):
    """One end of a connection."""

    def __init__(self) -> None:
        self.received = b""
        self.ended = False
        self.was_reset = False
        self.news = asyncio.Event()
        """Set by everything that happens."""
        self._half_closed = False
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self.received += data
        self.news.set()

    def connection_lost(self, exc: BaseException | None) -> None:
        self.ended = True
        self.was_reset = exc is not None
        self.news.set()

    async def say(self, pieces: Sequence[bytes]) -> None:
        """Write pieces, a turn of the loop apart."""
        for piece in pieces:
            if self.ended or self._half_closed:
                return
            self._transport.write(piece)
            await asyncio.sleep(0)

    def half_close(self) -> None:
        """Send FIN, go on reading."""
        self._half_closed = True
        with suppress(RuntimeError, OSError):  # closed already
            self._transport.write_eof()

    def close(self) -> None:
        """Send FIN after what was written."""
        self._transport.close()

    def reset(self) -> None:
        """Send RST."""
        sock: socket.socket | None = self._transport.get_extra_info("socket")
        if sock is not None and not self._transport.is_closing():
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self._transport.abort()

    async def until(self, condition: Callable[[], bool], timeout_s: float) -> bool:
        """Wait until `condition` holds, looking whenever something happens; say whether it does."""
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                while not condition():
                    self.news.clear()
                    await self.news.wait()
        return condition()

    async def silence(self, seconds: float) -> None:
        """Wait until nothing has happened for `seconds`, or the connection has ended."""
        with suppress(TimeoutError):
            while not self.ended:
                self.news.clear()
                async with asyncio.timeout(seconds):
                    await self.news.wait()


class Link(Peer):
    """A connection that the gateway has opened."""

    def __init__(self, service: "Service") -> None:
        super().__init__()
        self._service = service
        service.links.append(self)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._service.take(self)

    def connection_lost(self, exc: BaseException | None) -> None:
        super().connection_lost(exc)
        self._service.lose(self)


class Service:
    """Reads requests strictly, keeps them, and lets `answer` do the rest."""

    def __init__(self) -> None:
        self.port = 0
        self.links: list[Link] = []
        """Open ones."""
        self.requests: list[Request] = []
        """Whole ones."""
        self.cut: list[bytes] = []
        """What had come of requests that were broken off."""
        self.problems: list[str] = []
        self.news = asyncio.Event()
        self.answer: Callable[[Link, Request], None] = self.answer_ok
        self._server: asyncio.Server

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: Link(self), "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_exc: object) -> None:
        self._server.close()
        for link in list(self.links):
            link.reset()

    def begin(self) -> None:
        """Forget the case before."""
        self.requests = []
        self.cut = []
        self.problems = []
        self.answer = self.answer_ok

    @property
    def busy(self) -> bool:
        """Whether part of a request has come, and its connection goes on."""
        return any(link.received for link in self.links)

    def answer_ok(self, link: Link, request: Request) -> None:
        """Say which of the requests of this case it was."""
        number = b"%d" % (len(self.requests) - 1)
        head = b"HTTP/1.1 200 OK\r\nX-Number: %b\r\nContent-Length: %d\r\n\r\n"
        link._transport.write(
            head % (number, len(number)) + (b"" if request.method == b"HEAD" else number)
        )

    def take(self, link: Link) -> None:
        """Read what has come."""
        self.news.set()
        while link.received:
            try:
                request, end = read_request(link.received, from_caller=False)
            except PartialError:
                return
            except MalformedError as problem:
                self.problems.append(f"upstream saw {problem}: {link.received[:2000]!r}")
                link.received = b""
                link.reset()
                return
            link.received = link.received[end:]
            self.requests.append(request)
            self.answer(link, request)

    def lose(self, link: Link) -> None:
        """Keep what had come of a request that was broken off."""
        self.news.set()
        self.links.remove(link)
        if link.received:
            self.cut.append(link.received)
            link.received = b""
