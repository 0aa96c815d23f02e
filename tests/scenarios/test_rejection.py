"""Tokens that the service rejects: hidden, sent again, passed on, and held back for how long."""

import gzip
import zlib

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
from tests.support.memory import OpenStage, Stage

BODY = b'{"error_msg":"Incorrect IAM token","error_code":"APIG.0301"}'
REJECTED = answer(401, BODY, b"Content-Type: application/json")
KEYSTONE = answer(401, b"Authentication required", b"WWW-Authenticate: Keystone uri='x'")
POST_FIELDS = (b"Content-Type: application/json", b"Content-Length: 2")


def forwarded_post(number: int) -> bytes:
    """What the service gets of `POST`, with the token of that number."""
    return forwarded(b"POST", b"/predict", *POST_FIELDS, number=number, body=b"{}")


async def sent_again(stage: Stage, number: int = 2) -> None:
    """Wait until the request has been sent with another token."""
    await stage.until(lambda: token(number) in stage.service.received)


async def test_rejection_is_hidden_and_the_request_sent_again(stage: Stage) -> None:
    """
    The client gets the second response; the old token is reported, the new one approved of.
    """
    stage.client.sends(POST)
    stage.service.answers(REJECTED)
    await sent_again(stage)
    assert stage.client.received == b""
    stage.service.answers(OK)

    assert stage.service.received == forwarded_post(1) + forwarded_post(2)
    assert stage.client.received == OK
    assert stage.credentials.rejected == [token(1)]
    assert stage.credentials.healed == [token(2)]
    assert (stage.pool.active, stage.pool.idle) == (0, 1)
    assert (stage.record["retries"], stage.record["error"]) == (1, "")
    assert stage.sample("gateway_upstream_retries_total", reason="token_rejected") == 1
    assert stage.sample("gateway_errors_total") == 0


@pytest.mark.parametrize(
    "pieces",
    [
        (answer(401, b'{"error_code":"ModelArts.0201"}'),),
        (answer(403, b'{"error_code":"ModelArts.0203"}'),),
        (answer(401, b'{"error":{"code":"APIG.0307"}}'),),
        (KEYSTONE,),
        (REJECTED[:-10], REJECTED[-10:]),
        (head_of(b"Content-Length: %d" % len(BODY), status=b"401 No"), BODY),
        (head_of(b"Transfer-Encoding: chunked", status=b"401 No"), chunks(BODY[:9], BODY[9:]),
         b"0\r\n\r\n"),
        tuple(bytes([octet]) for octet in REJECTED),
        (answer(401, gzip.compress(BODY), b"Content-Encoding: gzip"),),
        tuple(
            bytes([octet])
            for octet in answer(401, zlib.compress(BODY), b"content-encoding: Deflate")
        ),
        (answer(401, b"\xef\xbb\xbf" + BODY),),
    ],
    ids=["401", "403", "nested", "keystone", "cut", "head first", "chunked", "single bytes",
         "gzip", "deflate in single bytes", "byte order mark"],
)  # fmt: skip
async def test_every_kind_of_rejection_is_hidden(pieces: tuple[bytes, ...], stage: Stage) -> None:
    """
    Whatever layer rejects the token, and however the response is cut on its way.
    """
    stage.client.sends(POST)
    stage.service.answers(*pieces)
    await sent_again(stage)
    stage.service.answers(OK)

    assert stage.client.received == OK
    assert stage.credentials.rejected == [token(1)]
    assert stage.pool.idle == 1


async def test_rejection_that_ends_with_its_connection_is_hidden(stage: Stage) -> None:
    """
    Without a length the close ends it; the request is sent again on another connection.
    """
    stage.client.sends(POST)
    stage.service.answers(head_of(status=b"401 No") + BODY)
    stage.service.closes()
    await stage.until(lambda: len(stage.services) == 2 and stage.service.received)
    stage.service.answers(OK)

    assert stage.service.received == forwarded_post(2)
    assert stage.client.received == OK
    assert stage.pool.idle == 1


