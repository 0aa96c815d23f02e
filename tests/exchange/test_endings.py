"""Exchanges that end badly: nobody takes a cut message for a whole one, nothing is left behind."""

import asyncio
import ssl
from collections.abc import Callable

import pytest
import trustme

from gateway.identity.credential import Credential
from tests.support.client import Caller
from tests.support.gateway import (
    GET,
    POST,
    FakeCredentials,
    RunningGateway,
    _give_credentials,
    running_gateway,
)
from tests.support.until import PATIENCE_S, until
from tests.support.upstream import OK, Link, Script, Upstream, answer, scripted_upstream

MIB = 2**20
SOON_S = 25.0
"""Within this a call must be gone upstream after its caller has left."""

UPLOADS = pytest.mark.parametrize(
    "upload",
    [
        b"POST /iris HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\nbegun",
        (
            b"POST /iris HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
            b"5\r\nbegun\r\n"
        ),
    ],
    ids=["length", "chunked"],
)
LEAVINGS = pytest.mark.parametrize(
    "leave", [Caller.leave, Caller.reset, Caller.half_close], ids=["close", "reset", "half_close"]
)


def counts(gateway: RunningGateway) -> tuple[int, int]:
    """Return how many connections to the service are active and idle."""
    pool = gateway.services[0].pool
    labels = {"service": "iris"}
    active = gateway.sample("gateway_upstream_connections", state="active", **labels)
    idle = gateway.sample("gateway_upstream_connections", state="idle", **labels)
    assert (active, idle) == (pool.active, pool.idle)
    return pool.active, pool.idle


class Stage:
    """A script's word that it has got to where the test wants it."""

    def __init__(self) -> None:
        self.reached = asyncio.Event()

    async def wait(self) -> None:
        async with asyncio.timeout(PATIENCE_S):
            await self.reached.wait()


async def gone(upstream: Upstream, number: int = 0) -> None:
    """Wait until the gateway has closed a connection."""
    async with asyncio.timeout(SOON_S):
        await upstream.links[number].ended.wait()


# The caller leaves.


@LEAVINGS
async def test_caller_that_leaves_while_waiting_aborts_the_call(
    leave: Callable[[Caller], None],
) -> None:
    """The service is spared the rest, and its late answer reaches nobody."""
    stage = Stage()

    async def script(link: Link) -> None:
        await link.request()
        stage.reached.set()
        await link.hold()
        link.send(OK)

    async with scripted_upstream(script) as upstream, running_gateway(upstream.port) as gateway:
        caller = await gateway.connect()
        caller.send(POST)
        await stage.wait()
        assert counts(gateway) == (1, 0)
        leave(caller)
        await gone(upstream)
        record = await gateway.next_record()
        assert counts(gateway) == (0, 0)

    assert (record["status"], record["error"]) == (0, "client_disconnected")


@UPLOADS
@LEAVINGS
async def test_caller_that_leaves_its_upload_never_completes_it(
    leave: Callable[[Caller], None], upload: bytes
) -> None:
    """The service sees a request that was cut, whatever the framing, and never its end."""
    stage = Stage()

    async def script(link: Link) -> None:
        await link.head()
        while b"begun" not in link.received:
            await link._more()
        stage.reached.set()
        await link.hold()

    async with scripted_upstream(script) as upstream, running_gateway(upstream.port) as gateway:
        caller = await gateway.connect()
        caller.send(upload)
        await stage.wait()
        leave(caller)
        await gone(upstream)
        record = await gateway.next_record()
        assert counts(gateway) == (0, 0)

    assert record["error"] == "client_disconnected"
    assert upstream.received.endswith(upload.partition(b"\r\n\r\n")[2])


@LEAVINGS
@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nbegun",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nbegun\r\n",
        b"HTTP/1.1 200 OK\r\n\r\nbegun",
    ],
    ids=["length", "chunked", "close"],
)
async def test_caller_that_leaves_its_answer_aborts_it(
    leave: Callable[[Caller], None], head: bytes
) -> None:
    """The rest of the answer is not waited for, and the connection is not kept."""

    async def script(link: Link) -> None:
        await link.request()
        link.send(head)
        await link.hold()

    async with scripted_upstream(script) as upstream, running_gateway(upstream.port) as gateway:
        caller = await gateway.connect()
        caller.send(POST)
        await caller.head()
        leave(caller)
        await gone(upstream)
        record = await gateway.next_record()
        assert counts(gateway) == (0, 0)

    assert (record["status"], record["error"]) == (200, "client_disconnected")


