"""Connections to a service as its operator sees them: opened, shared, counted, closed."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from tests.support.client import Caller
from tests.support.fake_time import FakeTime
from tests.support.gateway import GET, POST, RunningGateway, running_gateway
from tests.support.until import PATIENCE_S, until
from tests.support.upstream import OK, Link, answer, scripted_upstream


def counts(gateway: RunningGateway) -> tuple[float, float]:
    """Return the gauges of active and idle connections."""
    name = "gateway_upstream_connections"
    return (
        gateway.sample(name, service="iris", state="active"),
        gateway.sample(name, service="iris", state="idle"),
    )


def moved_by(gateway: RunningGateway, time: FakeTime) -> None:
    """Let `time` decide on the age of connections from here on."""
    gateway.gateway._parts.data.context.clock = time.clock
    pool = gateway.services[0].pool
    pool._clock = pool._opener._clock = time.clock


async def test_callers_share_a_connection_one_after_the_other() -> None:
    """Each has a connection of its own to the gateway, all have one to the service."""
    async with scripted_upstream(OK) as upstream, running_gateway(upstream.port) as gateway:
        assert counts(gateway) == (0, 0)
        for _ in range(5):
            assert (await gateway.ask(POST)).body == b"ok"
            assert counts(gateway) == (0, 1)

    assert [len(link.requests) for link in upstream.links] == [5]


async def test_requests_at_the_same_time_have_connections_of_their_own() -> None:
    """Nobody waits behind another's model; afterwards all are kept."""
    together = asyncio.Barrier(3)

    async def script(link: Link) -> None:
        while True:
            await link.request()
            await together.wait()
            link.send(answer(200, b"%d" % link.number))

    async with scripted_upstream(script) as upstream, running_gateway(upstream.port) as gateway:
        callers = [await gateway.connect() for _ in range(3)]
        for _ in range(2):
            for caller in callers:
                caller.send(POST)
            bodies = [(await caller.reply()).body for caller in callers]
            assert sorted(bodies) == [b"0", b"1", b"2"]
            assert counts(gateway) == (0, 3)

    assert [len(link.requests) for link in upstream.links] == [2, 2, 2]


@pytest.mark.parametrize(("waited_s", "links"), [(29.9, 1), (30.0, 2)])
async def test_connection_that_idled_too_long_is_not_used(waited_s: float, links: int) -> None:
    """Its service may be closing it just now, and a POST would be lost."""
    time = FakeTime()
    async with scripted_upstream(OK) as upstream, running_gateway(upstream.port) as gateway:
        moved_by(gateway, time)
        assert (await gateway.ask(POST)).status == 200
        time.now += waited_s
        assert (await gateway.ask(POST)).status == 200
        assert counts(gateway) == (0, 1)

    assert len(upstream.links) == links


@pytest.mark.parametrize(("age_s", "links"), [(299.9, 1), (300.0, 2)])
async def test_connection_is_replaced_after_a_time(age_s: float, links: int) -> None:
    """However busy it is, so that a service may move."""
    time = FakeTime()
    async with scripted_upstream(OK) as upstream, running_gateway(upstream.port) as gateway:
        moved_by(gateway, time)
        began = time.now
        for at in range(0, 300, 20):
            time.now = began + at
            assert (await gateway.ask(POST)).status == 200
        assert len(upstream.links) == 1
        time.now = began + age_s
        assert (await gateway.ask(POST)).status == 200

    assert len(upstream.links) == links


async def test_service_is_not_connected_to_before_anybody_asks() -> None:
    """Nor for a request that is refused."""
    async with scripted_upstream(OK) as upstream, running_gateway(upstream.port) as gateway:
        assert (await gateway.ask(POST.replace(b"/iris", b"/none"))).status == 404
        assert counts(gateway) == (0, 0)

    assert upstream.links == []


Ending = Callable[[Caller], Awaitable[object]]


async def _leaves(caller: Caller) -> None:
    await caller.head()
    caller.leave()


@pytest.mark.parametrize(
    ("said", "ending", "idle"),
    [
        (OK, Caller.reply, 1),
        (b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n", Caller.reply, 0),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n", Caller.reply, 0),
        (OK + b"x", Caller.reply, 0),
        (b"garbage\r\n\r\n", Caller.reply, 0),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nbegun", _leaves, 0),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nno chunk", Caller.reply, 0),
        (answer(503, b'{"error_code": "APIG.0613"}'), Caller.reply, 1),
    ],
)
async def test_gauges_are_right_after_every_ending(said: bytes, ending: Ending, idle: int) -> None:
    """One active while the exchange lasts, none after it, and idle is what is really kept."""
    go = asyncio.Event()

    async def script(link: Link) -> None:
        await link.request()
        await go.wait()
        link.send(said)
        await link.hold()

    async with scripted_upstream(script) as upstream, running_gateway(upstream.port) as gateway:
        caller = await gateway.connect()
        caller.send(POST)
        await until(lambda: upstream.requests)
        assert counts(gateway) == (1, 0)
        go.set()
        await ending(caller)
        await gateway.settled()
        assert counts(gateway) == (0, idle)


async def test_caller_that_leaves_while_connecting_leaves_nothing() -> None:
    """The handshake is given up with it."""

    async def script(link: Link) -> None:
        await link.hold()

    async with (
        scripted_upstream(script) as upstream,
        running_gateway(upstream.port, scheme="https") as gateway,
    ):
        caller = await gateway.connect()
        caller.send(POST)
        await until(lambda: upstream.received)
        assert counts(gateway) == (1, 0)
        caller.leave()
        await until(upstream.links[0].ended.is_set, within_s=PATIENCE_S)
        await gateway.settled()
        assert counts(gateway) == (0, 0)


async def test_connection_untouched_by_a_refused_body_is_kept() -> None:
    """A body that proves too large before anything was sent costs no connection."""
    async with (
        scripted_upstream(OK) as upstream,
        running_gateway(upstream.port, service={"max_body": 10}) as gateway,
    ):
        assert (await gateway.ask(POST)).status == 200
        reply = await gateway.ask(
            b"POST /iris HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
            b"b\r\n01234567890\r\n0\r\n\r\n"
        )
        assert reply.status == 413
        assert counts(gateway) == (0, 1)
        assert (await gateway.ask(GET)).status == 200

    assert [len(link.requests) for link in upstream.links] == [2]


async def test_stopping_closes_every_connection() -> None:
    """The service is not left with sockets of a gateway that has gone."""
    async with scripted_upstream(OK) as upstream:
        async with running_gateway(upstream.port) as gateway:
            assert (await gateway.ask(POST)).status == 200
            assert counts(gateway) == (0, 1)
        await until(upstream.links[0].ended.is_set)
