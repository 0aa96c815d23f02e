"""Answers that come bit by bit reach the caller bit by bit, and at once."""

import asyncio
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from statistics import median

import pytest
import trustme

from gateway.http.chunked import LAST_CHUNK, chunk
from tests.support.client import connect
from tests.support.gateway import running_gateway
from tests.support.served import served
from tests.support.upstream import Link, scripted_upstream

LIMIT_S = 0.02
"""From leaving the service to reaching the caller. Nagle's algorithm, or a batch, costs 0.04."""
_ROUNDS, _TRIALS = 15, 5
_EVENTS = 4
_CALL = (
    b"POST /iris HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n"
    b"Content-Length: 2\r\n\r\n{}"
)
_HEADS = {
    # By what ends the body.
    "chunked": b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n",
    "close": b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n",
    "length": b"HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\n"
    b"Content-Length: %d\r\n\r\n" % (_EVENTS * len(b"data: 0\n\n")),
}


class Emitter:
    """A service that sends an event when it is told to, and notes when."""

    def __init__(self, framing: str) -> None:
        self.sent_at = 0.0
        """Of the event last sent, on `perf_counter`: uvloop's own clock counts milliseconds."""
        self._framing = framing
        self._turns: asyncio.Queue[int] = asyncio.Queue()

    def emit(self, number: int) -> None:
        """Send an event; the first brings the head with it, the last ends the answer."""
        self._turns.put_nowait(number)

    async def script(self, link: Link) -> None:
        """Serve one request after the other."""
        while True:
            await link.request()
            for _ in range(_EVENTS):
                number = await self._turns.get()
                event = framed(self._framing, number)
                self.sent_at = time.perf_counter()
                link.send(event if number else _HEADS[self._framing] + event)
            if self._framing == "close":
                return


def framed(framing: str, number: int) -> bytes:
    """Return an event as it goes over the wire, either way."""
    event = b"data: %d\n\n" % number
    if framing != "chunked":
        return event
    return chunk(event) + (LAST_CHUNK if number == _EVENTS - 1 else b"")


async def delays(port: int, emitter: Emitter, framing: str) -> list[float]:
    """Make a call; return for each event how long it was on its way, in seconds."""
    found = []
    caller = await connect(port)
    caller.send(_CALL)
    for number in range(_EVENTS):
        emitter.emit(number)
        if number == 0:
            assert (await caller.head()).startswith(b"HTTP/1.1 200 OK\r\n")
        event = framed(framing, number)
        assert await caller.take(len(event)) == event
        found.append(time.perf_counter() - emitter.sent_at)
    caller.leave()
    return found


async def assert_prompt(port: int, emitter: Emitter, framing: str) -> None:
    """Hold each event of a stream, by its place in it, against the limit.

    The median of many streams, up to five times: a busy machine delays some, an algorithm delays
    each.
    """
    typical: list[float] = []
    for _ in range(_TRIALS):
        rounds = [await delays(port, emitter, framing) for _ in range(_ROUNDS)]
        typical = [median(place) for place in zip(*rounds, strict=True)]
        if max(typical) < LIMIT_S:
            return
    raise AssertionError(typical)


@asynccontextmanager
async def upstream_and_gateway(
    emitter: Emitter, folder: Path, *, secure: bool
) -> AsyncIterator[int]:
    """Run both in this process; yield the gateway's port."""
    if not secure:
        async with (
            scripted_upstream(emitter.script) as upstream,
            running_gateway(upstream.port) as gateway,
        ):
            yield gateway.port
        return
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(folder / "ca.pem"))
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(server)
    tls = {"ca_file": str(folder / "ca.pem")}
    async with (
        scripted_upstream(emitter.script, tls=server) as upstream,
        running_gateway(upstream.port, scheme="https", service={"tls": tls}) as gateway,
    ):
        yield gateway.port


@pytest.mark.parametrize("secure", [False, True], ids=["http", "https"])
@pytest.mark.parametrize("framing", _HEADS)
async def test_every_event_reaches_the_caller_at_once(
    framing: str, secure: bool, tmp_path: Path
) -> None:
    """
    The first with the head, and each later one by itself, within 20 ms of leaving the service.
    """
    emitter = Emitter(framing)
    async with upstream_and_gateway(emitter, tmp_path, secure=secure) as port:
        await assert_prompt(port, emitter, framing)


async def test_every_event_leaves_serve_at_once(tmp_path: Path) -> None:
    """The same through a gateway in a process of its own."""
    emitter = Emitter("chunked")
    async with (
        scripted_upstream(emitter.script) as upstream,
        served(tmp_path, upstream.port) as process,
    ):
        await assert_prompt(process.port, emitter, "chunked")


async def test_events_in_quick_succession_do_not_wait_for_each_other(tmp_path: Path) -> None:
    """An event right behind another is not held until the first has been acknowledged."""
    emitter = Emitter("chunked")
    found: list[float] = []
    async with upstream_and_gateway(emitter, tmp_path, secure=False) as port:
        caller = await connect(port)
        while len(found) < _ROUNDS or (
            median(found[-_ROUNDS:]) >= LIMIT_S and len(found) < _ROUNDS * _TRIALS
        ):
            caller.send(_CALL)
            emitter.emit(0)
            await caller.head()
            await caller.take(len(framed("chunked", 0)))
            began = time.perf_counter()
            for number in range(1, _EVENTS):
                emitter.emit(number)
                await asyncio.sleep(0.001)  # so that each is a segment of its own
            rest = b"".join(framed("chunked", number) for number in range(1, _EVENTS))
            assert await caller.take(len(rest)) == rest
            found.append(time.perf_counter() - began)
        caller.leave()

    assert median(found[-_ROUNDS:]) < LIMIT_S, found
