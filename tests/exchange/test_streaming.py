"""Bodies stream both ways, piece by piece, in bounded memory, and arrive as they were sent."""

import asyncio
import hashlib
import random
from itertools import pairwise

import pytest

from gateway.http.chunked import LAST_CHUNK, chunk
from tests.support.client import Caller
from tests.support.gateway import POST, RunningGateway, running_gateway
from tests.support.until import PATIENCE_S, until
from tests.support.upstream import OK, Link, answer, scripted_upstream

MIB = 2**20
_PIECE = 64 * 1024
_BUFFERED = 24 * MIB
"""More than every buffer of both connections holds, the kernel's included."""

FRAMINGS = pytest.mark.parametrize("framing", ["length", "chunked"])


def head_of(framing: str, length: int, *, start: bytes) -> bytes:
    """Return `start`, the first line and Host, with the field that frames the body."""
    if framing == "chunked":
        return start + b"Transfer-Encoding: chunked\r\n\r\n"
    return start + b"Content-Length: %d\r\n\r\n" % length


def framed(framing: str, piece: bytes, *, last: bool = False) -> bytes:
    """Return a piece of a body as it goes over the wire."""
    if framing == "length":
        return piece
    return chunk(piece) + (LAST_CHUNK if last else b"")


def request_head(framing: str, length: int) -> bytes:
    return head_of(framing, length, start=b"POST /iris HTTP/1.1\r\nHost: localhost\r\n")


def response_head(framing: str, length: int) -> bytes:
    return head_of(framing, length, start=b"HTTP/1.1 200 OK\r\n")


def noise(size: int) -> bytes:
    """Return bytes that repeat nowhere, so that one lost or moved is seen."""
    return random.Random(size).randbytes(size)


async def read_content(link: Link, framing: str, length: int) -> bytes:
    """Read a request's body piece by piece and undo its framing."""
    if framing == "length":
        return await link.read(length)
    pieces = []
    while size := int(await link._line(), 16):
        pieces.append(await link.read(size))
        assert await link.read(2) == b"\r\n"
    assert await link.read(2) == b"\r\n"
    return b"".join(pieces)


@FRAMINGS
async def test_upload_goes_up_as_it_comes(framing: str) -> None:
    """The upstream has the first piece before the caller has sent the last."""
    seen = asyncio.Event()

    async def script(link: Link) -> None:
        await link.head()
        first = framed(framing, b"first")
        assert await link.read(len(first)) == first
        seen.set()
        last = framed(framing, b"\x00last", last=True)
        assert await link.read(len(last)) == last
        link.send(OK)

    async with scripted_upstream(script) as upstream, running_gateway(upstream.port) as gateway:
        caller = await gateway.connect()
        caller.send(request_head(framing, 10))
        caller.send(framed(framing, b"first"))
        async with asyncio.timeout(PATIENCE_S):
            await seen.wait()
        caller.send(framed(framing, b"\x00last", last=True))
        assert (await caller.reply()).body == b"ok"
        record = await gateway.next_record()

    assert record["request_bytes"] == 10


@FRAMINGS
async def test_answer_comes_down_as_it_comes(framing: str) -> None:
    """The caller has the first piece before the upstream has sent the last."""
    seen = asyncio.Event()

    async def script(link: Link) -> None:
        await link.request()
        link.send(response_head(framing, 10) + framed(framing, b"first"))
        await seen.wait()
        link.send(framed(framing, b"\x00last", last=True))

    async with scripted_upstream(script) as upstream, running_gateway(upstream.port) as gateway:
        caller = await gateway.connect()
        caller.send(POST)
        async with asyncio.timeout(PATIENCE_S):
            await caller.head()
            first = framed(framing, b"first")
            assert await caller.take(len(first)) == first
        seen.set()
        last = framed(framing, b"\x00last", last=True)
        assert await caller.take(len(last)) == last
        record = await gateway.next_record()

    assert record["response_bytes"] == 10


async def test_both_directions_stream_at_once() -> None:
    """A service may answer piece by piece to what it has read so far."""

    async def script(link: Link) -> None:
        await link.head()
        link.send(response_head("chunked", 0))
        for number in range(3):
            piece = chunk(b"up%d" % number)
            assert await link.read(len(piece)) == piece
            link.send(chunk(b"down%d" % number))
        assert await link.read(len(LAST_CHUNK)) == LAST_CHUNK
        link.send(LAST_CHUNK)

    async with scripted_upstream(script) as upstream, running_gateway(upstream.port) as gateway:
        caller = await gateway.connect()
        caller.send(request_head("chunked", 0))
        async with asyncio.timeout(PATIENCE_S):
            assert b"chunked" in await caller.head()
            for number in range(3):
                caller.send(chunk(b"up%d" % number))
                piece = chunk(b"down%d" % number)
                assert await caller.take(len(piece)) == piece
            caller.send(LAST_CHUNK)
            assert await caller.take(len(LAST_CHUNK)) == LAST_CHUNK


