"""WebSocket through the gateway: a real client and server, and raw bytes where they hide things."""

import asyncio
import base64
import os
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest
import trustme
from websockets.asyncio.client import ClientConnection, connect
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.typing import Subprotocol

from gateway.downstream.client_stream import LOOK_S
from tests.exchange.test_timeouts import moved_by, ticks
from tests.support.client import Caller
from tests.support.fake_time import FakeTime
from tests.support.gateway import POST, RunningGateway, running_gateway
from tests.support.until import PATIENCE_S, until
from tests.support.upstream import OK, Link, Script, answer, scripted_upstream

ON = {"websocket": True, "methods": "POST"}
SWITCH = (
    b"GET /iris/chat HTTP/1.1\r\nHost: localhost\r\nConnection: keep-alive, Upgrade\r\n"
    b"Upgrade: websocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    b"Sec-WebSocket-Version: 13\r\nX-Auth-Token: theirs\r\nCookie: a=b\r\n\r\n"
)
SWITCHED = (
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\nSet-Cookie: stolen\r\n\r\n"
)
Handler = Callable[[ServerConnection], Awaitable[None]]


async def echo(connection: ServerConnection) -> None:
    async for message in connection:
        await connection.send(message)


@asynccontextmanager
async def conversing(
    handler: Handler, **service: object
) -> AsyncIterator[tuple[RunningGateway, ClientConnection, list[ServerConnection]]]:
    """Yield a gateway, a client that is connected through it, and the server's connections."""
    seen: list[ServerConnection] = []

    async def handle(connection: ServerConnection) -> None:
        seen.append(connection)
        await handler(connection)

    async with serve(handle, "127.0.0.1", 0, subprotocols=[Subprotocol("v2")]) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        async with (
            running_gateway(port, service=ON | service) as gateway,
            connect(
                f"ws://127.0.0.1:{gateway.port}/iris/chat?a=%2F",
                subprotocols=[Subprotocol("v2")],
                proxy=None,
            ) as client,
        ):
            yield gateway, client, seen


@asynccontextmanager
async def switching(
    script: Script, **service: object
) -> AsyncIterator[tuple[RunningGateway, Caller, list[Link]]]:
    """Yield a gateway in front of `script`, and a caller that has asked to switch."""
    async with (
        scripted_upstream(script) as upstream,
        running_gateway(upstream.port, service=ON | service) as gateway,
    ):
        caller = await gateway.connect()
        caller.send(SWITCH)
        yield gateway, caller, upstream.links


async def switched(link: Link) -> None:
    """Take a handshake."""
    await link.head()
    link.send(SWITCHED)


async def test_messages_go_both_ways() -> None:
    """Text, binary, pings, a subprotocol and compression, with our token on the handshake."""
    async with conversing(echo) as (gateway, client, servers):
        for message in ("text", b"\x00\xff" * 40_000, "", "x" * 300_000):
            await client.send(message)
            assert await client.recv() == message
        await (await client.ping())
        assert client.subprotocol == "v2"
        request = servers[0].request
        assert request is not None
        assert request.path == "/v1/infers/abc/chat?a=%2F"
        assert request.headers.get_all("X-Auth-Token") == ["token-1"]
        await client.close(1000, "done")
        await servers[0].wait_closed()
        assert (servers[0].close_code, servers[0].close_reason) == (1000, "done")
        await gateway.settled()
        record = await gateway.next_record()

        assert (record["status"], record["error"]) == (101, "")
        assert gateway.sample("gateway_requests_total", method="GET", code="101") == 1
        assert gateway.sample("gateway_errors_total") == 0
        assert gateway.sample("gateway_upstream_connections") == 0


