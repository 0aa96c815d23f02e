"""The errors we answer ourselves: their shape, what they give away, and what follows them."""

import asyncio
import json
import re
import socket

import pytest

from gateway.errors import CredentialError, ErrorCode
from tests.support.client import Reply
from tests.support.gateway import GET, POST, RunningGateway, running_gateway
from tests.support.until import until
from tests.support.upstream import OK, Link, Script, answering, scripted_upstream

LIMIT = 1000
ONLY_POST = {"methods": "POST", "max_body": LIMIT}
FULL = b"%x\r\n%b\r\n" % (LIMIT, b"x" * LIMIT)

# RFC 9209 section 2.3 and the IANA registry made from it.
PROXY_ERRORS = {
    "dns_timeout", "dns_error", "destination_not_found", "destination_unavailable",
    "destination_ip_prohibited", "destination_ip_unroutable", "connection_refused",
    "connection_terminated", "connection_timeout", "connection_read_timeout",
    "connection_write_timeout", "connection_limit_reached", "tls_protocol_error",
    "tls_certificate_error", "tls_alert_received", "http_request_error", "http_request_denied",
    "http_response_incomplete", "http_response_header_section_size",
    "http_response_header_size", "http_response_body_size", "http_response_trailer_section_size",
    "http_response_trailer_size", "http_response_transfer_coding", "http_response_content_coding",
    "http_response_timeout", "http_upgrade_failed", "http_protocol_error",
    "proxy_internal_response",
    "proxy_internal_error", "proxy_configuration_error", "proxy_loop_detected",
}  # fmt: skip


def request(start: bytes, *fields: bytes, body: bytes = b"") -> bytes:
    """A request with Host and what is given."""
    return b"\r\n".join([start + b" HTTP/1.1", b"Host: localhost", *fields, b"", body])


def assert_ours(reply: Reply, code: ErrorCode, gateway: RunningGateway, port: int) -> None:
    """Hold an error against the shape of ours, and against giving anything away."""
    assert reply.status == code.status
    assert reply.complete
    assert reply.values(b"content-type") == [b"application/json"]
    assert reply.values(b"proxy-status") == [
        b"modelarts-gateway; error=" + code.value.proxy_error.encode()
    ]
    document = json.loads(reply.body)
    assert set(document) == {"error_code", "error_msg", "request_id"}
    assert document["error_code"] == f"Gateway.{code.value.name}"
    assert document["error_msg"] == code.value.sentence
    assert reply.values(b"x-request-id") == [document["request_id"].encode()]
    whole = reply.head + reply.body
    assert b"127.0.0.1" not in whole
    assert b"%d" % port not in whole
    assert b"token-" not in whole
    assert b"/v1/infers" not in whole
    assert not reply.values(b"server")


def test_every_proxy_status_is_registered() -> None:
    """All types are of RFC 9209, and no sentence of ours needs an address."""
    for code in ErrorCode:
        assert code.value.proxy_error in PROXY_ERRORS
        assert code.status == 0 or 400 <= code.status <= 599
        assert code.value.sentence.isascii()


