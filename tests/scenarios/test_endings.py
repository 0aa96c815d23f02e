"""Exchanges that end badly: no cut message passes for a whole one, and nothing is left behind."""

import asyncio
import os
from collections.abc import Callable

import pytest

from gateway.proxy.accounting import SETTLED_AT_ONCE
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
from tests.support.memory import Client, Fate, OpenStage, ServiceEnd, Stage

ENDINGS = pytest.mark.parametrize("end", [Client.leaves, Client.resets], ids=["leaves", "resets"])
CUTS = pytest.mark.parametrize(
    "cut", [ServiceEnd.closes, ServiceEnd.resets], ids=["closes", "resets"]
)
UPLOADS = pytest.mark.parametrize(
    "begun", [upload(10, b"begun"), CHUNKED + chunks(b"begun")], ids=["length", "chunked"]
)
BEGUN = {
    "length": head_of(b"Content-Length: 9") + b"begun",
    "no body yet": head_of(b"Content-Length: 9"),
    "chunked": head_of(b"Transfer-Encoding: chunked") + chunks(b"begun"),
    "in a chunk": head_of(b"Transfer-Encoding: chunked") + b"9\r\nbegun",
    "in the last chunk": head_of(b"Transfer-Encoding: chunked") + chunks(b"begun") + b"0\r\n",
}
RESPONSES = pytest.mark.parametrize("begun", BEGUN.values(), ids=BEGUN)


async def test_an_exchange_ends_once(stage: Stage) -> None:
    """What ended it again would count it twice; that is told, and nothing else is done."""
    stage.client.sends(POST)
    [connection] = stage._listener.clients()
    exchange = connection.exchange
    assert exchange is not None
    stage.service.answers(OK)
    await stage.settle()

    with pytest.raises(RuntimeError, match="ended twice"):
        exchange._end(keep_alive=False)

    assert stage.sample("gateway_requests_total", code="200") == 1


# The service ends first.


@CUTS
@pytest.mark.parametrize(
    "said", [b"", b"HTTP/1.1 200 OK\r\nContent-"], ids=["nothing", "half a head"]
)
async def test_service_that_ends_before_its_head_is_502(
    said: bytes, cut: Callable[[ServiceEnd], None], stage: Stage
) -> None:
    """
    The client is told, and may go on with its connection.
    """
    stage.client.sends(POST)
    if said:
        stage.service.answers(said)
    cut(stage.service)
    await stage.settle()

    assert error_in(stage.client.reply) == (502, "ConnectionTerminated")
    assert not stage.client.reply.closes
    assert stage.client.fate is Fate.OPEN
    assert (stage.pool.active, stage.pool.idle) == (0, 0)
    assert stage.sample("gateway_errors_total", error="connection_terminated") == 1


@CUTS
async def test_service_that_ends_during_an_upload_is_502(
    cut: Callable[[ServiceEnd], None], stage: Stage
) -> None:
    """
    The rest of the body would be taken for a request, so the client's connection ends.
    """
    stage.client.sends(upload(10, b"begun"))
    cut(stage.service)
    await stage.settle()
    stage.client.sends(b"more")

    assert error_in(stage.client.reply) == (502, "ConnectionTerminated")
    assert stage.client.reply.closes
    assert stage.client.fate is Fate.HALF_CLOSED


@CUTS
@RESPONSES
async def test_response_that_is_cut_is_never_ended(
    begun: bytes, cut: Callable[[ServiceEnd], None], stage: Stage
) -> None:
    """
    The client's connection is reset, and a chunked body never gets its last chunk.
    """
    stage.client.sends(POST)
    stage.service.answers(begun)
    cut(stage.service)
    await stage.settle()

    assert stage.client.fate is Fate.RESET
    assert not stage.client.reply.complete
    assert (stage.pool.active, stage.pool.idle) == (0, 0)
    assert (stage.record["status"], stage.record["error"]) == (200, "http_response_incomplete")


async def test_response_without_length_that_is_reset_is_never_ended(stage: Stage) -> None:
    """
    Only a proper close is the end of such a body.
    """
    stage.client.sends(POST)
    stage.service.answers(head_of(), b"begun")
    stage.service.resets()
    await stage.settle()

    assert stage.client.fate is Fate.RESET
    assert stage.record["error"] == "http_response_incomplete"


