"""Spans, as a real receiver gets them from a real gateway."""

import signal
import sys
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from gateway.twin import ECHO_ID, Account
from tests.support.client import Caller, connect
from tests.support.otlp import Receiver, attributes_of, otlp_receiver
from tests.support.rows import every_row
from tests.support.served import Served, served
from tests.support.twin import running_twin
from tests.support.until import until
from tests.support.upstream import OK, Script, Upstream, answer, answering, scripted_upstream

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
TRACEPARENT = f"traceparent: 00-{TRACE}-{PARENT}-01\r\n"
SECRET = "spoken-by-a-caller"
NOTHING: Mapping[str, str] = {}


def post(fields: str = "", path: str = "/iris/" + SECRET) -> bytes:
    """A request with marks of its caller wherever a caller can leave one."""
    return (
        f"POST {path}?q={SECRET} HTTP/1.1\r\nHost: localhost\r\nX-Request-Id: {SECRET}\r\n"
        f"User-Agent: {SECRET}\r\n{fields}Content-Length: 2\r\n\r\n{{}}"
    ).encode()


async def ask(gateway: Served, request: bytes) -> int:
    caller: Caller = await connect(gateway.port)
    caller.send(request)
    reply = await caller.reply()
    caller.leave()
    return reply.status


@asynccontextmanager
async def tracing(
    folder: Path, script: Script | bytes = OK, environ: Mapping[str, str] = NOTHING
) -> AsyncIterator[tuple[Served, Upstream, Receiver]]:
    """Run `serve`, traced, before `script`; a proxy in its environment must not be followed."""
    async with otlp_receiver() as receiver, scripted_upstream(script) as upstream:
        settings = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": receiver.endpoint,
            "OTEL_BSP_SCHEDULE_DELAY": "50",
            "HTTP_PROXY": "http://127.0.0.1:9",
            "NO_PROXY": "",
        } | dict(environ)
        async with served(folder, upstream.port, environ=settings) as gateway:
            yield gateway, upstream, receiver


async def test_an_exchange_is_a_span_with_its_parts(tmp_path: Path) -> None:
    """Connect, first byte and relay within it, in this order; below the caller's own span."""
    began_ns = time.time_ns()
    async with tracing(tmp_path) as (gateway, upstream, receiver):
        assert await ask(gateway, post(TRACEPARENT + "tracestate: a=b\r\n")) == 200
        await until(lambda: receiver.named("POST iris"))

    [span] = receiver.named("POST iris")
    assert span.kind == Span.SPAN_KIND_SERVER
    assert (span.trace_id.hex(), span.parent_span_id.hex()) == (TRACE, PARENT)
    assert began_ns <= span.start_time_unix_nano < span.end_time_unix_nano <= time.time_ns()
    parts = sorted(
        (one for one in receiver.spans if one is not span),
        key=lambda one: (one.start_time_unix_nano, one.end_time_unix_nano),
    )
    names = [one.name for one in parts]
    assert names[-3:] == ["connect", "first byte", "relay"]
    assert set(names[:-3]) <= {"credential"}  # a caller this early may wait for it
    for part in parts:
        assert part.parent_span_id == span.span_id
        assert part.trace_id == span.trace_id
        assert span.start_time_unix_nano <= part.start_time_unix_nano <= part.end_time_unix_nano
        assert part.end_time_unix_nano <= span.end_time_unix_nano + 1000
    assert attributes_of(span) == {
        "http.request.method": "POST",
        "http.route": "/iris",
        "gateway.service": "iris",
        "http.request.body.size": 2,
        "http.response.body.size": 2,
        "http.response.status_code": 200,
    }
    assert receiver.resource["service.name"] == "modelarts-gateway"
    sent = upstream.only
    assert sent.values(b"traceparent") == [f"00-{TRACE}-{span.span_id.hex()}-01".encode()]
    assert sent.values(b"tracestate") == [b"a=b"]
    assert not any(SECRET.encode() in one.SerializeToString() for one in receiver.spans)


NO_TRACES = {
    "none": "",
    "void": f"traceparent: 00-{'0' * 32}-{PARENT}-01\r\ntracestate: a=b\r\n",
    "two": TRACEPARENT * 2 + "Tracestate: a=b\r\n",
}


async def next_span(receiver: Receiver, known: int) -> Span:
    """Wait for one more than the known spans of exchanges, and return it."""
    await until(lambda: len(receiver.named("POST iris")) > known)
    return receiver.named("POST iris")[known]


async def test_what_is_no_trace_begins_one(tmp_path: Path) -> None:
    """The service sees one parent, ours, and no state of another's."""
    async with tracing(tmp_path) as (gateway, upstream, receiver):
        with every_row() as trying:
            for known, name in enumerate(NO_TRACES):
                with trying(name):
                    await ask(gateway, post(NO_TRACES[name]))
                    span = await next_span(receiver, known)

                    assert not span.parent_span_id
                    assert span.trace_id.hex() != TRACE
                    sent = upstream.requests[known]
                    [parent] = sent.values(b"traceparent")
                    own = f"00-{span.trace_id.hex()}-{span.span_id.hex()}-0"
                    assert parent.startswith(own.encode())
                    assert int(parent[-2:], 16) & 1, "it is sampled"
                    assert sent.values(b"tracestate") == []


