"""The end of a gateway: of a real process by signals, and its order in detail."""

import asyncio
import signal
import socket
from pathlib import Path

import pytest

from tests.support.client import connect
from tests.support.gateway import POST, RunningGateway, running_gateway
from tests.support.served import served
from tests.support.until import PATIENCE_S, until
from tests.support.upstream import OK, Link, Upstream, scripted_upstream

READY = b"GET /readyz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"


class Gate:
    """A service that answers when it is told to."""

    def __init__(self) -> None:
        self.open = asyncio.Event()

    async def __call__(self, link: Link) -> None:
        while True:
            await link.request()
            await self.open.wait()
            link.send(OK)


async def _readiness(admin_port: int) -> int:
    caller = await connect(admin_port)
    caller.send(READY)
    reply = await caller.reply()
    caller.leave()
    return reply.status


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_lets_requests_finish(number: signal.Signals, tmp_path: Path) -> None:
    """Unready, idle connections closed, the request in flight answered, then exit 0."""
    gate = Gate()
    async with scripted_upstream(gate) as upstream, served(tmp_path, upstream.port) as process:
        assert await _readiness(process.admin_port) == 200
        idle, busy = await connect(process.port), await connect(process.port)
        busy.send(POST)
        await until(lambda: upstream.requests)
        process.signal(number)
        async with asyncio.timeout(PATIENCE_S):
            assert await idle.rest() == b""
        assert await _readiness(process.admin_port) == 503
        with pytest.raises(ConnectionRefusedError):
            await connect(process.port)
        gate.open.set()
        reply = await busy.reply()
        assert (reply.status, reply.body) == (200, b"ok")
        assert await busy.rest() == b""
        assert await process.ended() == 0
        idle.leave()
        busy.leave()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
async def test_a_second_signal_ends_at_once(
    number: signal.Signals, code: int, tmp_path: Path
) -> None:
    """F43: the request in flight is broken off, visibly: reset, and not with exit code 0."""
    async with scripted_upstream(Gate()) as upstream, served(tmp_path, upstream.port) as process:
        busy, idle = await connect(process.port), await connect(process.port)
        busy.send(POST)
        await until(lambda: upstream.requests)
        process.signal(signal.SIGTERM)
        async with asyncio.timeout(PATIENCE_S):
            await idle.rest()  # the first has been heard
        process.signal(number)
        async with asyncio.timeout(PATIENCE_S):
            assert await busy.rest() == b""
        assert busy.was_reset
        assert await process.ended() == code
        busy.leave()
        idle.leave()


async def test_the_drain_has_an_end(tmp_path: Path) -> None:
    """After `drain.timeout` what is still in flight is broken off, and the exit code is 0."""
    async with (
        scripted_upstream(Gate()) as upstream,
        served(tmp_path, upstream.port, {"drain": {"timeout": "300ms"}}) as process,
    ):
        busy = await connect(process.port)
        busy.send(POST)
        await until(lambda: upstream.requests)
        process.signal(signal.SIGTERM)
        async with asyncio.timeout(PATIENCE_S):
            assert await busy.rest() == b""
        assert busy.was_reset
        assert await process.ended() == 0
        busy.leave()


# In detail, in this process.


def _stopping(gateway: RunningGateway) -> asyncio.Task[None]:
    return asyncio.create_task(gateway.gateway.stop(), name="stop")


async def _requests(upstream: Upstream, count: int) -> None:
    await until(lambda: len(upstream.requests) == count)


async def test_while_it_is_announced_requests_are_still_taken() -> None:
    """Unready at once, but for `drain.announce` callers are answered, each for the last time."""
    gate = Gate()
    gate.open.set()
    async with (
        scripted_upstream(gate) as upstream,
        running_gateway(upstream.port, settings={"drain": {"announce": "1500ms"}}) as gateway,
    ):
        stopping = _stopping(gateway)
        await until(lambda: gateway.gateway.draining)
        assert await _readiness(gateway.admin_port) == 503
        caller = await gateway.connect()
        caller.send(POST)
        reply = await caller.reply()
        assert reply.status == 200
        assert reply.closes
        assert await caller.rest() == b""
        async with asyncio.timeout(PATIENCE_S):
            await stopping
        with pytest.raises(ConnectionRefusedError):
            await gateway.connect()


async def test_with_nothing_in_flight_it_ends_at_once() -> None:
    """No part of the drain's time is spent on idle connections."""
    async with running_gateway(1) as gateway:
        idle = await gateway.connect()
        await until(lambda: gateway.gateway._parts.data.connections)
        async with asyncio.timeout(PATIENCE_S):
            await gateway.gateway.stop()
            assert await idle.rest() == b""