GOES_ON = [
    (request(b"POST /nobody", b"Content-Length: 2", body=b"{}"), ErrorCode.UNKNOWN_SERVICE),
    (request(b"POST /v1/infers/other", b"Content-Length: 0"), ErrorCode.UNKNOWN_SERVICE),
    (GET, ErrorCode.METHOD_NOT_ALLOWED),
    (request(b"PUT /iris", b"Content-Length: 2", body=b"{}"), ErrorCode.METHOD_NOT_ALLOWED),
    (
        request(b"POST /iris", b"Content-Length: %d" % (LIMIT + 1), body=b"x" * (LIMIT + 1)),
        ErrorCode.BODY_TOO_LARGE,
    ),
    (request(b"POST /iris", b"Origin: null", b"Content-Length: 0"), ErrorCode.BROWSER_REFUSED),
    (
        request(b"POST /iris", b"Expect: tea", b"Content-Length: 2", body=b"{}"),
        ErrorCode.EXPECTATION_FAILED,
    ),
    (POST.replace(b"localhost", b"evil.example"), ErrorCode.WRONG_HOST),
]  # fmt: skip
CLOSES = [
    (request(b"POST /iris/..", b"Content-Length: 0"), ErrorCode.BAD_TARGET),
    (request(b"POST /iris", b"Transfer-Encoding: gzip"), ErrorCode.BAD_REQUEST),
    (request(b"POST /iris", b"X-Long: " + b"x" * 40_000), ErrorCode.HEADERS_TOO_LARGE),
    (request(b"POST /iris/" + b"x" * 9000), ErrorCode.TARGET_TOO_LONG),
    (request(b"BREW /iris"), ErrorCode.METHOD_UNKNOWN),
    (b"POST /iris HTTP/3.0\r\nHost: localhost\r\n\r\n", ErrorCode.VERSION_NOT_SUPPORTED),
    (b"\x16\x03\x01\x02\x00\x01\x00", ErrorCode.METHOD_UNKNOWN),
    # Refused before their bodies have come:
    (request(b"POST /nobody", b"Content-Length: 2"), ErrorCode.UNKNOWN_SERVICE),
    (request(b"PUT /iris", b"Content-Length: 2"), ErrorCode.METHOD_NOT_ALLOWED),
    (request(b"POST /iris", b"Content-Length: %d" % (LIMIT + 1)), ErrorCode.BODY_TOO_LARGE),
    (request(b"PUT /iris", b"Transfer-Encoding: chunked"), ErrorCode.METHOD_NOT_ALLOWED),
]


@pytest.mark.parametrize(("asked", "code"), GOES_ON)
async def test_after_a_whole_request_the_connection_goes_on(asked: bytes, code: ErrorCode) -> None:
    """The error says what is wrong, nothing is sent upstream, and the next request is served."""
    async with (
        scripted_upstream(OK) as upstream,
        running_gateway(upstream.port, service=ONLY_POST) as gateway,
    ):
        caller = await gateway.connect()
        caller.send(asked)
        reply = await caller.reply()

        assert_ours(reply, code, gateway, upstream.port)
        assert not reply.closes
        assert upstream.links == []
        assert reply.values(b"allow") == ([b"POST"] if code is ErrorCode.METHOD_NOT_ALLOWED else [])
        assert gateway.sample("gateway_errors_total", error=code.label, layer="client") == 1
        caller.send(POST)
        assert (await caller.reply()).body == b"ok"


@pytest.mark.parametrize(("asked", "code"), CLOSES)
async def test_where_the_next_request_begins_in_doubt_the_connection_ends(
    asked: bytes, code: ErrorCode
) -> None:
    """It says so, the answer arrives whole, and a request that follows is not answered."""
    async with (
        scripted_upstream(OK) as upstream,
        running_gateway(upstream.port, service=ONLY_POST) as gateway,
    ):
        caller = await gateway.connect()
        caller.send(asked)
        reply = await caller.reply()

        assert_ours(reply, code, gateway, upstream.port)
        assert reply.closes
        caller.send(POST)
        assert await caller.rest() == b""
        assert upstream.links == []


async def test_head_gets_no_body() -> None:
    """An error to HEAD has the length of its body and not the body; the connection goes on."""
    async with (
        scripted_upstream(OK) as upstream,
        running_gateway(upstream.port, service=ONLY_POST) as gateway,
    ):
        caller = await gateway.connect()
        for path, status in ((b"/nobody", 404), (b"/iris", 405)):
            caller.send(request(b"HEAD " + path))
            reply = await caller.reply(to_head=True)
            assert reply.status == status
            assert int(reply.values(b"content-length")[0]) > 100
            assert not reply.closes
        caller.send(POST)
        assert (await caller.reply()).body == b"ok"


