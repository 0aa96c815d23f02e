"""Responses: relayed with their framing, cleaned, and refused when they are malformed."""

import pytest

from tests.scenarios.messages import (
    GET,
    OK,
    POST,
    answer,
    chunks,
    error_in,
    forwarded,
    head_of,
    request,
)
from tests.support.memory import Fate, Stage

CHUNKED_HEAD = head_of(b"Transfer-Encoding: chunked")
INTERIM = b"HTTP/1.1 102 Processing\r\n\r\n"


# Framing.


async def test_response_in_pieces_is_relayed_piece_by_piece(stage: Stage) -> None:
    """
    Each piece is written as soon as it is there, and the connection is kept after the last.
    """
    stage.client.sends(POST)
    head = head_of(b"Content-Length: 6", b"X-Model: a")
    stage.service.answers(head, b"ab", b"cd")
    assert stage.client.writes == [head, b"ab", b"cd"]
    stage.service.answers(b"ef")

    assert stage.client.received == head + b"abcdef"
    assert stage.pool.idle == 1
    assert stage.record["response_bytes"] == 6


@pytest.mark.parametrize("response", [OK, CHUNKED_HEAD + chunks(b"abc", b"d", end=True)])
async def test_response_in_single_bytes_is_the_same_response(response: bytes, stage: Stage) -> None:
    """
    However a response is cut on its way, the client gets the same body, whole.
    """
    stage.client.sends(GET)
    stage.service.answers(*(bytes([octet]) for octet in response))

    assert stage.client.reply.body in {b"ok", b"abcd"}
    assert stage.client.reply.complete
    assert stage.pool.idle == 1


async def test_chunks_are_relayed_as_they_come(stage: Stage) -> None:
    """
    A chunk stays a chunk; extensions and trailers end here; the last chunk ends the response.
    """
    stage.client.sends(GET)
    stage.service.answers(CHUNKED_HEAD + b"3;x=y\r\nabc\r\n", chunks(b"de"))
    assert stage.client.received == CHUNKED_HEAD + chunks(b"abc", b"de")
    stage.service.answers(b"0\r\nX-Trailer: 1\r\n\r\n")

    assert stage.client.received == CHUNKED_HEAD + chunks(b"abc", b"de", end=True)
    assert stage.client.fate is Fate.OPEN
    assert stage.pool.idle == 1


async def test_response_without_length_ends_both_connections(stage: Stage) -> None:
    """
    Its end is the end of the stream, for the client as well.
    """
    stage.client.sends(GET)
    stage.service.answers(head_of(), b"abc")
    assert stage.client.received == head_of(b"Connection: close") + b"abc"
    assert stage.client.is_open
    stage.service.closes()
    await stage.settle()

    assert stage.client.reply.complete
    assert stage.client.fate is Fate.HALF_CLOSED
    assert (stage.pool.active, stage.pool.idle) == (0, 0)
    assert stage.record["error"] == ""


@pytest.mark.parametrize(
    ("method", "response"),
    [
        (b"HEAD", head_of(b"Content-Length: 5")),
        (b"HEAD", head_of(b"Transfer-Encoding: chunked")),
        (b"GET", head_of(status=b"204 No Content")),
        (b"GET", head_of(b"ETag: x", status=b"304 Not Modified")),
        (b"GET", head_of(b"Content-Length: 5", status=b"304 Not Modified")),
        (b"GET", head_of(b"Content-Length: 0")),
    ],
    ids=["head", "head chunked", "204", "304", "304 with length", "empty"],
)
async def test_response_without_body_ends_with_its_head(
    method: bytes, response: bytes, stage: Stage
) -> None:
    """
    What the head says of a body is not waited for, and the connection serves the next request.
    """
    stage.client.sends(request(method))
    stage.service.answers(response)
    assert stage.record["response_bytes"] == 0
    assert stage.pool.idle == 1
    stage.client.sends(GET)
    stage.service.answers(OK)

    without_coding = response.replace(b"Transfer-Encoding: chunked\r\n", b"")
    assert stage.client.received == without_coding + OK


@pytest.mark.parametrize(
    ("response", "body"),
    [(CHUNKED_HEAD + chunks(b"abc", end=True), b"abc"), (head_of() + b"abc", b"abc")],
    ids=["chunked", "close"],
)
async def test_http_1_0_gets_a_body_that_ends_with_the_connection(
    response: bytes, body: bytes, stage: Stage
) -> None:
    """
    It knows no chunks.
    """
    stage.client.sends(request(b"GET", version=b"1.0"))
    stage.service.answers(response)
    stage.service.closes()
    await stage.settle()

    assert stage.client.received == head_of(b"Connection: close") + body
    assert stage.client.fate is Fate.CLOSED


