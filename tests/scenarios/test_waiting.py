"""A credential or a connection at hand, waited for, and not to be had."""

from collections.abc import Callable

import pytest

from tests.scenarios.messages import (
    GET,
    OK,
    POST,
    answer,
    error_in,
    forwarded,
    request,
    upload,
)
from tests.support.memory import LOOK_S, Client, Fate, OpenStage, Stage

FORWARDED = forwarded(b"GET", b"")
ENDINGS = pytest.mark.parametrize("end", [Client.leaves, Client.resets], ids=["leaves", "resets"])


async def test_exchange_with_all_at_hand_takes_no_turn_of_the_loop(stage: Stage) -> None:
    """
    A request is forwarded, answered and accounted for in the callbacks that bring its bytes.
    """
    stage.client.sends(POST)
    fields = (b"Content-Type: application/json", b"Content-Length: 2")
    assert stage.service.received == forwarded(b"POST", b"/predict", *fields, body=b"{}")
    assert stage.service.writes == [stage.service.received]
    assert (stage.pool.active, stage.pool.idle) == (1, 0)
    stage.service.answers(OK)

    assert stage.client.received == OK
    assert stage.client.writes == [OK]
    assert (stage.pool.active, stage.pool.idle) == (0, 1)
    assert (stage.record["status"], stage.record["error"]) == (200, "")
    assert stage.sample("gateway_requests_total", service="iris", method="POST", code="200") == 1


async def test_time_of_an_exchange_is_told(stage: Stage) -> None:
    """
    The wait for the response is told as such, and is not the gateway's own share.
    """
    stage.client.sends(POST)
    stage.clock.advance(2.0)
    stage.service.answers(OK)

    assert stage.record["duration_us"] == stage.record["first_byte_us"] == 2_000_000
    assert stage.record["overhead_us"] == 0
    assert (stage.record["request_bytes"], stage.record["response_bytes"]) == (2, 2)


async def test_service_without_identity_gets_no_token(stage: Stage) -> None:
    """
    An empty credential adds no line.
    """
    stage.credentials.is_anonymous = True
    stage.client.sends(GET)
    stage.service.answers(OK)

    assert stage.service.received == FORWARDED.replace(b"X-Auth-Token: token-1\r\n", b"")


# The credential.


async def test_request_waits_for_the_credential(stage: Stage) -> None:
    """
    Nothing is forwarded before the token is there; then the request is, with it.
    """
    stage.credentials.are_awaited()
    stage.client.sends(GET)
    await stage.settle()
    assert stage.service.received == b""
    assert (stage.pool.active, stage.pool.idle) == (0, 1)
    stage.clock.advance(0.5)
    stage.credentials.arrive()
    await stage.until(lambda: stage.service.received)
    stage.service.answers(OK)

    assert stage.service.received == FORWARDED
    assert stage.client.received == OK
    assert stage.record["credential_us"] == 500_000
    assert stage.record["overhead_us"] == 0


@pytest.mark.parametrize(
    ("code", "retry_after_s", "name", "told"),
    [
        ("TOKEN_UNAVAILABLE", 1.0, "TokenUnavailable", b"1"),
        ("LOGIN_REFUSED", 900.0, "LoginRefused", b"900"),
        ("LOGIN_THROTTLED", 6.2, "LoginThrottled", b"7"),
    ],
)
async def test_credential_that_cannot_be_had_is_503(
    code: str, retry_after_s: float, name: str, told: bytes, stage: Stage
) -> None:
    """
    Nothing is sent to the service; the client learns when to try again, and may on its connection.
    """
    stage.credentials.cannot_be_had(code, retry_after_s=retry_after_s)
    stage.client.sends(POST)
    await stage.until(lambda: stage.client.received)

    assert error_in(stage.client.reply) == (503, name)
    assert stage.client.reply.values(b"retry-after") == [told]
    assert not stage.client.reply.closes
    assert stage.client.fate is Fate.OPEN
    assert stage.service.received == b""
    assert stage.sample("gateway_errors_total", layer="identity", error=code.lower()) == 1