async def test_rejection_of_head_is_known_by_its_challenge(stage: Stage) -> None:
    """
    A response to HEAD has no body; Keystone's challenge is enough.
    """
    stage.client.sends(request(b"HEAD"))
    stage.service.answers(head_of(b"WWW-Authenticate: Keystone uri='x'", status=b"401 No"))
    await stage.until(lambda: len(stage.services) == 2 and stage.service.received)
    stage.service.answers(head_of(b"Content-Length: 5"))

    assert stage.client.received == head_of(b"Content-Length: 5")


@pytest.mark.parametrize(
    "passing",
    [
        answer(401, b'{"erno":1}', b"Server: ModelArts"),
        answer(401, b"no", b"Server: ModelArts", b"WWW-Authenticate: Keystone uri='x'"),
        answer(401, b"please log in", b"WWW-Authenticate: Basic realm=x"),
        answer(401, b'{"error_code":"ModelArts.0207"}'),
        answer(401, BODY[:-1]),
        answer(401),
        answer(403, BODY),
        answer(400, BODY),
        answer(500, BODY),
    ],
    ids=[
        "model", "model as keystone", "basic", "no project", "cut json", "no body", "403", "400",
        "500",
    ],
)  # fmt: skip
async def test_what_says_nothing_about_the_token_passes(passing: bytes, stage: Stage) -> None:
    """
    The response is relayed byte for byte, the request is sent once, and the token stays.
    """
    stage.client.sends(POST)
    stage.service.answers(passing)

    assert stage.client.received == passing
    assert stage.credentials.rejected == []
    assert stage.service.received == forwarded_post(1)
    assert stage.pool.idle == 1
    assert stage.record["retries"] == 0


async def test_second_rejection_passes(stage: Stage) -> None:
    """
    The client sees it as it is, and nobody says that a token was accepted.
    """
    stage.client.sends(POST)
    stage.service.answers(REJECTED)
    await sent_again(stage)
    stage.service.answers(REJECTED)

    assert stage.client.received == REJECTED
    assert stage.credentials.rejected == [token(1), token(2)]
    assert stage.credentials.healed == []
    assert stage.sample("gateway_errors_total", layer="apig", error="unauthorized") == 1
    assert stage.record["retries"] == 1


async def test_token_is_not_accepted_by_a_rejection_that_passes(stage: Stage) -> None:
    """
    When the new token is rejected, too, and no other is coming, none has been accepted.
    """
    stage.client.sends(POST)
    stage.service.answers(REJECTED)
    await sent_again(stage)
    stage.credentials.renews = False
    stage.service.answers(REJECTED)

    assert stage.client.received == REJECTED
    assert stage.credentials.healed == []


async def test_request_is_sent_a_third_time_if_its_second_token_was_born_dead(
    stage: Stage,
) -> None:
    """
    But not a fourth time: then the client sees the rejection.
    """
    stage.credentials.are_born_dead = True
    stage.client.sends(POST)
    stage.service.answers(REJECTED)
    await sent_again(stage)
    stage.service.answers(REJECTED)
    await sent_again(stage, 3)
    assert stage.client.received == b""
    stage.service.answers(REJECTED)

    assert stage.client.received == REJECTED
    assert stage.record["retries"] == 2
    assert stage.sample("gateway_upstream_retries_total", reason="token_rejected") == 2


async def test_rejection_while_no_login_may_be_made_is_503(stage: Stage) -> None:
    """
    The client has sent no token, so a 401 would tell it nothing; it is told when to come again.
    """
    stage.credentials.renews = False
    stage.credentials.pause_s = 12.3
    stage.client.sends(POST)
    stage.service.answers(REJECTED)

    assert error_in(stage.client.reply) == (503, "TokenRenewed")
    assert stage.client.reply.values(b"retry-after") == [b"13"]
    assert not stage.client.reply.closes
    assert stage.service.received == forwarded_post(1)
    assert (stage.pool.active, stage.pool.idle) == (0, 1)
    assert stage.record["retries"] == 0


