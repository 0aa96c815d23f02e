"""What is counted and logged: each request once, with the true reason, whatever its end."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Any

import pytest

from gateway.errors import CredentialError, ErrorCode
from gateway.identity.credential import Credential
from tests.support.client import Caller
from tests.support.gateway import GET, POST, FakeCredentials, RunningGateway, running_gateway
from tests.support.until import until
from tests.support.upstream import OK, Link, Script, Upstream, answer, scripted_upstream

Step = Callable[[RunningGateway, Caller, Upstream], Awaitable[None]]
SLOW_S = 0.3
PROMPT_S = 0.2
"""More than the gateway's own share ever is, and far less than what is waited for."""


async def assert_counted_once(gateway: RunningGateway, service: str) -> dict[str, Any]:
    """Hold metrics and log against one request that has just ended; return its line."""
    await gateway.settled()
    record = await gateway.next_record()
    assert gateway.sample("gateway_requests_total") == 1
    assert gateway.sample("gateway_requests_total", service=service) == 1
    assert gateway.sample("gateway_request_duration_seconds_count", service=service) == 1
    assert gateway.sample("gateway_overhead_seconds_count", service=service) == 1
    assert gateway.sample("gateway_errors_total", service=service) == bool(record["error"])
    assert gateway.sample("gateway_requests_in_flight") == 0
    assert gateway.sample("gateway_upstream_connections", state="active") == 0
    duration = gateway.sample("gateway_request_duration_seconds_sum")
    overhead = gateway.sample("gateway_overhead_seconds_sum")
    assert duration >= overhead >= 0
    assert record["service"] == service
    assert record["duration_us"] == int(duration * 1e6)
    assert record["overhead_us"] == int(overhead * 1e6)
    assert gateway.sample("gateway_request_bytes_total") == record["request_bytes"]
    assert gateway.sample("gateway_response_bytes_total") == record["response_bytes"]
    if record["error"]:
        assert gateway.sample("gateway_errors_total", error=record["error"]) == 1
    return record


async def assert_no_second_line(gateway: RunningGateway) -> None:
    """The next line is that of another request."""
    await gateway.ask(
        b"POST /sentinel HTTP/1.1\r\nHost: localhost\r\nX-Request-Id: sentinel\r\n\r\n"
    )
    assert (await gateway.next_record())["request_id"] == "sentinel"


@pytest.mark.parametrize(
    ("request_bytes", "service", "method", "status", "error", "layer"),
    [
        (POST, "iris", "POST", 200, "", ""),
        (GET, "iris", "GET", 200, "", ""),
        (GET.replace(b"GET", b"HEAD"), "iris", "HEAD", 200, "", ""),
        (GET.replace(b"/iris", b"/x"), "other", "GET", 404, "unknown_service", "client"),
        (GET.replace(b"GET", b"PUT"), "iris", "PUT", 405, "method_not_allowed", "client"),
        (GET.replace(b"GET", b"BREW"), "other", "other", 501, "method_unknown", "client"),
        (GET.replace(b"GET", b"TRACE"), "other", "other", 501, "method_unknown", "client"),
        (b"nonsense\r\n\r\n", "other", "other", 501, "method_unknown", "client"),
        (GET.replace(b"localhost", b"evil"), "other", "GET", 421, "wrong_host", "client"),
        (GET.replace(b"/iris", b"/iris/.."), "other", "GET", 400, "bad_target", "client"),
        (
            POST.replace(b"Length: 2", b"Length: 99999999"),
            "iris", "POST", 413, "body_too_large", "client",
        ),
    ],
)  # fmt: skip
async def test_ordinary_endings(  # noqa: PLR0917  # one column of the table each
    request_bytes: bytes,
    service: str,
    method: str,
    status: int,
    error: str,
    layer: str,
) -> None:
    """Answered or refused: one of everything, under the right labels."""
    async with (
        scripted_upstream(OK) as upstream,
        running_gateway(upstream.port, service={"methods": "GET,HEAD,POST"}) as gateway,
    ):
        await gateway.ask(request_bytes)

        record = await assert_counted_once(gateway, service)
        assert (record["method"], record["status"], record["error"]) == (method, status, error)
        assert gateway.sample("gateway_errors_total", layer=layer, error=error) == bool(error)
        label = method if method in {"GET", "HEAD", "POST"} or service == "other" else "other"
        assert gateway.sample("gateway_requests_total", method=label, code=str(status)) == 1
        first_bytes = gateway.sample("gateway_upstream_first_byte_seconds_count")
        assert first_bytes == (status == 200)
        await assert_no_second_line(gateway)


