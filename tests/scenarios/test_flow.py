"""Backpressure: a side that does not read makes the other one wait, and nothing is lost by it."""

from collections.abc import Callable

import pytest

from tests.scenarios.messages import (
    CHUNKED,
    GET,
    OK,
    POST,
    chunks,
    error_in,
    forwarded,
    head_of,
    request,
    upload,
)
from tests.support.memory import Client, Fate, OpenStage, Stage

HEAD = head_of(b"Content-Length: 9")
ENDINGS = pytest.mark.parametrize("end", [Client.leaves, Client.resets], ids=["leaves", "resets"])
SWITCH = request(b"GET", None, b"Connection: Upgrade", b"Upgrade: websocket")
ACCEPTED = head_of(b"Connection: Upgrade", b"Upgrade: websocket", status=b"101 Switching Protocols")


# The client does not read.


async def test_service_waits_for_a_client_that_does_not_read(stage: Stage) -> None:
    """
    It is not read until the client has caught up; then the response goes on, whole.
    """
    stage.client.stops_reading()
    stage.client.sends(GET)
    stage.service.answers(HEAD + b"123")
    assert not stage.service.is_read
    stage.service.answers(b"456", b"789")
    await stage.settle()
    assert stage.client.received == b""
    stage.client.reads_again()
    assert stage.client.received == HEAD + b"123"
    assert stage.service.is_read
    await stage.settle()

    assert stage.client.received == HEAD + b"123456789"
    assert stage.client.fate is Fate.OPEN
    assert stage.pool.idle == 1


async def test_service_may_be_made_to_wait_more_than_once(stage: Stage) -> None:
    """
    Each time the client stops, and each time it reads again.
    """
    stage.client.sends(GET)
    stage.service.answers(HEAD)
    for piece in (b"123", b"456"):
        stage.client.stops_reading()
        stage.service.answers(piece)
        assert not stage.service.is_read
        stage.client.reads_again()
        assert stage.service.is_read
    stage.service.answers(b"789")

    assert stage.client.received == HEAD + b"123456789"


async def test_end_of_a_response_does_not_wait_for_the_client(stage: Stage) -> None:
    """
    The connection to the service is free for others while the client has yet to read.
    """
    stage.client.stops_reading()
    stage.client.sends(GET)
    stage.service.answers(OK)
    assert stage.service.is_read
    assert (stage.pool.active, stage.pool.idle) == (0, 1)
    assert stage.record["status"] == 200
    stage.client.reads_again()

    assert stage.client.received == OK


async def test_client_that_never_reads_is_not_read_either(stage: Stage) -> None:
    """
    Its next request waits until it has read the response to the one before.
    """
    stage.client.stops_reading()
    stage.client.sends(GET)
    stage.service.answers(OK)
    assert not stage.client.is_read
    stage.client.sends(POST)
    await stage.settle()
    assert len(stage.records) == 1
    stage.client.reads_again()
    await stage.settle()
    stage.service.answers(OK)

    assert stage.client.received == OK * 2
    assert stage.client.is_read


async def test_pipelined_request_waits_until_the_response_is_read(stage: Stage) -> None:
    """
    It is here already, but not begun.
    """
    stage.client.stops_reading()
    stage.client.sends(GET + POST)
    stage.service.answers(OK)
    assert stage.service.received == forwarded(b"GET", b"")
    stage.client.reads_again()
    assert stage.service.received.endswith(b"{}")
    stage.service.answers(OK)

    assert stage.client.received == OK * 2


async def test_refusals_to_a_client_that_does_not_read_are_bounded(stage: Stage) -> None:
    """
    Of many requests in one read, the next is answered only when the response before it is read.
    """
    refused = request(b"GET", target=b"/nobody")
    stage.client.stops_reading()
    stage.client.sends(refused * 10)
    assert len(stage.records) == 1
    stage.client.reads_again()
    await stage.settle()

    assert [error_in(reply)[0] for reply in stage.client.replies] == [404] * 10


@ENDINGS
async def test_client_may_leave_without_having_read(
    end: Callable[[Client], None], stage: Stage
) -> None:
    """
    The call is aborted, although the service is not being read.
    """
    stage.client.stops_reading()
    stage.client.sends(GET)
    stage.service.answers(HEAD, b"123")
    end(stage.client)
    await stage.settle()

    assert stage.client.received == b""
    assert stage.service.fate is Fate.ABORTED
    assert (stage.pool.active, stage.pool.idle) == (0, 0)
    assert (stage.record["status"], stage.record["error"]) == (200, "client_disconnected")


async def test_last_response_is_delivered_to_a_slow_client(stage: Stage) -> None:
    """
    The connection closes after it has been read.
    """
    stage.client.stops_reading()
    stage.client.sends(request(b"GET", None, b"Connection: close"))
    stage.service.answers(OK)
    assert stage.client.is_open
    stage.client.reads_again()
    await stage.settle()

    assert stage.client.reply.body == b"ok"
    assert stage.client.fate is Fate.CLOSED