async def test_http_1_0_may_keep_its_connection(stage: Stage) -> None:
    """
    If it asks for that, and the response has a length.
    """
    stage.client.sends(request(b"GET", None, b"Connection: keep-alive", version=b"1.0"))
    stage.service.answers(OK)

    assert stage.client.received == OK.replace(
        b"Length: 2\r\n", b"Length: 2\r\nConnection: keep-alive\r\n"
    )
    assert stage.client.fate is Fate.OPEN


# Which connections are kept.


async def test_client_that_closes_is_told_so_and_closed(stage: Stage) -> None:
    """
    `Connection: close` of the client ends its own connection only.
    """
    stage.client.sends(request(b"GET", None, b"Connection: close"))
    stage.service.answers(OK)
    await stage.settle()

    assert stage.client.reply.closes
    assert stage.client.fate is Fate.CLOSED
    assert stage.service.received == forwarded(b"GET", b"")
    assert stage.pool.idle == 1


@pytest.mark.parametrize(
    "response",
    [
        answer(200, b"ok", b"Connection: close"),
        OK.replace(b"HTTP/1.1", b"HTTP/1.0"),
        OK + b"late",
        OK + b"\r\n",
        OK + OK,
    ],
    ids=["close", "1.0", "late bytes", "line end", "second response"],
)
async def test_service_connection_that_cannot_be_trusted_is_not_kept(
    response: bytes, stage: Stage
) -> None:
    """
    The client gets its response and keeps its connection; the next request goes on a new one.
    """
    stage.client.sends(GET)
    stage.service.answers(response)
    assert stage.client.reply.body == b"ok"
    assert not stage.client.reply.closes
    assert (stage.pool.active, stage.pool.idle) == (0, 0)
    stage.client.sends(GET)
    await stage.until(lambda: len(stage.services) == 2 and stage.service.received)
    stage.service.answers(OK)

    assert len(stage.client.replies) == 2
    assert stage.services[0].fate is Fate.CLOSED


async def test_rest_of_a_body_that_came_later_is_cut_at_its_length(stage: Stage) -> None:
    """
    Bytes behind the announced end reach nobody.
    """
    stage.client.sends(GET)
    stage.service.answers(head_of(b"Content-Length: 4"), b"ab", b"cdlate")

    assert stage.client.received == head_of(b"Content-Length: 4") + b"abcd"
    assert stage.pool.idle == 0


async def test_repeated_response_is_relayed_like_the_first(stage: Stage) -> None:
    """
    From the third time on a head is recognised; another body, and another client's, are right.
    """
    for body in (b"aa", b"bb", b"cc", b"dd"):
        stage.client.sends(GET)
        stage.service.answers(OK[:-2] + body)
    stage.client.sends(request(b"GET", None, b"Connection: close"))
    stage.service.answers(OK)

    assert [reply.body for reply in stage.client.replies] == [b"aa", b"bb", b"cc", b"dd", b"ok"]
    assert [reply.closes for reply in stage.client.replies] == [False] * 4 + [True]
    assert len(stage.services) == 1


# Interim responses.


async def test_interim_responses_are_absorbed(stage: Stage) -> None:
    """
    The client hears nothing of up to 16 of them.
    """
    stage.client.sends(GET)
    stage.service.answers(*[INTERIM] * 15, head_of(b"Link: x", status=b"103 Early Hints"))
    assert stage.client.received == b""
    stage.service.answers(OK)

    assert stage.client.received == OK
    assert stage.pool.idle == 1


@pytest.mark.parametrize("at_once", [False, True])
async def test_seventeenth_interim_response_is_502(at_once: bool, stage: Stage) -> None:
    """
    They would otherwise go on for ever.
    """
    stage.client.sends(GET)
    stage.service.answers(*[INTERIM * 17] if at_once else [INTERIM] * 17)

    assert error_in(stage.client.reply) == (502, "HttpProtocolError")
    assert stage.service.fate is Fate.ABORTED


# Malformed heads.


