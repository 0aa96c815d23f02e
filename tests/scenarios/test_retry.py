"""Requests that are sent again because the service was throttling or not there."""

from typing import Any

import pytest

from gateway.proxy.gate import Limits
from gateway.proxy.replay import Retry
from tests.scenarios.messages import GET, OK, POST, answer, error_in, request, upload
from tests.support.memory import FIRST_BYTE_S, HOLD_S, OpenStage, Stage

DOWN = answer(503, b"down")
THROTTLED = answer(429, b'{"error_code":"APIG.0308","error_msg":"over ratelimit"}')
PAUSE_S = 2.0


def limits(**changes: Any) -> Limits:
    """A service whose requests may be sent again after 2 s."""
    given: dict[str, Any] = {
        "max_in_flight": 1000,
        "queue_depth": 0,
        "queue_wait_s": 1.0,
        "retry_on": frozenset({Retry.UNAVAILABLE, Retry.THROTTLED}),
        "retry_wait_s": PAUSE_S,
    }
    return Limits(**(given | changes))


@pytest.fixture
async def stage(open_stage: OpenStage) -> Stage:
    """A stage whose service allows retries."""
    return open_stage(limits=limits())


def requests_seen(stage: Stage) -> int:
    """How many requests the service has seen."""
    return sum(end.received.count(b" HTTP/1.1\r\n") for end in stage.services)


async def pause(stage: Stage, seconds: float = PAUSE_S) -> None:
    """Let a pause pass, after what can happen before it."""
    await stage.settle()
    stage.clock.advance(seconds)
    await stage.settle()


@pytest.mark.parametrize(
    ("refusal", "reason"),
    [(DOWN, "unavailable"), (THROTTLED, "throttled")],
    ids=["unavailable", "throttled"],
)
async def test_refused_request_is_sent_again_after_a_pause(
    refusal: bytes, reason: str, stage: Stage
) -> None:
    """
    Body and all; the caller sees the second response alone, and the wait is not our own time.
    """
    stage.client.sends(POST)
    stage.service.answers(refusal)
    await stage.settle()
    assert stage.client.received == b""
    await pause(stage, PAUSE_S - 0.01)
    assert requests_seen(stage) == 1
    await pause(stage, 0.01)
    assert requests_seen(stage) == 2
    assert stage.service.received.count(b"{}") == 2
    stage.service.answers(OK)

    assert stage.client.received == OK
    assert stage.record["retries"] == 1
    assert stage.record["overhead_us"] == 0
    assert stage.sample("gateway_upstream_retries_total", reason=reason) == 1


async def test_a_request_is_sent_again_once(stage: Stage) -> None:
    """
    The second refusal is the caller's to hear, unchanged.
    """
    stage.client.sends(POST)
    stage.service.answers(DOWN)
    await pause(stage)
    stage.service.answers(DOWN)

    assert stage.client.received == DOWN
    assert stage.record["retries"] == 1


async def test_nothing_is_sent_again_unless_named(open_stage: OpenStage) -> None:
    """
    A service that names only throttling gets a request for which it said 503 once.
    """
    stage = open_stage(limits=limits(retry_on=frozenset({Retry.THROTTLED})))
    stage.client.sends(POST)
    stage.service.answers(DOWN)

    assert stage.client.received == DOWN
    assert requests_seen(stage) == 1


async def test_models_own_errors_are_passed_on_at_once(stage: Stage) -> None:
    """
    A 429 and a 500 of the model's are looked at, and not repeated.
    """
    for status in (429, 500):
        response = answer(status, b'{"error_code":"MR.0105"}')
        stage.client.sends(POST)
        stage.service.answers(response)
        assert stage.client.received.endswith(response)

    assert requests_seen(stage) == 2


async def test_pause_that_the_service_asks_for_is_kept(stage: Stage) -> None:
    """
    Its `Retry-After`, and a tenth more: the middle of what spreads them.
    """
    stage.client.sends(POST)
    stage.service.answers(answer(503, b"down", b"Retry-After: 10"))
    await pause(stage, 10.99)
    assert requests_seen(stage) == 1
    await pause(stage, 0.02)
    stage.service.answers(OK)

    assert stage.client.received == OK


async def test_pause_that_would_be_too_long_is_not_begun(stage: Stage) -> None:
    """
    The caller gets the response with its `Retry-After`, and may come back itself.
    """
    response = answer(503, b"down", b"Retry-After: %d" % FIRST_BYTE_S)
    stage.client.sends(POST)
    stage.service.answers(response)

    assert stage.client.received == response