async def test_credential_that_fails_while_the_body_arrives_ends_the_connection(
    stage: Stage,
) -> None:
    """
    The rest of the body would be taken for the next request.
    """
    stage.credentials.are_awaited()
    stage.client.sends(upload(10, b"begun"))
    await stage.settle()
    stage.credentials.cannot_be_had("TOKEN_UNAVAILABLE", retry_after_s=1.0)
    await stage.until(lambda: stage.client.received)

    assert error_in(stage.client.reply) == (503, "TokenUnavailable")
    assert stage.client.reply.closes
    assert stage.client.fate is Fate.HALF_CLOSED


@ENDINGS
async def test_client_may_leave_while_the_credential_is_awaited(
    end: Callable[[Client], None], stage: Stage
) -> None:
    """
    The wait ends with the client, and a token that comes later sends nothing.
    """
    stage.credentials.are_awaited()
    stage.client.sends(GET)
    await stage.settle()
    end(stage.client)
    await stage.settle()
    stage.credentials.arrive()
    await stage.settle()

    assert stage.service.received == b""
    assert stage.client.received == b""
    assert (stage.record["status"], stage.record["error"]) == (0, "client_disconnected")
    assert (stage.pool.active, stage.pool.idle) == (0, 1)


async def test_client_that_leaves_its_upload_while_it_is_not_read_is_noticed(stage: Stage) -> None:
    """
    During the wait its body is not read, and so neither is its end: its socket is looked at.
    """
    stage.credentials.are_awaited()
    stage.client.sends(upload(10, b"begun"))
    await stage.settle()
    assert not stage.client.is_read
    stage.client.sends(b"more")
    stage.client.leaves()
    await stage.settle()
    assert stage.records == []
    await stage.look_at_clients()

    assert stage.record["error"] == "client_disconnected"
    assert stage.record["duration_us"] == LOOK_S * 1e6
    assert stage.client.fate is Fate.RESET


async def test_client_that_stays_is_looked_at_again(stage: Stage) -> None:
    """
    Looking whether a client is there does not disturb one that is.
    """
    stage.credentials.are_awaited()
    stage.client.sends(upload(10, b"begun"))
    for _ in range(3):
        await stage.look_at_clients()
    stage.client.leaves()
    await stage.look_at_clients()

    assert stage.record["error"] == "client_disconnected"


async def test_second_request_waits_behind_the_first(stage: Stage) -> None:
    """
    Of two pipelined requests the second is not begun while the first waits for a token.
    """
    stage.credentials.are_awaited()
    stage.client.sends(GET + GET)
    await stage.settle()
    assert stage.sample("gateway_requests_in_flight") == 1
    stage.credentials.arrive()
    await stage.until(lambda: stage.service.received)
    assert stage.service.received == FORWARDED
    stage.service.answers(OK)
    assert stage.service.received == FORWARDED * 2
    stage.service.answers(OK)

    assert stage.client.received == OK * 2


async def test_requests_share_the_wait_for_a_credential(stage: Stage) -> None:
    """
    Requests of two clients go on when the token comes, on a connection each.
    """
    other = stage.new_client()
    stage.credentials.are_awaited()
    stage.client.sends(GET)
    other.sends(GET)
    await stage.settle()
    stage.credentials.arrive()
    await stage.until(lambda: len(stage.services) == 2 and stage.service.received)
    for number, service in enumerate(stage.services):
        service.answers(answer(200, b"%d" % number))

    assert sorted((stage.client.reply.body, other.reply.body)) == [b"0", b"1"]
    assert (stage.pool.active, stage.pool.idle) == (0, 2)


# The connection.


async def test_request_waits_for_the_connection(open_stage: OpenStage) -> None:
    """
    The request is sent when the connection is open, which is then kept.
    """
    stage = open_stage(connection_at_hand=False)
    stage.pool.makes_wait()
    stage.client.sends(GET)
    await stage.settle()
    assert (stage.pool.active, stage.services) == (1, [])
    stage.clock.advance(0.25)
    stage.pool.opens()
    await stage.until(lambda: stage.services)
    stage.service.answers(OK)

    assert stage.service.received == FORWARDED
    assert stage.client.received == OK
    assert (stage.pool.active, stage.pool.idle) == (0, 1)
    assert stage.record["connect_us"] == 250_000
    assert stage.record["overhead_us"] == 0


