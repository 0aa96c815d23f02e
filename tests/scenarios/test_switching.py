"""WebSocket: the handshake, what is said after it, and how either side ends it."""

import pytest

from tests.scenarios.messages import (
    GET,
    OK,
    VIA,
    answer,
    error_in,
    head_of,
    request,
    token,
)
from tests.support.memory import (
    BODY_PAUSE_S,
    FIRST_BYTE_S,
    Fate,
    OpenStage,
    Stage,
)

ASKED = (b"Connection: keep-alive, Upgrade", b"Upgrade: WebSocket", b"Sec-WebSocket-Key: x")
SWITCH = request(b"GET", None, *ASKED, b"Cookie: a=b", target=b"/iris/chat")
FORWARDED = (
    b"GET /v1/infers/abc/chat HTTP/1.1\r\nHost: service.test\r\nSec-WebSocket-Key: x\r\n"
    b"Connection: Upgrade\r\nUpgrade: websocket\r\n" + VIA + token(1) + b"\r\n"
)
ACCEPTED = head_of(
    b"Upgrade: websocket",
    b"Connection: Upgrade",
    b"Sec-WebSocket-Accept: y",
    b"Set-Cookie: stolen",
    status=b"101 Switching Protocols",
)
SWITCHED = head_of(
    b"Sec-WebSocket-Accept: y",
    b"Connection: Upgrade",
    b"Upgrade: websocket",
    status=b"101 Switching Protocols",
)


@pytest.fixture
async def stage(open_stage: OpenStage) -> Stage:
    """Open a stage whose service allows WebSocket; used here in place of the usual one."""
    return open_stage(websocket=True, methods="POST")


def switch(stage: Stage) -> None:
    """Complete a handshake."""
    stage.client.sends(SWITCH)
    stage.service.answers(ACCEPTED)
    assert stage.client.received == SWITCHED


# The handshake.


async def test_handshake_carries_the_token(stage: Stage) -> None:
    """
    Both heads are written anew: our token up, no cookies either way, and `methods` says nothing.
    """
    stage.client.sends(SWITCH)
    assert stage.service.received == FORWARDED
    stage.service.answers(ACCEPTED)

    assert stage.client.received == SWITCHED
    assert (stage.pool.active, stage.pool.idle) == (1, 0)
    stage.under_way_at_end = 1


@pytest.mark.parametrize(
    "response",
    [
        ACCEPTED.replace(b"Upgrade: websocket", b"Upgrade: h2c"),
        head_of(status=b"101 Switching Protocols"),
        ACCEPTED.replace(b"Connection: Upgrade\r\n", b""),
        ACCEPTED.replace(b"HTTP/1.1", b"HTTP/1.0"),
        ACCEPTED.replace(b"Set-Cookie: stolen", b"Content-Length: 5"),
        ACCEPTED.replace(b"Set-Cookie: stolen", b"Upgrade: h2c"),
    ],
    ids=[
        "other protocol",
        "no protocol",
        "no connection option",
        "1.0",
        "with a body",
        "two protocols",
    ],
)
async def test_switch_that_was_not_asked_for_is_502(response: bytes, stage: Stage) -> None:
    """
    Both connections end, as nobody knows what is spoken on them.
    """
    stage.client.sends(SWITCH)
    stage.service.answers(response)
    await stage.settle()

    assert error_in(stage.client.reply) == (502, "HttpProtocolError")
    assert stage.client.reply.closes
    assert stage.service.fate is Fate.ABORTED
    assert (stage.pool.active, stage.pool.idle) == (0, 0)


async def test_switch_of_a_plain_request_is_502(stage: Stage) -> None:
    """
    A request without `Upgrade` cannot be answered with 101.
    """
    stage.client.sends(request(b"POST", b"{}"))
    stage.service.answers(ACCEPTED)

    assert error_in(stage.client.reply) == (502, "HttpProtocolError")
    assert not stage.client.reply.closes


