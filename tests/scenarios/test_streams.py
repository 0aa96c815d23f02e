"""Streams of events: when they begin, how they go on, and what they say was used."""

import pytest

from tests.scenarios.messages import GET, POST, answer, chunks, head_of
from tests.support.memory import BODY_PAUSE_S, FIRST_BYTE_S, FIRST_CHUNK_S, Fate, OpenStage, Stage

EVENTS = b"Content-Type: text/event-stream; charset=utf-8"
JSON = b"Content-Type: application/json"
CHUNKED = b"Transfer-Encoding: chunked"
USAGE = b'{"usage":{"prompt_tokens":12,"completion_tokens":34}}'
TICK_S = 0.25


def first_chunk_sum(stage: Stage) -> float:
    """Seconds to the first chunk, of all responses so far; settles what has ended."""
    assert stage.records
    return stage.sample("gateway_upstream_first_chunk_seconds_sum", service="iris")


def pauses(stage: Stage) -> tuple[float, float]:
    """How many streams had a longest pause, and the sum of these in seconds."""
    assert stage.records
    name = "gateway_stream_pause_seconds"
    return stage.sample(f"{name}_count", service="iris"), stage.sample(f"{name}_sum")


# Deadlines.


@pytest.mark.parametrize("framing", [CHUNKED, b"Content-Length: 9", b"X-Until: close"])
async def test_the_body_has_a_deadline_of_its_own_to_begin(framing: bytes, stage: Stage) -> None:
    """
    A model server sends its head at once. The wait counts from the end of the request, and what
    the head took is part of it.
    """
    stage.client.sends(POST)
    stage.clock.advance(FIRST_BYTE_S / 2)
    stage.service.answers(head_of(EVENTS, framing))
    stage.pass_time(FIRST_CHUNK_S - FIRST_BYTE_S / 2 - TICK_S)
    assert stage.client.is_open
    stage.pass_time(TICK_S)

    assert stage.client.fate is Fate.RESET
    assert stage.service.fate is Fate.ABORTED
    assert (stage.record["status"], stage.record["error"]) == (200, "http_response_timeout")
    assert stage.record["first_chunk_us"] == 0
    assert stage.sample("gateway_upstream_first_chunk_seconds_count") == 0
    assert stage.sample("gateway_stream_pause_seconds_sum") == 0


async def test_pauses_are_bounded_after_the_first_chunk_only(open_stage: OpenStage) -> None:
    """
    A first token that takes longer than `idle` is waited for; a later one is not.
    """
    stage = open_stage(first_chunk_s=5 * BODY_PAUSE_S)
    stage.client.sends(POST)
    stage.service.answers(head_of(EVENTS, CHUNKED))
    stage.pass_time(4 * BODY_PAUSE_S)
    stage.service.answers(chunks(b"data: 1\n\n"))
    stage.pass_time(BODY_PAUSE_S - TICK_S)
    assert stage.client.is_open
    stage.pass_time(TICK_S)

    assert stage.client.fate is Fate.RESET
    assert stage.record["first_chunk_us"] == 4 * BODY_PAUSE_S * 1e6
    assert pauses(stage) == (1, BODY_PAUSE_S)


async def test_the_first_chunk_is_not_waited_for_while_the_client_sends(stage: Stage) -> None:
    """
    A service may answer early, and the client takes as long as its pieces come.
    """
    stage.client.sends(b"POST /iris HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\n\r\na")
    stage.service.answers(head_of(EVENTS, CHUNKED))
    stage.pass_time(BODY_PAUSE_S - TICK_S)
    stage.client.sends(b"b")
    stage.pass_time(BODY_PAUSE_S - TICK_S)
    stage.client.sends(b"c")
    stage.pass_time(FIRST_CHUNK_S - TICK_S)
    assert stage.client.is_open
    stage.pass_time(TICK_S)

    assert stage.client.fate is Fate.RESET


async def test_a_client_that_did_not_read_leaves_the_service_its_time(stage: Stage) -> None:
    """
    While the client's buffer is full, nothing is read from the service.
    """
    stage.client.stops_reading()
    stage.client.sends(POST)
    stage.service.answers(head_of(EVENTS, CHUNKED))
    stage.pass_time(FIRST_CHUNK_S - TICK_S)
    stage.client.reads_again()
    stage.pass_time(FIRST_CHUNK_S - TICK_S)
    assert stage.client.is_open
    stage.service.answers(chunks(b"x", end=True))

    assert stage.client.reply.complete


# The first chunk.


