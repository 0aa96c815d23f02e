"""When the gateway takes no more: too many requests, too many connections, and its own end."""

from typing import cast

import pytest

from gateway.downstream.client_stream import FOR_TURN
from gateway.downstream.connection import HEAD_TIMEOUT_S, ClientConnection
from tests.scenarios.messages import GET, OK, POST, answer, error_in, forwarded, upload
from tests.support.memory import GRACE_S, LINGER_S, Fate, OpenStage, Stage


async def test_overloaded_service_refuses_at_once(open_stage: OpenStage) -> None:
    """
    The request above the limit gets 503; after the first has ended there is room again.
    """
    stage = open_stage(max_in_flight=1)
    second = stage.new_client()
    stage.client.sends(POST)
    second.sends(POST)
    assert error_in(second.reply) == (503, "Overloaded")
    assert second.reply.values(b"retry-after") == [b"1"]
    assert second.fate is Fate.OPEN

    stage.service.answers(OK)
    second.sends(POST)
    stage.service.answers(answer(200, b"second"))
    assert [reply.status for reply in second.replies] == [503, 200]
    assert len(stage.services) == 1


async def test_connection_above_the_limit_is_refused_politely(open_stage: OpenStage) -> None:
    """
    A client that is one too many gets 503 without having asked anything.
    """
    stage = open_stage(max_connections=1)
    second = stage.new_client()

    assert error_in(second.reply) == (503, "Overloaded")
    assert second.fate is Fate.HALF_CLOSED
    assert stage.client.fate is Fate.OPEN


@pytest.mark.parametrize(
    "begun", [b"POST /iris HTTP/1.1\r\nHo", upload(10, b"begun")], ids=["head", "body"]
)
async def test_client_that_stops_in_a_request_makes_room(
    open_stage: OpenStage, begun: bytes
) -> None:
    """
    With too many connections, a client that has stopped in the middle of a request gives way.
    """
    stage = open_stage(max_connections=1)
    stage.client.sends(begun)
    await stage.settle()
    early = stage.new_client()
    assert error_in(early.reply) == (503, "Overloaded")
    early.leaves()
    await stage.settle()
    stage.clock.advance(1.1)
    second = stage.new_client()
    await stage.settle()
    second.sends(GET)
    await stage.settle()
    stage.service.answers(OK)

    assert stage.client.fate is Fate.RESET
    assert second.reply.status == 200
    assert stage.sample("gateway_requests_rejected_total", reason="connections") >= 1


async def test_those_that_have_gone_on_meanwhile_keep_nobody_from_a_place(
    open_stage: OpenStage,
) -> None:
    """
    Who had stopped and has sent more by its turn is passed over, and the next one gives way.
    """
    stage = open_stage(max_connections=21)
    *stopped, last = (stage.new_client() for _ in range(20))
    for client in (*stopped, last):
        client.sends(b"GET /iris HTTP/1.1\r\n")
    await stage.settle()
    stage.clock.advance(0.3)
    stage.new_client()
    assert stopped[0].fate is Fate.RESET
    for client in stopped[1:]:
        client.sends(b"X: 1\r\n")
    await stage.settle()

    second = stage.new_client()
    assert last.fate is Fate.RESET
    second.sends(GET)
    await stage.settle()
    stage.service.answers(OK)
    assert second.reply.status == 200


async def test_few_give_way_for_one_newcomer(open_stage: OpenStage) -> None:
    """
    Each takes a while, and in a flood many come in one turn of the loop.
    """
    stage = open_stage(max_connections=21)
    stopped = [stage.new_client() for _ in range(20)]
    for client in stopped:
        client.sends(b"GET /iris HTTP/1.1\r\n")
    refused = [stage.new_client() for _ in range(12)]
    await stage.settle()
    stage.clock.advance(0.3)
    stage.new_client()
    assert [client.fate for client in (*stopped, *refused)].count(Fate.RESET) == 8


