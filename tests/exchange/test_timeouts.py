"""Every wait has an end, and the end says who was waited for."""

import asyncio
import socket
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from gateway.downstream.connection import HEAD_TIMEOUT_S, IDLE_TIMEOUT_S, LINGER_S
from gateway.proxy.deadlines import Deadlines
from gateway.proxy.exchange import Exchange
from tests.support.client import Caller
from tests.support.fake_time import FakeTime
from tests.support.gateway import GET, POST, RunningGateway, running_gateway
from tests.support.until import PATIENCE_S, until
from tests.support.upstream import OK, Link, scripted_upstream

MIB = 2**20
SHORT_S = 0.3
LONG_S = 600.0
"""Longer than any test may run: a test that ends has not waited for it."""


def timeouts(**short: float) -> dict[str, Any]:
    """Return a service's settings: what is not named is long."""
    return {
        "timeouts": {"connect": LONG_S, "first_byte": LONG_S, "idle": LONG_S} | short,
        "max_body": "64MiB",
    }


async def seconds(wait: Callable[[], Any]) -> tuple[float, Any]:
    """Return how long a wait took, and its result."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    result = await wait()
    return loop.time() - began, result


async def wait_for_it(link: Link) -> None:
    """Read a request and never answer it."""
    await link.request()
    await link.hold()


def pool_counts(gateway: RunningGateway) -> tuple[int, int]:
    pool = gateway.services[0].pool
    return pool.active, pool.idle


# The service is waited for.


async def test_connecting_takes_no_longer_than_it_may() -> None:
    """A listener whose queue is full leaves a SYN without an answer: 504, nothing sent."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        port = listener.getsockname()[1]
        fillers = []
        for _ in range(4):
            filler = socket.socket()
            filler.setblocking(False)
            filler.connect_ex(("127.0.0.1", port))
            fillers.append(filler)
        async with running_gateway(port, service=timeouts(connect=SHORT_S)) as gateway:
            caller = await gateway.connect()
            caller.send(POST)
            took, reply = await seconds(caller.reply)
            record = await gateway.next_record()
            counts = pool_counts(gateway)
        for filler in fillers:
            filler.close()

    assert reply.status == 504
    assert b"Gateway.ConnectionTimeout" in reply.body
    assert took >= SHORT_S * 0.95
    assert record["connect_us"] >= SHORT_S * 0.95e6
    assert counts == (0, 0)


async def test_handshake_is_part_of_connecting() -> None:
    """A service that accepts and then says nothing over TLS is given up, and its socket closed."""

    async def script(link: Link) -> None:
        await link.hold()

    async with (
        scripted_upstream(script) as upstream,
        running_gateway(
            upstream.port, scheme="https", service=timeouts(connect=SHORT_S)
        ) as gateway,
    ):
        caller = await gateway.connect()
        caller.send(POST)
        took, reply = await seconds(caller.reply)
        async with asyncio.timeout(PATIENCE_S):
            await upstream.links[0].ended.wait()
        assert pool_counts(gateway) == (0, 0)

    assert (reply.status, reply.closes) == (504, False)
    assert took >= SHORT_S * 0.95
    assert upstream.received.startswith(b"\x16\x03")


