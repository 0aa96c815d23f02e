"""A service that fails again and again is left alone for a while."""

from typing import Any

import pytest

from gateway.proxy.gate import Limits
from tests.scenarios.messages import GET, OK, answer, error_in, request
from tests.support.memory import FIRST_BYTE_S, Client, OpenStage, Stage

DOWN = answer(503, b'{"error_code":"ModelArts.4503","error_msg":"not running"}')
MODEL_ERROR = answer(503, b'{"error_code":"MR.0105","error_msg":"bad input"}')


def limits(**changes: Any) -> Limits:
    """Two failures open the breaker for 10 s."""
    given: dict[str, Any] = {
        "max_in_flight": 1000,
        "queue_depth": 0,
        "queue_wait_s": 1.0,
        "breaker_failures": 2,
    }
    return Limits(**(given | changes))


@pytest.fixture
async def stage(open_stage: OpenStage) -> Stage:
    """A stage whose service has a breaker."""
    return open_stage(limits=limits())


async def answered(stage: Stage, *responses: bytes) -> None:
    """Let the client ask once per response."""
    for response in responses:
        stage.client.sends(GET)
        await stage.settle()
        stage.service.answers(response)


def forwarded_count(stage: Stage) -> int:
    """How many requests the service has seen."""
    return sum(end.received.count(b"GET /v1") for end in stage.services)


async def test_failures_in_a_row_open_the_breaker(stage: Stage) -> None:
    """
    Then nothing is sent, and callers are told at once how long that lasts.
    """
    await answered(stage, DOWN, DOWN)
    assert stage.sample("gateway_breaker_open", service="iris") == 1
    stage.clock.advance(4.0)
    stage.client.sends(GET)

    reply = stage.client.replies[-1]
    assert error_in(reply) == (503, "ServiceDown")
    assert reply.values(b"retry-after") == [b"6"]
    assert reply.values(b"proxy-status") == [b"modelarts-gateway; error=destination_unavailable"]
    assert not reply.closes
    assert forwarded_count(stage) == 2
    assert stage.records[-1]["rejection"] == "breaker_open"
    assert stage.sample("gateway_requests_rejected_total", reason="breaker_open") == 1
    assert stage.sample("gateway_breaker_transitions_total", to="open") == 1


async def test_errors_of_the_model_do_not_open_it(stage: Stage) -> None:
    """
    Nor do those of callers; an answer of any kind begins to count anew.
    """
    await answered(stage, MODEL_ERROR, MODEL_ERROR, DOWN, MODEL_ERROR, DOWN, answer(404), DOWN)

    assert stage.sample("gateway_breaker_open", service="iris") == 0
    assert forwarded_count(stage) == 7


async def test_one_request_is_tried_and_closes_it(stage: Stage) -> None:
    """
    While it is under way, others are refused.
    """
    await answered(stage, DOWN, DOWN)
    stage.clock.advance(10.0)
    stage.client.sends(GET)
    await stage.settle()
    other = stage.new_client()
    other.sends(GET)
    assert error_in(other.reply) == (503, "ServiceDown")
    assert other.reply.values(b"retry-after") == [b"1"]
    stage.service.answers(OK)
    assert stage.client.replies[-1].status == 200
    await answered(stage, OK)

    assert forwarded_count(stage) == 4
    assert stage.sample("gateway_breaker_open", service="iris") == 0
    assert stage.sample("gateway_breaker_transitions_total", to="half_open") == 1
    assert stage.sample("gateway_breaker_transitions_total", to="closed") == 1


async def test_probe_that_fails_makes_the_pause_longer(stage: Stage) -> None:
    """
    20 s instead of 10, with one request per pause.
    """
    await answered(stage, DOWN, DOWN)
    stage.clock.advance(10.0)
    await answered(stage, DOWN)
    stage.clock.advance(19.0)
    stage.client.sends(GET)
    assert error_in(stage.client.replies[-1]) == (503, "ServiceDown")
    stage.clock.advance(1.0)
    await answered(stage, OK)

    assert forwarded_count(stage) == 4


@pytest.mark.parametrize("end", [Client.leaves, Client.resets], ids=["leaves", "resets"])
async def test_probe_whose_caller_leaves_makes_way_for_the_next(end: Any, stage: Stage) -> None:
    """
    Nothing has been learnt, so the next request is tried.
    """
    await answered(stage, DOWN, DOWN)
    stage.clock.advance(10.0)
    prober = stage.new_client()
    prober.sends(GET)
    await stage.settle()
    end(prober)
    await stage.settle()
    await answered(stage, OK)

    assert stage.client.replies[-1].status == 200


async def test_timeouts_open_it(stage: Stage) -> None:
    """
    Two callers have waited 40 s each; the third need not.
    """
    for _ in range(2):
        stage.client.sends(GET)
        await stage.settle()
        stage.pass_time(FIRST_BYTE_S)
    stage.client.sends(GET)

    assert [reply.status for reply in stage.client.replies] == [504, 504, 503]


async def test_request_that_waits_is_refused_when_it_opens(open_stage: OpenStage) -> None:
    """
    Their turn would come only to be refused.
    """
    stage = open_stage(limits=limits(max_in_flight=1, queue_depth=5))
    stage.client.sends(GET)
    waiting = [stage.new_client() for _ in range(2)]
    for client in waiting:
        client.sends(request(b"GET", target=b"/iris"))
    await stage.settle()
    stage.service.answers(DOWN)
    await stage.settle()
    stage.service.answers(DOWN)
    await stage.settle()

    assert stage.client.reply.status == 503
    assert waiting[0].reply.status == 503
    assert error_in(waiting[1].reply) == (503, "ServiceDown")
    assert forwarded_count(stage) == 2