@pytest.mark.parametrize(
    ("said", "error", "layer"),
    [
        (answer(401, b'{"error_code":"APIG.0305"}'), "unauthorized", "apig"),
        (answer(403, b'{"error_code":"APIG.0302"}'), "forbidden", "apig"),
        (answer(404, b'{"error_code":"APIG.0101"}'), "not_found", "apig"),
        (answer(429, b'{"error_code":"APIG.0308"}'), "throttled", "apig"),
        (answer(413, b'{"error_code":"APIG.0201"}'), "client_error", "apig"),
        (answer(503, b'{"error_code":"APIG.0613"}'), "server_error", "apig"),
        (answer(404, b'{"error_code":"ModelArts.4206"}'), "not_found", "modelarts"),
        (answer(500, b'{"error_code":"MR.0105"}'), "server_error", "model"),
        (answer(500, b"traceback"), "server_error", "model"),
        (answer(400), "client_error", "model"),
        (b"SSH-2.0-x\r\n\r\n", "http_protocol_error", "network"),
    ],
)
async def test_errors_by_layer(said: bytes, error: str, layer: str) -> None:
    """Whose fault an error status is, is told by the code in its body."""
    async with (
        scripted_upstream(said) as upstream,
        running_gateway(upstream.port) as gateway,
    ):
        await gateway.ask(POST)

        record = await assert_counted_once(gateway, "iris")
        assert record["error"] == error
        assert gateway.sample("gateway_errors_total", layer=layer, error=error) == 1


TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


@pytest.mark.parametrize("flags", ["00", "01"])
async def test_a_trace_goes_through_and_is_an_exemplar(flags: str) -> None:
    """Sampled or not, the service gets the field as it came, and each duration its example."""
    line = f"traceparent: 00-{TRACE}-00f067aa0ba902b7-{flags}\r\n".encode()
    async with (
        scripted_upstream(OK) as upstream,
        running_gateway(upstream.port) as gateway,
    ):
        await gateway.ask(POST.replace(b"Content-Type", line + b"Content-Type"))
        record = await gateway.next_record()

        assert line in upstream.requests[0].head
        found = gateway.exemplars()
        assert set(found) == {
            "gateway_request_duration_seconds_bucket",
            "gateway_upstream_first_byte_seconds_bucket",
            "gateway_overhead_seconds_bucket",
        }
        assert {one.labels["trace_id"] for one in found.values()} == {TRACE}
        duration = found["gateway_request_duration_seconds_bucket"]
        assert int(duration.value * 1e6) == record["duration_us"]
        ended_at = datetime.fromisoformat(record["time"]).timestamp()
        assert float(duration.timestamp or 0) == pytest.approx(ended_at, abs=0.002)


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"traceparent: 00-" + b"0" * 32 + b"-00f067aa0ba902b7-01\r\n",
        b"traceparent: 00-%b-00f067aa0ba902b7-01\r\n" % TRACE.encode() * 2,
    ],
)
async def test_what_is_no_trace_is_no_exemplar(line: bytes) -> None:
    """None, one of zeros, two: what came is passed on, and nothing is remembered."""
    async with (
        scripted_upstream(OK) as upstream,
        running_gateway(upstream.port) as gateway,
    ):
        await gateway.ask(POST.replace(b"Content-Type", line + b"Content-Type"))
        await gateway.next_record()

        assert line in upstream.requests[0].head
        assert gateway.exemplars() == {}


async def _never_answers(link: Link) -> None:
    await link.head()
    await link.hold()


async def _begins_to_answer(link: Link) -> None:
    await link.request()
    link.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
    await link.hold()


async def _cuts_its_answer(link: Link) -> None:
    await link.request()
    link.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")


async def _leaves_in_the_head(gateway: RunningGateway, caller: Caller, upstream: Upstream) -> None:
    caller.send(b"POST /iris HTTP/1.1\r\nHost: lo")
    await asyncio.sleep(SLOW_S)
    caller.half_close()
    await caller.rest()