@pytest.mark.parametrize("given", [b"a", b"A.b_c:d-9", b"x" * 64])
async def test_a_plain_request_id_comes_back(given: bytes) -> None:
    """The caller's own id is in the field, in the body, and in the log."""
    async with running_gateway(1) as gateway:
        reply = await gateway.ask(request(b"POST /no", b"x-REQUEST-id: " + given))

        assert reply.values(b"x-request-id") == [given]
        assert json.loads(reply.body)["request_id"] == given.decode()
        assert (await gateway.next_record())["request_id"] == given.decode()


@pytest.mark.parametrize("given", [b"", b"a b", b'a"', b"x" * 65, b"\xe4", b"a\\", b"{}", b"a,b"])
async def test_any_other_request_id_is_replaced(given: bytes) -> None:
    """By one of ours, the same everywhere, so nothing can be written into the log."""
    async with running_gateway(1) as gateway:
        reply = await gateway.ask(request(b"POST /no", b"X-Request-Id: " + given))
        other = await gateway.ask(request(b"POST /no"))

        [ours] = reply.values(b"x-request-id")
        assert re.fullmatch(rb"[0-9a-f]{12}-[0-9a-f]+", ours)
        assert (await gateway.next_record())["request_id"] == ours.decode()
        assert other.values(b"x-request-id") != [ours]


@pytest.mark.parametrize("size", [LIMIT, LIMIT + 1])
async def test_a_declared_body_is_measured_before_it_comes(size: int) -> None:
    """At the limit the gateway asks for it, one above it refuses at once."""
    async with (
        scripted_upstream(OK) as upstream,
        running_gateway(upstream.port, service=ONLY_POST) as gateway,
    ):
        caller = await gateway.connect()
        caller.send(request(b"POST /iris", b"Expect: 100-continue", b"Content-Length: %d" % size))
        if size == LIMIT:
            assert await caller.head() == b"HTTP/1.1 100 Continue\r\n\r\n"
            caller.send(b"x" * size)
            assert (await caller.reply()).body == b"ok"
            assert upstream.only.body == b"x" * size
        else:
            assert_ours(await caller.reply(), ErrorCode.BODY_TOO_LARGE, gateway, upstream.port)
            assert upstream.links == []


@pytest.mark.parametrize("piecewise", [True, False])
async def test_a_chunked_body_may_grow_to_the_limit(piecewise: bool) -> None:
    """However it arrives, a body of exactly `max_body` passes."""
    async with (
        scripted_upstream(OK) as upstream,
        running_gateway(upstream.port, service=ONLY_POST) as gateway,
    ):
        caller = await gateway.connect()
        caller.send(request(b"POST /iris", b"Transfer-Encoding: chunked") + FULL)
        if piecewise:
            await until(lambda: not (b"x" * LIMIT not in upstream.received))
        caller.send(b"0\r\n\r\n")
        assert (await caller.reply()).body == b"ok"
        assert upstream.only.content == b"x" * LIMIT


@pytest.mark.parametrize("piecewise", [True, False])
@pytest.mark.parametrize("ended", [True, False])
async def test_a_chunked_body_may_not_grow_beyond(piecewise: bool, ended: bool) -> None:
    """One byte above `max_body` is 413, and upstream never sees the end of the body."""
    async with (
        scripted_upstream(OK) as upstream,
        running_gateway(upstream.port, service=ONLY_POST) as gateway,
    ):
        caller = await gateway.connect()
        caller.send(request(b"POST /iris", b"Transfer-Encoding: chunked") + FULL)
        if piecewise:
            await until(lambda: not (b"x" * LIMIT not in upstream.received))
        caller.send(b"1\r\nx\r\n" + (b"0\r\n\r\n" if ended else b""))
        reply = await caller.reply()

        assert_ours(reply, ErrorCode.BODY_TOO_LARGE, gateway, upstream.port)
        await gateway.settled()
        assert not [seen for seen in upstream.requests if seen.whole]
        assert gateway.gateway._parts.data.context.replay_budget.kept_bytes == 0
        if ended:
            assert not reply.closes
            caller.send(POST)
            assert (await caller.reply()).body == b"ok"
        else:
            assert reply.closes