async def test_time_to_the_first_chunk_is_told_apart_from_that_of_the_head(stage: Stage) -> None:
    """
    For an event stream it is the time to the first token.
    """
    stage.client.sends(POST)
    stage.clock.advance(0.03)
    stage.service.answers(head_of(EVENTS, CHUNKED))
    stage.clock.advance(1.5)
    stage.service.answers(chunks(b"data: 1\n\n"))
    stage.clock.advance(1.0)
    stage.service.answers(chunks(b"data: 2\n\n", end=True))

    assert first_chunk_sum(stage) == pytest.approx(1.53)
    assert stage.record["first_byte_us"] == pytest.approx(30_000, abs=1)
    assert stage.record["first_chunk_us"] == pytest.approx(1_530_000, abs=1)
    name = "gateway_upstream_first_chunk_seconds_bucket"
    assert stage.sample(name, le="1.0") == 0
    assert stage.sample(name, le="2.5") == 1


async def test_a_body_that_comes_with_its_head_has_the_same_time(stage: Stage) -> None:
    """
    As most do; a response without body has no first chunk.
    """
    stage.client.sends(POST)
    stage.clock.advance(0.2)
    stage.service.answers(answer(200, b"x"))
    assert first_chunk_sum(stage) == pytest.approx(0.2)
    assert stage.record["first_chunk_us"] == stage.record["first_byte_us"] > 0
    stage.client.sends(POST)
    stage.clock.advance(0.2)
    stage.service.answers(b"HTTP/1.1 204 No Content\r\n\r\n")

    assert len(stage.records) == 2
    assert first_chunk_sum(stage) == pytest.approx(0.2)
    assert stage.records[1]["first_chunk_us"] == 0
    assert stage.sample("gateway_upstream_first_chunk_seconds_count", service="iris") == 1
    assert stage.sample("gateway_upstream_first_byte_seconds_count", service="iris") == 2


# Pace.


@pytest.mark.parametrize(
    ("head", "pieces", "counted"),
    [
        (head_of(EVENTS, CHUNKED), [chunks(b"a"), chunks(b"b", b"c"), chunks(b"d", end=True)], 4),
        # A chunk that arrives in parts is one, however small they are.
        (head_of(EVENTS, CHUNKED), [b"4\r\nda", b"ta", b"\r\n", chunks(end=True)], 1),
        # So many at once are forwarded as one piece, and are counted all the same.
        (head_of(EVENTS, CHUNKED), [chunks(*[b"x"] * 100), chunks(end=True)], 100),
        (head_of(EVENTS, b"Content-Length: 3"), [b"a", b"bc"], 2),
        (head_of(JSON, CHUNKED), [chunks(b"a"), chunks(b"b", end=True)], 0),
        (head_of(b"content-type: TEXT/Event-Stream", CHUNKED), [chunks(b"a", end=True)], 1),
        (head_of(b"Content-Type: text/event-streams", CHUNKED), [chunks(b"a", end=True)], 0),
    ],
)
async def test_chunks_of_event_streams_are_counted(
    head: bytes, pieces: list[bytes], counted: int, stage: Stage
) -> None:
    """
    As they come: a scrape sees the chunks of a stream that goes on for minutes.
    """
    stage.client.sends(POST)
    stage.service.answers(head, *pieces[:-1])
    before_its_end = stage.sample("gateway_stream_chunks_total", service="iris")
    stage.service.answers(pieces[-1])

    assert stage.client.reply.complete
    assert stage.sample("gateway_stream_chunks_total", service="iris") == counted
    assert (before_its_end > 0) == (counted > 1 or pieces[0] == b"4\r\nda")
    assert pauses(stage)[0] == (1 if counted else 0)


async def test_the_longest_pause_of_a_stream_is_kept(stage: Stage) -> None:
    """
    Between two chunks or before the end; the wait for the first one is none.
    """
    for number in range(2):
        stage.client.sends(POST)
        stage.service.answers(head_of(EVENTS, CHUNKED))
        for wait_s in (9.0, 1.0, 4.0, 2.0):
            stage.clock.advance(wait_s)
            stage.service.answers(chunks(b"data: x\n\n"))
        stage.clock.advance(3.0 if number else 5.0)
        stage.service.answers(chunks(end=True))

    assert pauses(stage) == (2, 9.0)