async def test_client_that_has_had_its_answer_is_not_told_twice(open_stage: OpenStage) -> None:
    """
    Its connection only waits until it has read that, and gives way soon.
    """
    stage = open_stage(max_connections=1)
    stage.client.sends(b"POST /iris HTTP/1.1\r\nHo")
    stage.pass_time(HEAD_TIMEOUT_S + 1.0)
    assert stage.client.reply.status == 408
    stage.clock.advance(0.1)
    early = stage.new_client()
    assert error_in(early.reply) == (503, "Overloaded")
    early.leaves()
    await stage.settle()
    stage.clock.advance(0.4)
    second = stage.new_client()
    second.sends(GET)
    await stage.settle()
    stage.service.answers(OK)

    assert second.reply.status == 200
    assert stage.client.reply.status == 408
    assert stage.client.fate is Fate.RESET


@pytest.mark.parametrize("begun", [upload(10, b"begun"), b""], ids=["upload", "unread"])
async def test_client_that_waits_for_us_has_more_time(open_stage: OpenStage, begun: bytes) -> None:
    """
    When there are too many, it gives way only after half a second.
    """
    stage = open_stage(max_connections=1)
    if begun:
        stage.client.sends(begun)
    await stage.settle()
    protocol = cast(ClientConnection, stage.client._transport._protocol)
    protocol.stream.hold(FOR_TURN)
    stage.clock.advance(0.4)
    early = stage.new_client()
    assert error_in(early.reply) == (503, "Overloaded")
    early.leaves()
    await stage.settle()
    stage.clock.advance(0.2)
    stage.new_client()
    await stage.settle()

    assert stage.client.fate is Fate.RESET


async def test_client_that_waits_makes_no_room(open_stage: OpenStage) -> None:
    """
    A client between requests, or one that waits for a response, stays.
    """
    stage = open_stage(max_connections=1)
    stage.client.sends(GET)
    stage.clock.advance(2.0)
    assert error_in(stage.new_client().reply) == (503, "Overloaded")
    stage.service.answers(OK)
    stage.clock.advance(2.0)
    assert error_in(stage.new_client().reply) == (503, "Overloaded")
    assert stage.client.reply.status == 200


async def test_flood_of_connections_is_reset(open_stage: OpenStage) -> None:
    """
    Beyond 16 connections above the limit, clients are not even told.
    """
    stage = open_stage(max_connections=1)
    clients = [stage.new_client() for _ in range(17)]

    assert [client.fate for client in clients] == [Fate.HALF_CLOSED] * 16 + [Fate.RESET]
    assert clients[-1].received == b""
    assert stage.sample("gateway_requests_rejected_total", reason="connections") == len(clients)


# The end of the gateway's life.


async def test_announced_end_makes_every_response_the_last(stage: Stage) -> None:
    """
    Requests are still served, each with `Connection: close`; the client may close first.
    """
    stage.announces_its_end()
    stage.client.sends(GET)
    stage.service.answers(OK)
    await stage.settle()

    assert stage.client.reply.body == b"ok"
    assert stage.client.reply.closes
    assert not stage.client.is_open
    stage.client.leaves()
    assert stage.client.fate is Fate.CLOSED
    assert stage.pool.idle == 1


async def test_announced_end_holds_for_what_is_in_flight(stage: Stage) -> None:
    """
    The response to a request that was sent before says `close` as well.
    """
    stage.client.sends(GET)
    stage.announces_its_end()
    stage.service.answers(OK)

    assert stage.client.reply.closes
    assert stage.client.fate is Fate.HALF_CLOSED


async def test_response_that_had_begun_is_not_the_last(stage: Stage) -> None:
    """
    Its head promised that another request may follow; that one is served, as the last.
    """
    response = answer(200, b"ok")
    stage.client.sends(GET)
    stage.service.answers(response[:-1])
    drain = stage.drains()
    await stage.settle()
    stage.service.answers(response[-1:])
    assert stage.client.is_open
    stage.client.sends(GET)
    stage.service.answers(OK)
    stage.client.leaves()
    await stage.grace_is_over()

    assert await drain
    assert [reply.closes for reply in stage.client.replies] == [False, True]
    assert stage.client.fate is Fate.CLOSED


