"""How long a connection to the admin listener may take for what; time stands still between."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from aiohttp import web

from gateway.admin.connection import HEAD_TIMEOUT_S, IDLE_TIMEOUT_S, AdminConnection
from gateway.admin.server import AdminServer
from tests.support.memory_transport import Client, Fate, MemoryTransport

ASK = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"


class Asked:
    """A connection, and the handler behind it."""

    def __init__(self) -> None:
        self.answers = asyncio.Event()
        self.answers.set()
        self.application = web.Application()
        self.application.router.add_get("/", self._answer)
        self.server = AdminServer(self.application)

    async def _answer(self, _request: web.Request) -> web.Response:
        await self.answers.wait()
        return web.Response(text="x" * 100_000)

    def connect(self) -> Client:
        return Client(MemoryTransport(self.server._make()))


@pytest.fixture
async def asked() -> AsyncIterator[Asked]:
    made = Asked()
    await made.server._runner.setup()
    yield made
    await made.server.close()


async def test_silence_ends_after_a_while(asked: Asked) -> None:
    """Before the first request, and after each answer."""
    silent, served = asked.connect(), asked.connect()
    await asyncio.sleep(IDLE_TIMEOUT_S - 1)
    served.sends(ASK)
    await asyncio.sleep(2)
    assert silent.fate is not Fate.OPEN
    assert (served.reply.status, served.fate) == (200, Fate.OPEN)
    await asyncio.sleep(IDLE_TIMEOUT_S)
    assert served.fate is not Fate.OPEN


async def test_an_unfinished_head_ends_soon_however_it_drips(asked: Asked) -> None:
    """Its deadline counts from its first byte, also behind an answer."""
    caller = asked.connect()
    caller.sends(ASK)
    await asyncio.sleep(1)
    for at in range(int(HEAD_TIMEOUT_S * 2) + 1):
        caller.sends(ASK[at : at + 1])
        await asyncio.sleep(0.5)
    assert [reply.status for reply in caller.replies] == [200, 408]
    await asyncio.sleep(2)
    assert caller.fate is not Fate.OPEN


async def test_an_answer_that_nobody_reads_is_given_up(asked: Asked) -> None:
    """Its connection does not stay for ever."""
    caller = asked.connect()
    caller.stops_reading()
    caller.sends(ASK)
    await asyncio.sleep(IDLE_TIMEOUT_S + 1)
    assert caller.fate in {Fate.ABORTED, Fate.RESET}


async def test_a_handler_that_hangs_costs_its_own_connection_only(asked: Asked) -> None:
    """Others are answered meanwhile, and it is closed in the end."""
    asked.answers.clear()
    caller = asked.connect()
    caller.sends(ASK)
    await asyncio.sleep(59)
    assert caller.fate is Fate.OPEN
    await asyncio.sleep(2)
    assert caller.fate is not Fate.OPEN
    asked.answers.set()
    other = asked.connect()
    other.sends(ASK)
    await asyncio.sleep(1)
    assert other.reply.status == 200


async def test_one_request_at_a_time_is_with_the_handler(asked: Asked) -> None:
    """What is behind it waits unread."""
    asked.answers.clear()
    caller = asked.connect()
    caller.sends(ASK, ASK)
    await asyncio.sleep(1)
    assert not caller.is_read
    [connection] = asked.server._open
    assert isinstance(connection, AdminConnection)
    asked.answers.set()
    await asyncio.sleep(1)
    assert [reply.status for reply in caller.replies] == [200, 200]
    assert caller.is_read
