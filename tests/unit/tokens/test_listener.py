"""The token endpoint's bounds, on real sockets: a client that connects holds little of ours."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from gateway.http.host import AllowedHosts
from gateway.identity.credential import Credential
from gateway.tokens.listener import TokenListener
from tests.support.client import Caller, connect
from tests.support.until import until

ASK = b"GET /auth/iris HTTP/1.1\r\nHost: localhost\r\n\r\n"
TOKEN = Credential(b"X-Auth-Token: %b\r\n" % (b"t" * 4000), stale_at=1e9, expires_at=1e9)


class _Source:
    """An identity whose token is always at hand."""

    def usable(self, now: float) -> Credential | None:  # noqa: ARG002  # as the cache's
        return TOKEN

    async def obtain(self) -> Credential:
        return TOKEN

    def reject(self, credential: Credential) -> bool:  # noqa: ARG002  # as the cache's
        return False

    def fingerprint(self) -> str:
        return "0123abcd"


class Endpoint:
    """A running token endpoint."""

    def __init__(self, listener: TokenListener, port: int) -> None:
        self.listener = listener
        self.port = port

    @property
    def unsent_bytes(self) -> int:
        """What waits for clients that do not read."""
        return sum(one.unsent_bytes for one in self.listener._open)


@asynccontextmanager
async def endpoint(most: int = 512) -> AsyncIterator[Endpoint]:
    """Run the endpoint on a port of its own."""
    listener = TokenListener(lambda: 0.0, AllowedHosts(["127.0.0.1"]), most_connections=most)
    listener.sources = {"iris": _Source()}
    _, port = await listener.start("127.0.0.1", 0)
    yield Endpoint(listener, port)
    listener.close()
    await until(lambda: not listener._open)


async def _answers(caller: Caller) -> None:
    caller.send(ASK)
    reply = await caller.reply()
    assert (reply.status, len(reply.values(b"x-auth-token")[0])) == (200, 4000)


async def test_a_client_that_only_asks_waits_for_itself() -> None:
    """Ten thousand requests and no look at the answers, 40 MB: few are made before it reads."""
    async with endpoint() as running:
        caller = await connect(running.port, read_buffer=4096)
        caller.send(ASK * 10_000)
        other = await connect(running.port)
        for _ in range(50):
            await _answers(other)  # so that what it has sent has been looked at
            assert running.unsent_bytes < 2**20
        for _ in range(10_000):
            assert (await caller.reply()).status == 200
        await _answers(caller)
        caller.leave()
        other.leave()


async def test_an_answer_that_nobody_reads_does_not_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor its connection, though it is the last one on it."""
    monkeypatch.setattr("gateway.tokens.connection.IDLE_S", 0.3)
    async with endpoint() as running:
        caller = await connect(running.port, read_buffer=4096)
        last = ASK.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
        caller.send(ASK * 10_000 + last)
        await until(lambda: running.unsent_bytes > 0)
        await until(lambda: not running.listener._open)
        caller.leave()


async def test_the_one_silent_longest_makes_room() -> None:
    """A client that has asked lately stays, however old its connection is."""
    async with endpoint(most=3) as running:
        oldest = await connect(running.port)
        await _answers(oldest)
        silent = [await connect(running.port) for _ in range(2)]
        await _answers(oldest)
        newest = await connect(running.port)
        await _answers(newest)
        await _answers(oldest)
        assert await silent[0].rest() == b""
        await _answers(silent[1])
        assert len(running.listener._open) == 3
        for caller in [oldest, newest, *silent]:
            caller.leave()
