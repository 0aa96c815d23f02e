"""Bodies of requests: forwarded as they arrive, framed anew, bounded, never ended by mistake."""

import pytest

from tests.scenarios.messages import (
    CHUNKED,
    GET,
    OK,
    chunks,
    error_in,
    forwarded,
    request,
    upload,
)
from tests.support.memory import Fate, OpenStage, Stage

FORWARDED_CHUNKED = forwarded(b"POST", b"", b"Transfer-Encoding: chunked")
EXPECTING = b"Expect: 100-continue"
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


def forwarded_upload(length: int, body: bytes = b"") -> bytes:
    """What the service gets of an upload of `length` bytes."""
    return forwarded(b"POST", b"", b"Content-Length: %d" % length, body=body)


# Bodies with a length.


async def test_body_in_pieces_is_forwarded_piece_by_piece(stage: Stage) -> None:
    """
    Each piece is written as soon as it is there; the response then comes back as usual.
    """
    stage.client.sends(upload(6))
    assert stage.service.writes == [forwarded_upload(6)]
    stage.client.sends(b"ab", b"cd")
    assert stage.service.writes[1:] == [b"ab", b"cd"]
    stage.client.sends(b"ef")
    stage.service.answers(OK)

    assert stage.service.received == forwarded_upload(6, b"abcdef")
    assert stage.client.received == OK
    assert stage.pool.idle == 1
    assert stage.record["request_bytes"] == 6


async def test_request_in_single_bytes_is_the_same_request(stage: Stage) -> None:
    """
    However a request is cut on its way, the service gets the same bytes.
    """
    stage.client.sends(*(bytes([octet]) for octet in request(b"POST", b"abcdef")))
    stage.service.answers(OK)

    assert stage.service.received == forwarded_upload(6, b"abcdef")
    assert stage.client.received == OK


async def test_body_behind_its_head_is_the_next_request_s_beginning(stage: Stage) -> None:
    """
    What follows the last byte of a body in the same read is the next request.
    """
    stage.client.sends(upload(4, b"ab"), b"cd" + GET)
    stage.service.answers(OK)
    stage.service.answers(OK)

    assert stage.service.received == forwarded_upload(4, b"abcd") + forwarded(b"GET", b"")
    assert stage.client.received == OK * 2


async def test_empty_body_is_a_whole_request(stage: Stage) -> None:
    """
    A length of 0 is forwarded as such.
    """
    stage.client.sends(request(b"POST", b""))
    stage.service.answers(OK)

    assert stage.service.received == forwarded_upload(0)
    assert stage.client.received == OK


async def test_body_waits_in_the_kernel_for_the_connection(open_stage: OpenStage) -> None:
    """
    While a connection is opened the client is not read; then everything goes in order.
    """
    stage = open_stage(connection_at_hand=False)
    stage.pool.makes_wait()
    stage.client.sends(upload(6, b"ab"))
    await stage.settle()
    stage.client.sends(b"cd")
    assert not stage.client.is_read
    stage.pool.opens()
    await stage.until(lambda: stage.services)
    assert stage.client.is_read
    await stage.settle()
    stage.client.sends(b"ef")
    stage.service.answers(OK)

    assert stage.service.writes == [forwarded_upload(6, b"ab"), b"cd", b"ef"]
    assert stage.client.received == OK


async def test_large_pieces_are_not_copied_into_one(open_stage: OpenStage) -> None:
    """
    A small head and body leave in one write, and a large body arrives whole as well.
    """
    stage = open_stage(max_body_bytes=2**20)
    body = bytes(range(256)) * 1024
    stage.client.sends(upload(len(body)) + body[:1000], body[1000:])
    stage.service.answers(OK)

    assert len(stage.service.writes[0]) == len(forwarded_upload(len(body))) + 1000
    assert stage.service.received == forwarded_upload(len(body), body)


# Chunked bodies.


