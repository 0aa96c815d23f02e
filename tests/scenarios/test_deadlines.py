"""Every wait has an end, and the end says who was waited for."""

import pytest

from tests.scenarios.messages import (
    CHUNKED,
    GET,
    OK,
    POST,
    answer,
    chunks,
    error_in,
    forwarded,
    head_of,
    upload,
)
from tests.support.memory import (
    BODY_PAUSE_S,
    FIRST_BYTE_S,
    FIRST_CHUNK_S,
    HEAD_S,
    KEEP_ALIVE_S,
    Fate,
    OpenStage,
    Stage,
)

TICK_S = 0.25


async def ends_after(stage: Stage, seconds: float) -> None:
    """Assert that nothing is decided a little before, and let the deadline pass then."""
    before = len(stage.records)
    stage.pass_time(seconds - TICK_S)
    assert len(stage.records) == before
    assert stage.client.fate is Fate.OPEN
    stage.pass_time(TICK_S)
    await stage.settle()


# The client is waited for.


@pytest.mark.parametrize("asked_before", [False, True])
async def test_head_that_does_not_end_is_408(asked_before: bool, stage: Stage) -> None:
    """
    A head has 10 s from its first byte, on a new connection and on a used one.
    """
    if asked_before:
        stage.client.sends(GET)
        stage.service.answers(OK)
    stage.pass_time(30.0)
    stage.client.sends(GET[:10])
    stage.pass_time(4.0)
    stage.client.sends(GET[10:20])
    await ends_after(stage, HEAD_S - 4.0)

    assert error_in(stage.client.replies[-1]) == (408, "SlowRequest")
    assert stage.client.replies[-1].closes
    assert stage.client.fate is Fate.HALF_CLOSED
    assert stage.records[-1]["service"] == "other"


async def test_head_that_began_behind_a_request_has_its_own_time(stage: Stage) -> None:
    """
    It counts from the end of the response before it.
    """
    stage.client.sends(GET + GET[:10])
    stage.clock.advance(30.0)
    stage.service.answers(OK)
    await ends_after(stage, HEAD_S)

    assert [reply.status for reply in stage.client.replies] == [200, 408]


@pytest.mark.parametrize("asked_before", [False, True])
async def test_idle_connection_closes(asked_before: bool, stage: Stage) -> None:
    """
    Without a word, 75 s after it was opened or after its last response.
    """
    if asked_before:
        stage.clock.advance(30.0)
        stage.client.sends(GET)
        stage.service.answers(OK)
    await ends_after(stage, KEEP_ALIVE_S)

    assert stage.client.fate is Fate.CLOSED
    assert stage.client.received == (OK if asked_before else b"")
    assert len(stage.records) == asked_before


async def test_idle_connection_whose_response_is_unread_is_reset(stage: Stage) -> None:
    """
    A close would wait for its reader for ever.
    """
    stage.client.stops_reading()
    stage.client.sends(GET)
    stage.service.answers(OK)
    stage.pass_time(KEEP_ALIVE_S)
    await stage.settle()

    assert stage.client.received == b""
    assert stage.client.fate is Fate.RESET
    assert stage.record["status"] == 200


@pytest.mark.parametrize(
    "begun",
    [upload(10), upload(10, b"begun"), CHUNKED + chunks(b"begun"), CHUNKED + b"9\r\nbegun"],
    ids=["nothing", "length", "chunked", "in a chunk"],
)
async def test_upload_that_stalls_is_408(begun: bytes, stage: Stage) -> None:
    """
    The service sees a cut request; the client hears why, and its connection ends.
    """
    stage.client.sends(begun)
    await ends_after(stage, BODY_PAUSE_S)

    assert error_in(stage.client.reply) == (408, "SlowRequest")
    assert stage.client.reply.closes
    assert stage.client.fate is Fate.HALF_CLOSED
    assert stage.service.fate is Fate.ABORTED
    assert stage.record["error"] == "slow_request"


