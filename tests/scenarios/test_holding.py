"""Responses that may be rejections: held back until that is known, and for how long."""

import pytest

from tests.scenarios.messages import OK, POST, answer, error_in, head_of, token
from tests.support.memory import HOLD_S, Fate, Stage

BODY = b'{"error_msg":"Incorrect IAM token","error_code":"APIG.0301"}'
REJECTED = answer(401, BODY)


async def test_possible_rejection_is_held_for_a_second(stage: Stage) -> None:
    """
    Nothing of it reaches the client before; then what there is does, and the rest as it comes.
    """
    stage.client.sends(POST)
    stage.service.answers(REJECTED[:-10])
    stage.clock.advance(HOLD_S - 0.25)
    await stage.settle()
    assert stage.client.received == b""
    stage.clock.advance(0.25)
    await stage.settle()
    assert stage.client.received == REJECTED[:-10]
    stage.service.answers(REJECTED[-10:])

    assert stage.client.received == REJECTED
    assert stage.pool.idle == 1


async def test_rejection_too_late_to_hide_still_replaces_the_token(stage: Stage) -> None:
    """
    The client sees the 401; the token is reported, and the request is not sent again.
    """
    stage.client.sends(POST)
    stage.service.answers(REJECTED[:-10])
    await stage.hold_is_over()
    stage.service.answers(REJECTED[-10:])

    assert stage.client.received == REJECTED
    assert stage.credentials.rejected == [token(1)]
    assert stage.credentials.healed == []
    assert stage.service.received.count(b"X-Auth-Token") == 1
    assert stage.sample("gateway_errors_total", layer="apig", error="unauthorized") == 1


async def test_head_without_its_body_is_held(stage: Stage) -> None:
    """
    The first byte of the body may still make a rejection of it.
    """
    stage.client.sends(POST)
    stage.service.answers(head_of(b"Content-Length: 100", status=b"403 No"), b" \r\n")
    assert stage.client.received == b""
    await stage.hold_is_over()

    assert stage.client.received == head_of(b"Content-Length: 100", status=b"403 No") + b" \r\n"
    stage.under_way_at_end = 1


@pytest.mark.parametrize("begin", [b"Unauthorized", b"<html>", b"[1"])
async def test_what_cannot_be_the_vendors_passes_at_once(begin: bytes, stage: Stage) -> None:
    """
    A body that is no JSON object is not held back, although its end has not come.
    """
    head = head_of(b"Content-Length: 50", status=b"401 No")
    stage.client.sends(POST)
    stage.service.answers(head + begin)
    assert stage.client.received == head + begin
    stage.service.answers(b"x" * (50 - len(begin)))

    assert stage.client.reply.complete
    assert stage.credentials.rejected == []


async def test_keystones_text_is_held_for_its_challenge(stage: Stage) -> None:
    """
    With Keystone's challenge any body may belong to a rejection.
    """
    rejected = answer(401, b"Authentication required", b"WWW-Authenticate: Keystone uri='x'")
    stage.client.sends(POST)
    stage.service.answers(rejected[:-5])
    assert stage.client.received == b""
    stage.service.answers(rejected[-5:])
    await stage.until(lambda: token(2) in stage.service.received)
    stage.service.answers(OK)

    assert stage.client.received == OK


def rejection_of(size: int) -> bytes:
    """A rejection whose body has `size` bytes."""
    start, end = b'{"error_code":"APIG.0301","x":"', b'"}'
    return answer(401, start + b"x" * (size - len(start) - len(end)) + end)


async def test_rejection_larger_than_8_kib_passes(stage: Stage) -> None:
    """
    With one byte more it is taken for the model's own response.
    """
    stage.client.sends(POST)
    stage.service.answers(rejection_of(8193))

    assert stage.client.received == rejection_of(8193)
    assert stage.credentials.rejected == []


async def test_rejection_of_8_kib_is_hidden(stage: Stage) -> None:
    """
    So much of a body is read before the response is passed on.
    """
    stage.client.sends(POST)
    stage.service.answers(rejection_of(8192))
    await stage.until(lambda: token(2) in stage.service.received)
    stage.service.answers(OK)

    assert stage.client.received == OK


async def test_large_401_streams_from_8_kib_on(stage: Stage) -> None:
    """
    What is held is passed on as soon as it can be no rejection any more.
    """
    head = head_of(b"Content-Length: 20000", status=b"401 No")
    stage.client.sends(POST)
    stage.service.answers(head, b'{"' + b"x" * 8000)
    assert stage.client.received == b""
    stage.service.answers(b"x" * 1000)
    assert stage.client.received == head + b'{"' + b"x" * 9000
    stage.service.answers(b"x" * 10998)

    assert stage.client.reply.complete
    assert stage.record["response_bytes"] == 20000


async def test_client_may_leave_while_its_response_is_held(stage: Stage) -> None:
    """
    The call is aborted, and when the hold is over nothing happens.
    """
    stage.client.sends(POST)
    stage.service.answers(REJECTED[:-10])
    stage.client.leaves()
    await stage.hold_is_over()

    assert stage.client.received == b""
    assert stage.service.fate is Fate.ABORTED
    assert (stage.record["status"], stage.record["error"]) == (0, "client_disconnected")


async def test_hold_of_an_ended_exchange_does_not_touch_the_next(stage: Stage) -> None:
    """
    The timer of a rejection that was hidden finds nothing to pass on.
    """
    stage.client.sends(POST)
    stage.service.answers(REJECTED[:-10], REJECTED[-10:])
    await stage.until(lambda: token(2) in stage.service.received)
    await stage.hold_is_over()
    assert stage.client.received == b""
    stage.service.answers(OK)

    assert stage.client.received == OK


@pytest.mark.parametrize("is_reset", [False, True])
async def test_held_response_that_is_cut_is_502(is_reset: bool, stage: Stage) -> None:
    """
    The client has seen nothing of it, so it can be told.
    """
    stage.client.sends(POST)
    stage.service.answers(REJECTED[:-10])
    if is_reset:
        stage.service.resets()
    else:
        stage.service.closes()
    await stage.settle()

    assert error_in(stage.client.reply) == (502, "HttpResponseIncomplete")
    assert stage.client.fate is Fate.OPEN
    assert (stage.pool.active, stage.pool.idle) == (0, 0)
    assert stage.credentials.rejected == []


async def test_response_that_was_held_and_then_cut_is_reset(stage: Stage) -> None:
    """
    After the hold its status is on the wire, so the client's connection breaks.
    """
    stage.client.sends(POST)
    stage.service.answers(REJECTED[:-10])
    await stage.hold_is_over()
    stage.service.closes()
    await stage.settle()

    assert stage.client.received == REJECTED[:-10]
    assert stage.client.fate is Fate.RESET
    assert (stage.record["status"], stage.record["error"]) == (401, "http_response_incomplete")


async def test_client_that_does_not_read_is_respected_after_a_hold(stage: Stage) -> None:
    """
    What is released at once fills its buffer; the next piece makes the service wait.
    """
    head = head_of(b"Content-Length: 100", status=b"401 No")
    stage.client.stops_reading()
    stage.client.sends(POST)
    stage.service.answers(head + b'{"x":')
    await stage.hold_is_over()
    stage.service.answers(b"y")
    assert not stage.service.is_read
    stage.client.reads_again()

    assert stage.service.is_read
    assert stage.client.received == head + b'{"x":y'
    stage.under_way_at_end = 1