@pytest.mark.parametrize(
    "response",
    [
        b"HTTP/1.1 abc OK\r\n\r\n",
        b"ICY 200 OK\r\n\r\n",
        b"\r\n" + OK,
        b"SSH-2.0-OpenSSH_9.2\r\n",
        head_of(status=b"600 Odd"),
        head_of(status=b"099 Odd"),
        OK.replace(b"HTTP/1.1", b"HTTP/2.0"),
        head_of(b"Content-Length: 2", b"Transfer-Encoding: chunked"),
        head_of(b"Content-Length: 2", b"Content-Length: 2"),
        head_of(b"Content-Length: -2"),
        head_of(b"Content-Length: 9999999999999999"),
        head_of(b"Transfer-Encoding: gzip, chunked"),
        head_of(b"A: b\x00c"),
        head_of(b"A b"),
        head_of(status=b"200 O\x01K"),
        head_of(b"Content-Length: 2", status=b"204 No Content"),
        head_of(b"Content-Length: 2", status=b"100 Continue"),
        head_of(b"A: " + b"b" * 66_000),
        head_of(*[b"A: b"] * 257),
        head_of(status=b"101 Switching Protocols"),
    ],
    ids=[
        "status", "protocol", "empty line", "ssh", "600", "99", "version", "length and chunks",
        "two lengths", "negative", "absurd", "coding", "control octet", "no colon", "reason",
        "204 with body", "100 with body", "too large", "too many fields", "101",
    ],
)  # fmt: skip
async def test_malformed_response_is_502(response: bytes, stage: Stage) -> None:
    """
    Nothing of it is passed on, and nothing more is read from this connection.
    """
    stage.client.sends(POST)
    stage.service.answers(response)
    await stage.settle()

    assert error_in(stage.client.reply) == (502, "HttpProtocolError")
    assert not stage.client.reply.closes
    assert stage.service.fate is Fate.ABORTED
    assert (stage.pool.active, stage.pool.idle) == (0, 0)
    assert stage.sample("gateway_errors_total", layer="network") == 1


async def test_endless_head_is_bounded(stage: Stage) -> None:
    """
    A head of more than 64 KiB that does not end is given up.
    """
    stage.client.sends(GET)
    stage.service.answers(head_of()[:-2], *[b"A: " + b"b" * 9_000 + b"\r\n"] * 8)

    assert error_in(stage.client.reply) == (502, "HttpProtocolError")


# Fields.


async def test_cookies_tokens_and_hops_end_here(stage: Stage) -> None:
    """
    What would mix clients, show a token, or concerns one connection only, is not relayed.
    """
    stage.client.sends(GET)
    stage.service.answers(
        head_of(
            b"Server: x",
            b"Set-Cookie: a=b",
            b"X-Subject-Token: secret",
            b"X-Auth-Token: secret",
            b"Keep-Alive: timeout=5",
            b"Connection: X-Hop, Content-Length",
            b"X-Hop: 1",
            b"Vary: a",
            b"Vary: b",
            b"Content-Length: 0",
        )
    )

    expected = head_of(b"Server: x", b"Vary: a", b"Vary: b", b"Content-Length: 0")
    assert stage.client.received == expected


@pytest.mark.parametrize(
    ("location", "seen"),
    [
        (b"http://service.test/v1/infers/abc/x?y=1", b"/iris/x?y=1"),
        (b"http://SERVICE.test:80/v1/infers/abc", b"/iris"),
        (b"/v1/infers/abc/x#z", b"/iris/x#z"),
        (b"/v1/infers/other", b"/v1/infers/other"),
        (b"https://elsewhere.test/v1/infers/abc", b"https://elsewhere.test/v1/infers/abc"),
        (b"x/y", b"x/y"),
    ],
)
async def test_redirect_within_the_service_leads_to_the_gateway(
    location: bytes, seen: bytes, stage: Stage
) -> None:
    """
    Others are relayed untouched, and none is followed.
    """
    stage.client.sends(request(b"GET", target=b"/iris/predict"))
    stage.service.answers(answer(307, b"", b"Location: " + location))

    assert stage.client.received == answer(307, b"", b"Location: " + seen)
    assert stage.sample("gateway_requests_total", code="3xx") == 1


async def test_service_s_request_id_is_in_the_log(stage: Stage) -> None:
    """
    Beside the client's own, and both are relayed as they are.
    """
    stage.client.sends(request(b"GET", None, b"X-Request-Id: ours"))
    stage.service.answers(answer(200, b"", b"X-Request-Id: theirs"))

    assert stage.record["request_id"] == "ours"
    assert stage.record["upstream_request_id"] == "theirs"
    assert stage.client.reply.values(b"x-request-id") == [b"theirs"]


@pytest.mark.parametrize(
    ("response", "layer", "error"),
    [
        (answer(404, b"nothing"), "model", "not_found"),
        (answer(429, b'{"error_code":"APIG.0308"}'), "apig", "throttled"),
        (answer(500, b'{"error_code":"ModelArts.4503"}'), "modelarts", "server_error"),
    ],
)
async def test_error_of_the_service_is_relayed_and_counted(
    response: bytes, layer: str, error: str, stage: Stage
) -> None:
    """
    The error code in the body tells whose it is.
    """
    stage.client.sends(GET)
    stage.service.answers(response)

    assert stage.client.received == response
    assert stage.record["error"] == error
    assert stage.sample("gateway_errors_total", layer=layer, error=error) == 1
    assert stage.pool.idle == 1