@FRAMINGS
async def test_every_octet_survives_in_any_pieces(framing: str) -> None:
    """Bodies are opaque: all 256 octets, CRLFs and things that look like framing, cut anywhere."""
    body = bytes(range(256)) + b"\r\n0\r\n\r\nHTTP/1.1 200 OK\r\n\r\nPOST / HTTP/1.1\r\n\r\n"
    cuts = [0, 1, 2, 13, 255, 258, len(body)]
    pieces = [body[i:j] for i, j in pairwise(cuts)]

    async def script(link: Link) -> None:
        await link.head()
        link.send(response_head(framing, len(body)))
        content = await read_content(link, framing, len(body))
        assert content == body
        for index, piece in enumerate(pieces):
            link.send(framed(framing, piece, last=index == len(pieces) - 1))
            await asyncio.sleep(0)

    async with scripted_upstream(script) as upstream, running_gateway(upstream.port) as gateway:
        caller = await gateway.connect()
        caller.send(request_head(framing, len(body)))
        for index, piece in enumerate(pieces):
            caller.send(framed(framing, piece, last=index == len(pieces) - 1))
            await asyncio.sleep(0)
        reply = await caller.reply()

    assert (reply.body, reply.complete) == (body, True)


async def stalled(side: Caller | Link) -> int:
    """Wait until nothing more is taken of what `side` has written; return what is left."""
    async with asyncio.timeout(100):
        last, since = side.unsent, 0
        while since < 15:
            await asyncio.sleep(0.01)
            last, since = (last, since + 1) if side.unsent == last else (side.unsent, 0)
    return last


@FRAMINGS
async def test_slow_service_pauses_the_caller(framing: str) -> None:
    """While the service does not read, the caller's bytes stay with the caller; then all arrive."""
    body = noise(_BUFFERED)
    go = asyncio.Event()
    hashes = []

    async def script(link: Link) -> None:
        await link.head()
        await go.wait()
        content = await read_content(link, framing, len(body))
        hashes.append(hashlib.sha256(content).digest())
        link.send(OK)

    async with (
        scripted_upstream(script) as upstream,
        running_gateway(upstream.port, service={"max_body": "32MiB"}) as gateway,
    ):
        caller = await gateway.connect()
        caller.send(request_head(framing, len(body)))
        for at in range(0, len(body), _PIECE):
            caller.send(framed(framing, body[at : at + _PIECE], last=at + _PIECE >= len(body)))
        left = await stalled(caller)
        assert left > MIB, "the gateway took more than its buffers should hold"
        held = held_upstream(gateway)
        go.set()
        reply = await caller.reply()

    assert reply.body == b"ok"
    assert hashes == [hashlib.sha256(body).digest()]
    assert held < MIB


def held_upstream(gateway: RunningGateway) -> int:
    """Return how many bytes the gateway itself holds for the callers and for the services."""
    held = 0
    for connection in gateway.gateway._parts.data.clients():
        exchange = connection.exchange
        assert connection.stream.transport is not None
        assert exchange is not None
        assert exchange.attempt is not None
        upstream = exchange.attempt.connection._transport
        assert upstream is not None
        held += (
            connection.stream.transport.get_write_buffer_size() + upstream.get_write_buffer_size()
        )
        held += sum(map(len, exchange._request.body))
    return held