async def test_drain_waits_for_what_may_still_follow_a_response(stage: Stage) -> None:
    """
    Where the response ends long after the end was announced, the next request is told: 503.
    """
    response = answer(200, b"ok")
    stage.client.sends(GET)
    stage.service.answers(response[:-1])
    drain = stage.drains(timeout_s=60.0)
    await stage.grace_is_over()
    stage.service.answers(response[-1:])
    await stage.settle()
    assert not drain.done()
    stage.client.sends(GET)
    stage.client.leaves()
    await stage.settle()

    assert await drain
    first, second = stage.client.replies
    assert (first.status, second.status, second.closes) == (200, 503, True)


async def test_drain_lets_requests_finish(stage: Stage) -> None:
    """
    The request under way is answered as the last; the drain ends when its client has closed.
    """
    stage.client.sends(GET)
    drain = stage.drains()
    await stage.grace_is_over()
    assert not drain.done()
    stage.service.answers(OK)
    await stage.settle()
    assert not drain.done()
    stage.client.leaves()
    await stage.until(drain.done)

    assert drain.result()
    assert stage.client.reply.body == b"ok"
    assert stage.client.reply.closes


async def test_drain_waits_no_longer_than_for_a_client_to_close(stage: Stage) -> None:
    """
    A client that has its last response and does not close is closed after a while.
    """
    stage.client.sends(GET)
    drain = stage.drains(timeout_s=60.0)
    await stage.grace_is_over()
    stage.service.answers(OK)
    stage.pass_time(LINGER_S)

    assert await drain
    assert stage.client.reply.body == b"ok"
    assert stage.client.fate is Fate.CLOSED


async def test_drain_drops_what_is_pipelined(stage: Stage) -> None:
    """
    A request behind the one under way is not begun any more.
    """
    stage.client.sends(GET + GET)
    drain = stage.drains()
    await stage.settle()
    stage.service.answers(OK)
    stage.client.leaves()
    assert await drain

    assert stage.client.reply.status == 200
    assert stage.service.received == forwarded(b"GET", b"")


async def test_drain_refuses_a_request_that_has_only_begun(stage: Stage) -> None:
    """
    A head that does not become complete in a moment gets 503 instead of a mere close.
    """
    stage.client.sends(GET[:20])
    drain = stage.drains()
    await stage.grace_is_over()
    stage.client.leaves()
    assert await drain

    assert error_in(stage.client.reply) == (503, "Draining")
    assert stage.client.reply.values(b"retry-after") == [b"1"]


async def test_drain_serves_a_request_that_was_on_its_way(stage: Stage) -> None:
    """
    Who has just connected may send one request.
    """
    drain = stage.drains()
    await stage.settle()
    stage.client.sends(GET)
    stage.service.answers(OK)
    stage.client.leaves()
    await stage.grace_is_over()

    assert await drain
    assert stage.client.reply.body == b"ok"
    assert stage.client.reply.closes


async def test_new_connection_during_a_drain_is_told(stage: Stage) -> None:
    """
    A request on a connection that was opened too late gets 503 and `Connection: close`.
    """
    drain = stage.drains()
    await stage.grace_is_over()
    assert await drain
    late = stage.new_client()
    late.sends(GET)

    assert error_in(late.reply) == (503, "Draining")
    assert late.reply.closes
    assert stage.service.received == b""


async def test_drain_closes_idle_connections(stage: Stage) -> None:
    """
    A connection that has been without a request for a while ends at once, without a word.
    """
    stage.clock.advance(GRACE_S)
    assert await stage.drains()

    assert stage.client.fate is Fate.CLOSED
    assert stage.client.received == b""


async def test_drain_breaks_off_what_does_not_end(stage: Stage) -> None:
    """
    A request that outlasts the drain's timeout is reset, and so is its call to the service.
    """
    stage.client.sends(GET)
    drain = stage.drains(timeout_s=5.0)
    await stage.settle()
    stage.clock.advance(5.0)
    await stage.until(drain.done)
    await stage.settle()

    assert not drain.result()
    assert stage.client.fate is Fate.RESET
    assert stage.service.fate is Fate.ABORTED
    assert stage.record["error"] == "client_disconnected"