async def test_service_may_refuse_to_switch(stage: Stage) -> None:
    """
    Its response is relayed; neither connection is used again.
    """
    stage.client.sends(SWITCH)
    stage.service.answers(answer(426, b"no"))
    await stage.settle()

    assert stage.client.reply.body == b"no"
    assert stage.client.reply.closes
    assert stage.client.fate is Fate.HALF_CLOSED
    assert stage.service.fate is Fate.CLOSED
    assert (stage.pool.active, stage.pool.idle) == (0, 0)
    assert stage.record["status"] == 426


async def test_rejected_token_is_replaced_before_the_switch(stage: Stage) -> None:
    """
    The handshake is sent again like any request, on another connection.
    """
    stage.client.sends(SWITCH)
    stage.service.answers(answer(401, b'{"error_code":"APIG.0301"}'))
    await stage.until(lambda: len(stage.services) == 2 and stage.service.received)
    stage.service.answers(ACCEPTED)

    assert stage.service.received == FORWARDED.replace(token(1), token(2))
    assert stage.client.received == SWITCHED
    assert stage.credentials.healed == [token(2)]
    stage.under_way_at_end = 1


@pytest.mark.parametrize(
    "refused",
    [
        SWITCH.replace(b"GET", b"POST", 1),
        SWITCH.replace(b"HTTP/1.1", b"HTTP/1.0"),
        SWITCH.replace(b"WebSocket\r\n", b"h2c, websocket\r\n"),
        SWITCH.replace(b"keep-alive, Upgrade", b"keep-alive"),
        SWITCH.replace(b"Cookie: a=b", b"Content-Length: 2"),
        SWITCH.replace(b"Cookie: a=b", b"Upgrade: websocket"),
    ],
    ids=["method", "version", "protocol", "connection", "body", "two protocols"],
)
async def test_other_handshakes_are_refused(refused: bytes, stage: Stage) -> None:
    """
    Only a WebSocket handshake goes to the service.
    """
    stage.client.sends(refused)

    assert error_in(stage.client.reply) == (400, "UpgradeRefused")
    assert stage.client.reply.closes
    assert stage.service.received == b""


async def test_handshake_waits_for_the_first_byte_s_time_only(stage: Stage) -> None:
    """
    A service that does not answer it gets no longer than for any request.
    """
    stage.client.sends(SWITCH)
    stage.pass_time(FIRST_BYTE_S)

    assert error_in(stage.client.reply) == (504, "HttpResponseTimeout")
    assert stage.client.reply.closes


# What is said after it.


async def test_bytes_go_both_ways_unseen(stage: Stage) -> None:
    """
    Whatever either side sends reaches the other as it is, as often as it likes.
    """
    switch(stage)
    stage.client.sends(b"\x00one", GET)
    stage.service.answers(b"\xfftwo", OK)
    stage.client.sends(b"three")
    stage.service.answers(b"four")

    assert stage.service.received == FORWARDED + b"\x00one" + GET + b"three"
    assert stage.client.received == SWITCHED + b"\xfftwo" + OK + b"four"
    stage.under_way_at_end = 1


async def test_first_words_in_the_same_read_are_not_lost(stage: Stage) -> None:
    """
    The client's wait until the service has agreed; the service's follow its 101.
    """
    stage.client.sends(SWITCH + b"early")
    stage.client.sends(b"later")
    assert stage.service.received == FORWARDED
    assert not stage.client.is_read
    stage.client.sends(b"last")
    stage.service.answers(ACCEPTED + b"hello")
    await stage.settle()

    assert stage.service.received == FORWARDED + b"earlylaterlast"
    assert stage.client.received == SWITCHED + b"hello"
    assert stage.client.is_read
    stage.under_way_at_end = 1


async def test_refused_switch_forwards_nothing_of_the_first_words(stage: Stage) -> None:
    """
    They belong to a protocol that is not spoken.
    """
    stage.client.sends(SWITCH + b"early")
    stage.service.answers(answer(403, b"no"))
    await stage.settle()

    assert stage.client.reply.status == 403
    assert stage.service.received == FORWARDED