@pytest.mark.parametrize("said", [b"", b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 200 OK\r\nX"])
async def test_answer_must_begin_in_time(said: bytes) -> None:
    """504, whatever there is short of a final head; the call is aborted, the caller stays."""

    async def script(link: Link) -> None:
        await link.request()
        link.send(said)
        await link.hold()

    async with (
        scripted_upstream(script) as upstream,
        running_gateway(upstream.port, service=timeouts(first_byte=SHORT_S)) as gateway,
    ):
        caller = await gateway.connect()
        caller.send(POST)
        took, reply = await seconds(caller.reply)
        async with asyncio.timeout(PATIENCE_S):
            await upstream.links[0].ended.wait()
        record = await gateway.next_record()
        assert pool_counts(gateway) == (0, 0)

    assert (reply.status, reply.closes) == (504, False)
    assert b"Gateway.HttpResponseTimeout" in reply.body
    assert took >= SHORT_S * 0.95
    assert record["error"] == "http_response_timeout"


async def test_idle_does_not_bound_the_wait_for_an_answer() -> None:
    """A model may think for longer than a body may pause."""
    later = asyncio.Event()

    async def script(link: Link) -> None:
        await link.request()
        await later.wait()
        link.send(OK)

    async with (
        scripted_upstream(script) as upstream,
        running_gateway(upstream.port, service=timeouts(idle=0.1)) as gateway,
    ):
        caller = await gateway.connect()
        caller.send(POST)
        asyncio.get_running_loop().call_later(0.4, later.set)
        assert (await caller.reply()).status == 200


@pytest.mark.parametrize(
    "said",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nbegun",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nbegun\r\n",
        b"HTTP/1.1 200 OK\r\n\r\nbegun",
    ],
)
async def test_answer_that_stalls_is_broken_off(said: bytes) -> None:
    """The caller's connection is reset after `idle`, never ended as if the answer were whole."""

    async def script(link: Link) -> None:
        await link.request()
        link.send(said)
        await link.hold()

    async with (
        scripted_upstream(script) as upstream,
        running_gateway(upstream.port, service=timeouts(idle=SHORT_S)) as gateway,
    ):
        caller = await gateway.connect()
        caller.send(POST)
        took, _ = await seconds(caller.rest)
        record = await gateway.next_record()
        assert pool_counts(gateway) == (0, 0)

    assert caller.was_reset
    assert took >= SHORT_S * 0.95
    assert (record["status"], record["error"]) == (200, "http_response_timeout")


async def test_answer_may_take_long_while_it_goes_on() -> None:
    """`idle` counts from the last piece, not from the first."""
    time = FakeTime()
    pieces = asyncio.Semaphore(0)

    async def script(link: Link) -> None:
        await link.request()
        link.send(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n")
        while await pieces.acquire():
            link.send(b"x")

    async with (
        scripted_upstream(script) as upstream,
        running_gateway(upstream.port, service=timeouts(idle=60.0)) as gateway,
    ):
        moved_by(gateway, time)
        caller = await gateway.connect()
        caller.send(POST)
        await caller.head()
        for _ in range(6):
            time.now += 59
            await ticks()
            pieces.release()
            assert await caller.take(1) == b"x"


async def test_service_that_does_not_read_is_504() -> None:
    """It is the service that has stopped, not the caller, who has bytes left to send."""
    time = FakeTime()

    async def script(link: Link) -> None:
        await link.head()
        await asyncio.Event().wait()

    async with (
        scripted_upstream(script) as upstream,
        running_gateway(upstream.port, service=timeouts(idle=60.0)) as gateway,
    ):
        moved_by(gateway, time)
        caller = await gateway.connect()
        caller.send(
            b"POST /iris HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % (40 * MIB)
            + bytes(30 * MIB)
        )
        await until(lambda: upstream.requests)
        [downstream] = gateway.gateway._parts.data.connections
        await until(lambda: downstream.stream.held_by)  # type: ignore[attr-defined]
        time.now += 61
        reply = await caller.reply()
        record = await gateway.next_record()
        assert pool_counts(gateway) == (0, 0)

    assert (reply.status, reply.closes) == (504, True)
    assert record["error"] == "http_response_timeout"


# The caller is waited for.


@pytest.mark.parametrize(
    "upload",
    [
        b"POST /iris HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n",
        b"POST /iris HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\nbegun",
        b"POST /iris HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nbegun",
    ],
)
async def test_upload_that_stalls_is_408(upload: bytes) -> None:
    """The service sees a cut request; the caller hears why, and its connection ends."""
    async with (
        scripted_upstream(wait_for_it) as upstream,
        running_gateway(upstream.port, service=timeouts(idle=SHORT_S)) as gateway,
    ):
        caller = await gateway.connect()
        caller.send(upload)
        took, reply = await seconds(caller.reply)
        assert await caller.rest() == b""
        async with asyncio.timeout(PATIENCE_S):
            await upstream.links[0].ended.wait()
        record = await gateway.next_record()
        assert pool_counts(gateway) == (0, 0)

    assert (reply.status, reply.closes) == (408, True)
    assert took >= SHORT_S * 0.95
    assert record["error"] == "slow_request"
    assert not caller.was_reset
    assert not upstream.only.whole


async def test_upload_may_take_long_while_it_goes_on() -> None:
    """`idle` counts from the last piece, not from the first."""
    time = FakeTime()
    async with (
        scripted_upstream(OK) as upstream,
        running_gateway(upstream.port, service=timeouts(idle=1.0)) as gateway,
    ):
        moved_by(gateway, time)
        caller = await gateway.connect()
        caller.send(b"POST /iris HTTP/1.1\r\nHost: localhost\r\nContent-Length: 6\r\n\r\n")
        await until(lambda: upstream.requests)
        [link] = upstream.links
        for count in range(1, 7):
            time.now += 0.9
            await ticks()
            caller.send(b"x")
            await until(partial(link.received.endswith, b"x" * count))
        assert (await caller.reply()).status == 200

    assert upstream.only.content == b"xxxxxx"


async def test_caller_is_not_blamed_for_the_time_the_service_took() -> None:
    """A caller that could not send gets its whole `idle` once it can."""
    time = FakeTime()
    read_on = asyncio.Event()
    size = 30 * MIB

    async def script(link: Link) -> None:
        await link.head()
        await read_on.wait()
        await link.read(size)
        link.send(OK)

    async with (
        scripted_upstream(script) as upstream,
        running_gateway(upstream.port, service=timeouts(idle=60.0)) as gateway,
    ):
        moved_by(gateway, time)
        caller = await gateway.connect()
        caller.send(b"POST /iris HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % size)
        await until(lambda: upstream.requests)
        sent = 0
        [downstream] = gateway.gateway._parts.data.connections
        while not downstream.stream.held_by:  # type: ignore[attr-defined]
            caller.send(bytes(65536))
            sent += 65536
            await asyncio.sleep(0)
        await until(lambda: caller.unsent == 0 or downstream.stream.held_by)  # type: ignore[attr-defined]
        time.now += 59
        read_on.set()
        await until(lambda: not downstream.stream.held_by)  # type: ignore[attr-defined]
        await until(lambda: len(upstream.received) >= sent)
        time.now += 2
        await ticks()
        caller.send(bytes(size - sent))
        reply = await caller.reply()

    assert reply.status == 200


async def test_caller_that_does_not_read_its_answer_is_reset() -> None:
    """It is the caller who has stopped, and the service is let go."""

    async def script(link: Link) -> None:
        await link.request()
        link.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (32 * MIB) + bytes(32 * MIB))
        await link.hold()

    async with (
        scripted_upstream(script) as upstream,
        running_gateway(upstream.port, service=timeouts(idle=SHORT_S)) as gateway,
    ):
        caller = await gateway.connect(read_buffer=65536)
        caller.send(POST)
        await until(lambda: gateway.sample("gateway_requests_in_flight"))
        await gateway.settled()
        record = await gateway.next_record()
        assert pool_counts(gateway) == (0, 0)
        await caller.rest()

    assert caller.was_reset
    assert (record["status"], record["error"]) == (200, "client_disconnected")


# Callers' connections, on a clock that the test moves.

TICK_S = 0.01


def moved_by(gateway: RunningGateway, time: FakeTime) -> None:
    """Let `time` decide on what is late from here on."""
    proxy = gateway.gateway._parts.data.context
    proxy.clock = time.clock
    proxy.deadlines.close()
    proxy.deadlines = Deadlines(time.clock, tick_s=TICK_S)


async def ticks() -> None:
    """Let the deadlines be looked at, twice at least."""
    await asyncio.sleep(TICK_S * 4)


async def is_open(gateway: RunningGateway, caller: Caller) -> bool:
    """Say whether the gateway still has the caller's connection, after looking at deadlines."""
    await ticks()
    return bool(gateway.gateway._parts.data.connections) and not caller._reader.at_eof()


@pytest.mark.parametrize("used", [False, True])
async def test_idle_connection_is_closed_in_the_end(used: bool) -> None:
    """After 75 s without a request, not before; it was never used or is kept."""
    time = FakeTime()
    async with scripted_upstream(OK) as upstream, running_gateway(upstream.port) as gateway:
        moved_by(gateway, time)
        caller = await gateway.connect()
        if used:
            time.now += 50
            caller.send(POST)
            assert (await caller.reply()).status == 200
        else:
            await until(lambda: gateway.gateway._parts.data.connections)
        time.now += IDLE_TIMEOUT_S - 0.1
        assert await is_open(gateway, caller)
        time.now += 0.2
        async with asyncio.timeout(PATIENCE_S):
            assert await caller.rest() == b""

    assert not caller.was_reset


@pytest.mark.parametrize("used", [False, True])
async def test_head_must_arrive_in_time(used: bool) -> None:
    """10 s from its first byte, however it trickles: 408 and close."""
    time = FakeTime()
    async with scripted_upstream(OK) as upstream, running_gateway(upstream.port) as gateway:
        moved_by(gateway, time)
        caller = await gateway.connect()
        if used:
            caller.send(POST)
            assert (await caller.reply()).status == 200
        await until(lambda: gateway.gateway._parts.data.connections)
        time.now += 5
        [connection] = gateway.gateway._parts.data.clients()
        caller.send(b"P")
        await until(connection.reader.in_head)
        for piece in (b"OST", b" /iris", b" HTTP/1.1\r\nHost"):
            time.now += HEAD_TIMEOUT_S / 3 - 0.1
            caller.send(piece)
            assert await is_open(gateway, caller)
        time.now += 0.4
        async with asyncio.timeout(PATIENCE_S):
            reply = await caller.reply()
            assert await caller.rest() == b""

    assert (reply.status, reply.closes) == (408, True)
    assert b"Gateway.SlowRequest" in reply.body
    assert len(upstream.requests) == used


@pytest.mark.parametrize("late", [False, True])
async def test_head_that_waited_for_an_exchange_has_its_time_from_then(late: bool) -> None:
    """A caller that sends half of its next request early is not late before its turn."""
    time = FakeTime()
    finish = asyncio.Event()

    async def script(link: Link) -> None:
        await link.request()
        await finish.wait()
        link.send(OK)
        await link.request()
        link.send(OK)

    async with scripted_upstream(script) as upstream, running_gateway(upstream.port) as gateway:
        moved_by(gateway, time)
        caller = await gateway.connect()
        caller.send(POST + POST[:20])
        await until(lambda: upstream.requests)
        time.now += HEAD_TIMEOUT_S + 5
        await ticks()
        finish.set()
        assert (await caller.reply()).status == 200
        time.now += HEAD_TIMEOUT_S - 0.1
        assert await is_open(gateway, caller)
        if late:
            time.now += 0.2
        else:
            caller.send(POST[20:])
        async with asyncio.timeout(PATIENCE_S):
            assert (await caller.reply()).status == (408 if late else 200)


async def test_refused_upload_is_read_for_a_while_only() -> None:
    """So that the answer arrives; a caller that goes on sending is cut off after 2 s."""
    time = FakeTime()
    async with scripted_upstream(OK) as upstream, running_gateway(upstream.port) as gateway:
        moved_by(gateway, time)
        caller = await gateway.connect()
        caller.send(b"POST /none HTTP/1.1\r\nHost: localhost\r\nContent-Length: 999999999\r\n\r\n")
        reply = await caller.reply()
        for _ in range(20):
            caller.send(bytes(65536))
            await asyncio.sleep(0)
        assert await caller.rest() == b""
        time.now += LINGER_S - 0.1
        await ticks()
        assert gateway.gateway._parts.data.connections
        time.now += 0.2
        await until(lambda: not gateway.gateway._parts.data.connections, within_s=PATIENCE_S)

    assert (reply.status, reply.closes) == (404, True)


def _has_relayed(exchange: Exchange | None, count: int) -> bool:
    if exchange is None:
        return False
    return exchange.attempt is not None and exchange.attempt.relay.response_bytes >= count


async def test_caller_that_never_reads_the_end_of_its_answer_is_cut_off() -> None:
    """The exchange is over, bytes are left over, and nobody may hold a socket with them for ever.

    But for the whole time of an idle connection they may still be fetched.
    """
    time = FakeTime()
    more = asyncio.Event()
    last = asyncio.Event()

    async def script(link: Link) -> None:
        await link.request()
        link.send(b"HTTP/1.1 200 OK\r\n\r\n")
        while not last.is_set():
            link.send(bytes(16384))
            more.clear()
            await more.wait()

    async with scripted_upstream(script) as upstream, running_gateway(upstream.port) as gateway:
        moved_by(gateway, time)
        caller = await gateway.connect(read_buffer=65536)
        caller._writer.transport.pause_reading()  # type: ignore[attr-defined]
        caller.send(POST)
        await until(lambda: gateway.gateway._parts.data.connections)
        [connection] = gateway.gateway._parts.data.clients()
        transport = connection.stream.transport
        assert transport is not None
        count = 0
        while transport.get_write_buffer_size() == 0:
            await until(lambda: connection.exchange is not None)
            count += 16384
            await until(partial(_has_relayed, connection.exchange, count))
            more.set()
        last.set()
        more.set()
        await gateway.settled()
        assert transport.get_write_buffer_size() > 0
        time.now += IDLE_TIMEOUT_S - 0.1
        await ticks()
        assert gateway.gateway._parts.data.connections
        time.now += 0.2
        await until(lambda: not gateway.gateway._parts.data.connections, within_s=PATIENCE_S)


async def test_request_after_an_error_has_the_full_time() -> None:
    """What one exchange has used up is not held against the next."""
    time = FakeTime()

    async def script(link: Link) -> None:
        if link.number == 0:
            await wait_for_it(link)
        await link.request()
        link.send(OK)

    async with (
        scripted_upstream(script) as upstream,
        running_gateway(upstream.port, service=timeouts(first_byte=5.0)) as gateway,
    ):
        moved_by(gateway, time)
        caller = await gateway.connect()
        caller.send(GET)
        await until(lambda: upstream.requests)
        time.now += 5.1
        assert (await caller.reply()).status == 504
        caller.send(GET)
        assert (await caller.reply()).status == 200
