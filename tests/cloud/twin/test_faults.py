"""Calls that go wrong as it is asked for."""

import asyncio

import aiohttp
import pytest

from gateway.twin import ECHO_ID, IMAGE_ID, IRIS_ID, Twin
from tests.cloud.twin.given import _raw_call, plan, predict, send, token_of
from tests.support.until import PATIENCE_S

# Faults of the services


@pytest.mark.parametrize(
    ("query", "status", "answered_by"),
    [
        ("twin-code=APIG.0202", 502, ("api-gateway", "APIG.0202")),
        ("twin-status=503&twin-code=APIG.0202", 503, ("api-gateway", "APIG.0202")),
        ("twin-code=ModelArts.4503", 500, ("ModelArts", "ModelArts.4503")),
        ("twin-status=401&twin-code=MR.0100", 401, ("ModelArts", "MR.0100")),
        ("twin-status=401", 401, ("ModelArts", None)),
        ("twin-status=201&twin-retry-after=9", 201, ("ModelArts", None)),
    ],
)
async def test_any_status_and_code_on_request(
    http: aiohttp.ClientSession,
    twin: Twin,
    *,
    query: str,
    status: int,
    answered_by: tuple[str, str | None],
) -> None:
    """The layer that is asked for answers, in its own shape; the good token changes nothing."""
    answer = await predict(http, twin, IRIS_ID, "?" + query)
    assert answer.status == status
    assert (answer.headers["Server"], answer.json.get("error_code")) == answered_by
    assert answer.headers.get("Retry-After") == ("9" if "retry" in query else None)


async def test_answer_can_be_late(http: aiohttp.ClientSession, twin: Twin) -> None:
    """`twin-delay` waits before the head, and then the model answers."""
    started = asyncio.get_running_loop().time()
    assert (await predict(http, twin, tail="?twin-delay=100ms")).status == 200
    took_s = asyncio.get_running_loop().time() - started
    assert round(took_s, 2) >= 0.1  # the loop's clock counts milliseconds


async def test_hanging_call_ends_with_its_caller(http: aiohttp.ClientSession, twin: Twin) -> None:
    """No answer comes, and the twin can be stopped while callers wait."""
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.2):
            await predict(http, twin, tail="?twin-hang")
    waiting = asyncio.create_task(predict(http, twin, tail="?twin-hang"))
    while twin.stats.services["echo"].calls < 2:  # noqa: ASYNC110  # a counter, not an event
        await asyncio.sleep(0)
    async with asyncio.timeout(PATIENCE_S):
        await twin.stop()
    with pytest.raises(aiohttp.ClientError):
        await waiting


@pytest.mark.asyncio(loop_factories=["asyncio", "uvloop"])  # their sockets differ
async def test_connection_is_reset_before_the_head(twin: Twin) -> None:
    """`twin-reset=head`: not one byte, then RST."""
    assert await _raw_call(twin, "?twin-reset=head") == (b"", True)


@pytest.mark.asyncio(loop_factories=["asyncio", "uvloop"])  # their sockets differ
@pytest.mark.parametrize("framing", ["", "&twin-chunked"])
async def test_connection_is_reset_in_the_body(twin: Twin, framing: str) -> None:
    """`twin-reset=body`: a head that promises a whole body, some of it, RST."""
    got, was_reset = await _raw_call(twin, f"?twin-reset=body&twin-size=1000{framing}")
    assert was_reset
    # What has come before a reset is often lost in the receiver's kernel.
    assert b"0\r\n\r\n" not in got
    assert len(got.partition(b"\r\n\r\n")[2]) <= 520


@pytest.mark.asyncio(loop_factories=["asyncio", "uvloop"])  # their sockets differ
async def test_cut_keeps_the_promised_length(twin: Twin) -> None:
    """`twin-cut=3`: full Content-Length, three bytes, FIN."""
    got, was_reset = await _raw_call(twin, "?twin-cut=3&twin-size=100")
    head, _, body = got.partition(b"\r\n\r\n")
    assert b"content-length: 100" in head.lower()
    assert (body, was_reset) == (b"012", False)


@pytest.mark.asyncio(loop_factories=["asyncio", "uvloop"])  # their sockets differ
async def test_cut_leaves_chunks_without_an_end(twin: Twin) -> None:
    """`twin-cut=3&twin-chunked`: one chunk, no last chunk, FIN."""
    got, was_reset = await _raw_call(twin, "?twin-cut=3&twin-size=100&twin-chunked")
    assert got.endswith(b"\r\n\r\n3\r\n012\r\n")
    assert not was_reset
    assert b"transfer-encoding: chunked" in got.lower()


async def test_chunked_answer_is_complete(twin: Twin) -> None:
    """`twin-chunked` alone frames the model's answer with chunks and ends them."""
    got, _ = await _raw_call(twin, "?twin-chunked")
    assert got.endswith(b"\r\n0\r\n\r\n")
    assert b"\r\ncontent-length" not in got.lower()


