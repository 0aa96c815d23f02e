"""Requests sent before the answers to those before them have come."""

import asyncio

import pytest

from tests.support.gateway import GET, POST, running_gateway
from tests.support.until import until
from tests.support.upstream import OK, Link, answer, scripted_upstream

MOST = 64


def numbered(number: int) -> bytes:
    """A request that says which one it is."""
    return b"POST /iris/%d HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n\r\nx" % number


async def echoing(link: Link) -> None:
    """Answer with the target."""
    while True:
        request = await link.request()
        link.send(answer(200, request.target))


@pytest.mark.parametrize("piecewise", [True, False])
async def test_answers_come_in_order(piecewise: bool) -> None:
    """Good ones and refused ones mixed, each to its own request."""
    wanted: list[tuple[int, bytes]] = []
    sent = b""
    for number in range(12):
        match number % 4:
            case 0 | 1:
                sent += numbered(number)
                wanted.append((200, b"/v1/infers/abc/%d" % number))
            case 2:
                sent += numbered(number).replace(b"/iris", b"/nobody")
                wanted.append((404, b""))
            case _:
                sent += GET
                wanted.append((405, b""))
    async with (
        scripted_upstream(echoing) as upstream,
        running_gateway(upstream.port, service={"methods": "POST"}) as gateway,
    ):
        caller = await gateway.connect()
        for piece in [sent[n : n + 7] for n in range(0, len(sent), 7)] if piecewise else [sent]:
            caller.send(piece)
            if piecewise:
                await asyncio.sleep(0)
        replies = [await caller.reply() for _ in wanted]

    assert [
        (reply.status, reply.body if reply.status == 200 else b"") for reply in replies
    ] == wanted
    assert len(upstream.links) == 1


async def test_a_request_waits_for_the_one_before() -> None:
    """Nothing of the second goes upstream while the first has not been answered."""
    release = asyncio.Event()

    async def script(link: Link) -> None:
        while True:
            await link.request()
            await release.wait()
            link.send(OK)

    async with (
        scripted_upstream(script) as upstream,
        running_gateway(upstream.port) as gateway,
    ):
        caller = await gateway.connect()
        caller.send(numbered(1) + numbered(2))
        await until(lambda: upstream.requests)
        await asyncio.sleep(0.05)
        assert len(upstream.requests) == 1
        assert len(upstream.links) == 1
        release.set()
        assert [(await caller.reply()).status for _ in range(2)] == [200, 200]


@pytest.mark.parametrize("count", [2, 1000])
async def test_any_number_of_requests_may_wait(count: int) -> None:
    """However many come in one piece behind the one under way, each is answered in its turn."""
    release = asyncio.Event()

    async def script(link: Link) -> None:
        while True:
            await link.request()
            await release.wait()
            link.send(OK)

    async with (
        scripted_upstream(script) as upstream,
        running_gateway(upstream.port) as gateway,
    ):
        caller = await gateway.connect()
        caller.send(numbered(0))
        await until(lambda: upstream.requests)
        caller.send(b"".join(map(numbered, range(1, count))))
        release.set()
        for _ in range(count):
            assert (await caller.reply()).status == 200
        caller.send(POST)
        assert (await caller.reply()).status == 200
    assert len(upstream.requests) == count + 1


async def test_a_bad_request_is_answered_after_those_before() -> None:
    """What came before it is whole, and is answered first; what comes after it is not."""
    async with (
        scripted_upstream(echoing) as upstream,
        running_gateway(upstream.port) as gateway,
    ):
        caller = await gateway.connect()
        caller.send(numbered(1) + b"BREW / HTTP/1.1\r\n\r\n" + numbered(2))
        first, second = await caller.reply(), await caller.reply()

        assert (first.status, second.status) == (200, 501)
        assert second.closes
        assert await caller.rest() == b""
    assert len(upstream.requests) == 1


async def test_close_means_that_nothing_follows() -> None:
    """After `Connection: close` a pipelined request is not sent."""
    async with (
        scripted_upstream(echoing) as upstream,
        running_gateway(upstream.port) as gateway,
    ):
        caller = await gateway.connect()
        caller.send(POST.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n") + numbered(2))
        reply = await caller.reply()

        assert reply.status == 200
        assert reply.closes
        assert await caller.rest() == b""
    assert len(upstream.requests) == 1


@pytest.mark.parametrize("kind", ["good", "refused"])
async def test_a_caller_that_never_reads_costs_bounded_memory(kind: str) -> None:
    """It waits for itself: no further request is begun, and all are answered when it reads."""
    one = numbered(1) if kind == "good" else b"GET /nobody HTTP/1.1\r\nHost: localhost\r\n\r\n"
    async with (
        scripted_upstream(answer(200, b"x" * 100_000)) as upstream,
        running_gateway(upstream.port) as gateway,
    ):
        unrouted = gateway.gateway._parts.data.context.observer.unrouted
        metrics = gateway.services[0].metrics
        caller = await gateway.connect(read_buffer=4096)
        sent = 0
        held_up = False
        while not held_up:
            assert sent < 100_000, "nothing holds it up"
            caller.send(one * 32)
            sent += 32
            try:
                await until(lambda: metrics.finished + unrouted.finished == sent, within_s=0.3)  # noqa: B023  # awaited here
            except TimeoutError:
                held_up = True

        [connection] = gateway.gateway._parts.data.clients()
        transport = connection.stream.transport
        assert transport is not None
        assert transport.get_write_buffer_size() < 1_000_000
        for _ in range(sent):
            assert (await caller.reply()).status == (200 if kind == "good" else 404)
        caller.send(POST)
        assert (await caller.reply()).status == 200
