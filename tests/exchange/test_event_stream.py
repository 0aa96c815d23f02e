"""Answers that come bit by bit reach the caller bit by bit, and at once."""

import asyncio
import ssl
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from statistics import median

import pytest
import trustme

from gateway.http.chunked import LAST_CHUNK, chunk
from tests.support.client import connect
from tests.support.gateway import running_gateway
from tests.support.served import served
from tests.support.turns import turns_counted
from tests.support.upstream import Link, scripted_upstream

LIMIT_S = 0.02
"""From leaving the service to reaching the caller. Nagle's algorithm, or a batch, costs 0.04."""
LIMIT_TURNS = 100
"""The same in turns of the event loop that all three share. It takes two; 0.04 s are thousands."""
_ROUNDS = 15
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

    def __init__(self, framing: str, clock: Callable[[], float]) -> None:
        self.sent_at = 0.0
        """When the last event was sent, by `clock`."""
        self.clock = clock
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
                self.sent_at = self.clock()
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
    """Make a call; return for each event how long it was on its way, by the emitter's clock."""
    found = []
    caller = await connect(port)
    caller.send(_CALL)
    for number in range(_EVENTS):
        emitter.emit(number)
        if number == 0:
            assert (await caller.head()).startswith(b"HTTP/1.1 200 OK\r\n")
        event = framed(framing, number)
        assert await caller.take(len(event)) == event
        found.append(emitter.clock() - emitter.sent_at)
    caller.leave()
    return found


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
    The first with the head, and each later one by itself, as soon as it has left the service.
    """
    async with turns_counted() as turns:
        emitter = Emitter(framing, turns.now)
        async with upstream_and_gateway(emitter, tmp_path, secure=secure) as port:
            rounds = [await delays(port, emitter, framing) for _ in range(_ROUNDS)]

    typical = [median(place) for place in zip(*rounds, strict=True)]
    assert max(typical) < LIMIT_TURNS, typical


async def test_every_event_leaves_serve_at_once(tmp_path: Path) -> None:
    """All events of a stream through a gateway in a process of its own, each within 20 ms.

    A machine may be too busy for that, but not each time: turns of two loops cannot be compared.
    """
    # uvloop's own clock counts milliseconds.
    emitter = Emitter("chunked", time.perf_counter)
    fastest = [float("inf")]
    async with (
        scripted_upstream(emitter.script) as upstream,
        served(tmp_path, upstream.port) as process,
    ):
        for _ in range(_ROUNDS * _EVENTS):
            fastest = min(fastest, await delays(process.port, emitter, "chunked"), key=max)
            if max(fastest) < LIMIT_S:
                break
    assert max(fastest) < LIMIT_S, fastest


async def test_events_in_quick_succession_do_not_wait_for_each_other(
    tmp_path: Path,
) -> None:
    """An event right behind another is not held until the first has been acknowledged."""
    found: list[float] = []
    async with turns_counted() as turns:
        emitter = Emitter("chunked", turns.now)
        async with upstream_and_gateway(emitter, tmp_path, secure=False) as port:
            caller = await connect(port)
            for _ in range(_ROUNDS):
                caller.send(_CALL)
                emitter.emit(0)
                await caller.head()
                await caller.take(len(framed("chunked", 0)))
                for number in range(1, _EVENTS):
                    emitter.emit(number)
                    for _ in range(2):  # turns, so that each is a segment of its own
                        await asyncio.sleep(0)
                rest = b"".join(framed("chunked", number) for number in range(1, _EVENTS))
                assert await caller.take(len(rest)) == rest
                found.append(turns.now() - emitter.sent_at)
            caller.leave()

    assert median(found) < LIMIT_TURNS, found