async def test_slow_answer_comes_in_pieces(http: aiohttp.ClientSession, twin: Twin) -> None:
    """`twin-slow=100B/20ms` with 300 bytes takes two pauses, and every byte comes."""
    started = asyncio.get_running_loop().time()
    answer = await predict(http, twin, tail="?twin-slow=100B/20ms&twin-size=300")
    took_s = asyncio.get_running_loop().time() - started
    assert round(took_s, 2) >= 0.04  # the loop's clock counts milliseconds
    assert answer.body == (b"0123456789abcdef" * 19)[:300]


async def test_large_answer_has_the_size_asked_for(http: aiohttp.ClientSession, twin: Twin) -> None:
    """`twin-size` at 0, 1, and beyond any buffer."""
    for size in (0, 1, 65536, 5_000_001):
        answer = await predict(http, twin, tail=f"?twin-size={size}")
        assert len(answer.body) == size
        assert answer.headers["Content-Length"] == str(size)


async def test_event_stream_is_streamed(http: aiohttp.ClientSession, twin: Twin) -> None:
    """`twin-sse=3` sends three events with a gap, chunked, and ends cleanly."""
    started = asyncio.get_running_loop().time()
    answer = await predict(http, twin, tail="?twin-sse=3&twin-gap=20ms")
    took_s = asyncio.get_running_loop().time() - started
    assert round(took_s, 2) >= 0.04  # the loop's clock counts milliseconds
    assert answer.headers["Content-Type"] == "text/event-stream"
    assert answer.headers["Transfer-Encoding"] == "chunked"
    assert answer.body == b"".join(b'data: {"event":%d}\n\n' % n for n in range(3))


async def test_early_answer_comes_before_the_body(twin: Twin) -> None:
    """`twin-early` answers while the request's body is still owed."""
    async with aiohttp.ClientSession() as http:
        token = await token_of(http, twin)
    host, port = twin.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(
        f"POST /v1/infers/{ECHO_ID}?twin-early&twin-status=503 HTTP/1.1\r\nHost: x\r\n"
        f"X-Auth-Token: {token}\r\nContent-Length: 1000\r\n\r\nabc".encode()
    )
    assert (await reader.readuntil(b"\r\n")).startswith(b"HTTP/1.1 503")
    writer.close()
    assert twin.stats.services["echo"].predictions == 0


async def test_faults_for_the_next_calls_of_one_service(
    http: aiohttp.ClientSession, twin: Twin
) -> None:
    """A planned fault spoils so many calls of its service, and no others."""
    spoilt = {"faults": {"code": "APIG.0203"}, "service": "echo", "times": 2}
    await plan(http, twin, services=[spoilt])
    body = {"input": [1, 2, 3, 4]}
    assert (await predict(http, twin, IRIS_ID, json=body)).status == 200
    assert [(await predict(http, twin)).status for _ in range(3)] == [504, 504, 200]


async def test_planned_fault_without_service_or_times_spoils_all(
    http: aiohttp.ClientSession, twin: Twin
) -> None:
    """Until it is taken away."""
    await plan(http, twin, services=[{"faults": {"status": 503}}])
    for service in (IRIS_ID, ECHO_ID, IMAGE_ID, ECHO_ID):
        assert (await predict(http, twin, service)).status == 503
    await send(http, "DELETE", twin.url + "/twin/faults")
    assert (await predict(http, twin)).status == 200


@pytest.mark.parametrize(
    ("query", "hint"),
    [
        ("twin-dealy=2s", "delay, hang"),
        ("twin-status=200000", "200 to 599"),
        ("twin-code=nonsense", "APIG.0202"),
        ("twin-code=APIG.9999", "status"),
        ("twin-reset=tail", "head"),
        ("twin-slow=0/1s", "1 to"),
        ("twin-delay=-1", "500ms"),
        ("twin-early=no", "no value"),
    ],
)
async def test_unknown_faults_in_a_call_are_refused(
    http: aiohttp.ClientSession, twin: Twin, query: str, hint: str
) -> None:
    """400 `Twin.UnknownFault` with what is known, from the twin itself."""
    answer = await predict(http, twin, tail="?" + query)
    assert (answer.status, answer.json["error_code"]) == (400, "Twin.UnknownFault")
    assert answer.headers["Server"] == "twin"
    assert hint in answer.json["error_msg"]


async def test_faults_need_a_good_token_first(http: aiohttp.ClientSession, twin: Twin) -> None:
    """Nobody gets past the API gateway with a fault, and no planned fault is used up."""
    await plan(http, twin, services=[{"faults": {"status": 503}, "times": 1}])
    url = twin.service_url(ECHO_ID) + "?twin-status=200"
    assert (await send(http, "POST", url)).status == 401
    assert (await predict(http, twin)).status == 503