@pytest.mark.parametrize(
    ("code", "status", "name"),
    [
        ("DNS_ERROR", 502, "DnsError"),
        ("CONNECTION_REFUSED", 502, "ConnectionRefused"),
        ("TLS_CERTIFICATE_ERROR", 502, "TlsCertificateError"),
        ("TLS_PROTOCOL_ERROR", 502, "TlsProtocolError"),
        ("CONNECTION_TIMEOUT", 504, "ConnectionTimeout"),
    ],
)
async def test_connection_that_cannot_be_opened_is_an_error_of_the_network(
    code: str, status: int, name: str, open_stage: OpenStage
) -> None:
    """
    The client is told which step failed, and may try again on its connection.
    """
    stage = open_stage(connection_at_hand=False)
    stage.pool.fails(code)
    stage.client.sends(POST)
    await stage.until(lambda: stage.client.received)

    assert error_in(stage.client.reply) == (status, name)
    assert not stage.client.reply.closes
    assert (stage.pool.active, stage.pool.idle) == (0, 0)
    assert stage.record["retries"] == 0
    assert stage.sample("gateway_errors_total", layer="network", error=code.lower()) == 1


@ENDINGS
async def test_client_may_leave_while_the_connection_is_opened(
    end: Callable[[Client], None], open_stage: OpenStage
) -> None:
    """
    The connection is not opened any more.
    """
    stage = open_stage(connection_at_hand=False)
    stage.pool.makes_wait()
    stage.client.sends(GET)
    await stage.settle()
    end(stage.client)
    await stage.settle()
    stage.pool.opens()
    await stage.settle()

    assert stage.services == []
    assert stage.pool.active == 0
    assert (stage.record["status"], stage.record["error"]) == (0, "client_disconnected")


async def test_both_are_waited_for_in_turn(open_stage: OpenStage) -> None:
    """
    A connection is asked for when the credential is there, and each wait is told for itself.
    """
    stage = open_stage(connection_at_hand=False)
    stage.credentials.are_awaited()
    stage.pool.makes_wait()
    stage.client.sends(GET)
    await stage.settle()
    assert stage.pool.active == 0
    stage.clock.advance(2.0)
    stage.credentials.arrive()
    await stage.until(lambda: stage.pool.active)
    stage.clock.advance(4.0)
    stage.pool.opens()
    await stage.until(lambda: stage.services)
    stage.service.answers(OK)

    assert stage.client.received == OK
    assert stage.record["credential_us"] == 2_000_000
    assert stage.record["connect_us"] == 4_000_000


async def test_connection_that_became_free_meanwhile_is_used(stage: Stage) -> None:
    """
    After a wait for the credential none is opened if one has come back.
    """
    other = stage.new_client()
    stage.client.sends(GET)
    stage.credentials.are_awaited()
    other.sends(request(b"GET", target=b"/iris/other"))
    await stage.settle()
    stage.service.answers(OK)
    stage.credentials.arrive()
    await stage.until(lambda: stage.pool.active)
    stage.service.answers(OK)

    assert other.received == OK
    assert len(stage.services) == 1
    assert stage.service.received == FORWARDED + forwarded(b"GET", b"/other")


# Bugs of the gateway's own.


@pytest.mark.parametrize("when_awaited", [False, True], ids=["at once", "awaited"])
async def test_bug_costs_one_request(when_awaited: bool, stage: Stage) -> None:
    """
    An exception that nobody expects is 500, is counted, and leaves the connection usable.
    """
    stage.credentials.have_a_bug(when_awaited=when_awaited)
    stage.client.sends(GET)
    await stage.until(lambda: stage.client.received)

    assert error_in(stage.client.reply) == (500, "Internal")
    assert not stage.client.reply.closes
    assert stage.client.fate is Fate.OPEN
    assert stage.service.received == b""
    assert stage.sample("gateway_errors_total", layer="gateway", error="internal") == 1


async def test_bug_does_not_stop_the_pipeline(stage: Stage) -> None:
    """
    Each of two pipelined requests is answered with 500.
    """
    stage.credentials.have_a_bug(when_awaited=False)
    stage.client.sends(GET + GET)

    assert [error_in(reply) for reply in stage.client.replies] == [(500, "Internal")] * 2