async def _leaves_in_the_body(gateway: RunningGateway, caller: Caller, upstream: Upstream) -> None:
    caller.send(POST[:-1])
    await until(lambda: upstream.requests)
    caller.leave()


async def _leaves_waiting(gateway: RunningGateway, caller: Caller, upstream: Upstream) -> None:
    caller.send(POST)
    await until(lambda: upstream.requests)
    caller.reset()


async def _leaves_in_the_answer(
    gateway: RunningGateway, caller: Caller, upstream: Upstream
) -> None:
    caller.send(POST)
    await caller.head()
    await caller.take(4)
    caller.reset()


async def _leaves_without_a_token(
    gateway: RunningGateway, caller: Caller, upstream: Upstream
) -> None:
    gateway.credentials.at_hand = False
    gateway.credentials.gate.clear()
    caller.send(POST)
    await until(lambda: gateway.sample("gateway_requests_in_flight"))
    caller.leave()


async def _breaks_the_body(gateway: RunningGateway, caller: Caller, upstream: Upstream) -> None:
    caller.send(
        b"POST /iris HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n"
    )
    await until(lambda: upstream.requests)
    caller.send(b"zz\r\n")
    assert (await caller.reply()).status == 400


async def _reads_what_there_is(gateway: RunningGateway, caller: Caller, upstream: Upstream) -> None:
    caller.send(POST)
    assert not (await caller.reply()).complete


@pytest.mark.parametrize(
    ("script", "step", "service", "status", "error"),
    [
        (_never_answers, _leaves_in_the_head, "other", 400, "bad_request"),
        (_never_answers, _leaves_in_the_body, "iris", 0, "client_disconnected"),
        (_never_answers, _leaves_waiting, "iris", 0, "client_disconnected"),
        (_begins_to_answer, _leaves_in_the_answer, "iris", 200, "client_disconnected"),
        (_never_answers, _leaves_without_a_token, "iris", 0, "client_disconnected"),
        (_never_answers, _breaks_the_body, "iris", 400, "bad_request"),
        (_cuts_its_answer, _reads_what_there_is, "iris", 200, "http_response_incomplete"),
    ],
)
async def test_broken_endings(
    script: Script, step: Step, service: str, status: int, error: str
) -> None:
    """Wherever a request breaks off it is counted once, with the status the caller got."""
    async with (
        scripted_upstream(script) as upstream,
        running_gateway(upstream.port) as gateway,
    ):
        caller = await gateway.connect()
        await step(gateway, caller, upstream)
        await until(
            lambda: (
                gateway.sample("gateway_requests_total") == 1
                and not gateway.sample("gateway_requests_in_flight")
            )
        )

        record = await assert_counted_once(gateway, service)
        assert (record["status"], record["error"]) == (status, error)
        assert record["overhead_us"] < PROMPT_S * 1e6
        await assert_no_second_line(gateway)


async def test_no_token_is_the_identitys_fault() -> None:
    """503 without a token counts at layer `identity`."""
    async with running_gateway(1) as gateway:
        gateway.credentials.at_hand = False
        gateway.credentials.failure = CredentialError(ErrorCode.LOGIN_REFUSED)
        await gateway.ask(POST)

        record = await assert_counted_once(gateway, "iris")
        assert (record["status"], record["error"]) == (503, "login_refused")
        assert gateway.sample("gateway_errors_total", layer="identity") == 1


class _Broken(FakeCredentials):
    """Fails in ways that no credentials may fail."""

    def __init__(self, where: str) -> None:
        super().__init__()
        self.where = where
        self.at_hand = where != "obtain"

    def usable(self, now: float) -> Credential | None:
        if self.where == "usable":
            raise RuntimeError("a bug")
        return super().usable(now)

    async def obtain(self) -> Credential:
        if self.where == "obtain":
            raise RuntimeError("a bug")
        return await super().obtain()


