"""What serve/ relies on in aiohttp: fails loudly when a new version changes it."""

import asyncio
import inspect
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from aiohttp import web
from aiohttp.base_protocol import BaseProtocol

from gateway.downstream.connection import DownstreamConnection
from tests.support.until import until


class Recording(web.RequestHandler):
    """A connection as ours is one, without anything of ours."""

    __slots__ = ("lost", "started")

    def __init__(self, server: web.Server) -> None:
        super().__init__(
            server,
            loop=asyncio.get_running_loop(),
            access_log=None,  # type: ignore[arg-type]  # None is taken, and means none
            keepalive_timeout=0,
        )
        self.started = asyncio.Event()
        self.lost = asyncio.Event()

    async def start(self) -> None:
        self.started.set()

    def data_received(self, data: bytes) -> None:
        assert self.transport is not None
        self.transport.write(data)

    def connection_lost(self, exc: BaseException | None) -> None:
        super().connection_lost(exc)
        self.lost.set()


class Listener(web.Server):
    """Makes them."""

    def __init__(self) -> None:
        async def unused(request: web.BaseRequest) -> web.StreamResponse:
            raise NotImplementedError(request)

        super().__init__(unused)

    def __call__(self) -> Recording:
        return Recording(self)


@asynccontextmanager
async def connected() -> AsyncIterator[
    tuple[Listener, Recording, asyncio.StreamReader, asyncio.StreamWriter]
]:
    """A listener, its one connection, and the other side of it."""
    listener = Listener()
    server = await asyncio.get_running_loop().create_server(listener, "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname()[:2])
    await until(lambda: listener.connections)
    [connection] = listener.connections
    assert isinstance(connection, Recording)
    try:
        yield listener, connection, reader, writer
    finally:
        writer.close()
        server.close()
        await listener.shutdown(0)


async def test_a_connection_starts_and_is_known_until_it_is_lost() -> None:
    """`connection_made` runs `start` and registers; `connection_lost` forgets."""
    async with connected() as (listener, connection, _, writer):
        async with asyncio.timeout(5):
            await connection.started.wait()
            writer.close()
            await connection.lost.wait()

        assert listener.connections == []
        assert connection.transport is None


async def test_no_timer_and_no_task_stay_with_an_idle_connection() -> None:
    """With `keepalive_timeout=0`, and after `start` has returned, nothing of aiohttp's waits."""
    async with connected() as (_, connection, _, _):
        async with asyncio.timeout(5):
            await connection.started.wait()
        await asyncio.sleep(0.05)

        assert connection._keepalive_handle is None
        assert connection._task_handler is None or connection._task_handler.done()
        assert connection._waiter is None


async def test_flow_control_is_told_by_writing_paused() -> None:
    """`pause_writing` and `resume_writing` set the property that the relay asks for."""
    async with connected() as (_, connection, _, _):
        assert isinstance(inspect.getattr_static(BaseProtocol, "writing_paused"), property)
        assert connection.writing_paused is False
        connection.pause_writing()
        assert connection.writing_paused is True
        connection.resume_writing()
        assert connection.writing_paused is False


async def test_the_transport_can_be_paused_without_aiohttps_parser() -> None:
    """Bytes stay in the kernel between the two, and come after."""
    async with connected() as (_, connection, reader, writer):
        connection._pause_transport_reading()
        writer.write(b"hello")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await reader.read(5)
        connection._resume_transport_reading()
        async with asyncio.timeout(5):
            assert await reader.readexactly(5) == b"hello"


async def test_force_close_closes() -> None:
    """Even when nothing was ever asked."""
    async with connected() as (_, connection, reader, _):
        connection.force_close()
        async with asyncio.timeout(5):
            assert await reader.read() == b""
            await connection.lost.wait()


async def test_shutdown_closes_what_is_open() -> None:
    """`Server.shutdown(0)` leaves no connection."""
    async with connected() as (listener, connection, reader, _):
        await listener.shutdown(0)
        async with asyncio.timeout(5):
            assert await reader.read() == b""
            await connection.lost.wait()


@pytest.mark.parametrize(
    "name",
    [
        "connection_made", "connection_lost", "data_received", "eof_received", "resume_writing",
        "resume_reading", "pause_reading", "start", "force_close", "writing_paused",
        "_pause_transport_reading", "_resume_transport_reading",
    ],
)  # fmt: skip
def test_what_is_overridden_or_called_is_there(name: str) -> None:
    """Else an override of ours would be a method that nobody calls."""
    assert hasattr(web.RequestHandler, name)


@pytest.mark.parametrize(
    "name",
    ["connection_made", "connection_lost", "data_received", "eof_received", "resume_writing",
     "resume_reading", "pause_reading", "start"],
)  # fmt: skip
def test_overrides_take_what_aiohttp_passes(name: str) -> None:
    """Their parameters have the same names and kinds."""
    theirs = inspect.signature(getattr(web.RequestHandler, name)).parameters
    ours = inspect.signature(getattr(DownstreamConnection, name)).parameters

    assert [(p.name, p.kind) for p in ours.values()] == [(p.name, p.kind) for p in theirs.values()]


def test_ours_adds_no_name_that_aiohttp_uses_already() -> None:
    """A slot of ours must not shadow one of theirs, nor a method of theirs be ours by accident."""
    meant = {
        "connection_made", "connection_lost", "data_received", "eof_received", "resume_writing",
        "resume_reading", "pause_reading", "start",
    }  # fmt: skip
    ours = {name for name in vars(DownstreamConnection) if not name.startswith("__")}

    assert {name for name in ours if hasattr(web.RequestHandler, name)} == meant