async def test_caller_that_leaves_without_reading_a_large_answer_aborts_it() -> None:
    """Also while the gateway has stopped reading for its sake."""

    async def script(link: Link) -> None:
        await link.request()
        link.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (32 * MIB))
        for _ in range(32):
            link.send(b"x" * MIB)
        await link.flush()
        await link.hold()

    async with scripted_upstream(script) as upstream, running_gateway(upstream.port) as gateway:
        caller = await gateway.connect(read_buffer=65536)
        caller.send(POST)
        await caller.head()
        [downstream] = gateway.gateway._parts.data.clients()
        await until(downstream.stream.writing_paused)
        caller.reset()
        async with asyncio.timeout(SOON_S):
            await gateway.settled()
        assert counts(gateway) == (0, 0)


@LEAVINGS
async def test_caller_that_leaves_while_the_service_does_not_read_aborts_the_call(
    leave: Callable[[Caller], None],
) -> None:
    """Also while the gateway has stopped reading for the service's sake."""

    async def script(link: Link) -> None:
        await link.head()
        await asyncio.Event().wait()

    async with (
        scripted_upstream(script) as upstream,
        running_gateway(upstream.port, service={"max_body": "64MiB"}) as gateway,
    ):
        caller = await gateway.connect()
        caller.send(b"POST /iris HTTP/1.1\r\nHost: localhost\r\nContent-Length: 50000000\r\n\r\n")
        await until(lambda: upstream.requests)
        [downstream] = gateway.gateway._parts.data.clients()
        while not downstream.stream.held_by:
            caller.send(bytes(65536))
            await asyncio.sleep(0)
        await until(lambda: caller.unsent == 0)
        leave(caller)
        async with asyncio.timeout(SOON_S):
            await gateway.settled()
        assert counts(gateway) == (0, 0)
        record = await gateway.next_record()

    assert record["error"] == "client_disconnected"


async def test_caller_that_leaves_before_a_connection_is_there_sends_nothing() -> None:
    """The wait for a token ends with its caller."""
    async with scripted_upstream(OK) as upstream, running_gateway(upstream.port) as gateway:
        gateway.credentials.at_hand = False
        gateway.credentials.gate.clear()
        caller = await gateway.connect()
        caller.send(POST)
        await until(lambda: gateway.sample("gateway_requests_in_flight"))
        caller.leave()
        record = await gateway.next_record()
        gateway.credentials.gate.set()
        assert counts(gateway) == (0, 0)

    assert record["error"] == "client_disconnected"
    assert upstream.links == []


# The service ends in the middle.

CUT_BODIES = pytest.mark.parametrize(
    "said",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nbegun",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nbegun\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nbegun",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nbegun\r\n0\r\n",
    ],
)


@CUT_BODIES
@pytest.mark.parametrize("end", [Link.close, Link.half_close, Link.reset])
@pytest.mark.parametrize("version", [b"1.1", b"1.0"])
async def test_answer_that_is_cut_is_never_ended(
    said: bytes, end: Callable[[Link], None], version: bytes
) -> None:
    """The caller's connection is reset, also where its end would be the end of the body."""
    stage = Stage()

    async def script(link: Link) -> None:
        await link.request()
        link.send(said)
        await stage.wait()
        end(link)

    async with scripted_upstream(script) as upstream, running_gateway(upstream.port) as gateway:
        caller = await gateway.connect()
        caller.send(POST.replace(b"HTTP/1.1", b"HTTP/" + version))
        await caller.head()
        stage.reached.set()
        rest = await caller.rest()
        record = await gateway.next_record()
        assert counts(gateway) == (0, 0)

    assert caller.was_reset
    assert b"0\r\n" not in rest
    assert (record["status"], record["error"]) == (200, "http_response_incomplete")