async def test_what_has_arrived_by_then_is_in_flight() -> None:
    """A request that lies in the kernel when the listener closes is answered, not reset."""
    async with (
        scripted_upstream(OK) as upstream,
        running_gateway(upstream.port) as gateway,
    ):
        with socket.create_connection(("127.0.0.1", gateway.port), timeout=60) as caller:
            await until(lambda: gateway.gateway._parts.data.connections)
            caller.sendall(POST)  # without a turn of the loop
            listener = gateway.gateway._parts.data
            listener.draining = True
            assert await listener.drain(5)
            assert caller.recv(9999).startswith(b"HTTP/1.1 200 ")


async def test_what_waits_to_be_accepted_is_answered() -> None:
    """More connections than are accepted in a turn: closing the listener would reset the rest."""
    async with running_gateway(1) as gateway:
        where = ("127.0.0.1", gateway.port)  # whose loop stands still meanwhile
        waiting = [socket.create_connection(where, timeout=60) for _ in range(400)]
        for caller in waiting:
            caller.sendall(POST.replace(b"/iris", b"/none"))
        await gateway.gateway.stop()
        for caller in waiting:
            assert caller.recv(9999).startswith(b"HTTP/1.1 404 ")
            caller.close()


async def test_what_comes_after_that_is_refused() -> None:
    """503 with a sentence, on a connection that was taken at the last moment; then it is closed."""
    gate = Gate()
    async with scripted_upstream(gate) as upstream, running_gateway(upstream.port) as gateway:
        busy, idle = await gateway.connect(), await gateway.connect()
        busy.send(POST)
        await _requests(upstream, 1)
        listener = gateway.gateway._parts.data
        listener.draining = True
        draining = asyncio.create_task(listener.drain(5))  # and the server has not been closed yet
        assert await idle.rest() == b""
        caller = await gateway.connect()
        caller.send(POST * 2)
        reply = await caller.reply()
        assert (reply.status, reply.closes) == (503, True)
        assert b"Gateway.Draining" in reply.body
        assert reply.values(b"retry-after") == [b"1"]
        assert await caller.rest() == b""
        assert (await gateway.next_record())["error"] == "draining"
        gate.open.set()
        assert (await busy.reply()).status == 200
        assert await draining
        assert gateway.sample("gateway_requests_in_flight") == 0
    assert len(upstream.requests) == 1


async def test_a_body_under_way_is_let_in() -> None:
    """A request that began before goes to its end, upload included."""
    async with (
        scripted_upstream(OK) as upstream,
        running_gateway(upstream.port) as gateway,
    ):
        caller = await gateway.connect()
        caller.send(POST[:-1])
        await _requests(upstream, 1)
        stopping = _stopping(gateway)
        await until(lambda: gateway.gateway.draining)
        caller.send(POST[-1:])
        assert (await caller.reply()).body == b"ok"
        async with asyncio.timeout(PATIENCE_S):
            await stopping


async def test_what_waits_behind_is_not_begun() -> None:
    """The answer under way is the last on its connection; a pipelined request is not sent."""
    gate = Gate()
    async with (
        scripted_upstream(gate) as upstream,
        running_gateway(upstream.port) as gateway,
    ):
        caller = await gateway.connect()
        caller.send(POST * 2)
        await _requests(upstream, 1)
        stopping = _stopping(gateway)
        await until(lambda: gateway.gateway.draining)
        gate.open.set()
        assert (await caller.reply()).body == b"ok"
        assert await caller.rest() == b""
        async with asyncio.timeout(PATIENCE_S):
            await stopping
    assert len(upstream.requests) == 1


async def test_stop_leaves_nothing() -> None:
    """No task, no connection, nothing in flight, and every line of the log written."""
    before = asyncio.all_tasks()
    async with scripted_upstream(Gate()) as upstream, running_gateway(upstream.port) as gateway:
        caller = await gateway.connect()
        caller.send(POST)
        await _requests(upstream, 1)
        await gateway.gateway.stop(drain=False)

        await caller.rest()
        assert caller.was_reset
        assert gateway.gateway._parts.data.connections == []
        assert gateway.sample("gateway_requests_in_flight") == 0
        assert (await gateway.next_record())["error"] == "client_disconnected"
        ours = {task.get_name() for task in asyncio.all_tasks() - before}
        assert not ours & {"exchange", "secret-watch", "stop"}
        assert gateway.services[0].pool.active == 0