@pytest.mark.parametrize("where", ["usable", "obtain"])
@pytest.mark.parametrize("pipelined", [True, False])
async def test_a_bug_costs_one_request(
    where: str, pipelined: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """It is 500 `Gateway.Internal`, counted and logged; the next on the connection is served."""
    async with (
        scripted_upstream(OK) as upstream,
        running_gateway(upstream.port) as gateway,
    ):
        broken = _Broken(where)
        _replace_credentials(gateway, broken)
        caller = await gateway.connect()
        with caplog.at_level(logging.CRITICAL, "gateway"):
            caller.send(POST * (2 if pipelined else 1))
            reply = await caller.reply()
            if pipelined:
                assert (await caller.reply()).status == 500
        broken.where = ""
        broken.at_hand = True

        assert reply.status == 500
        assert b"Gateway.Internal" in reply.body
        assert not reply.closes
        count = 2 if pipelined else 1
        assert gateway.sample("gateway_errors_total", layer="gateway", error="internal") == count
        assert gateway.sample("gateway_requests_in_flight") == 0
        caller.send(POST)
        assert (await caller.reply()).body == b"ok"
        assert gateway.sample("gateway_requests_in_flight") == 0


async def test_a_bug_behind_another_request_costs_one_request(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Begun from the end of the request before it, it is answered all the same."""
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
        broken = _Broken("")
        _replace_credentials(gateway, broken)
        caller = await gateway.connect()
        caller.send(POST * 2)
        await until(lambda: upstream.requests)
        broken.where = "usable"
        with caplog.at_level(logging.CRITICAL, "gateway"):
            release.set()
            assert (await caller.reply()).status == 200
            assert (await caller.reply()).status == 500
        broken.where = ""
        caller.send(POST)
        assert (await caller.reply()).status == 200
        assert gateway.sample("gateway_requests_in_flight") == 0
    assert len(upstream.links) == 1


async def test_a_head_that_comes_again_keeps_its_own_id_or_gets_a_new_one() -> None:
    """Though all else that it means is remembered."""
    named = POST.replace(b"Host", b"X-Request-Id: mine\r\nHost")
    async with scripted_upstream(answer(200)) as upstream, running_gateway(upstream.port) as it:
        ids = []
        caller = await it.connect()
        for request in (POST, POST, POST, POST, named, named, named, named):
            caller.send(request)
            assert (await caller.reply()).status == 200
            await it.settled()
            ids.append((await it.next_record())["request_id"])

    assert len(set(ids[:4])) == 4
    assert ids[4:] == ["mine"] * 4


async def test_a_bug_in_admission_leaves_nothing_in_flight(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Even where the service is not known yet, what began and what ended are the same number."""
    async with running_gateway(1) as gateway:
        routes = gateway.gateway._parts.data.context.rules.routes._by_prefix
        good = dict(routes)
        routes.update(dict.fromkeys(good, object()))  # type: ignore[arg-type]  # the bug
        with caplog.at_level(logging.CRITICAL, "gateway"):
            assert (await gateway.ask(POST)).status == 500
        routes.update(good)

        assert gateway.sample("gateway_requests_in_flight") == 0
        assert gateway.sample("gateway_requests_total", service="other", code="500") == 1


def _replace_credentials(gateway: RunningGateway, credentials: FakeCredentials) -> None:
    for service in gateway.gateway._parts.data.context.rules.routes.services:
        object.__setattr__(service, "credentials", credentials)


# Waiting is nobody's work.


async def _slow_answer(link: Link) -> None:
    while True:
        await link.request()
        await asyncio.sleep(SLOW_S)
        link.send(OK)


async def _slow_rest_of_answer(link: Link) -> None:
    while True:
        await link.request()
        link.send(OK[:-1])
        await asyncio.sleep(SLOW_S)
        link.send(OK[-1:])


async def _rejects_slowly(link: Link) -> None:
    while True:
        request = await link.request()
        if request.values(b"x-auth-token") == [b"token-1"]:
            await asyncio.sleep(SLOW_S)
            link.send(answer(401, b'{"error_code":"APIG.0301"}'))
        else:
            link.send(OK)


@pytest.mark.parametrize("script", [_slow_answer, _slow_rest_of_answer, _rejects_slowly])
async def test_a_slow_service_is_not_overhead(script: Script) -> None:
    """Its time is in the duration and not in our share."""
    async with (
        scripted_upstream(script) as upstream,
        running_gateway(upstream.port) as gateway,
    ):
        await gateway.ask(POST)

        assert gateway.sample("gateway_request_duration_seconds_sum") >= SLOW_S * 0.8
        assert gateway.sample("gateway_overhead_seconds_sum") < PROMPT_S
        first_byte = gateway.sample("gateway_upstream_first_byte_seconds_sum")
        assert (first_byte >= SLOW_S * 0.8) == (script is _slow_answer)


@pytest.mark.parametrize("pieces", [1, 3])
async def test_a_slow_caller_is_not_overhead(pieces: int) -> None:
    """Nor is the time in which the rest of its body is on its way."""
    async with (
        scripted_upstream(OK) as upstream,
        running_gateway(upstream.port) as gateway,
    ):
        caller = await gateway.connect()
        caller.send(POST.replace(b"Length: 2", b"Length: 3").removesuffix(b"{}"))
        for piece in (b"{ }",) if pieces == 1 else (b"{", b" ", b"}"):
            await asyncio.sleep(SLOW_S / pieces)
            caller.send(piece)
        assert (await caller.reply()).status == 200

        assert gateway.sample("gateway_request_duration_seconds_sum") >= SLOW_S * 0.8
        assert gateway.sample("gateway_overhead_seconds_sum") < PROMPT_S
        assert gateway.sample("gateway_upstream_first_byte_seconds_sum") < PROMPT_S


@pytest.mark.parametrize("failure", [None, CredentialError(ErrorCode.TOKEN_UNAVAILABLE)])
async def test_a_slow_token_is_not_overhead(failure: Exception | None) -> None:
    """Whether it comes or not."""
    async with (
        scripted_upstream(OK) as upstream,
        running_gateway(upstream.port) as gateway,
    ):
        gateway.credentials.at_hand = False
        gateway.credentials.gate.clear()
        gateway.credentials.failure = failure
        asyncio.get_running_loop().call_later(SLOW_S, gateway.credentials.gate.set)
        await gateway.ask(POST)

        assert gateway.sample("gateway_overhead_seconds_sum") < PROMPT_S
        record = await gateway.next_record()
        assert (
            record["credential_us"] >= SLOW_S * 0.8e6
        )  # the alarm is set before the request is sent
        assert record["duration_us"] >= record["credential_us"]
        assert record["status"] == (503 if failure else 200)


async def test_a_caller_that_leaves_waiting_is_not_overhead() -> None:
    """Neither its wait for a token, nor its wait for an answer."""
    async with (
        scripted_upstream(_never_answers) as upstream,
        running_gateway(upstream.port) as gateway,
    ):
        for at_hand in (True, False):
            gateway.credentials.at_hand = at_hand
            gateway.credentials.gate.clear()
            caller = await gateway.connect()
            caller.send(POST)
            await asyncio.sleep(SLOW_S)
            caller.reset()
            await gateway.settled()

        assert gateway.sample("gateway_request_duration_seconds_sum") >= 2 * SLOW_S * 0.8
        assert gateway.sample("gateway_overhead_seconds_sum") < PROMPT_S


async def test_waiting_for_the_request_before_is_not_overhead() -> None:
    """A pipelined request is not answered for the time in which its turn had not come."""
    async with (
        scripted_upstream(_slow_answer) as upstream,
        running_gateway(upstream.port) as gateway,
    ):
        caller = await gateway.connect()
        caller.send(POST * 2)
        for _ in range(2):
            assert (await caller.reply()).status == 200

        assert gateway.sample("gateway_request_duration_seconds_sum") >= 3 * SLOW_S * 0.8
        assert gateway.sample("gateway_overhead_seconds_sum") < PROMPT_S


async def test_the_latest_requests_can_be_looked_at() -> None:
    """The newest 50, newest first, by the wall clock, and nothing of them that a caller chose."""
    async with (
        scripted_upstream(OK) as upstream,
        running_gateway(upstream.port) as gateway,
    ):
        for _ in range(30):
            await gateway.ask(POST)
        for _ in range(30):
            await gateway.ask(GET.replace(b"/iris", b"/chosen-by-a-caller"))
        before = gateway.gateway.wall_time_s()
        latest = gateway.gateway.latest_requests()

    assert [record.status for _, record in latest] == [404] * 30 + [200] * 20
    assert [record.layer for _, record in latest] == ["client"] * 30 + [""] * 20
    ends = [ended_at for ended_at, _ in latest]
    assert ends == sorted(ends, reverse=True)
    assert before - 20 < ends[-1] <= ends[0] <= before + 1
    assert "chosen-by-a-caller" not in repr(latest)