async def test_close_delimited_answer_that_is_reset_is_never_ended() -> None:
    """Only a FIN ends such a body."""
    stage = Stage()

    async def script(link: Link) -> None:
        await link.request()
        link.send(b"HTTP/1.1 200 OK\r\n\r\nbegun")
        await stage.wait()
        link.reset()

    async with scripted_upstream(script) as upstream, running_gateway(upstream.port) as gateway:
        caller = await gateway.connect()
        caller.send(POST)
        await caller.head()
        stage.reached.set()
        await caller.rest()
        record = await gateway.next_record()

    assert caller.was_reset
    assert record["error"] == "http_response_incomplete"


@pytest.mark.parametrize(("end", "clean"), [(Link.cut, False), (Link.close, True)])
async def test_close_delimited_answer_over_tls_ends_with_close_notify(
    end: Callable[[Link], None], clean: bool
) -> None:
    """A bare FIN may be an attacker's: the answer is broken off instead of ended."""
    authority = trustme.CA()
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(server)
    stage = Stage()

    async def script(link: Link) -> None:
        await link.request()
        link.send(b"HTTP/1.1 200 OK\r\n\r\nbegun")
        await stage.wait()
        end(link)
        await link.hold()

    with authority.cert_pem.tempfile() as ca_file:
        async with (
            scripted_upstream(script, tls=server) as upstream,
            running_gateway(
                upstream.port, scheme="https", service={"tls": {"ca_file": ca_file}}
            ) as gateway,
        ):
            caller = await gateway.connect()
            caller.send(POST)
            await caller.head()
            stage.reached.set()
            async with asyncio.timeout(SOON_S):
                assert await caller.rest() == b"begun"
            record = await gateway.next_record()
            assert counts(gateway) == (0, 0)

    assert caller.was_reset != clean
    assert record["error"] == ("" if clean else "http_response_incomplete")


@pytest.mark.parametrize(
    "said", [b"", b"HTTP", b"HTTP/1.1 200 OK\r\nX: y\r\n", b"HTTP/1.1 100 Continue\r\n\r\n"]
)
@pytest.mark.parametrize("end", [Link.close, Link.reset])
async def test_cut_before_the_head_is_502(said: bytes, end: Callable[[Link], None]) -> None:
    """Nothing has been relayed, so the caller gets an answer and keeps its connection."""

    async def script(link: Link) -> None:
        await link.request()
        if said:
            link.send(said)
        end(link)

    async with scripted_upstream(script) as upstream, running_gateway(upstream.port) as gateway:
        caller = await gateway.connect()
        for _ in range(2):
            caller.send(POST)
            reply = await caller.reply()
            assert (reply.status, reply.closes) == (502, False)
            assert b"Gateway.ConnectionTerminated" in reply.body
            assert counts(gateway) == (0, 0)

    assert len(upstream.requests) == 2


# Answers before the whole request.


@pytest.mark.parametrize("status", [413, 401, 200])
async def test_answer_before_the_body_was_read_is_relayed(status: int) -> None:
    """Sending stops, both connections end, and the caller has its answer without a reset."""
    stage = Stage()
    said = answer(status, b"enough")

    async def script(link: Link) -> None:
        await link.head()
        link.send(said)
        await stage.wait()
        await link.hold()

    async with (
        scripted_upstream(script) as upstream,
        running_gateway(upstream.port, service={"max_body": "64MiB"}) as gateway,
    ):
        caller = await gateway.connect()
        caller.send(
            b"POST /iris HTTP/1.1\r\nHost: localhost\r\nContent-Length: 50000000\r\n\r\n"
            + b"x" * 20_000_000
        )
        reply = await caller.reply()
        assert await caller.rest() == b""
        assert counts(gateway) == (0, 0)
        stage.reached.set()
        await gone(upstream)

    assert (reply.status, reply.body, reply.closes) == (status, b"enough", True)
    assert not caller.was_reset
    assert not upstream.only.whole
    assert len(upstream.received) < 20_000_000