async def test_pipelined_switch_waits_for_its_turn(stage: Stage) -> None:
    """
    A handshake behind another request is begun after that one's response.
    """
    stage.client.sends(request(b"POST", b"{}") + SWITCH)
    stage.service.answers(OK)
    stage.service.answers(ACCEPTED)
    stage.client.sends(b"words")

    assert stage.client.received == OK + SWITCHED
    assert stage.service.received.endswith(FORWARDED + b"words")
    stage.under_way_at_end = 1


# How it ends.


async def test_client_that_closes_ends_the_conversation(stage: Stage) -> None:
    """
    What it said last still reaches the service, and nobody is at fault.
    """
    switch(stage)
    stage.client.sends(b"bye")
    stage.client.leaves()
    await stage.settle()

    assert stage.service.received == FORWARDED + b"bye"
    assert stage.service.fate is Fate.CLOSED
    assert (stage.pool.active, stage.pool.idle) == (0, 0)
    assert (stage.record["status"], stage.record["error"]) == (101, "")
    assert stage.record["request_bytes"] == 3


async def test_service_that_closes_ends_the_conversation(stage: Stage) -> None:
    """
    What it said last still reaches the client, and nobody is at fault.
    """
    switch(stage)
    stage.service.answers(b"bye")
    stage.service.closes()
    await stage.settle()

    assert stage.client.received == SWITCHED + b"bye"
    assert stage.client.fate is Fate.HALF_CLOSED
    assert stage.service.fate is Fate.CLOSED
    assert (stage.record["status"], stage.record["error"]) == (101, "")
    assert stage.record["response_bytes"] == 3


async def test_client_that_is_reset_aborts_the_conversation(stage: Stage) -> None:
    """
    The service sees no proper close, and the record says who it was.
    """
    switch(stage)
    stage.client.resets()
    await stage.settle()

    assert stage.service.fate is Fate.ABORTED
    assert (stage.record["status"], stage.record["error"]) == (101, "client_disconnected")


async def test_service_that_is_reset_resets_the_client(stage: Stage) -> None:
    """
    The client sees no proper close, and the record says who it was.
    """
    switch(stage)
    stage.service.resets()
    await stage.settle()

    assert stage.client.fate is Fate.RESET
    assert (stage.record["status"], stage.record["error"]) == (101, "http_response_incomplete")


async def test_conversation_without_words_is_closed(stage: Stage) -> None:
    """
    Both sides are closed, and it is nobody's fault.
    """
    switch(stage)
    stage.pass_time(BODY_PAUSE_S - 1.0)
    assert stage.records == []
    stage.pass_time(1.0)
    await stage.settle()

    assert stage.client.fate is Fate.HALF_CLOSED
    assert stage.service.fate is Fate.CLOSED
    assert (stage.record["status"], stage.record["error"]) == (101, "")


@pytest.mark.parametrize("by_client", [False, True], ids=["service", "client"])
async def test_word_of_either_side_keeps_the_conversation(by_client: bool, stage: Stage) -> None:
    """
    The time counts from the last one.
    """
    switch(stage)
    for _ in range(3):
        stage.pass_time(BODY_PAUSE_S - 1.0)
        if by_client:
            stage.client.sends(b"word")
        else:
            stage.service.answers(b"word")
    stage.pass_time(BODY_PAUSE_S - 1.0)
    assert stage.records == []
    stage.pass_time(1.0)
    await stage.settle()

    assert (stage.record["status"], stage.record["error"]) == (101, "")


async def test_client_that_leaves_during_the_handshake_aborts_it(stage: Stage) -> None:
    """
    Before the 101 it is a request like any other.
    """
    stage.client.sends(SWITCH)
    stage.client.leaves()
    await stage.settle()

    assert stage.service.fate is Fate.ABORTED
    assert (stage.record["status"], stage.record["error"]) == (0, "client_disconnected")