# The service does not read.


@pytest.mark.parametrize(
    ("head", "pieces"),
    [
        (upload(6), (b"ab", b"cd", b"ef")),
        (CHUNKED, (chunks(b"ab"), chunks(b"cd"), chunks(b"ef", end=True))),
    ],
    ids=["length", "chunked"],
)
async def test_client_waits_for_a_service_that_does_not_read(
    head: bytes, pieces: tuple[bytes, bytes, bytes], stage: Stage
) -> None:
    """
    It is not read until the service has caught up; then the body goes on, whole.
    """
    stage.client.sends(head)
    stage.service.stops_reading()
    stage.client.sends(pieces[0])
    assert not stage.client.is_read
    before = stage.service.received
    stage.client.sends(*pieces[1:])
    await stage.settle()
    assert stage.service.received == before
    stage.service.reads_again()
    assert stage.client.is_read
    await stage.settle()
    stage.service.answers(OK)

    assert stage.service.received == before + b"".join(pieces)
    assert stage.client.received == OK
    assert stage.pool.idle == 1


async def test_service_may_answer_without_having_read(stage: Stage) -> None:
    """
    The client is read again to discard what it still sends, and then closed.
    """
    stage.client.sends(upload(10))
    stage.service.stops_reading()
    stage.client.sends(b"begun")
    assert not stage.client.is_read
    stage.service.answers(OK)

    assert stage.client.reply.body == b"ok"
    assert stage.client.reply.closes
    assert stage.client.is_read
    assert stage.client.fate is Fate.HALF_CLOSED
    assert stage.pool.idle == 0


async def test_client_that_leaves_while_the_service_does_not_read_is_noticed(
    stage: Stage,
) -> None:
    """
    As it is not read, its socket is looked at.
    """
    stage.client.sends(upload(10))
    stage.service.stops_reading()
    stage.client.sends(b"begun")
    stage.client.leaves()
    await stage.settle()
    assert stage.records == []
    await stage.look_at_clients()

    assert stage.service.fate is Fate.ABORTED
    assert stage.client.fate is Fate.RESET
    assert stage.record["error"] == "client_disconnected"


async def test_small_request_leaves_without_waiting(stage: Stage) -> None:
    """
    A service whose buffer is full still gets a whole request when it reads again.
    """
    stage.service.stops_reading()
    stage.client.sends(POST)
    assert stage.client.is_read
    stage.service.reads_again()
    stage.service.answers(OK)

    assert stage.service.received.endswith(b"{}")
    assert stage.client.received == OK


# Requests and responses in turn.


async def test_request_behind_another_is_read_and_waits(stage: Stage) -> None:
    """
    While a request waits for the one before it, nothing further is read from the client.
    """
    stage.client.sends(GET)
    stage.client.sends(GET)
    assert not stage.client.is_read
    stage.client.sends(GET)
    await stage.settle()
    stage.service.answers(OK)
    assert stage.client.is_read
    await stage.settle()
    stage.service.answers(OK)
    await stage.settle()
    stage.service.answers(OK)

    assert stage.client.received == OK * 3
    assert stage.service.received == forwarded(b"GET", b"") * 3


async def test_any_number_of_requests_may_wait(stage: Stage) -> None:
    """
    With the first under way, a thousand more are answered in turn: to wait is no error.
    """
    stage.client.sends(GET)
    stage.client.sends(GET * 1000)
    for _ in range(1001):
        stage.service.answers(OK)

    assert [reply.status for reply in stage.client.replies] == [200] * 1001
    assert stage.client.is_open


# After a switch.


async def test_client_waits_for_a_service_after_a_switch(open_stage: OpenStage) -> None:
    """
    Backpressure goes on in the other protocol.
    """
    stage = open_stage(websocket=True)
    stage.client.sends(SWITCH)
    stage.service.answers(ACCEPTED)
    before = stage.service.received
    stage.service.stops_reading()
    stage.client.sends(b"one")
    assert not stage.client.is_read
    stage.client.sends(b"two")
    stage.service.reads_again()
    await stage.settle()

    assert stage.client.is_read
    assert stage.service.received == before + b"onetwo"
    stage.under_way_at_end = 1


async def test_service_waits_for_a_client_after_a_switch(open_stage: OpenStage) -> None:
    """
    The same the other way.
    """
    stage = open_stage(websocket=True)
    stage.client.sends(SWITCH)
    stage.service.answers(ACCEPTED)
    before = stage.client.received
    stage.client.stops_reading()
    stage.service.answers(b"one")
    assert not stage.service.is_read
    stage.service.answers(b"two")
    stage.client.reads_again()
    await stage.settle()

    assert stage.service.is_read
    assert stage.client.received == before + b"onetwo"
    stage.under_way_at_end = 1
