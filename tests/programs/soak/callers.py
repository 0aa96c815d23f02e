"""The callers: each asks in its own way, again and again, and checks that the answer is its own."""

import asyncio
import hashlib
import io
import json
import random
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass

import aiohttp
from PIL import Image
from websockets.asyncio.client import connect
from websockets.exceptions import WebSocketException

from tests.programs.soak.ledger import Ledger

PATIENCE_S = 30
"""Nothing that is asked for takes longer; a call that does is lost."""
_LARGE = 2 << 20
_SLOW_READ = 32 * 1024
_SLOW_PAUSE_S = 0.02
_JSON = {"Content-Type": "application/json"}

Clock = Callable[[], float]


class WrongAnswerError(Exception):
    """The answer is not the one to this request; the text says what is wrong."""


class WrongStatusError(Exception):
    """The answer has another status than 200; the text is the status."""


class Light:
    """Green: callers may call. When it is red, `dark` tells that all have ended."""

    def __init__(self) -> None:
        self._green = asyncio.Event()
        self._calls = 0
        self._dark = asyncio.Event()
        self._dark.set()

    def switch(self, *, green: bool) -> None:
        """Let callers call, or let them end what they are about and wait."""
        if green:
            self._green.set()
        else:
            self._green.clear()

    async def dark(self) -> None:
        """Wait until no call is under way."""
        await self._dark.wait()

    async def __aenter__(self) -> None:
        await self._green.wait()
        self._calls += 1
        self._dark.clear()

    async def __aexit__(self, *_: object) -> None:
        self._calls -= 1
        if not self._calls:
            self._dark.set()


@dataclass
class Ways:
    """How callers reach the gateway."""

    url: str
    kept: aiohttp.ClientSession
    """Keeps its connections."""
    single: aiohttp.ClientSession
    """A new connection per call."""
    chance: random.Random


Ask = Callable[[Ways], Awaitable[None]]


@dataclass(frozen=True)
class Caller:
    """A kind of caller: one call after another, with a pause between them."""

    kind: str
    service: str
    ask: Ask
    pause_s: float
    count: int = 1
    leaves: bool = False
    """It does not wait for its answers."""


async def run(caller: Caller, ways: Ways, light: Light, ledger: Ledger, clock: Clock) -> None:
    """Call until cancelled.

    Cancellation: a call under way is not entered; switch the light to red first.
    """
    while True:
        async with light:
            began = clock()
            try:
                async with asyncio.timeout(PATIENCE_S):
                    await caller.ask(ways)
                outcome = ""
            except (WrongStatusError, WrongAnswerError) as error:
                outcome = str(error)
            except TimeoutError:
                outcome = "no answer"
            except (aiohttp.ClientError, WebSocketException, OSError, EOFError):
                outcome = "broken off"
            if caller.leaves:
                ledger.enter_left(caller.kind, caller.service, clock())
            else:
                ledger.enter(caller.kind, caller.service, began, clock(), outcome)
        await asyncio.sleep(caller.pause_s * ways.chance.uniform(0.5, 1.5))


async def _whole(answer: aiohttp.ClientResponse) -> bytes:
    if answer.status != 200:
        await answer.read()
        raise WrongStatusError(str(answer.status))
    return await answer.read()


def _expect(found: object, expected: object) -> None:
    if found != expected:
        raise WrongAnswerError("not its own answer")


async def _iris(session: aiohttp.ClientSession, ways: Ways) -> None:
    uuid = secrets.token_hex(8)
    flower = {
        name: round(ways.chance.uniform(0.1, 8), 3)
        for name in ("sepal_length", "sepal_width", "petal_length", "petal_width")
    }
    question = {"meta": {"uuid": uuid}, "data": {"req_data": [flower]}}
    async with session.post(f"{ways.url}/iris", json=question) as answer:
        told = json.loads(await _whole(answer))
    [result] = told["data"]["resp_data"]
    result.pop("predictresult")
    _expect((told["meta"]["uuid"], result), (uuid, flower))


async def ask_json(ways: Ways) -> None:
    """A prediction, on a connection that is kept."""
    await _iris(ways.kept, ways)


async def ask_once(ways: Ways) -> None:
    """The same on a connection of its own."""
    await _iris(ways.single, ways)


async def upload(ways: Ways) -> None:
    """A picture in a form."""
    side = ways.chance.randrange(4, 48)
    file = io.BytesIO()
    Image.frombytes("RGB", (side, side), secrets.token_bytes(3 * side**2)).save(file, "PNG")
    form = aiohttp.FormData()
    form.add_field("images", file.getvalue(), filename="a.png", content_type="image/png")
    async with ways.kept.post(f"{ways.url}/image", data=form) as answer:
        [result] = json.loads(await _whole(answer))["data"]["resp_data"]
    _expect(result["sha256"], hashlib.sha256(file.getvalue()).hexdigest())