async def test_rest_of_an_unread_upload_is_not_the_next_request() -> None:
    """Neither side's connection is used again, so nothing is taken for what it is not."""

    async def script(link: Link) -> None:
        await link.head()
        link.send(answer(413, b"too much"))
        await link.hold()

    async with scripted_upstream(script) as upstream, running_gateway(upstream.port) as gateway:
        caller = await gateway.connect()
        caller.send(b"POST /iris HTTP/1.1\r\nHost: localhost\r\nContent-Length: 500\r\n\r\n")
        assert (await caller.reply()).status == 413
        caller.send(GET)
        assert await caller.rest() == b""
        await gateway.settled()

    assert len(upstream.requests) == 1


# Bytes that nobody asked for.


async def test_unasked_bytes_on_an_idle_connection_end_it() -> None:
    """They are not the answer to the next request."""
    stage = Stage()

    async def script(link: Link) -> None:
        await link.request()
        link.send(OK)
        if link.number == 0:
            await stage.wait()
            link.send(answer(200, b"stolen"))
        await link.hold()

    async with scripted_upstream(script) as upstream, running_gateway(upstream.port) as gateway:
        caller = await gateway.connect()
        caller.send(POST)
        assert (await caller.reply()).body == b"ok"
        assert counts(gateway) == (0, 1)
        stage.reached.set()
        await gone(upstream)
        assert counts(gateway) == (0, 0)
        caller.send(POST)
        assert (await caller.reply()).body == b"ok"

    assert [len(link.requests) for link in upstream.links] == [1, 1]


