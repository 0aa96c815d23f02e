"""The admin listener's bounds, on real sockets: nobody who connects can keep a probe out."""

import gzip
import socket

import pytest

from gateway.admin.connection import MAX_HEAD_BYTES
from gateway.admin.server import MOST_CONNECTIONS, MOST_FRESH, AdminServer
from tests.support.client import Caller, connect
from tests.support.health import State
from tests.support.until import until
from tests.unit.admin.test_listener import Admin, admin

ASK = b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n"


def _of(running: Admin) -> AdminServer:
    assert running.server is not None
    return running.server


async def _answers(caller: Caller) -> None:
    caller.send(ASK)
    assert (await caller.reply()).status == 200


async def test_probe_and_scrape_answer_beside_a_thousand_idle_connections() -> None:
    """They never hold more than their share, and none of what they hold is missed."""
    async with admin(State()) as running:
        idle = []
        for number in range(1000):
            idle.append(await connect(running.port))
            assert len(_of(running)._open) <= MOST_FRESH
            if number % 100 == 99:
                assert (await running.ask("/readyz")).status == 200
                assert (await running.ask("/metrics")).status == 200
        await until(lambda: len(_of(running)._open) <= MOST_CONNECTIONS)
        assert (await running.ask("/livez")).status == 200
        for caller in idle:
            caller.leave()


async def test_a_burst_of_connections_costs_little_and_turns_nobody_away() -> None:
    """Hundreds wait to be accepted, and aiohttp gets none of those that ask nothing."""
    async with admin(State()) as running:
        await _answers(first := await connect(running.port))
        where = ("127.0.0.1", running.port)  # whose loop stands still meanwhile
        burst = [socket.create_connection(where, timeout=10) for _ in range(300)]
        await _answers(last := await connect(running.port))
        handlers = _of(running)._runner.server
        assert handlers is not None
        assert len(handlers.connections) <= 2
        for connection in burst:
            connection.close()
        first.leave()
        last.leave()


async def test_the_one_silent_longest_makes_room() -> None:
    """A client that has asked lately stays, however old its connection is."""
    async with admin(State()) as running:
        oldest = await connect(running.port)
        await _answers(oldest)
        silent = [await connect(running.port) for _ in range(MOST_CONNECTIONS - 1)]
        await _answers(oldest)
        newest = await connect(running.port)
        assert await silent[0].rest() == b""
        await _answers(oldest)
        await _answers(newest)
        await _answers(silent[1])
        for caller in [oldest, newest, *silent]:
            caller.leave()


async def test_unfinished_heads_hold_little_and_make_room() -> None:
    """Each holds 16 KiB at most, and fewer than the bound are there."""
    begin = b"GET /livez HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 8000
    async with admin(State()) as running:
        callers = []
        for _ in range(200):
            callers.append(await connect(running.port))
            callers[-1].send(begin)
        assert (await running.ask("/livez")).status == 200
        held = [len(connection._unread) for connection in _of(running)._open]
        assert len(held) <= MOST_FRESH
        assert max(held) <= MAX_HEAD_BYTES
        for caller in callers:
            caller.leave()


@pytest.mark.parametrize("pieces", [1, 100])
async def test_a_head_above_16_kib_is_refused(pieces: int) -> None:
    """Whole or while it arrives."""
    head = b"GET /livez HTTP/1.1\r\nHost: localhost\r\n" + b"X: %b\r\n" % (b"x" * 4000) * 5
    async with admin(State()) as running:
        caller = await connect(running.port)
        size = len(head) // pieces
        for at in range(0, len(head), size):
            caller.send(head[at : at + size])
        reply = await caller.reply()
        assert (reply.status, reply.closes) == (431, True)
        assert await caller.rest() == b""
        caller.leave()


async def test_bodies_are_refused_unread() -> None:
    """Neither collected nor decompressed; an empty one is none."""
    bomb = gzip.compress(b"\0" * 2**20)
    async with admin(State(), may_quit=True) as running:
        for field in (b"Content-Length: %d" % len(bomb), b"Transfer-Encoding: chunked"):
            caller = await connect(running.port)
            caller.send(
                b"POST /quitquitquit HTTP/1.1\r\nHost: localhost\r\nContent-Encoding: gzip\r\n"
                + field
                + b"\r\n\r\n"
                + bomb
            )
            reply = await caller.reply()
            assert (reply.status, reply.closes) == (413, True)
            assert b"no body" in reply.body
            caller.leave()
        assert running.quits == 0
        assert (await running.ask("/quitquitquit", method="POST")).status == 200


@pytest.mark.parametrize(
    ("request_head", "status"),
    [
        (b"GET /livez HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
        (b"GET /livez HTTP/2.0\r\nHost: a\r\n\r\n", 505),
        (b"GET /../livez HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00", 501),
        (b"GET /livez HTTP/1.1\r\nHost: a\r\nExpect: cake\r\n\r\n", 417),
    ],
)
async def test_what_is_no_request_gets_nothing_but_its_status(
    request_head: bytes, status: int
) -> None:
    """And nothing of what was sent comes back."""
    async with admin(State()) as running:
        caller = await connect(running.port)
        caller.send(request_head)
        reply = await caller.reply()
        assert (reply.status, reply.closes) == (status, True)
        assert b"livez" not in reply.body
        assert await caller.rest() == b""
        caller.leave()


async def test_pipelined_requests_are_answered_in_order() -> None:
    """One is with its handler at a time; empty lines between them are ignored."""
    paths = ["/livez", "/readyz", "/nothing", "/livez"]
    async with admin(State()) as running:
        caller = await connect(running.port)
        caller.send(
            b"\r\n".join(f"GET {path} HTTP/1.1\r\nHost: a\r\n\r\n".encode() for path in paths)
        )
        assert [(await caller.reply()).status for _ in paths] == [200, 200, 421, 200]
        await _answers(caller)
        caller.leave()


@pytest.mark.parametrize("path", ["/livez", "/metrics", "/status", "/nothing", "/quitquitquit"])
async def test_no_answer_names_versions(path: str) -> None:
    """A stranger learns neither Python's nor aiohttp's."""
    async with admin(State(), may_quit=True) as running:
        for method in ("GET", "POST"):
            assert not (await running.ask(path, method=method)).values(b"server")