async def _echoed(ways: Ways, service: str, body: bytes, data: object) -> None:
    async with ways.kept.post(f"{ways.url}/{service}", data=data, headers=_JSON) as answer:
        told = json.loads(await _whole(answer))["body"]
    _expect(told, {"bytes": len(body), "sha256": hashlib.sha256(body).hexdigest()})


async def send_chunks(ways: Ways) -> None:
    """A body whose length nobody knows before its end."""
    pieces = [ways.chance.randbytes(ways.chance.randrange(1, 20_000)) for _ in range(8)]

    async def produce() -> AsyncIterator[bytes]:
        for piece in pieces:
            yield piece
            await asyncio.sleep(0.005)

    await _echoed(ways, "echo", b"".join(pieces), produce())


async def send_much(ways: Ways) -> None:
    """A body of 2 MiB."""
    body = ways.chance.randbytes(_LARGE)
    await _echoed(ways, "echo", body, io.BytesIO(body))


async def listen(ways: Ways) -> None:
    """Server-sent events, read as they come."""
    count = ways.chance.randrange(3, 12)
    address = f"{ways.url}/echo?twin-sse={count}&twin-gap=40ms"
    async with ways.kept.post(address, data=b"{}", headers=_JSON) as answer:
        if answer.status != 200:
            raise WrongStatusError(str(answer.status))
        seen = [
            json.loads(line[6:])["event"]
            async for line in answer.content
            if line.startswith(b"data: ")
        ]
    _expect(seen, list(range(count)))


async def read_slowly(ways: Ways) -> None:
    """A large answer for a reader that takes its time; in chunks every other time."""
    size = ways.chance.randrange(300_000, 1_200_000)
    framing = ways.chance.choice(["", "&twin-chunked"])
    address = f"{ways.url}/echo?twin-size={size}{framing}"
    digest = hashlib.sha256()
    async with ways.kept.post(address, data=b"{}", headers=_JSON) as answer:
        if answer.status != 200:
            raise WrongStatusError(str(answer.status))
        while piece := await answer.content.read(_SLOW_READ):
            digest.update(piece)
            await asyncio.sleep(_SLOW_PAUSE_S)
    expected = (b"0123456789abcdef" * (size // 16 + 1))[:size]
    _expect(digest.digest(), hashlib.sha256(expected).digest())


async def leave(ways: Ways) -> None:
    """A call whose caller goes away before the answer, or in the middle of it."""
    head = ways.chance.choice([b"twin-delay=5s", b"twin-sse=100&twin-gap=50ms"])
    port = int(ways.url.rpartition(":")[2])
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(
            b"POST /echo?%b HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{}" % head
        )
        await writer.drain()
        if b"sse" in head:
            await reader.readuntil(b"event")
        else:
            await asyncio.sleep(0.1)
    finally:
        writer.close()


async def converse(ways: Ways) -> None:
    """A conversation over WebSocket."""
    address = f"{ways.url.replace('http', 'ws', 1)}/chat"
    async with connect(address, proxy=None) as socket:
        for _ in range(5):
            said = ways.chance.randbytes(ways.chance.randrange(1, 5000))
            await socket.send(said)
            _expect(await socket.recv(), said)
            await asyncio.sleep(0.02)


def ask_echo(service: str) -> Ask:
    """Return a caller's small question to a service that echoes."""

    async def ask(ways: Ways) -> None:
        body = secrets.token_hex(20).encode()
        await _echoed(ways, service, body, body)

    return ask


def crowd(rate: float) -> list[Caller]:
    """Everybody, at `rate` times the usual pace."""
    pause_s = 1 / rate
    return [
        Caller("json", "iris", ask_json, 0.08 * pause_s, count=4),
        Caller("one-shot", "iris", ask_once, 0.2 * pause_s, count=2),
        Caller("form", "image", upload, 0.3 * pause_s, count=2),
        Caller("chunked", "echo", send_chunks, 0.3 * pause_s, count=2),
        Caller("2 MiB", "echo", send_much, 1.5 * pause_s),
        Caller("events", "echo", listen, 0.2 * pause_s, count=3),
        Caller("slow reader", "echo", read_slowly, 0.5 * pause_s, count=2),
        Caller("leaves", "echo", leave, 2.5 * pause_s, leaves=True),
        Caller("websocket", "chat", converse, 0.2 * pause_s, count=2),
        Caller("flaky", "flaky", ask_echo("flaky"), 0.2 * pause_s, count=2),
        Caller("lost", "lost", ask_echo("lost"), 0.2 * pause_s, count=2),
    ]