@pytest.mark.parametrize(
    "extra",
    [
        b"x", b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nstolen", b"\x00", b"0\r\n\r\n", b"\r\n",
        b"\n", b"\r", b"\r\n\r\n", b"HTTP/1.1 100 Go\r\n\r\n",
    ],
)  # fmt: skip
@pytest.mark.parametrize(
    "said", [OK, b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"]
)
async def test_bytes_after_an_answer_end_its_connection(said: bytes, extra: bytes) -> None:
    """The answer is good and is relayed; what follows it in the same segment is not."""
    async with (
        scripted_upstream(said + extra) as upstream,
        running_gateway(upstream.port) as gateway,
    ):
        caller = await gateway.connect()
        for _ in range(2):
            caller.send(POST)
            assert (await caller.reply()).body == b"ok"
            assert counts(gateway) == (0, 0)

    assert [len(link.requests) for link in upstream.links] == [1, 1]
    assert b"stolen" not in caller.received


async def test_body_after_an_answer_to_head_ends_its_connection() -> None:
    """It would be taken for the next answer."""
    said = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nstolen"
    async with scripted_upstream(said) as upstream, running_gateway(upstream.port) as gateway:
        caller = await gateway.connect()
        for _ in range(2):
            caller.send(GET.replace(b"GET", b"HEAD"))
            reply = await caller.reply(to_head=True)
            assert reply.values(b"content-length") == [b"6"]

    assert [len(link.requests) for link in upstream.links] == [1, 1]
    assert b"stolen" not in caller.received


# Kept connections that die.


@pytest.mark.parametrize("end", [Link.close, Link.half_close, Link.reset])
async def test_kept_connection_that_ended_is_not_used(end: Callable[[Link], None]) -> None:
    """A FIN or RST while idle costs nobody a request, whatever the method."""
    stage = Stage()

    async def script(link: Link) -> None:
        await link.request()
        link.send(OK)
        if link.number == 0:
            await stage.wait()
            end(link)
        await link.hold()

    async with scripted_upstream(script) as upstream, running_gateway(upstream.port) as gateway:
        caller = await gateway.connect()
        caller.send(POST)
        assert (await caller.reply()).body == b"ok"
        stage.reached.set()
        await until(lambda: counts(gateway) == (0, 0))
        caller.send(POST)
        assert (await caller.reply()).body == b"ok"
        record = await gateway.next_record()
        assert record["retries"] == 0

    assert [len(link.requests) for link in upstream.links] == [1, 1]


def dying_when_kept(*, partial: bytes = b"", alive_from: int = 1) -> Script:
    """Make a script: connections below `alive_from` reset the second request they get."""

    async def script(link: Link) -> None:
        await link.request()
        link.send(OK)
        await link.request()
        if link.number < alive_from:
            if partial:
                link.send(partial)
                await link.flush()
                await asyncio.sleep(0.05)  # a RST overtakes what has not been read
            link.reset()
            return
        link.send(OK)
        await link.hold()

    return script


@pytest.mark.parametrize(
    ("method", "status", "requests"),
    [
        (b"GET", 200, 3), (b"HEAD", 200, 3), (b"PUT", 200, 3), (b"DELETE", 200, 3),
        (b"OPTIONS", 200, 3), (b"POST", 502, 2), (b"PATCH", 502, 2),
    ],
)  # fmt: skip
async def test_request_lost_on_a_kept_connection_is_sent_again_if_it_may_be(
    method: bytes, status: int, requests: int
) -> None:
    """The service may have acted on it: only idempotent methods go again, and on a new one."""

    async with (
        scripted_upstream(dying_when_kept()) as upstream,
        running_gateway(upstream.port) as gateway,
    ):
        caller = await gateway.connect()
        caller.send(POST)
        assert (await caller.reply()).status == 200
        await gateway.next_record()
        caller.send(POST.replace(b"POST", method))
        reply = await caller.reply(to_head=method == b"HEAD")
        record = await gateway.next_record()
        sample = gateway.sample("gateway_upstream_retries_total", reason="stale_connection")
        active, _ = counts(gateway)

    assert reply.status == status
    assert len(upstream.requests) == requests
    assert record["retries"] == sample == requests - 2
    assert active == 0


async def test_request_is_not_sent_again_after_a_byte_of_its_answer() -> None:
    """The service was at work on it."""
    async with (
        scripted_upstream(dying_when_kept(partial=b"HTTP/1.1 2")) as upstream,
        running_gateway(upstream.port) as gateway,
    ):
        caller = await gateway.connect()
        caller.send(POST)
        assert (await caller.reply()).status == 200
        caller.send(GET)
        assert (await caller.reply()).status == 502

    assert len(upstream.requests) == 2


async def test_request_is_not_sent_again_on_its_first_connection() -> None:
    """A new connection that fails has failed; it cannot have been closed for being idle."""

    async def script(link: Link) -> None:
        await link.request()
        link.reset()

    async with scripted_upstream(script) as upstream, running_gateway(upstream.port) as gateway:
        assert (await gateway.ask(GET)).status == 502

    assert len(upstream.requests) == 1


async def test_request_is_sent_again_once_only() -> None:
    """When the second kept connection dies as well, that is the answer."""
    first_two = asyncio.Barrier(2)

    async def script(link: Link) -> None:
        await link.request()
        await first_two.wait()
        link.send(OK)
        await link.request()
        link.reset()

    async with scripted_upstream(script) as upstream, running_gateway(upstream.port) as gateway:
        callers = [await gateway.connect() for _ in range(2)]
        for caller in callers:
            caller.send(POST)
        for caller in callers:
            assert (await caller.reply()).status == 200
        assert counts(gateway) == (0, 2)
        callers[0].send(GET)
        assert (await callers[0].reply()).status == 502
        assert counts(gateway) == (0, 0)

    assert len(upstream.requests) == 4


class ClosingCredentials(FakeCredentials):
    """Has `close` called in the very turn in which a connection is taken."""

    close: Callable[[], None] = staticmethod(lambda: None)

    def usable(self, now: float) -> Credential | None:
        self.close()
        return super().usable(now)


async def test_post_is_sent_again_when_nothing_was_written() -> None:
    """A kept connection found closed at the moment of writing has not seen the request."""
    async with scripted_upstream(OK) as upstream, running_gateway(upstream.port) as gateway:
        credentials = ClosingCredentials()
        _give_credentials(gateway.gateway, credentials)
        caller = await gateway.connect()
        caller.send(POST)
        assert (await caller.reply()).status == 200
        await gateway.next_record()
        [kept] = gateway.services[0].pool._idle
        assert kept._transport is not None
        credentials.close = kept._transport.close
        caller.send(POST)
        assert (await caller.reply()).body == b"ok"
        record = await gateway.next_record()
        assert counts(gateway) == (0, 1)

    assert record["retries"] == 1
    assert [len(link.requests) for link in upstream.links] == [1, 1]
