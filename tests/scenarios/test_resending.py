"""Requests that are sent again because a kept connection was dead, and those that are not."""

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
    request,
    token,
    upload,
)
from tests.support.memory import FIRST_BYTE_S, Fate, OpenStage, Stage

REJECTED = answer(401, b'{"error_code":"APIG.0301"}')


def use_once(stage: Stage) -> None:
    """Make the connection to the service a kept one: it has served a request before."""
    stage.client.sends(GET)
    stage.service.answers(OK)
    assert stage.pool.idle == 1


async def second_connection(stage: Stage) -> None:
    """Wait until a request has been written on a second connection."""
    await stage.until(lambda: len(stage.services) == 2 and stage.service.received)


@pytest.mark.parametrize("method", [b"GET", b"OPTIONS", b"PUT", b"DELETE"])
async def test_kept_connection_that_closes_unheard_is_replaced(method: bytes, stage: Stage) -> None:
    """
    A method that may be repeated is sent again, with the same token; the client sees one response.
    """
    use_once(stage)
    stage.client.sends(request(method, b"{}"))
    stage.service.closes()
    await second_connection(stage)
    stage.service.answers(OK)

    again = forwarded(method, b"", b"Content-Length: 2", body=b"{}")
    assert stage.services[0].received.endswith(again)
    assert stage.service.received == again
    assert stage.client.received == OK * 2
    assert (stage.pool.active, stage.pool.idle) == (0, 1)
    assert stage.records[1]["retries"] == 1
    assert stage.sample("gateway_upstream_retries_total", reason="stale_connection") == 1
    assert stage.sample("gateway_errors_total") == 0


async def test_kept_connection_that_is_reset_is_replaced(stage: Stage) -> None:
    """
    HEAD is sent again after a reset as after a close.
    """
    use_once(stage)
    stage.client.sends(request(b"HEAD"))
    stage.service.resets()
    await second_connection(stage)
    stage.service.answers(head_of(b"Content-Length: 9"))

    assert stage.client.received == OK + head_of(b"Content-Length: 9")


@pytest.mark.parametrize("method", [b"POST", b"PATCH"])
async def test_method_that_must_not_run_twice_is_not_sent_again(
    method: bytes, stage: Stage
) -> None:
    """
    The service may have acted on it: the client is told, and decides.
    """
    use_once(stage)
    stage.client.sends(request(method, b"{}"))
    stage.service.closes()
    await stage.settle()

    assert error_in(stage.client.replies[1]) == (502, "ConnectionTerminated")
    assert not stage.client.replies[1].closes
    assert len(stage.services) == 1
    assert (stage.pool.active, stage.pool.idle) == (0, 0)
    assert stage.records[1]["retries"] == 0


async def test_any_method_is_sent_again_if_nothing_was_written(stage: Stage) -> None:
    """
    A connection that is found closed before the request was written has not passed it on.
    """
    use_once(stage)
    stage.service.breaks()
    stage.client.sends(POST)
    await second_connection(stage)
    stage.service.answers(OK)

    assert stage.client.received == OK * 2
    assert stage.services[0].received == forwarded(b"GET", b"")
    assert stage.records[1]["retries"] == 1


async def test_new_connection_that_closes_has_failed(stage: Stage) -> None:
    """
    Only a kept connection can die between two requests.
    """
    stage.client.sends(GET)
    stage.service.closes()
    await stage.settle()

    assert error_in(stage.client.reply) == (502, "ConnectionTerminated")
    assert len(stage.services) == 1


async def test_request_is_sent_again_only_once(stage: Stage) -> None:
    """
    When the second kept connection is dead, too, the client is told.
    """
    other = stage.new_client()
    stage.client.sends(GET)
    other.sends(GET)
    await second_connection(stage)
    for service in stage.services:
        service.answers(OK)
    assert stage.pool.idle == 2
    stage.client.sends(GET)
    stage.service.closes()
    await stage.until(lambda: stage.services[0].received == forwarded(b"GET", b"") * 2)
    stage.services[0].closes()
    await stage.settle()

    assert error_in(stage.client.replies[1]) == (502, "ConnectionTerminated")
    assert len(stage.services) == 2
    assert (stage.pool.active, stage.pool.idle) == (0, 0)
    assert stage.records[2]["retries"] == 1


@pytest.mark.parametrize(
    "heard", [b"H", b"HTTP/1.1 100 Continue\r\n\r\n"], ids=["a byte", "interim"]
)
async def test_service_that_was_heard_is_not_asked_again(heard: bytes, stage: Stage) -> None:
    """
    A byte of a response shows that the request has arrived.
    """
    use_once(stage)
    stage.client.sends(GET)
    stage.service.answers(heard)
    stage.service.closes()
    await stage.settle()

    assert error_in(stage.client.replies[1]) == (502, "ConnectionTerminated")
    assert len(stage.services) == 1


async def test_response_that_has_begun_is_not_asked_for_again(stage: Stage) -> None:
    """
    The client has its beginning, and gets a reset.
    """
    use_once(stage)
    stage.client.sends(GET)
    stage.service.answers(head_of(b"Content-Length: 9"))
    stage.service.closes()
    await stage.settle()

    assert stage.client.fate is Fate.RESET
    assert len(stage.services) == 1