async def test_chunks_are_forwarded_as_they_come(stage: Stage) -> None:
    """
    A chunk stays a chunk, and the last chunk is written when the client has sent it.
    """
    stage.client.sends(CHUNKED, chunks(b"abc"))
    assert stage.service.writes == [FORWARDED_CHUNKED, chunks(b"abc")]
    stage.client.sends(chunks(b"de"), b"0\r\n\r\n")
    stage.service.answers(OK)

    assert stage.service.received == FORWARDED_CHUNKED + chunks(b"abc", b"de", end=True)
    assert stage.client.received == OK
    assert stage.pool.idle == 1
    assert stage.record["request_bytes"] == 5


async def test_chunk_that_is_cut_is_forwarded_as_two(stage: Stage) -> None:
    """
    The rest of a chunk is not waited for.
    """
    stage.client.sends(CHUNKED + b"6\r\nabc", b"def\r\n0\r\n\r\n")
    stage.service.answers(OK)

    assert stage.service.received == FORWARDED_CHUNKED + chunks(b"abc", b"def", end=True)


async def test_chunked_body_at_once_leaves_in_one_write(stage: Stage) -> None:
    """
    Head, chunk and last chunk that arrive together leave together.
    """
    stage.client.sends(CHUNKED + chunks(b"abc", end=True))
    stage.service.answers(OK)

    assert stage.service.writes == [FORWARDED_CHUNKED + chunks(b"abc", end=True)]


async def test_chunked_body_may_be_empty(stage: Stage) -> None:
    """
    The last chunk alone is forwarded.
    """
    stage.client.sends(CHUNKED + b"0\r\n\r\n")
    stage.service.answers(OK)

    assert stage.service.received == FORWARDED_CHUNKED + b"0\r\n\r\n"


async def test_extensions_and_trailers_are_not_forwarded(stage: Stage) -> None:
    """
    Of a chunked body only the data goes on.
    """
    stage.client.sends(CHUNKED + b"3;x=y\r\nabc\r\n0\r\nX-Auth-Token: theirs\r\n\r\n" + GET)
    stage.service.answers(OK)
    stage.service.answers(OK)

    expected = FORWARDED_CHUNKED + chunks(b"abc", end=True) + forwarded(b"GET", b"")
    assert stage.service.received == expected


@pytest.mark.parametrize(("count", "merged"), [(16, False), (17, True)])
async def test_many_small_chunks_are_merged(count: int, merged: bool, stage: Stage) -> None:
    """
    Up to 16 chunks of one read stay as they are; more small ones become one.
    """
    stage.client.sends(CHUNKED + chunks(*[b"x"] * count, end=True))
    stage.service.answers(OK)

    pieces = [b"x" * count] if merged else [b"x"] * count
    assert stage.service.received == FORWARDED_CHUNKED + chunks(*pieces, end=True)


async def test_chunks_wait_in_the_kernel_for_the_credential(stage: Stage) -> None:
    """
    What arrived with the head, and what arrived during the wait, is forwarded in order.
    """
    stage.credentials.are_awaited()
    stage.client.sends(CHUNKED + chunks(b"abc"))
    await stage.settle()
    stage.client.sends(chunks(b"de", end=True))
    stage.credentials.arrive()
    await stage.until(lambda: stage.service.received.endswith(b"0\r\n\r\n"))
    stage.service.answers(OK)

    assert stage.service.received == FORWARDED_CHUNKED + chunks(b"abc", b"de", end=True)
    assert stage.client.received == OK


# Expect: 100-continue.


async def test_body_is_asked_for_when_the_service_is_there(open_stage: OpenStage) -> None:
    """
    100 Continue is the gateway's own, sent with the connection; `Expect` is not forwarded.
    """
    stage = open_stage(connection_at_hand=False)
    stage.pool.makes_wait()
    stage.client.sends(request(b"POST", None, EXPECTING, b"Content-Length: 2"))
    await stage.settle()
    assert stage.client.received == b""
    stage.pool.opens()
    await stage.until(lambda: stage.client.received)
    assert stage.client.received == CONTINUE
    stage.client.sends(b"{}")
    stage.service.answers(OK)

    assert stage.service.received == forwarded_upload(2, b"{}")
    assert stage.client.received == CONTINUE + OK


