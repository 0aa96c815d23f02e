"""What downstream/ relies on in aiohttp's server: fails loudly when a new version changes it."""

import asyncio
import inspect
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import cast

from aiohttp import web

from tests.support.until import PATIENCE_S, until


class Recording(asyncio.Protocol):
    """A connection as ours is one: the event loop's protocol, and none of aiohttp's."""

    _task_handler = None

    def __init__(self, server: web.Server) -> None:
        self.server = server
        self.transport: asyncio.Transport | None = None
        self.shut_down_within: list[float | None] = []

    def _as_handler(self) -> web.RequestHandler:
        return cast(web.RequestHandler, self)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.server.connection_made(self._as_handler(), self.transport)

    def connection_lost(self, exc: BaseException | None) -> None:
        self.server.connection_lost(self._as_handler(), exc)

    async def shutdown(self, timeout: float | None = None) -> None:  # noqa: ASYNC109  # aiohttp's
        self.shut_down_within.append(timeout)
        assert self.transport is not None
        self.transport.close()


class Listener(web.Server):
    """Makes them."""

    def __init__(self) -> None:
        async def unused(request: web.BaseRequest) -> web.StreamResponse:
            raise NotImplementedError(request)

        super().__init__(unused)

    def __call__(self) -> web.RequestHandler:
        return cast(web.RequestHandler, Recording(self))


@asynccontextmanager
async def connected() -> AsyncIterator[tuple[Listener, Recording, asyncio.StreamReader]]:
    """A listener, its one connection, and the other side of it."""
    listener = Listener()
    server = await asyncio.get_running_loop().create_server(listener, "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname()[:2])
    await until(lambda: listener.connections)
    [connection] = cast(list[Recording], listener.connections)
    try:
        yield listener, connection, reader
    finally:
        writer.close()
        server.close()
        await listener.shutdown(0)


async def test_connection_is_known_until_it_is_lost() -> None:
    """The server keeps what tells it of itself, and forgets it when it is gone."""
    async with connected() as (listener, connection, _):
        assert connection.transport is not None
        connection.transport.close()
        await until(lambda: not listener.connections)


async def test_shutdown_asks_each_connection() -> None:
    """`Server.shutdown(0)` awaits each one's `shutdown`, and knows none afterwards."""
    async with connected() as (listener, connection, reader):
        await listener.shutdown(0)
        assert connection.shut_down_within == [0]
        assert listener.connections == []
        async with asyncio.timeout(PATIENCE_S):
            assert await reader.read() == b""


def test_signatures_are_those_that_we_call() -> None:
    """`connection_made` takes handler and transport, `connection_lost` handler and exception."""
    made = inspect.signature(web.Server.connection_made).parameters
    lost = inspect.signature(web.Server.connection_lost).parameters

    assert list(made) == ["self", "handler", "transport"]
    assert list(lost) == ["self", "handler", "exc"]