async def test_service_that_does_not_answer_is_not_asked_again(stage: Stage) -> None:
    """
    Silence is no sign of a dead connection.
    """
    use_once(stage)
    stage.client.sends(GET)
    stage.pass_time(FIRST_BYTE_S)
    await stage.settle()

    assert error_in(stage.client.replies[1]) == (504, "HttpResponseTimeout")
    assert len(stage.services) == 1
    assert stage.services[0].fate is Fate.ABORTED


async def test_body_too_large_to_keep_is_not_sent_again(open_stage: OpenStage) -> None:
    """
    A PUT beyond the replay buffer is 502 when its connection dies.
    """
    stage = open_stage(replay_bytes=10)
    use_once(stage)
    stage.client.sends(request(b"PUT", b"x" * 11))
    stage.service.closes()
    await stage.settle()

    assert error_in(stage.client.replies[1]) == (502, "ConnectionTerminated")
    assert len(stage.services) == 1


async def test_unfinished_upload_goes_on_on_the_new_connection(stage: Stage) -> None:
    """
    What had arrived is sent again, and the rest follows it.
    """
    use_once(stage)
    stage.client.sends(upload(6, b"ab", method=b"PUT"))
    stage.service.closes()
    await second_connection(stage)
    stage.client.sends(b"cdef")
    stage.service.answers(OK)

    assert stage.service.received == forwarded(b"PUT", b"", b"Content-Length: 6", body=b"abcdef")
    assert stage.client.received == OK * 2
    assert stage.pool.idle == 1


async def test_connection_that_closed_while_idle_is_not_used(stage: Stage) -> None:
    """
    Nothing is written on it, so nothing has to be sent again.
    """
    use_once(stage)
    stage.service.closes()
    await stage.settle()
    assert stage.pool.idle == 0
    stage.client.sends(POST)
    await second_connection(stage)
    stage.service.answers(OK)

    assert stage.client.received == OK * 2
    assert stage.records[1]["retries"] == 0


async def test_connection_that_spoke_unasked_is_not_used(stage: Stage) -> None:
    """
    Bytes that nobody asked for reach nobody, and the connection is closed.
    """
    use_once(stage)
    stage.service.answers(answer(200, b"for somebody else"))
    assert (stage.pool.idle, stage.service.fate) == (0, Fate.ABORTED)
    stage.client.sends(POST)
    await second_connection(stage)
    stage.service.answers(OK)

    assert stage.client.received == OK * 2


async def test_client_may_leave_while_the_second_connection_is_opened(stage: Stage) -> None:
    """
    Then the request is not sent again.
    """
    use_once(stage)
    stage.pool.makes_wait()
    stage.client.sends(GET)
    stage.service.closes()
    await stage.until(lambda: stage.pool.active == 1)
    stage.client.leaves()
    await stage.settle()
    stage.pool.opens()
    await stage.settle()

    assert len(stage.services) == 1
    assert stage.records[1]["error"] == "client_disconnected"


async def test_second_connection_may_not_be_had(stage: Stage) -> None:
    """
    The client is told of the connection that failed last.
    """
    use_once(stage)
    stage.pool.fails("CONNECTION_REFUSED")
    stage.client.sends(GET)
    stage.service.closes()
    await stage.until(lambda: len(stage.client.replies) == 2)

    assert error_in(stage.client.replies[1]) == (502, "ConnectionRefused")
    assert stage.records[1]["retries"] == 1


async def test_rejection_and_dead_connection_in_one_request(stage: Stage) -> None:
    """
    Each reason to send a request again counts for itself.
    """
    use_once(stage)
    stage.client.sends(GET)
    stage.service.answers(REJECTED)
    await stage.until(lambda: token(2) in stage.service.received)
    stage.service.closes()
    await second_connection(stage)
    stage.service.answers(OK)

    assert stage.service.received == forwarded(b"GET", b"", number=2)
    assert stage.client.received == OK * 2
    assert stage.records[1]["retries"] == 2


# Bodies that are kept to be sent again.


async def test_small_body_is_kept_until_the_response_has_ended(stage: Stage) -> None:
    """
    It may have to be sent again; afterwards nothing of it is in memory.
    """
    stage.client.sends(upload(10, b"12345"))
    assert stage.kept_bytes == 5
    stage.client.sends(b"67890")
    assert stage.kept_bytes == 10
    stage.service.answers(OK)

    assert stage.kept_bytes == 0


async def test_large_body_is_not_kept(open_stage: OpenStage) -> None:
    """
    Neither one that is announced as large, nor one that turns out to be.
    """
    stage = open_stage(replay_bytes=10)
    stage.client.sends(upload(11, b"12345"))
    other = stage.new_client()
    assert stage.kept_bytes == 0
    other.sends(CHUNKED + chunks(b"12345"))
    await stage.until(lambda: stage.kept_bytes == 5)
    other.sends(chunks(b"678901"))

    assert stage.kept_bytes == 0
    stage.under_way_at_end = 2


async def test_bodies_of_all_requests_share_one_bound(open_stage: OpenStage) -> None:
    """
    Beyond the bound a body is forwarded, but not kept.
    """
    stage = open_stage(max_kept_bytes=10)
    stage.client.sends(upload(20, b"12345678"))
    other = stage.new_client()
    other.sends(upload(20, b"12345"))
    await stage.until(lambda: len(stage.services) == 2 and stage.service.received)

    assert stage.kept_bytes == 8
    assert stage.service.received == forwarded(b"POST", b"", b"Content-Length: 20", body=b"12345")
    stage.under_way_at_end = 2