async def test_second_rejection_passes_while_no_login_may_be_made(stage: Stage) -> None:
    """
    A token that IAM has just issued was not accepted: what the service says of that is the news.
    """
    stage.client.sends(POST)
    stage.service.answers(REJECTED)
    await sent_again(stage)
    stage.credentials.pause_s = 30.0
    stage.service.answers(REJECTED)

    assert stage.client.received == REJECTED


async def test_rejection_that_no_login_cures_passes(stage: Stage) -> None:
    """
    When no other token is coming, the request is not sent again.
    """
    stage.credentials.renews = False
    stage.client.sends(POST)
    stage.service.answers(REJECTED)

    assert stage.client.received == REJECTED
    assert stage.credentials.rejected == [token(1)]
    assert stage.service.received == forwarded_post(1)


async def test_without_a_token_every_401_passes(stage: Stage) -> None:
    """
    Where none is sent, none can be rejected; the response is not held back either.
    """
    stage.credentials.is_anonymous = True
    stage.client.sends(POST)
    stage.service.answers(REJECTED[:-10])
    assert stage.client.received == REJECTED[:-10]
    stage.service.answers(REJECTED[-10:])

    assert stage.client.received == REJECTED
    assert stage.credentials.rejected == []


# What is sent again.


async def test_upload_that_was_rejected_early_goes_on(stage: Stage) -> None:
    """
    What had arrived is sent again with the new token, and the rest follows it.
    """
    stage.client.sends(upload(6, b"ab"))
    stage.service.answers(REJECTED)
    await stage.until(lambda: len(stage.services) == 2 and stage.service.received)
    stage.client.sends(b"cd", b"ef")
    stage.service.answers(OK)

    length = b"Content-Length: 6"
    assert stage.services[0].received == forwarded(b"POST", b"", length, body=b"ab")
    assert stage.service.received == forwarded(b"POST", b"", length, number=2, body=b"abcdef")
    assert stage.client.received == OK
    assert stage.pool.idle == 1


async def test_chunked_upload_is_sent_again_in_chunks(stage: Stage) -> None:
    """
    The kept chunks are framed anew, and end when the client has ended them.
    """
    stage.client.sends(CHUNKED, chunks(b"abc"), chunks(b"de", end=True))
    stage.service.answers(REJECTED)
    await sent_again(stage)
    stage.service.answers(OK)

    again = forwarded(b"POST", b"", b"Transfer-Encoding: chunked", number=2)
    assert stage.service.received.endswith(again + chunks(b"abc", b"de", end=True))
    assert stage.client.received == OK


@pytest.mark.parametrize(
    "sent",
    [request(b"POST", b"x" * 11), CHUNKED + chunks(b"x" * 11, end=True)],
    ids=["length", "chunked"],
)
async def test_upload_too_large_to_keep_is_503(sent: bytes, open_stage: OpenStage) -> None:
    """
    The token is replaced, and the client is asked to send its request again.
    """
    stage = open_stage(replay_bytes=10)
    stage.client.sends(sent)
    stage.service.answers(REJECTED)

    assert error_in(stage.client.reply) == (503, "TokenRenewed")
    assert stage.client.reply.values(b"retry-after") == [b"1"]
    assert not stage.client.reply.closes
    assert stage.credentials.rejected == [token(1)]
    assert stage.pool.idle == 1
    stage.client.sends(GET)
    stage.service.answers(OK)
    assert stage.service.received.endswith(forwarded(b"GET", b"", number=2))


async def test_upload_may_grow_after_it_was_sent_again(open_stage: OpenStage) -> None:
    """
    Beyond the bound it is not kept any more, and goes on all the same.
    """
    stage = open_stage(replay_bytes=10)
    stage.client.sends(CHUNKED + chunks(b"12345"))
    stage.service.answers(REJECTED)
    await stage.until(lambda: len(stage.services) == 2 and stage.service.received)
    assert stage.kept_bytes == 5
    stage.client.sends(chunks(b"678901", end=True))
    assert stage.kept_bytes == 0
    stage.service.answers(OK)

    assert stage.service.received.endswith(chunks(b"12345", b"678901", end=True))
    assert stage.client.received == OK


