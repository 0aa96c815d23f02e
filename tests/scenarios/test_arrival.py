"""Uploads that have not arrived: they hold no place of a service that is busy."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from gateway.proxy.gate import Limits
from tests.scenarios.messages import CHUNKED, GET, OK, POST, chunks, error_in, request, upload
from tests.support.memory import BODY_PAUSE_S, Client, OpenStage, Stage

KEPT = 8
LIMITS = [
    {"limits": Limits(max_in_flight=2, queue_depth=0, queue_wait_s=1.0)},
    {"max_in_flight": 2},
]


@pytest.fixture(params=LIMITS, ids=["gate", "no gate"])
async def stage(request: pytest.FixtureRequest, open_stage: OpenStage) -> Stage:
    """A stage whose service takes two requests at a time, and refuses others at once."""
    return open_stage(**request.param, replay_bytes=KEPT)


def begun(stage: Stage) -> Client:
    """One more client that has begun to upload ten bytes."""
    client = stage.new_client()
    client.sends(upload(10))
    return client


@pytest.fixture
async def streamed(stage: Stage) -> AsyncIterator[Client]:
    """The client whose upload is streamed: the first one."""
    client = begun(stage)
    await stage.settle()
    yield client
    client.leaves()
    await stage.settle()


async def test_slow_uploads_keep_nobody_from_the_service(stage: Stage) -> None:
    """
    The first one is streamed; all others have no place, so that a complete request gets one.
    """
    slow = [begun(stage) for _ in range(5)]
    await stage.settle()
    quick = stage.new_client()
    quick.sends(POST)
    await stage.until(lambda: b"/predict" in stage.service.received)
    stage.service.answers(OK)

    assert quick.reply.status == 200
    assert len(stage.services) == 2
    assert stage.sample("gateway_requests_in_flight", service="iris") == 5
    for client in slow:
        client.leaves()
    await stage.settle()
    assert stage.sample("gateway_requests_in_flight", service="iris") == 0


@pytest.mark.parametrize("rest", [b"0123456789", b"01234567"], ids=["complete", "kept no longer"])
async def test_upload_goes_on_when_enough_has_arrived(
    stage: Stage, streamed: Client, rest: bytes
) -> None:
    """
    It is sent as it came, and what follows is streamed.
    """
    waiting = begun(stage)
    await stage.settle()
    for octet in range(len(rest)):
        assert len(stage.services) == 1
        waiting.sends(rest[octet : octet + 1])
    await stage.until(lambda: stage.service.received.endswith(rest))
    waiting.sends(b"0123456789"[len(rest) :])
    await stage.settle()
    stage.service.answers(OK)

    assert stage.service.received.endswith(b"\r\n\r\n0123456789")
    assert waiting.reply.status == 200
    assert stage.record["request_bytes"] == 10
    assert stage.record["overhead_us"] == 0


async def test_upload_that_has_arrived_may_find_no_place(stage: Stage, streamed: Client) -> None:
    """
    It is told so; it has cost the service nothing.
    """
    waiting = begun(stage)
    await stage.settle()
    quick = stage.new_client()
    quick.sends(GET)
    waiting.sends(b"0123456789")
    await stage.settle()

    assert error_in(waiting.reply) == (503, "Overloaded")
    assert stage.record["rejection"] == "queue_full"
    quick.leaves()


async def test_upload_that_stops_is_told(stage: Stage, streamed: Client) -> None:
    """
    Not before the time that any upload has.
    """
    waiting = begun(stage)
    await stage.settle()
    stage.pass_time(BODY_PAUSE_S - 0.5)
    streamed.sends(b"0")
    waiting.sends(b"0")
    stage.pass_time(BODY_PAUSE_S - 0.5)
    streamed.sends(b"1")
    assert not waiting.received
    stage.pass_time(1.0)
    assert error_in(waiting.reply) == (408, "SlowRequest")


@pytest.mark.parametrize("limits", LIMITS, ids=["gate", "no gate"])
async def test_upload_that_drips_is_told(limits: dict[str, Any], open_stage: OpenStage) -> None:
    """
    Below its rate, averaged over 10 s, it does not wait for its turn for ever (F23).
    """
    stage = open_stage(**limits, replay_bytes=KEPT, upload_rate=100)
    streamed = stage.new_client()
    streamed.sends(upload(10_000))
    await stage.settle()
    waiting = begun(stage)
    await stage.settle()
    for second in range(12):
        streamed.sends(b"x" * 500)
        if second % 2:
            waiting.sends(b"0")
        stage.pass_time(1.0)
        await stage.settle()

    assert error_in(waiting.reply) == (408, "SlowRequest")
    assert not streamed.received
    streamed.leaves()
    await stage.settle()


async def test_client_that_asks_first_is_told_to_go_on(stage: Stage, streamed: Client) -> None:
    """
    Once, before it has a place.
    """
    waiting = stage.new_client()
    waiting.sends(request(b"POST", None, b"Expect: 100-continue", b"Content-Length: 10"))
    await stage.settle()
    assert waiting.received == b"HTTP/1.1 100 Continue\r\n\r\n"
    waiting.sends(b"0123456789")
    await stage.until(lambda: stage.service.received.endswith(b"0123456789"))
    stage.service.answers(OK)
    assert waiting.received.count(b"100 Continue") == 1


async def test_upload_that_arrives_during_a_drain_is_served(stage: Stage, streamed: Client) -> None:
    """
    It was accepted before; the drain waits for it.
    """
    waiting = begun(stage)
    await stage.settle()
    drain = stage.drains(timeout_s=60.0)
    await stage.grace_is_over()
    waiting.sends(b"0123456789")
    await stage.until(lambda: stage.service.received.endswith(b"0123456789"))
    stage.service.answers(OK)
    streamed.leaves()
    waiting.leaves()

    assert await drain
    assert waiting.reply.status == 200
    assert waiting.reply.closes


async def test_malformed_upload_is_refused_while_it_arrives(stage: Stage, streamed: Client) -> None:
    """
    As it is on its way to the service.
    """
    waiting = stage.new_client()
    waiting.sends(CHUNKED + chunks(b"ab"))
    await stage.settle()
    waiting.sends(b"no chunk\r\n")
    assert error_in(waiting.reply)[0] == 400