def _refused_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


async def _hang(link: Link) -> None:
    await link.request()
    await link.hold()


async def _close(link: Link) -> None:
    await link.request()


async def _swallow(link: Link) -> None:
    await link.head()
    await link.hold()


@pytest.mark.parametrize(
    ("script", "code"),
    [
        (_close, ErrorCode.CONNECTION_TERMINATED),
        (_hang, ErrorCode.HTTP_RESPONSE_TIMEOUT),
        (answering(b"SSH-2.0\r\n\r\n"), ErrorCode.HTTP_PROTOCOL_ERROR),
        (answering(b"HTTP/1.1 204 No\r\nContent-Length: 1\r\n\r\n"), ErrorCode.HTTP_PROTOCOL_ERROR),
    ],
)
async def test_a_broken_service_is_502_or_504(script: Script, code: ErrorCode) -> None:
    """Said by us, on a connection that goes on, with the fault at the network."""
    async with (
        scripted_upstream(script) as upstream,
        running_gateway(upstream.port, service={"timeouts": {"first_byte": "200ms"}}) as gateway,
    ):
        caller = await gateway.connect()
        for count in (1, 2):
            caller.send(POST)
            reply = await caller.reply()
            assert_ours(reply, code, gateway, upstream.port)
            assert not reply.closes
            assert (
                gateway.sample("gateway_errors_total", layer="network", error=code.label) == count
            )
            assert not reply.values(b"retry-after")


async def test_nobody_there_is_502() -> None:
    """A refused connection, without the address in the answer."""
    port = _refused_port()
    async with running_gateway(port) as gateway:
        caller = await gateway.connect()
        caller.send(POST)
        reply = await caller.reply()

        assert_ours(reply, ErrorCode.CONNECTION_REFUSED, gateway, port)
        assert not reply.closes


async def test_a_slow_request_is_408() -> None:
    """A body that stops coming is refused, and the connection ends."""
    async with (
        scripted_upstream(_swallow) as upstream,
        running_gateway(upstream.port, service={"timeouts": {"idle": "200ms"}}) as gateway,
    ):
        caller = await gateway.connect()
        caller.send(POST[:-1])
        reply = await caller.reply()

        assert_ours(reply, ErrorCode.SLOW_REQUEST, gateway, upstream.port)
        assert reply.closes


async def test_more_than_it_may_have_in_flight_is_503() -> None:
    """The request above the limit is refused at once with Retry-After; its connection goes on."""
    release = asyncio.Event()

    async def script(link: Link) -> None:
        while True:
            await link.request()
            await release.wait()
            link.send(OK)

    async with (
        scripted_upstream(script) as upstream,
        running_gateway(upstream.port) as gateway,
    ):
        gateway.services[0].metrics.started += 999  # as many more in flight
        first, second = await gateway.connect(), await gateway.connect()
        first.send(POST)
        await until(lambda: upstream.requests)
        second.send(POST)
        reply = await second.reply()
        assert_ours(reply, ErrorCode.OVERLOADED, gateway, upstream.port)
        assert reply.values(b"retry-after") == [b"1"]
        assert not reply.closes
        release.set()
        assert (await first.reply()).status == 200
        second.send(POST)
        assert (await second.reply()).status == 200


async def test_a_credential_error_to_half_a_request_closes() -> None:
    """503 before the body has come leaves no way to tell body from next request."""
    async with running_gateway(1) as gateway:
        gateway.credentials.at_hand = False
        gateway.credentials.failure = CredentialError(ErrorCode.TOKEN_UNAVAILABLE)
        caller = await gateway.connect()
        caller.send(POST[:-1])
        reply = await caller.reply()

        assert reply.status == 503
        assert reply.closes
        assert await caller.rest() == b""