async def test_messages_go_over_tls(tmp_path: Path) -> None:
    """A service behind wss, its name verified; neither large messages nor the end are cut."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(tls)
    settings = ON | {"tls": {"ca_file": str(tmp_path / "ca.pem")}}
    async with serve(echo, "127.0.0.1", 0, ssl=tls) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        async with (
            running_gateway(port, scheme="https", service=settings) as gateway,
            connect(f"ws://127.0.0.1:{gateway.port}/iris", proxy=None) as client,
        ):
            for size in (1, 100_000, 900_000):
                await client.send("x" * size)
                assert await client.recv() == "x" * size
            await client.close(1000, "done")
            await gateway.settled()
            assert client.close_code == 1000
            assert gateway.sample("gateway_errors_total") == 0


async def test_server_can_end_it() -> None:
    """The close frame arrives with its code before the connection ends."""

    async def goodbye(connection: ServerConnection) -> None:
        await connection.send("last words")
        await connection.close(4001, "enough")

    async with conversing(goodbye) as (gateway, client, _):
        assert await client.recv() == "last words"
        with pytest.raises(ConnectionClosed):
            await client.recv()
        assert (client.close_code, client.close_reason) == (4001, "enough")
        await gateway.settled()


async def test_what_was_said_last_arrives_before_the_end() -> None:
    """A caller that sends and leaves at once is heard to its end."""
    heard = asyncio.Queue[bytes]()

    async def script(link: Link) -> None:
        await switched(link)
        await link.hold()
        heard.put_nowait(bytes(link.received))
        assert not link.was_reset

    async with switching(script) as (gateway, caller, _):
        await caller.head()
        caller.send(b"frame" * 50_000)
        caller.half_close()
        received = await heard.get()
        assert received.endswith(b"frame" * 50_000)
        await gateway.settled()
        assert gateway.sample("gateway_errors_total") == 0


async def until_held(gateway: RunningGateway) -> None:
    """Return when nothing is read from the newest caller, so that its bytes stay in the kernel."""
    connection = gateway.gateway._parts.data.clients()[-1]
    async with asyncio.timeout(PATIENCE_S):
        while not connection.stream.held_by:  # noqa: ASYNC110  # nobody signals it
            await asyncio.sleep(0.01)


async def test_last_words_wait_for_a_service_that_is_slow() -> None:
    """A caller that ends while it is held up is heard to its end all the same."""
    go_on = asyncio.Event()
    sent = 0

    async def script(link: Link) -> None:
        await switched(link)
        await go_on.wait()
        assert (await link.read(sent)).endswith(b"last words")
        await link.hold()
        assert not link.was_reset

    async with switching(script) as (gateway, caller, _):
        await caller.head()
        connection = gateway.gateway._parts.data.clients()[-1]
        while not connection.stream.held_by:
            caller.send(bytes(65536))
            sent += 65536
            await asyncio.sleep(0.001)
        caller.send(b"last words")
        sent += 10
        caller.half_close()
        await asyncio.sleep(3 * LOOK_S)  # in which it is looked at whether the caller has left
        assert caller.unsent == 0
        go_on.set()
        await caller.rest()
        await gateway.settled()

        assert gateway.sample("gateway_errors_total") == 0


async def test_caller_that_leaves_before_the_switch_is_not_waited_for() -> None:
    """Nothing more is read from it until the service has answered, and yet it is noticed."""
    asked = asyncio.Event()

    async def script(link: Link) -> None:
        await link.head()
        asked.set()
        await link.hold()

    async with switching(script) as (gateway, caller, links):
        await asked.wait()
        caller.send(b"early")
        await until_held(gateway)
        caller.half_close()
        async with asyncio.timeout(PATIENCE_S):
            await links[0].ended.wait()
        await gateway.settled()

        assert gateway.sample("gateway_errors_total", error="client_disconnected") == 1


async def test_heads_are_filtered() -> None:
    """The handshake is an exchange as any: our identity up, no cookie or token down."""

    async def script(link: Link) -> None:
        await switched(link)
        await link.hold()

    async with switching(script) as (_, caller, links):
        head = await caller.head()
        [request] = links[0].requests

    assert head == (
        b"HTTP/1.1 101 Switching Protocols\r\n"
        b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"
        b"Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
    )
    assert request.values(b"x-auth-token") == [b"token-1"]
    assert request.values(b"connection") == [b"Upgrade"]
    assert request.values(b"upgrade") == [b"websocket"]
    assert request.values(b"cookie") == []
    assert not request.values(b"content-length") + request.values(b"transfer-encoding")


@pytest.mark.parametrize("behind", [True, False], ids=["in one piece", "after the head"])
async def test_who_cannot_wait_is_heard_after_the_switch(behind: bool) -> None:
    """Nothing of the other protocol goes before the 101; a server may speak in its segment."""
    asked, go_on = asyncio.Event(), asyncio.Event()

    async def script(link: Link) -> None:
        await link.head()
        asked.set()
        await go_on.wait()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await link.read(1)
        link.send(SWITCHED + b"first")
        assert await link.read(9) == b"earlylate"
        link.send(b"second")
        await link.hold()

    async with (
        scripted_upstream(script) as upstream,
        running_gateway(upstream.port, service=ON) as gateway,
    ):
        caller = await gateway.connect()
        caller.send(SWITCH + (b"early" if behind else b""))
        await asked.wait()
        if not behind:
            caller.send(b"early")
            await until_held(gateway)
        go_on.set()
        await caller.head()
        assert await caller.take(5) == b"first"
        caller.send(b"late")
        assert await caller.take(6) == b"second"


@pytest.mark.parametrize(
    "request_",
    [
        SWITCH.replace(b"Upgrade: websocket", b"Upgrade: h2c, websocket"),
        SWITCH.replace(b"keep-alive, Upgrade", b"keep-alive"),
        SWITCH.replace(b"GET", b"POST"),
        SWITCH.replace(b"HTTP/1.1", b"HTTP/1.0"),
        SWITCH.replace(b"Cookie: a=b", b"Content-Length: 5") + b"12345",
        SWITCH.replace(b"Cookie: a=b", b"Transfer-Encoding: chunked") + b"0\r\n\r\n",
        SWITCH.replace(b"Cookie: a=b", b"Expect: 100-continue"),
        SWITCH.replace(b"Cookie: a=b", b"Upgrade: websocket"),
        SWITCH.replace(b"websocket\r\n", b"websocket, h2c\r\n"),
    ],
)
async def test_other_upgrades_are_refused(request_: bytes) -> None:
    """Even where WebSocket is allowed; nothing is forwarded, and the connection ends."""
    async with (
        scripted_upstream(OK) as upstream,
        running_gateway(upstream.port, service=ON) as gateway,
    ):
        caller = await gateway.connect()
        caller.send(request_ + POST)
        reply = await caller.reply()
        assert await caller.rest() == b""

        assert (reply.status, reply.closes) == (400, True)
        assert upstream.links == []


async def test_off_unless_configured() -> None:
    """Refused without forwarding, whatever methods are allowed; web pages are refused anyway."""
    async with scripted_upstream(OK) as upstream:
        async with running_gateway(upstream.port) as gateway:
            assert (await gateway.ask(SWITCH)).status == 400
        async with running_gateway(upstream.port, service=ON) as gateway:
            page = SWITCH.replace(b"Cookie: a=b", b"Origin: http://localhost")
            assert (await gateway.ask(page)).status == 403
            # the switch alone needs no GET
            assert (
                await gateway.ask(b"GET /iris HTTP/1.1\r\nHost: localhost\r\n\r\n")
            ).status == 405

        assert upstream.links == []


@pytest.mark.parametrize(
    "said",
    [
        b"HTTP/1.1 101 Switching\r\n\r\n",
        b"HTTP/1.1 101 Switching\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n",
        b"HTTP/1.1 101 Switching\r\nUpgrade: websocket\r\n\r\n",
        b"HTTP/1.1 101 S\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nUpgrade: h2c\r\n\r\n",
        b"HTTP/1.1 101 S\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 3\r\n\r\n",
        b"HTTP/1.0 101 Switching\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
    ],
)
async def test_malformed_switch_is_502(said: bytes) -> None:
    """A 101 counts only when it says what we asked for."""

    async def script(link: Link) -> None:
        await link.head()
        link.send(said + b"evil")
        await link.hold()

    async with switching(script) as (_, caller, links):
        reply = await caller.reply()
        assert await caller.rest() == b""
        await links[0].ended.wait()

    assert reply.status == 502
    assert b"evil" not in reply.body


async def test_refused_handshake_is_an_answer() -> None:
    """What is not 101 is relayed as ever; the connection ends, for bytes may have followed."""
    async with (
        scripted_upstream(answer(403, b"no", b"X-Why: because")) as upstream,
        running_gateway(upstream.port, service=ON) as gateway,
    ):
        with pytest.raises(InvalidStatus) as refused:
            await connect(f"ws://127.0.0.1:{gateway.port}/iris", proxy=None)

        assert refused.value.response.status_code == 403
        assert refused.value.response.body == b"no"


async def test_rejected_token_is_renewed_on_the_handshake() -> None:
    """As for any request: once, and the caller does not notice."""
    rejection = answer(401, b'{"error_code":"ModelArts.0203"}', b"Content-Type: application/json")

    async def script(link: Link) -> None:
        request = await link.head()
        if request.values(b"x-auth-token") == [b"token-1"]:
            link.send(rejection)
            request = await link.head()
        assert request.values(b"upgrade") == [b"websocket"]
        link.send(SWITCHED)
        await link.hold()

    async with switching(script) as (gateway, caller, _):
        assert (await caller.head()).startswith(b"HTTP/1.1 101 ")
        assert gateway.credentials.healed == [b"X-Auth-Token: token-2\r\n"]


async def test_who_does_not_read_pauses_the_other() -> None:
    """Both ways at a time: what the kernel does not take stays with who wrote it, not with us."""
    total = 32 * 2**20
    go_on = asyncio.Event()

    async def script(link: Link) -> None:
        await switched(link)
        link.send(bytes(total))
        await go_on.wait()
        assert len(await link.read(total)) == total
        link.send(b"end")
        await link.hold()

    async with switching(script) as (_, caller, links):
        await caller.head()
        caller.send(bytes(total))
        left, looks_alike = (0, 0), 0
        while looks_alike < 4:  # until neither moves any more, which nobody tells
            await asyncio.sleep(0.1)
            before, left = left, (caller.unsent, links[0].unsent)
            looks_alike = looks_alike + 1 if left == before else 0

        assert min(left) > total / 2
        go_on.set()
        assert len(await caller.take(total)) == total
        assert await caller.take(3) == b"end"


@pytest.mark.parametrize("who", ["caller", "service"])
async def test_either_side_keeps_it_from_being_idle(who: str) -> None:
    """Idle is when neither has said anything; then it ends, and nobody is blamed."""
    time = FakeTime()

    async def script(link: Link) -> None:
        await switched(link)
        await link.hold()

    async with (
        scripted_upstream(script) as upstream,
        running_gateway(upstream.port, service=ON | {"timeouts": {"idle": "60s"}}) as gateway,
    ):
        moved_by(gateway, time)
        caller = await gateway.connect()
        caller.send(SWITCH)
        await caller.head()
        [link] = upstream.links
        for count in range(1, 7):
            time.now += 59
            await ticks()
            if who == "service":
                link.send(b"x")
                assert await caller.take(1) == b"x"
            else:
                caller.send(b"x")
                await until(partial(link.received.endswith, b"x" * count))
        time.now += 61
        async with asyncio.timeout(PATIENCE_S):
            await link.ended.wait()
        await caller.rest()
        await gateway.settled()

        assert not link.was_reset
        assert gateway.sample("gateway_errors_total") == 0
        # how long they talked is no latency: their handshake is
        assert gateway.sample("gateway_request_duration_seconds_sum") < 3
        assert (await gateway.next_record())["duration_us"] > 400_000_000


async def test_cut_service_is_a_cut_for_the_caller() -> None:
    """A reset is passed on as one, and counted."""

    async def script(link: Link) -> None:
        await switched(link)
        assert await link.read(2) == b"go"
        link.reset()

    async with switching(script) as (gateway, caller, _):
        await caller.head()
        caller.send(b"go")
        assert await caller.rest() == b""
        await gateway.settled()

        assert caller.was_reset
        assert gateway.sample("gateway_errors_total", error="http_response_incomplete") == 1


async def test_caller_that_resets_is_gone() -> None:
    """The service hears of it at once."""

    async def script(link: Link) -> None:
        await switched(link)
        await link.hold()

    async with switching(script) as (gateway, caller, links):
        await caller.head()
        caller.reset()
        await links[0].ended.wait()
        await gateway.settled()

        assert gateway.sample("gateway_errors_total", error="client_disconnected") == 1


async def test_drain_lets_it_finish_and_then_breaks_it_off() -> None:
    """Within `drain.timeout` it goes on; after that both sides see it end."""

    async def script(link: Link) -> None:
        await switched(link)
        assert await link.read(6) == b"during"
        link.send(b"answer")
        await link.hold()

    async with (
        scripted_upstream(script) as upstream,
        running_gateway(
            upstream.port, service=ON, settings={"drain": {"timeout": "1s"}}
        ) as gateway,
    ):
        caller = await gateway.connect()
        caller.send(SWITCH)
        await caller.head()
        stopping = asyncio.create_task(gateway.gateway.stop(), name="stop")
        while not gateway.gateway.draining:  # noqa: ASYNC110  # nobody signals it
            await asyncio.sleep(0)
        caller.send(b"during")
        assert await caller.take(6) == b"answer"
        assert await caller.rest() == b""
        await upstream.links[0].ended.wait()
        await stopping


async def test_many_at_once_do_not_mix() -> None:
    """Forty conversations, each of which gets its own words back."""
    async with serve(echo, "127.0.0.1", 0) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        async with running_gateway(port, service=ON) as gateway:

            async def converse() -> None:
                mine = base64.b64encode(os.urandom(3000)).decode()
                async with connect(f"ws://127.0.0.1:{gateway.port}/iris", proxy=None) as client:
                    for number in range(10):
                        await client.send(f"{number} {mine}")
                        assert await client.recv() == f"{number} {mine}"

            await asyncio.gather(*(converse() for _ in range(40)))
            await gateway.settled()
            assert gateway.sample("gateway_requests_total", code="101") == 40