async def test_budget_bounds_retries(open_stage: OpenStage) -> None:
    """
    Without a share three are allowed in 10 s; the fourth is passed on, and counted.
    """
    stage = open_stage(limits=limits(retry_share=0.0, retry_wait_s=0.1))
    for _ in range(3):
        stage.client.sends(POST)
        stage.service.answers(DOWN)
        await pause(stage, 0.1)
        stage.service.answers(OK)
    stage.client.sends(POST)
    stage.service.answers(DOWN)

    assert stage.client.received == OK * 3 + DOWN
    assert stage.sample("gateway_retry_budget_exhausted_total", service="iris") == 1


async def test_body_that_is_not_kept_is_not_sent_again(open_stage: OpenStage) -> None:
    """
    It is larger than `replay_buffer`.
    """
    stage = open_stage(limits=limits(), replay_bytes=1)
    stage.client.sends(POST)
    stage.service.answers(DOWN)

    assert stage.client.received == DOWN


async def test_response_whose_body_does_not_come_is_passed_on(stage: Stage) -> None:
    """
    It is held back for a second; from then on the client has its status.
    """
    head = b"HTTP/1.1 503 Any\r\nDate: x\r\nContent-Length: 4\r\n\r\n"
    stage.client.sends(POST)
    stage.service.answers(head + b"do")
    await pause(stage, HOLD_S)
    assert stage.client.received == head + b"do"
    stage.service.answers(b"wn")

    assert stage.client.reply.body == b"down"
    assert requests_seen(stage) == 1


async def test_connection_that_cannot_be_opened_is_tried_again(open_stage: OpenStage) -> None:
    """
    A POST as well, of which the service has seen nothing.
    """
    stage = open_stage(limits=limits(), connection_at_hand=False)
    stage.pool.fails("CONNECTION_REFUSED")
    stage.client.sends(POST)
    await stage.settle()
    stage.pool.failure = None
    await pause(stage)
    stage.service.answers(OK)

    assert stage.client.received == OK
    assert stage.record["retries"] == 1


async def test_connection_that_stays_away_is_an_error(open_stage: OpenStage) -> None:
    """
    After the second attempt the caller is told which step failed.
    """
    stage = open_stage(limits=limits(), connection_at_hand=False)
    stage.pool.fails("CONNECTION_REFUSED")
    stage.client.sends(POST)
    await stage.settle()
    await pause(stage)

    assert error_in(stage.client.reply) == (502, "ConnectionRefused")


async def test_client_that_leaves_during_the_pause_is_not_sent_again(stage: Stage) -> None:
    """
    Nothing of it is left.
    """
    stage.client.sends(POST)
    stage.service.answers(DOWN)
    await stage.settle()
    stage.client.leaves()
    await pause(stage)

    assert requests_seen(stage) == 1
    assert stage.record["error"] == "client_disconnected"


async def test_drain_ends_the_pause(stage: Stage) -> None:
    """
    A request in its pause is told to go elsewhere.
    """
    stage.client.sends(POST)
    stage.service.answers(DOWN)
    await stage.settle()
    assert await stage.drains()

    assert error_in(stage.client.reply) == (503, "Draining")


async def test_place_is_free_during_the_pause(open_stage: OpenStage) -> None:
    """
    Others have their turn meanwhile; the retry then waits for its own, whatever the depth.
    """
    stage = open_stage(limits=limits(max_in_flight=1, queue_depth=1))
    stage.client.sends(POST)
    other = stage.new_client()
    other.sends(request(b"GET", target=b"/iris/other"))
    stage.service.answers(DOWN)
    await stage.until(lambda: b"/other" in stage.service.received)
    late = stage.new_client()
    stage.clock.advance(PAUSE_S - 0.5)
    late.sends(request(b"GET", target=b"/iris/late"))
    await pause(stage, 0.5)
    assert stage.sample("gateway_requests_queued") == 2
    stage.service.answers(OK)
    for _ in range(2):
        await stage.settle()
        stage.service.answers(OK)

    assert [client.reply.status for client in (stage.client, other, late)] == [200, 200, 200]


async def test_upload_that_goes_on_is_sent_again_from_its_beginning(stage: Stage) -> None:
    """
    The service has refused it before it had come whole.
    """
    stage.client.sends(upload(10, b"begun"))
    stage.service.answers(DOWN)
    await stage.settle()
    assert stage.client.received == b""
    await pause(stage)
    stage.client.sends(b"-more")
    await stage.settle()
    assert stage.service.received.endswith(b"begun-more")
    stage.service.answers(OK)

    assert stage.client.reply.status == 200
    stage.client.sends(GET)
    await stage.settle()
    stage.service.answers(OK)