@FRAMINGS
async def test_slow_reader_pauses_the_service(framing: str) -> None:
    """While the caller does not read, the answer stays with the service; then all of it arrives."""
    size = 64 * MIB
    piece = noise(_PIECE)
    sending = asyncio.Event()
    links = []

    async def script(link: Link) -> None:
        links.append(link)
        await link.request()
        link.send(response_head(framing, size))
        for at in range(0, size, _PIECE):
            link.send(framed(framing, piece, last=at + _PIECE >= size))
        sending.set()
        await link.flush()
        await link.hold()

    async with scripted_upstream(script) as upstream, running_gateway(upstream.port) as gateway:
        caller = await gateway.connect(read_buffer=_PIECE)
        caller.send(POST)
        await sending.wait()
        left = await stalled(links[0])
        held = held_upstream(gateway)
        reply_hash, count = hashlib.sha256(), 0
        await caller.head()
        if framing == "length":
            while data := await caller.take(min(MIB, size - count)):
                reply_hash.update(data)
                count += len(data)
        else:
            while length := int(await caller._line() or b"0", 16):
                data = await caller.take(length)
                reply_hash.update(data)
                count += len(data)
                assert await caller.take(2) == b"\r\n"
            assert await caller.take(2) == b"\r\n"
        record = await gateway.next_record()

    assert left > MIB, "the gateway took more than its buffers should hold"
    assert held < MIB
    assert count == size == record["response_bytes"]
    expected = hashlib.sha256()
    for _ in range(size // _PIECE):
        expected.update(piece)
    assert reply_hash.digest() == expected.digest()


@FRAMINGS
async def test_large_upload_within_a_raised_limit(framing: str) -> None:
    """20 MiB pass both framings when `max_body` allows them, and the connections are kept."""
    body = noise(20 * MIB)
    hashes = []

    async def script(link: Link) -> None:
        while True:
            await link.head()
            content = await read_content(link, framing, len(body))
            hashes.append(hashlib.sha256(content).digest())
            link.send(OK)

    async with (
        scripted_upstream(script) as upstream,
        running_gateway(upstream.port, service={"max_body": "20MiB"}) as gateway,
    ):
        caller = await gateway.connect()
        caller.send(request_head(framing, len(body)))
        for at in range(0, len(body), MIB):
            caller.send(framed(framing, body[at : at + MIB], last=at + MIB >= len(body)))
        reply = await caller.reply()
        assert gateway.services[0].pool.idle == 1
        record = await gateway.next_record()

    assert (reply.body, reply.closes) == (b"ok", False)
    assert hashes == [hashlib.sha256(body).digest()]
    assert record["request_bytes"] == len(body)


@pytest.mark.parametrize(("size", "status"), [(100, 200), (101, 413)])
@FRAMINGS
async def test_body_is_limited(framing: str, size: int, status: int) -> None:
    """`max_body` itself passes; one octet more is 413 and never reaches the service whole."""

    async def script(link: Link) -> None:
        await link.request()
        link.send(OK)
        await link.hold()

    async with (
        scripted_upstream(script) as upstream,
        running_gateway(upstream.port, service={"max_body": 100}) as gateway,
    ):
        caller = await gateway.connect()
        caller.send(request_head(framing, size) + framed(framing, b"x" * 60))
        if framing == "chunked":
            await until(lambda: upstream.links)
        caller.send(framed(framing, b"y" * (size - 60), last=True))
        reply = await caller.reply()
        await gateway.settled()

    assert reply.status == status
    assert sum(request.whole for request in upstream.requests) == (status == 200)
    assert gateway.services[0].pool.active == 0


async def expecting(link: Link) -> None:
    """Answer a whole request."""
    while True:
        await link.request()
        link.send(OK)


_EXPECTING = (
    b"POST /iris HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n"
)


@pytest.mark.parametrize("at_once", [b"body", b"bo"])
async def test_no_100_for_a_body_that_is_already_there(at_once: bytes) -> None:
    """A caller that did not wait for leave is not given any."""
    async with scripted_upstream(expecting) as upstream, running_gateway(upstream.port) as gateway:
        caller = await gateway.connect()
        caller.send(_EXPECTING + at_once)
        await until(lambda: upstream.requests)
        caller.send(b"body"[len(at_once) :])
        assert (await caller.head()).startswith(b"HTTP/1.1 200 OK")


async def test_100_comes_once_even_when_the_request_is_sent_again() -> None:
    """A kept connection that was closed unseen costs a second attempt, not a second 100."""
    closed = asyncio.Event()

    async def script(link: Link) -> None:
        await link.request()
        link.send(OK)
        if link.number == 0:
            await link.head()
            closed.set()
            link.reset()
        else:
            await link.hold()

    async with scripted_upstream(script) as upstream, running_gateway(upstream.port) as gateway:
        caller = await gateway.connect()
        caller.send(POST)
        assert (await caller.reply()).status == 200
        caller.send(_EXPECTING.replace(b"POST", b"PUT"))
        assert await caller.head() == b"HTTP/1.1 100 Continue\r\n\r\n"
        async with asyncio.timeout(PATIENCE_S):
            await closed.wait()
        await until(lambda: len(upstream.requests) == 3)
        caller.send(b"body")
        assert (await caller.head()).startswith(b"HTTP/1.1 200 OK")

    assert [request.content for request in upstream.requests if request.whole] == [b"{}", b"body"]


async def test_a_thousand_pipelined_requests_are_answered_in_order() -> None:
    """A caller that sends faster than it reads waits; it is never refused."""

    async def script(link: Link) -> None:
        while True:
            request = await link.request()
            link.send(answer(200, request.target.rpartition(b"/")[2]))

    async with scripted_upstream(script) as upstream, running_gateway(upstream.port) as gateway:
        caller = await gateway.connect()
        for number in range(1000):
            caller.send(b"GET /iris/%d HTTP/1.1\r\nHost: localhost\r\n\r\n" % number)
        async with asyncio.timeout(PATIENCE_S):
            bodies = [(await caller.reply()).body for _ in range(1000)]

    assert bodies == [b"%d" % number for number in range(1000)]