@pytest.mark.parametrize("begun", [BEGUN["length"], BEGUN["chunked"]], ids=["length", "chunked"])
async def test_response_to_http_1_0_that_is_cut_is_reset(begun: bytes, stage: Stage) -> None:
    """
    A close would end its body, whose length the client may not know.
    """
    stage.client.sends(request(b"GET", version=b"1.0"))
    stage.service.answers(begun)
    stage.service.closes()
    await stage.settle()

    assert stage.client.received.endswith(b"\r\n\r\nbegun")
    assert stage.client.fate is Fate.RESET


async def test_response_with_malformed_chunk_is_reset(stage: Stage) -> None:
    """
    What came before it has been passed on; the rest is not believed.
    """
    stage.client.sends(GET)
    stage.service.answers(BEGUN["chunked"], b"oops\r\n")

    assert stage.client.reply.body == b"begun"
    assert stage.client.fate is Fate.RESET
    assert stage.service.fate is Fate.ABORTED
    assert stage.record["error"] == "http_protocol_error"


async def test_endless_chunk_extension_of_a_response_is_reset(stage: Stage) -> None:
    """
    More than 64 KiB without a byte of the body are given up.
    """
    stage.client.sends(GET)
    stage.service.answers(BEGUN["chunked"], b"3;x=", b"y" * 40_000, b"y" * 40_000)

    assert stage.client.fate is Fate.RESET
    assert stage.record["error"] == "http_protocol_error"


# The client ends first.


@ENDINGS
async def test_client_that_asked_nothing_may_leave(
    end: Callable[[Client], None], stage: Stage
) -> None:
    """
    There is nothing to account for.
    """
    end(stage.client)
    await stage.settle()

    assert stage.client.received == b""
    assert stage.client.fate in {Fate.CLOSED, Fate.LOST}
    assert stage.records == []


async def test_client_that_ends_in_its_head_is_400(stage: Stage) -> None:
    """
    It may have closed its half only, and is told.
    """
    stage.client.sends(GET[:20])
    stage.client.leaves()
    await stage.settle()

    assert error_in(stage.client.reply) == (400, "BadRequest")
    assert stage.client.fate is Fate.CLOSED
    assert stage.record["service"] == "other"


async def test_client_that_is_reset_in_its_head_has_asked_nothing(stage: Stage) -> None:
    """
    Half a head that nobody waits for any more is no request.
    """
    stage.client.sends(GET[:20])
    stage.client.resets()
    await stage.settle()

    assert stage.records == []


@ENDINGS
@UPLOADS
async def test_client_that_leaves_its_upload_never_completes_it(
    begun: bytes, end: Callable[[Client], None], stage: Stage
) -> None:
    """
    The service sees a request that was cut, whatever its framing.
    """
    stage.client.sends(begun)
    end(stage.client)
    await stage.settle()

    assert stage.service.received.endswith(begun.partition(b"\r\n\r\n")[2])
    assert stage.service.fate is Fate.ABORTED
    assert (stage.pool.active, stage.pool.idle) == (0, 0)
    assert (stage.record["status"], stage.record["error"]) == (0, "client_disconnected")


@ENDINGS
async def test_client_that_leaves_while_waiting_aborts_the_call(
    end: Callable[[Client], None], stage: Stage
) -> None:
    """
    The service is spared the rest, and its late response reaches nobody.
    """
    stage.client.sends(POST)
    end(stage.client)
    await stage.settle()
    stage.service.answers(OK)

    assert stage.client.received == b""
    assert stage.client.fate in {Fate.RESET, Fate.LOST}
    assert stage.service.fate is Fate.ABORTED
    assert (stage.pool.active, stage.pool.idle) == (0, 0)
    assert (stage.record["status"], stage.record["error"]) == (0, "client_disconnected")
    assert stage.sample("gateway_requests_total", service="iris", code="0") == 1


