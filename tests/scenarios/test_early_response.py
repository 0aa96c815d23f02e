"""Responses that come before the request has ended."""

import pytest

from tests.scenarios.messages import (
    CHUNKED,
    DATE,
    GET,
    OK,
    answer,
    chunks,
    forwarded,
    head_of,
    request,
    upload,
)
from tests.support.memory import Fate, Stage


@pytest.mark.parametrize(
    "begun", [upload(10, b"begun"), CHUNKED + chunks(b"begun")], ids=["length", "chunked"]
)
async def test_early_response_is_the_last_on_both_connections(begun: bytes, stage: Stage) -> None:
    """
    The client gets it with `Connection: close`, what it still sends is discarded, and the
    connection to the service, which waits for the rest of the request, is not kept.
    """
    stage.client.sends(begun)
    stage.service.answers(answer(400, b"no"))
    assert stage.client.received == (
        b"HTTP/1.1 400 Any\r\n" + DATE + b"Content-Length: 2\r\nConnection: close\r\n\r\nno"
    )
    assert stage.client.fate is Fate.HALF_CLOSED
    stage.client.sends(b"more", GET)
    await stage.settle()

    assert stage.service.fate is Fate.CLOSED
    assert (stage.pool.active, stage.pool.idle) == (0, 0)
    assert len(stage.client.replies) == 1
    assert b"more" not in stage.service.received
    assert stage.record["status"] == 400


async def test_response_before_the_request_has_left_ends_the_connection(stage: Stage) -> None:
    """
    The client has sent all of it, but the service has not read the rest, which would be taken for
    the next request: nobody else gets this connection.
    """
    stage.client.sends(upload(4, b"ab"))
    stage.service.stops_reading()
    stage.client.sends(b"cd")
    stage.service.answers(OK)
    await stage.settle()
    assert stage.client.reply.body == b"ok"
    assert (stage.pool.active, stage.pool.idle) == (0, 0)
    stage.client.sends(GET)
    await stage.settle()

    assert len(stage.services) == 2
    assert stage.services[1].received == forwarded(b"GET", b"")
    stage.services[1].answers(OK)


async def test_body_goes_on_while_an_early_response_streams(stage: Stage) -> None:
    """
    A response that begins early and ends after the body is relayed, and the body forwarded.
    """
    stage.client.sends(upload(4, b"ab"))
    stage.service.answers(head_of(b"Content-Length: 4"), b"12")
    stage.client.sends(b"cd")
    stage.service.answers(b"34")
    await stage.settle()

    assert stage.service.received == forwarded(b"POST", b"", b"Content-Length: 4", body=b"abcd")
    assert stage.client.reply.body == b"1234"
    assert stage.client.reply.closes
    assert stage.client.fate is Fate.HALF_CLOSED
    assert stage.pool.idle == 1


async def test_early_close_of_the_service_is_passed_on(stage: Stage) -> None:
    """
    A whole response before the close counts, although the request was not read.
    """
    stage.client.sends(upload(10, b"begun"))
    stage.service.answers(answer(413, b"", b"Connection: close"))
    stage.service.closes()
    await stage.settle()

    assert stage.client.reply.status == 413
    assert stage.client.fate is Fate.HALF_CLOSED
    assert (stage.pool.active, stage.pool.idle) == (0, 0)


async def test_early_response_to_chunks_goes_on_after_the_last_chunk(stage: Stage) -> None:
    """
    A service may answer each chunk as it comes; the end of both is passed on.
    """
    stage.client.sends(CHUNKED, chunks(b"a"))
    stage.service.answers(head_of(b"Transfer-Encoding: chunked"), chunks(b"A"))
    assert stage.client.reply.body == b"A"
    stage.client.sends(chunks(b"b", end=True))
    stage.service.answers(chunks(b"B", end=True))

    assert stage.service.received.endswith(chunks(b"a", b"b", end=True))
    assert stage.client.reply.body == b"AB"
    assert stage.client.reply.complete
    assert stage.pool.idle == 1


async def test_body_that_becomes_malformed_during_a_response_breaks_it_off(stage: Stage) -> None:
    """
    The status is on the wire, so the client sees a reset instead of a 400.
    """
    stage.client.sends(CHUNKED, chunks(b"a"))
    stage.service.answers(head_of(b"Content-Length: 4"), b"12")
    stage.client.sends(b"oops\r\n")

    assert stage.client.reply.body == b"12"
    assert stage.client.fate is Fate.RESET
    assert stage.service.fate is Fate.ABORTED
    assert (stage.record["status"], stage.record["error"]) == (200, "bad_request")


async def test_early_response_answers_a_client_that_waits_to_continue(stage: Stage) -> None:
    """
    A service that refuses before it has seen the body is heard after our 100.
    """
    expecting = (b"Expect: 100-continue", b"Content-Length: 2")
    stage.client.sends(request(b"POST", None, *expecting))
    stage.service.answers(answer(401))

    assert [reply.status for reply in stage.client.replies] == [100, 401]
    assert stage.client.replies[1].closes
    assert stage.pool.idle == 0


async def test_pipelined_request_is_dropped_with_the_rest_of_the_body(stage: Stage) -> None:
    """
    After an early response, a read with the end of the body and another request is discarded.
    """
    stage.client.sends(upload(4, b"ab"))
    stage.service.answers(OK)
    stage.client.sends(b"cd" + GET)

    assert len(stage.client.replies) == 1
    assert len(stage.records) == 1
    assert stage.client.fate is Fate.HALF_CLOSED