async def test_upload_may_take_long_while_it_goes_on(stage: Stage) -> None:
    """
    The time counts from the last piece.
    """
    stage.client.sends(upload(6))
    for _ in range(6):
        stage.pass_time(BODY_PAUSE_S - TICK_S)
        stage.client.sends(b"x")
    stage.service.answers(OK)

    assert stage.client.received == OK


async def test_refusal_that_is_unread_lingers_longer(stage: Stage) -> None:
    """
    A client that has not read its error has as long as an idle one.
    """
    stage.client.stops_reading()
    stage.client.sends(upload(10, b"begun").replace(b"/iris", b"/nobody"))
    stage.pass_time(KEEP_ALIVE_S - TICK_S)
    assert stage.client.is_open
    stage.client.reads_again()

    assert error_in(stage.client.reply) == (404, "UnknownService")
    assert stage.client.fate is Fate.HALF_CLOSED


# The service is waited for.


@pytest.mark.parametrize(
    "said",
    [b"", b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 200 OK\r\nX"],
    ids=["nothing", "interim", "half a head"],
)
async def test_response_must_begin_in_time(said: bytes, stage: Stage) -> None:
    """
    504, whatever there is short of a final head; the call is aborted, the client stays.
    """
    stage.client.sends(POST)
    if said:
        stage.service.answers(said)
    await ends_after(stage, FIRST_BYTE_S)

    assert error_in(stage.client.reply) == (504, "HttpResponseTimeout")
    assert not stage.client.reply.closes
    assert stage.client.fate is Fate.OPEN
    assert stage.service.fate is Fate.ABORTED
    assert (stage.pool.active, stage.pool.idle) == (0, 0)
    assert stage.sample("gateway_errors_total", error="http_response_timeout") == 1


async def test_time_for_the_response_counts_from_the_end_of_the_request(stage: Stage) -> None:
    """
    A slow upload does not shorten it.
    """
    stage.client.sends(upload(2, b"a"))
    stage.pass_time(BODY_PAUSE_S - TICK_S)
    stage.client.sends(b"b")
    await ends_after(stage, FIRST_BYTE_S)

    assert error_in(stage.client.reply) == (504, "HttpResponseTimeout")


async def test_time_for_the_response_begins_anew_after_a_rejection(stage: Stage) -> None:
    """
    A request that is sent again has all of it.
    """
    stage.client.sends(GET)
    stage.clock.advance(30.0)
    stage.service.answers(answer(401, b'{"error_code":"APIG.0301"}'))
    await stage.until(lambda: b"token-2" in stage.service.received)
    await ends_after(stage, FIRST_BYTE_S)

    assert error_in(stage.client.reply) == (504, "HttpResponseTimeout")


@pytest.mark.parametrize(
    "begun",
    [
        head_of(b"Content-Length: 9") + b"begun",
        head_of(b"Transfer-Encoding: chunked") + chunks(b"begun"),
        head_of() + b"begun",
    ],
    ids=["length", "chunked", "close"],
)
async def test_response_that_stalls_is_broken_off(begun: bytes, stage: Stage) -> None:
    """
    The client is reset, as the response must not seem to have ended.
    """
    stage.client.sends(POST)
    stage.service.answers(begun)
    await ends_after(stage, BODY_PAUSE_S)

    assert stage.client.fate is Fate.RESET
    assert stage.service.fate is Fate.ABORTED
    assert (stage.pool.active, stage.pool.idle) == (0, 0)
    assert (stage.record["status"], stage.record["error"]) == (200, "http_response_timeout")


async def test_response_may_take_long_while_it_goes_on(stage: Stage) -> None:
    """
    The time counts from the last piece.
    """
    stage.client.sends(GET)
    stage.service.answers(head_of(b"Content-Length: 7") + b"x")
    for _ in range(6):
        stage.pass_time(BODY_PAUSE_S - TICK_S)
        stage.service.answers(b"x")

    assert stage.client.reply.body == b"xxxxxxx"
    assert stage.client.reply.complete


async def test_service_that_does_not_read_is_504(stage: Stage) -> None:
    """
    The client has bytes left to send, so it is not the one who is slow.
    """
    stage.service.stops_reading()
    stage.client.sends(upload(10), b"begun")
    stage.client.sends(b"more")
    await ends_after(stage, BODY_PAUSE_S)

    assert error_in(stage.client.reply) == (504, "HttpResponseTimeout")
    assert stage.client.reply.closes
    assert stage.service.fate is Fate.ABORTED


async def test_time_that_the_service_took_to_read_is_not_the_client_s(stage: Stage) -> None:
    """
    After the service has read again, the client has its full time.
    """
    stage.service.stops_reading()
    stage.client.sends(upload(10), b"begun")
    stage.pass_time(BODY_PAUSE_S - TICK_S)
    stage.service.reads_again()
    await ends_after(stage, BODY_PAUSE_S)

    assert error_in(stage.client.reply) == (408, "SlowRequest")


async def test_client_that_reads_too_slowly_is_reset(stage: Stage) -> None:
    """
    It is told apart from a service that stalls.
    """
    stage.client.stops_reading()
    stage.client.sends(GET)
    stage.service.answers(head_of(b"Content-Length: 9"), b"begun")
    await ends_after(stage, BODY_PAUSE_S)

    assert stage.client.fate is Fate.RESET
    assert stage.client.received == b""
    assert stage.service.fate is Fate.ABORTED
    assert (stage.record["status"], stage.record["error"]) == (200, "client_disconnected")


async def test_service_has_its_time_after_a_slow_client_has_read(stage: Stage) -> None:
    """
    The time in which nothing was read from the service does not count.
    """
    stage.client.stops_reading()
    stage.client.sends(GET)
    stage.service.answers(head_of(b"Content-Length: 9"), b"begun")
    stage.pass_time(BODY_PAUSE_S - TICK_S)
    stage.client.reads_again()
    await stage.settle()
    await ends_after(stage, BODY_PAUSE_S)

    assert stage.record["error"] == "http_response_timeout"


# What has no deadline of the connection's.


async def test_wait_for_a_credential_is_not_the_connection_s_matter(stage: Stage) -> None:
    """
    The part that provides it decides when to give up.
    """
    stage.credentials.are_awaited()
    stage.client.sends(GET)
    await stage.settle()
    stage.pass_time(1000.0)
    assert stage.client.fate is Fate.OPEN
    stage.credentials.arrive()
    await stage.until(lambda: stage.service.received)
    await ends_after(stage, FIRST_BYTE_S)

    assert error_in(stage.client.reply) == (504, "HttpResponseTimeout")


async def test_wait_for_a_connection_is_not_the_client_connection_s_matter(
    open_stage: OpenStage,
) -> None:
    """
    The pool decides when to give up.
    """
    stage = open_stage(connection_at_hand=False)
    stage.pool.makes_wait()
    stage.client.sends(upload(10, b"begun"))
    await stage.settle()
    stage.pass_time(1000.0)
    assert stage.client.fate is Fate.OPEN
    stage.pool.opens()
    await stage.until(lambda: stage.services)

    assert stage.service.received == forwarded(b"POST", b"", b"Content-Length: 10", body=b"begun")
    stage.under_way_at_end = 1


async def test_upload_below_its_rate_ends(open_stage: OpenStage) -> None:
    """
    Averaged over 10 s; a byte now and then is not enough to hold a place of the service.
    """
    stage = open_stage(upload_rate=100)
    stage.client.sends(upload(10_000))
    for _ in range(9):
        stage.pass_time(1.0)
        stage.client.sends(b"x")
        await stage.settle()
    assert stage.client.replies == []
    for _ in range(3):
        stage.pass_time(1.0)
        await stage.settle()

    assert error_in(stage.client.reply) == (408, "SlowRequest")
    assert stage.service.fate is Fate.ABORTED


async def test_upload_above_its_rate_goes_on(open_stage: OpenStage) -> None:
    """
    However it is spread within the 10 s; and while the service does not read, nobody is blamed.
    """
    stage = open_stage(upload_rate=100)
    stage.client.sends(upload(10_000))
    for _ in range(4):
        for _ in range(10):
            stage.pass_time(1.0)
            await stage.settle()
        stage.client.sends(b"x" * 2500)
        await stage.settle()
    stage.service.answers(OK)

    assert stage.client.reply.body == b"ok"


# Bytes come one at a time, each of them in time: a drip (F23).


async def test_head_that_drips_is_408(stage: Stage) -> None:
    """
    An octet every half second does not make the time for a head longer.
    """
    head = GET[:-2]
    for _ in range(int(HEAD_S / 0.5)):
        octet, head = head[:1], head[1:]
        stage.client.sends(octet)
        assert not stage.records
        stage.pass_time(0.5)
    await stage.settle()

    assert error_in(stage.client.reply) == (408, "SlowRequest")
    assert not any(end.received for end in stage.services)


@pytest.mark.parametrize("pause_s", [0.5, 33.0])
async def test_upload_that_drips_is_408(pause_s: float, open_stage: OpenStage) -> None:
    """
    Below its rate, which is looked at over 10 s, it ends, though no pause is too long.
    """
    stage = open_stage(upload_rate=1024)
    stage.client.sends(upload(10_000, b"a"))
    passed = 0.0
    while not stage.records:
        if passed % pause_s == 0.0:
            stage.client.sends(b"a")
        stage.pass_time(0.5)
        await stage.settle()
        passed += 0.5
        assert passed <= 11.0

    assert error_in(stage.client.reply) == (408, "SlowRequest")
    assert not stage.service.is_open


@pytest.mark.parametrize("pause_s", [0.5, 33.0])
async def test_response_head_that_drips_is_504(pause_s: float, stage: Stage) -> None:
    """
    What has come of it does not make the time for the response longer.
    """
    stage.client.sends(POST)
    head = head_of(b"X: %b" % (b"x" * 1000))
    passed = 0.0
    while passed < FIRST_BYTE_S:
        assert not stage.records
        octet, head = head[:1], head[1:]
        stage.service.answers(octet)
        stage.pass_time(pause_s)
        passed += pause_s
    await stage.settle()

    assert error_in(stage.client.reply) == (504, "HttpResponseTimeout")
    assert stage.service.fate is Fate.ABORTED


async def test_service_that_drips_before_its_body_is_broken_off(stage: Stage) -> None:
    """
    The extension of a chunk is no body: the first octet of that has its own time.
    """
    stage.client.sends(POST)
    stage.service.answers(head_of(b"Transfer-Encoding: chunked") + b"5;a")
    for _ in range(int(FIRST_CHUNK_S / 0.5)):
        assert not stage.records
        stage.service.answers(b"a")
        stage.pass_time(0.5)
    await stage.settle()

    assert stage.client.fate is Fate.RESET
    assert stage.service.fate is Fate.ABORTED


async def test_response_that_drips_holds_up_nobody(stage: Stage) -> None:
    """
    It may, as an event stream does: each octet is passed on at once, and others are served.
    """
    stage.client.sends(POST)
    dripping = stage.service
    dripping.answers(head_of(b"Content-Length: 4"))
    for count in range(1, 4):
        dripping.answers(b"x")
        assert stage.client.received.endswith(b"\r\n\r\n" + b"x" * count)
        stage.pass_time(33.0)
        other = stage.new_client()
        other.sends(GET)
        await stage.settle()
        ends = [end for end in stage.services if end is not dripping]
        assert sum(end.received.count(b"GET ") for end in ends) == count
        ends[-1].answers(OK)
        await stage.settle()
        assert other.reply.status == 200
        other.leaves()

    dripping.answers(b"x")
    assert stage.client.reply.complete