async def test_body_that_arrives_meanwhile_is_left_in_the_kernel(stage: Stage) -> None:
    """
    While the new token is awaited, what can be sent again does not grow.
    """
    stage.client.sends(upload(6, b"ab"))
    stage.credentials.are_awaited()
    stage.service.answers(REJECTED)
    stage.client.sends(b"cdef")
    await stage.settle()
    assert not stage.client.is_read
    assert stage.kept_bytes == 2
    stage.credentials.arrive()
    await stage.until(lambda: stage.service.received.endswith(b"cdef"))
    stage.service.answers(OK)

    length = b"Content-Length: 6"
    assert stage.service.received == forwarded(b"POST", b"", length, number=2, body=b"abcdef")
    assert stage.client.received == OK


async def test_request_waits_for_the_new_token(stage: Stage) -> None:
    """
    The wait for the login is told as the credential's, and the request then succeeds.
    """
    stage.client.sends(POST)
    stage.credentials.are_awaited()
    stage.service.answers(REJECTED)
    await stage.settle()
    stage.clock.advance(0.5)
    stage.credentials.arrive()
    await sent_again(stage)
    stage.service.answers(OK)

    assert stage.client.received == OK
    assert stage.record["credential_us"] == 500_000


async def test_new_token_that_cannot_be_had_is_503(stage: Stage) -> None:
    """
    The client is told of the login, not of the rejection.
    """
    stage.client.sends(POST)
    stage.credentials.cannot_be_had("LOGIN_REFUSED", retry_after_s=60.0)
    stage.service.answers(REJECTED)
    await stage.until(lambda: stage.client.received)

    assert error_in(stage.client.reply) == (503, "LoginRefused")
    assert stage.client.reply.values(b"retry-after") == [b"60"]
    assert stage.pool.idle == 1


async def test_client_may_leave_while_the_new_token_is_awaited(stage: Stage) -> None:
    """
    Nothing is sent again.
    """
    stage.client.sends(POST)
    stage.credentials.are_awaited()
    stage.service.answers(REJECTED)
    await stage.settle()
    stage.client.leaves()
    await stage.settle()
    stage.credentials.arrive()
    await stage.settle()

    assert stage.service.received == forwarded_post(1)
    assert (stage.record["status"], stage.record["retries"]) == (0, 1)


async def test_acceptance_is_told_once(stage: Stage) -> None:
    """
    After a rejection the first success with the new token is reported, and no further one.
    """
    stage.client.sends(POST)
    stage.service.answers(REJECTED)
    await sent_again(stage)
    stage.service.answers(OK)
    stage.client.sends(POST)
    stage.service.answers(OK)

    assert stage.credentials.healed == [token(2)]


async def test_success_with_the_rejected_token_proves_nothing(stage: Stage) -> None:
    """
    A request that went out before the rejection says nothing about the new token.
    """
    other = stage.new_client()
    other.sends(GET)
    stage.credentials.cannot_be_had("LOGIN_REFUSED", retry_after_s=1.0)
    stage.credentials.at_hand = True
    stage.client.sends(POST)
    await stage.until(lambda: len(stage.services) == 2 and stage.service.received)
    stage.credentials.at_hand = False
    stage.service.answers(REJECTED)
    await stage.until(lambda: stage.client.received)
    stage.services[0].answers(OK)

    assert other.received == OK
    assert stage.credentials.healed == []


@pytest.mark.parametrize(
    "body", [b"no gzip", gzip.compress(b"{}" + b" " * 2**24), gzip.compress(BODY)[:12]],
    ids=["broken", "bomb", "cut off"],
)  # fmt: skip
async def test_what_cannot_be_unpacked_passes(body: bytes, stage: Stage) -> None:
    """
    As it came, at the latest when it is complete; no more than 8 KiB of it are unpacked.
    """
    response = answer(401, body, b"Content-Encoding: gzip")
    stage.client.sends(POST)
    stage.service.answers(response)

    assert stage.client.received == response
    assert stage.credentials.rejected == []