async def test_a_pause_that_the_client_caused_is_not_the_service_s(stage: Stage) -> None:
    """
    Nothing is read from the service while the client does not read.
    """
    stage.client.sends(POST)
    stage.service.answers(head_of(EVENTS, CHUNKED) + chunks(b"data: 1\n\n"))
    stage.client.stops_reading()
    stage.service.answers(chunks(b"data: 2\n\n"))
    stage.clock.advance(20.0)
    stage.client.reads_again()
    stage.clock.advance(2.0)
    stage.service.answers(chunks(b"data: 3\n\n", end=True))

    assert pauses(stage) == (1, 2.0)


async def test_the_pause_in_which_a_client_leaves_counts(stage: Stage) -> None:
    """
    It may well be the reason.
    """
    stage.client.sends(POST)
    stage.service.answers(head_of(EVENTS, CHUNKED) + chunks(b"data: 1\n\n"))
    stage.clock.advance(7.0)
    stage.client.leaves()
    await stage.settle()

    assert stage.record["error"] == "client_disconnected"
    assert pauses(stage) == (1, 7.0)


# Usage.


def tokens(stage: Stage) -> tuple[float, float, float]:
    """Tokens of input and of output, and responses without counts."""
    assert stage.records
    return (
        stage.sample("gateway_llm_tokens_total", service="iris", type="input"),
        stage.sample("gateway_llm_tokens_total", service="iris", type="output"),
        stage.sample("gateway_llm_usage_missing_total", service="iris"),
    )


STREAM = chunks(b"data: {}\n\n", b"data: " + USAGE + b"\n\n", b"data: [DONE]\n\n", end=True)
LONG = b'{"text":"' + b"x" * 300_000 + b'",'


@pytest.mark.parametrize(
    ("said", "found"),
    [
        (answer(200, USAGE, JSON), (12, 34, 0)),
        (answer(201, USAGE, b"content-type: Application/JSON;charset=utf-8"), (12, 34, 0)),
        (answer(200, LONG + USAGE[1:], JSON), (12, 34, 0)),
        (answer(200, USAGE[:-1] + b"," + LONG[1:-1] + b"}", JSON), (0, 0, 1)),
        (head_of(EVENTS, CHUNKED) + STREAM, (12, 34, 0)),
        (head_of(EVENTS, CHUNKED, b"Content-Encoding: identity") + STREAM, (12, 34, 0)),
        (head_of(EVENTS, CHUNKED, b"Content-Encoding: gzip") + STREAM, (0, 0, 1)),
        (answer(200, b"{}", JSON), (0, 0, 1)),
        (answer(200, USAGE, b"Content-Type: text/plain"), (0, 0, 0)),
        (answer(200, USAGE), (0, 0, 0)),
        (answer(400, USAGE, JSON), (0, 0, 0)),
        (head_of(status=b"204 No Content"), (0, 0, 0)),
    ],
    ids=lambda value: repr(value)[:60],
)
async def test_reported_tokens_are_counted(
    said: bytes, found: tuple[int, int, int], open_stage: OpenStage
) -> None:
    """
    Of 2xx responses in JSON or as events; those that say nothing are counted as missing. The
    response is forwarded as it came.
    """
    stage = open_stage(counts_usage=True)
    stage.client.sends(POST)
    for at in range(0, len(said), 65536):
        stage.service.answers(said[at : at + 65536])

    assert tokens(stage) == found
    assert stage.client.received.startswith(said[:9])
    assert stage.client.reply.complete
    if b"chunked" not in said:
        assert stage.client.received == said


async def test_a_response_to_get_uses_no_tokens(open_stage: OpenStage) -> None:
    """
    A list of models is JSON, too.
    """
    stage = open_stage(counts_usage=True)
    stage.client.sends(GET)
    stage.service.answers(answer(200, b"{}", JSON))

    assert tokens(stage) == (0, 0, 0)


async def test_a_stream_that_was_cut_has_no_usage(open_stage: OpenStage) -> None:
    """
    Its tokens were used, but nobody knows how many.
    """
    stage = open_stage(counts_usage=True)
    stage.client.sends(POST)
    stage.service.answers(head_of(EVENTS, CHUNKED) + chunks(b"data: {}\n\n"))
    stage.client.leaves()
    await stage.settle()

    assert tokens(stage) == (0, 0, 1)


async def test_tokens_are_not_exported_unless_asked_for(stage: Stage) -> None:
    """
    A series that never moves would look like a model that is never used.
    """
    stage.client.sends(POST)
    stage.service.answers(answer(200, USAGE, JSON))

    assert tokens(stage) == (0, 0, 0)
    assert not [name for name in stage.exported() if name.startswith("gateway_llm")]