async def test_body_that_did_not_wait_is_not_asked_for(stage: Stage) -> None:
    """
    A client that sends its body with the head gets no 100.
    """
    stage.client.sends(request(b"POST", b"{}", EXPECTING))
    stage.service.answers(OK)

    assert stage.client.received == OK


async def test_refused_expectation_gets_its_final_response_at_once(stage: Stage) -> None:
    """
    A request that is refused never hears 100.
    """
    refused = request(b"POST", None, EXPECTING, b"Content-Length: 2", target=b"/nobody")
    stage.client.sends(refused)

    assert error_in(stage.client.reply) == (404, "UnknownService")
    assert stage.client.reply.closes


async def test_http_1_0_is_not_told_to_continue(stage: Stage) -> None:
    """
    `Expect` of HTTP/1.0 is ignored.
    """
    stage.client.sends(request(b"POST", None, EXPECTING, b"Content-Length: 2", version=b"1.0"))
    stage.client.sends(b"{}")
    stage.service.answers(OK)

    assert stage.client.received.startswith(b"HTTP/1.1 200 OK\r\n")
    assert stage.service.received == forwarded_upload(2, b"{}")


# Bodies that are not taken.


async def test_chunked_body_may_be_as_large_as_allowed(open_stage: OpenStage) -> None:
    """
    A body of exactly `max_body` is forwarded.
    """
    stage = open_stage(max_body_bytes=10)
    stage.client.sends(CHUNKED, chunks(b"12345"), chunks(b"67890", end=True))
    stage.service.answers(OK)

    assert stage.client.received == OK


async def test_chunked_body_may_not_be_larger(open_stage: OpenStage) -> None:
    """
    One byte more is 413, and the service never gets the end of the body.
    """
    stage = open_stage(max_body_bytes=10)
    stage.client.sends(CHUNKED, chunks(b"12345"), chunks(b"678901", end=True))

    assert error_in(stage.client.reply) == (413, "BodyTooLarge")
    assert stage.service.received == FORWARDED_CHUNKED + chunks(b"12345")
    assert stage.service.fate is Fate.ABORTED
    assert (stage.pool.active, stage.pool.idle) == (0, 0)


async def test_chunked_body_that_is_too_large_at_once_is_not_forwarded(
    open_stage: OpenStage,
) -> None:
    """
    The connection that was meant for it is untouched and stays in the pool.
    """
    stage = open_stage(max_body_bytes=10)
    stage.client.sends(CHUNKED + chunks(b"x" * 11))

    assert error_in(stage.client.reply) == (413, "BodyTooLarge")
    assert stage.client.reply.closes
    assert stage.client.fate is Fate.HALF_CLOSED
    assert stage.service.received == b""
    assert (stage.pool.active, stage.pool.idle) == (0, 1)


@pytest.mark.parametrize("begun", [b"", chunks(b"abc")], ids=["first", "later"])
async def test_malformed_chunk_ends_the_request(begun: bytes, stage: Stage) -> None:
    """
    400, and the service sees a request that was cut, not one that has ended.
    """
    stage.client.sends(CHUNKED + begun, b"oops\r\n")
    await stage.settle()

    assert error_in(stage.client.reply) == (400, "BadRequest")
    assert stage.client.reply.closes
    assert stage.client.fate is Fate.HALF_CLOSED
    assert stage.service.received == FORWARDED_CHUNKED + begun
    assert stage.service.fate is Fate.ABORTED
    assert stage.record["error"] == "bad_request"


async def test_body_that_is_malformed_at_once_is_not_forwarded(stage: Stage) -> None:
    """
    A request that never can be whole is refused before a connection is taken for it.
    """
    stage.client.sends(CHUNKED + chunks(b"abc") + b"oops\r\n")

    assert error_in(stage.client.reply) == (400, "BadRequest")
    assert stage.service.received == b""
    assert stage.pool.idle == 1


async def test_endless_chunk_extensions_are_bounded(stage: Stage) -> None:
    """
    More than 128 KiB without a byte of the body are refused.
    """
    stage.client.sends(CHUNKED + b"3;x=", b"y" * 70_000, b"y" * 70_000)

    assert error_in(stage.client.reply) == (400, "BadRequest")
    assert stage.service.fate is Fate.ABORTED
