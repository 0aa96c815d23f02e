"""Callers whose requests break off, never end, or who leave while they are made to wait."""

import asyncio
from collections.abc import Callable

import pytest

from tests.support.client import Caller
from tests.support.gateway import POST, running_gateway
from tests.support.until import PATIENCE_S
from tests.support.upstream import OK, Link, scripted_upstream

both_loops = pytest.mark.asyncio(loop_factories=["uvloop", "asyncio"])

CHUNKED_HEAD = b"POST /iris HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
MANY = 64 * 2**20
"""More than all buffers on the way together can hold."""


def upload_head(length: int) -> bytes:
    return b"POST /iris HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % length


async def until(condition: Callable[[], bool]) -> None:
    """Wait for something that nobody signals."""
    async with asyncio.timeout(PATIENCE_S):
        while not condition():  # noqa: ASYNC110  # there is no event to wait for
            await asyncio.sleep(0.005)


@both_loops
@pytest.mark.parametrize("tail", [b"zz\r\n", b"2\r\nabX", b"-1\r\n", b"\x00"])
async def test_malformed_chunk_mid_upload_is_400_at_once(tail: bytes) -> None:
    """The call upstream is aborted, not left to hang until a deadline."""
    arrived = asyncio.Event()

    async def script(link: Link) -> None:
        await link.head()
        await link.read(6)
        arrived.set()
        await link.hold()

    async with scripted_upstream(script) as upstream, running_gateway(upstream.port) as gateway:
        caller = await gateway.connect()
        caller.send(CHUNKED_HEAD + b"1\r\na\r\n")
        await arrived.wait()
        caller.send(tail)
        async with asyncio.timeout(PATIENCE_S):
            reply = await caller.reply()
            assert await caller.rest() == b""
            await upstream.links[0].ended.wait()
        record = await gateway.next_record()

    assert (reply.status, reply.closes) == (400, True)
    assert b"0\r\n\r\n" not in upstream.received
    assert record["error"] == "bad_request"


async def test_malformed_chunk_mid_answer_breaks_it_off() -> None:
    """Once a status is on the wire there is no other way to say so."""

    async def script(link: Link) -> None:
        await link.head()
        link.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc")
        await link.hold()

    async with scripted_upstream(script) as upstream, running_gateway(upstream.port) as gateway:
        caller = await gateway.connect()
        caller.send(CHUNKED_HEAD + b"1\r\na\r\n")
        await caller.head()
        caller.send(b"zz\r\n")
        await caller.rest()

    assert caller.was_reset


@pytest.mark.parametrize(
    "beginning",
    [b"1;", b"1\r\na\r\n1;x=", b"1\r\na\r\n0\r\nX: ", b"1\r\na\r\n0\r\n"],
    ids=["extension", "later extension", "trailer", "trailer's name"],
)
@pytest.mark.parametrize(("size", "refused"), [(120_000, False), (140_000, True)])
async def test_endless_extensions_and_trailers_are_refused(
    beginning: bytes, size: int, refused: bool
) -> None:
    """The parser keeps them until they end: 128 KiB are enough."""

    async def script(link: Link) -> None:
        await link.head()
        await link.hold()

    async with scripted_upstream(script) as upstream, running_gateway(upstream.port) as gateway:
        caller = await gateway.connect()
        caller.send(CHUNKED_HEAD + beginning)
        await until(lambda: bool(upstream.requests))
        caller.send(b"y" * size)
        if refused:
            async with asyncio.timeout(PATIENCE_S):
                assert (await caller.reply()).status == 400
        else:
            await until(lambda: caller.unsent == 0)
            await asyncio.sleep(0.05)
            assert gateway.sample("gateway_requests_in_flight") == 1


@both_loops
async def test_reset_is_noticed_while_the_caller_is_made_to_wait() -> None:
    """A caller that is not read from, because the service does not read, can leave as well."""
    stop = asyncio.Event()

    async def script(link: Link) -> None:
        await link.head()
        await stop.wait()

    async with (
        scripted_upstream(script) as upstream,
        running_gateway(upstream.port, service={"max_body": MANY}) as gateway,
    ):
        caller = await gateway.connect()
        caller.send(upload_head(MANY) + bytes(MANY // 2))
        await until(lambda: bool(upstream.links) and caller.unsent > 0)
        await asyncio.sleep(0.2)
        caller.reset()
        async with asyncio.timeout(PATIENCE_S):
            record = await gateway.next_record()
        stop.set()

    assert record["error"] == "client_disconnected"


@both_loops
@pytest.mark.parametrize(
    "leave", [Caller.leave, Caller.reset, Caller.half_close], ids=["close", "reset", "half_close"]
)
@pytest.mark.parametrize("request_", [upload_head(10), POST + POST], ids=["body", "pipelined"])
async def test_leaving_is_noticed_while_a_token_is_awaited(
    leave: Callable[[Caller], None], request_: bytes
) -> None:
    """A caller with more to say is not read from before its turn, and can leave all the same."""
    async with scripted_upstream(OK) as upstream, running_gateway(upstream.port) as gateway:
        gateway.credentials.at_hand = False
        gateway.credentials.gate.clear()
        caller = await gateway.connect()
        caller.send(request_)
        await until(lambda: gateway.sample("gateway_requests_in_flight") == 1)
        leave(caller)
        async with asyncio.timeout(PATIENCE_S):
            record = await gateway.next_record()

    assert record["error"] == "client_disconnected"
    assert upstream.links == []


@both_loops
async def test_half_closing_mid_answer_resets_what_has_no_end() -> None:
    """A client that closed half has left; what it got of a response must not look complete."""

    async def script(link: Link) -> None:
        await link.request()
        link.send(b"HTTP/1.1 200 OK\r\n\r\nsome of it")
        await link.hold()

    async with scripted_upstream(script) as upstream, running_gateway(upstream.port) as gateway:
        caller = await gateway.connect()
        caller.send(POST)
        await caller.head()
        caller.half_close()
        async with asyncio.timeout(PATIENCE_S):
            await caller.rest()
            await upstream.links[0].ended.wait()

    assert caller.was_reset