@ENDINGS
@RESPONSES
async def test_client_that_leaves_its_response_aborts_it(
    begun: bytes, end: Callable[[Client], None], stage: Stage
) -> None:
    """
    The rest is not waited for, and the connection is not kept.
    """
    stage.client.sends(POST)
    stage.service.answers(begun)
    end(stage.client)
    await stage.settle()

    assert stage.service.fate is Fate.ABORTED
    assert (stage.pool.active, stage.pool.idle) == (0, 0)
    assert (stage.record["status"], stage.record["error"]) == (200, "client_disconnected")


@ENDINGS
async def test_pipelined_requests_of_a_client_that_left_are_not_begun(
    end: Callable[[Client], None], stage: Stage
) -> None:
    """
    Only the one under way has ever existed.
    """
    stage.client.sends(GET + POST)
    end(stage.client)
    await stage.look_at_clients()

    assert stage.service.received == forwarded(b"GET", b"")
    assert stage.record["method"] == "GET"
    assert stage.record["error"] == "client_disconnected"


async def test_client_that_leaves_after_its_response_ends_nothing(stage: Stage) -> None:
    """
    The connection to the service is kept for others.
    """
    stage.client.sends(GET)
    stage.service.answers(OK)
    stage.client.leaves()
    await stage.settle()

    assert stage.client.fate is Fate.CLOSED
    assert stage.pool.idle == 1
    assert stage.record["error"] == ""


async def test_client_that_leaves_after_a_refusal_ends_the_lingering(stage: Stage) -> None:
    """
    The rest of its body is not waited for.
    """
    stage.client.sends(upload(10, b"begun").replace(b"/iris", b"/nobody"))
    stage.client.leaves()
    await stage.settle()

    assert stage.client.fate is Fate.CLOSED
    assert stage.record["status"] == 404


async def test_clients_do_not_hear_of_each_other(stage: Stage) -> None:
    """
    When one of two leaves, only its own call is aborted.
    """
    other = stage.new_client()
    stage.client.sends(GET)
    other.sends(GET)
    await stage.until(lambda: len(stage.services) == 2 and stage.service.received)
    stage.client.leaves()
    stage.service.answers(OK)
    await stage.settle()

    assert other.received == OK
    assert stage.services[0].fate is Fate.ABORTED
    assert stage.services[1].fate is Fate.OPEN
    assert stage.pool.idle == 1


# Both at once.


async def test_client_and_service_that_end_together_count_once(stage: Stage) -> None:
    """
    Whichever is noticed first decides; the other finds the exchange ended.
    """
    stage.client.sends(GET)
    stage.service.answers(BEGUN["length"])
    stage.service.closes()
    stage.client.leaves()
    await stage.settle()

    assert len(stage.records) == 1
    assert stage.sample("gateway_errors_total") == 1


async def test_service_that_breaks_with_its_response_unread_counts_once(
    open_stage: OpenStage,
) -> None:
    """
    A response, its end and a reset in one turn of the loop are one exchange.
    """
    stage = open_stage()
    stage.client.sends(GET)
    stage.service.answers(OK)
    stage.service.resets()
    await stage.settle()

    assert stage.client.received == OK
    assert (stage.pool.active, stage.pool.idle) == (0, 0)
    assert len(stage.records) == 1


async def test_batch_is_accounted_for_once_the_loop_has_written(stage: Stage) -> None:
    """
    Not before the last of its responses has left, and without waiting for the clock.
    """
    for _ in range(64):
        stage.client.sends(GET)
        stage.service.answers(OK)
    assert os.fstat(stage._log.fileno()).st_size == 0
    await asyncio.sleep(0)
    assert os.fstat(stage._log.fileno()).st_size > 0


async def test_thousands_that_end_together_are_accounted_for_in_parts(stage: Stage) -> None:
    """
    A process that dies may have held them all; to count and log 4000 takes 60 ms.
    """
    for _ in range(3 * SETTLED_AT_ONCE):
        stage.client.sends(GET)
        stage.service.answers(OK)
    lines = 0
    while lines < 3 * SETTLED_AT_ONCE:
        await asyncio.sleep(0)
        before, lines = lines, os.pread(stage._log.fileno(), 2**22, 0).count(b"\n")
        assert lines - before <= SETTLED_AT_ONCE