@pytest.mark.parametrize(
    ("flags", "environ"),
    [
        ("00", {}),
        pytest.param("01", {"OTEL_TRACES_SAMPLER": "always_off"}, marks=pytest.mark.long),
    ],
)
async def test_what_is_not_sampled_is_not_exported(
    tmp_path: Path, flags: str, environ: dict[str, str]
) -> None:
    """Neither by the caller's decision nor by the sampler's; the service is told so."""
    request = post(f"traceparent: 00-{TRACE}-{PARENT}-{flags}\r\n")
    async with tracing(tmp_path, environ=environ) as (gateway, upstream, receiver):
        await ask(gateway, request)
        gateway.signal(signal.SIGTERM)
        assert await gateway.ended() == 0

    [sent] = upstream.only.values(b"traceparent")
    assert sent.startswith(f"00-{TRACE}-".encode())
    assert sent.endswith(b"-00")
    assert receiver.spans == []


async def test_an_error_is_told_as_in_the_metrics(tmp_path: Path) -> None:
    """Type and layer; only what is the service's fault makes the span one that failed."""
    verdicts = [(503, Status.STATUS_CODE_ERROR), (404, Status.STATUS_CODE_UNSET)]
    script = answering(answer(503, b'{"message":"no"}'), answer(404))

    async with tracing(tmp_path, script) as (gateway, _, receiver):
        for known, (status, verdict) in enumerate(verdicts):
            assert await ask(gateway, post()) == status
            span = await next_span(receiver, known)

            told = attributes_of(span)
            assert told["http.response.status_code"] == status
            assert told["error.type"]
            assert told["gateway.error.layer"]
            assert span.status.code == verdict


async def test_a_login_on_the_way_is_a_part(tmp_path: Path) -> None:
    """A token that dies: the wait for another one is there, and that it was sent again."""
    account = Account()
    (tmp_path / "password").write_text(account.password)
    async with running_twin() as twin, otlp_receiver() as receiver:
        settings = {
            "identities": {
                "default": {
                    "auth_url": twin.auth_url,
                    "username": account.user,
                    "user_domain": account.domain,
                    "password_file": str(tmp_path / "password"),
                    "project": account.project,
                }
            },
            "services": {"iris": {"url": twin.service_url(ECHO_ID)}},
        }
        environ = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": receiver.endpoint,
            "OTEL_BSP_SCHEDULE_DELAY": "50",
        }
        async with served(tmp_path, 0, settings, environ=environ) as gateway:
            assert await ask(gateway, post(path="/iris")) == 200
            twin.revoke_tokens()
            assert await ask(gateway, post(path="/iris")) == 200
            await until(lambda: len(receiver.named("POST iris")) == 2)

    again = receiver.named("POST iris")[1]
    assert attributes_of(again)["http.request.resend_count"] == 1
    parts = [one.name for one in receiver.spans if one.parent_span_id == again.span_id]
    assert {"credential", "first byte", "relay"} <= set(parts)


async def test_a_receiver_that_hangs_holds_nobody_up(tmp_path: Path) -> None:
    """Callers are answered, also beyond the queue's bound, and the gateway ends in good order."""
    queue = {"OTEL_BSP_MAX_QUEUE_SIZE": "8", "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "4"}
    async with tracing(tmp_path, environ=queue) as (gateway, _, receiver):
        receiver.open.clear()
        await ask(gateway, post())
        await until(lambda: receiver.asked)
        for _ in range(20):
            assert await ask(gateway, post()) == 200
        gateway.signal(signal.SIGTERM)
        assert await gateway.ended() == 0


async def test_without_an_endpoint_there_is_no_tracing(tmp_path: Path) -> None:
    """Nothing of the SDK is imported, and the caller's fields travel as they came."""
    async with (
        scripted_upstream(OK) as upstream,
        served(tmp_path, upstream.port, environ={"PYTHONPROFILEIMPORTTIME": "1"}) as gateway,
    ):
        await ask(gateway, post(TRACEPARENT.replace("t", "T", 1)))
        gateway.signal(signal.SIGTERM)
        await gateway.ended()

    imported = [line.rpartition("|")[2].strip() for line in gateway.log if "import time" in line]
    assert "gateway.assembly.tracing" in imported
    assert not [name for name in imported if name.startswith(("opentelemetry", "requests"))]
    assert TRACEPARENT.replace("t", "T", 1).encode() in upstream.only.head
    assert "opentelemetry" in sys.modules  # it is there, and would have been found
