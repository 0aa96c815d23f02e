"""Requests that are refused before anything is forwarded, and those that are admitted."""

import pytest

from tests.scenarios.messages import (
    CHUNKED,
    GET,
    OK,
    POST,
    chunks,
    error_in,
    forwarded,
    request,
    upload,
)
from tests.support.memory import LINGER_S, Fate, OpenStage, Stage

REFUSED_AND_KEPT = {
    "no such service": (request(target=b"/nobody"), 404, "UnknownService", "other"),
    "method": (request(b"POST", b"{}"), 405, "MethodNotAllowed", "iris"),
    "declared body": (request(b"PUT", bytes(11)), 413, "BodyTooLarge", "iris"),
    "expectation": (request(b"GET", None, b"Expect: 200-ok"), 417, "ExpectationFailed", "other"),
    "host": (GET.replace(b"localhost", b"rebound.test"), 421, "WrongHost", "other"),
    "origin": (request(b"GET", None, b"Origin: https://x.test"), 403, "BrowserRefused", "other"),
    "site": (request(b"GET", None, b"Sec-Fetch-Site: cross-site"), 403, "BrowserRefused", "other"),
}
"""Requests that are understood, but not taken: request, status, error, label `service`."""

REFUSED_AND_CLOSED = {
    "dot segment": (request(b"GET", target=b"/iris/../x"), 400, "BadTarget"),
    "encoded slash": (request(b"GET", target=b"/iris/%2F"), 400, "BadTarget"),
    "rerouting field": (request(b"GET", None, b"X-Original-URL: /x"), 400, "BadTarget"),
    "no host": (b"GET /iris HTTP/1.1\r\n\r\n", 400, "BadRequest"),
    "two hosts": (request(b"GET", None, b"Host: localhost"), 400, "BadRequest"),
    "two lengths": (request(b"PUT", b"{}", b"Content-Length: 2"), 400, "BadRequest"),
    "length and chunks": (
        CHUNKED.replace(b"\r\n\r\n", b"\r\nContent-Length: 2\r\n\r\n"),
        400,
        "BadRequest",
    ),
    "other coding": (CHUNKED.replace(b"chunked", b"gzip, chunked"), 400, "BadRequest"),
    "method unknown": (request(b"TRACE"), 501, "MethodUnknown"),
    "no request": (b"hello\r\n\r\n", 501, "MethodUnknown"),
    "upgrade": (
        request(b"GET", None, b"Connection: Upgrade", b"Upgrade: websocket"),
        400,
        "UpgradeRefused",
    ),
    "target": (request(b"GET", target=b"/iris/" + b"x" * 8192), 414, "TargetTooLong"),
    "fields": (request(b"GET", None, *[b"A: b"] * 100), 431, "HeadersTooLarge"),
    "field": (request(b"GET", None, b"A: " + b"b" * 40_000), 431, "HeadersTooLarge"),
}
"""Requests after which nobody can say where the next one begins: request, status, error."""


@pytest.mark.parametrize("name", REFUSED_AND_KEPT)
async def test_refused_request_does_not_cost_the_connection(
    name: str, open_stage: OpenStage
) -> None:
    """
    Nothing is forwarded, the error says why, and the next request on the connection is served.
    """
    refused, status, error, counted_for = REFUSED_AND_KEPT[name]
    stage = open_stage(methods="GET PUT", max_body_bytes=10)
    stage.client.sends(refused)

    assert error_in(stage.client.reply) == (status, error)
    assert not stage.client.reply.closes
    assert stage.service.received == b""
    assert (stage.record["status"], stage.record["service"]) == (status, counted_for)
    assert stage.sample("gateway_errors_total", layer="client", service=counted_for) == 1

    stage.client.sends(GET)
    stage.service.answers(OK)
    assert stage.client.replies[1].body == b"ok"
    assert stage.client.fate is Fate.OPEN


@pytest.mark.parametrize("name", REFUSED_AND_CLOSED)
async def test_request_without_a_sure_end_is_the_last(name: str, stage: Stage) -> None:
    """
    The response says that the connection closes, and what follows on it is not read as a request.
    """
    refused, status, error = REFUSED_AND_CLOSED[name]
    stage.client.sends(refused)
    stage.client.sends(GET)

    assert error_in(stage.client.reply) == (status, error)
    assert stage.client.reply.closes
    assert stage.client.fate is Fate.HALF_CLOSED
    assert stage.service.received == b""
    assert len(stage.records) == 1


@pytest.mark.parametrize("version", [b"HTTP/2.0", b"HTTP/0.9"])
async def test_other_versions_are_refused(version: bytes, stage: Stage) -> None:
    """
    505, and the connection closes without waiting for more.
    """
    stage.client.sends(GET.replace(b"HTTP/1.1", version), GET)
    await stage.settle()

    assert error_in(stage.client.reply) == (505, "VersionNotSupported")
    assert stage.client.reply.closes
    assert stage.client.fate is Fate.CLOSED


async def test_method_that_is_refused_is_told_what_is_allowed(open_stage: OpenStage) -> None:
    """
    A 405 lists the service's methods in `Allow`.
    """
    stage = open_stage(methods="PUT POST")
    stage.client.sends(GET)

    assert stage.client.reply.values(b"allow") == [b"POST, PUT"]


async def test_refused_head_request_gets_no_body(stage: Stage) -> None:
    """
    The response to HEAD announces the length of its body, but has none.
    """
    stage.client.sends(request(b"HEAD", target=b"/nobody"))

    head, end, body = stage.client.received.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 404 Not Found\r\n")
    assert b"Content-Length: " in head
    assert (end, body) == (b"\r\n\r\n", b"")
    assert stage.client.fate is Fate.OPEN


async def test_own_request_id_is_in_the_error(stage: Stage) -> None:
    """
    The client's `X-Request-Id` comes back in the field, in the body, and stands in the log.
    """
    stage.client.sends(request(b"GET", None, b"X-Request-Id: mine", target=b"/nobody"))

    assert stage.client.reply.values(b"x-request-id") == [b"mine"]
    assert b'"request_id": "mine"' in stage.client.reply.body
    assert stage.record["request_id"] == "mine"


async def test_refused_http_1_0_request_is_the_last(stage: Stage) -> None:
    """
    HTTP/1.0 closes unless it asks for more, also after an error.
    """
    stage.client.sends(b"GET /nobody HTTP/1.0\r\n\r\n")
    await stage.settle()

    assert error_in(stage.client.reply) == (404, "UnknownService")
    assert stage.client.reply.closes
    assert stage.client.fate is Fate.CLOSED


@pytest.mark.parametrize(
    "begun",
    [upload(100, b"begun"), CHUNKED + chunks(b"begun")],
    ids=["length", "chunked"],
)
async def test_rest_of_a_refused_upload_is_discarded(begun: bytes, stage: Stage) -> None:
    """
    The connection half-closes with the error, discards what still arrives, and closes after 2 s.
    """
    stage.client.sends(begun.replace(b"/iris", b"/nobody"))
    assert error_in(stage.client.reply) == (404, "UnknownService")
    assert stage.client.reply.closes
    assert stage.client.fate is Fate.HALF_CLOSED

    stage.client.sends(b"x" * 95, GET)
    fates = []
    for seconds in (LINGER_S - 0.5, 0.5):
        stage.pass_time(seconds)
        fates.append(stage.client.fate)
    assert fates == [Fate.HALF_CLOSED, Fate.CLOSED]
    assert len(stage.client.replies) == 1
    assert stage.service.received == b""


async def test_refusals_keep_their_place_among_pipelined_requests(stage: Stage) -> None:
    """
    Responses come in the order of the requests, refused ones included.
    """
    stage.client.sends(GET + request(target=b"/nobody") + GET + request(b"TRACE") + GET)
    assert stage.client.received == b""
    stage.service.answers(OK)
    assert [reply.status for reply in stage.client.replies] == [200, 404]
    stage.service.answers(OK)

    assert [reply.status for reply in stage.client.replies] == [200, 404, 200, 501]
    assert stage.client.fate is Fate.HALF_CLOSED
    assert stage.service.received == forwarded(b"GET", b"") * 2


async def test_refused_upload_ends_the_pipeline(stage: Stage) -> None:
    """
    When the second of two requests is refused while its body arrives, both are answered.
    """
    stage.client.sends(GET + upload(10, b"begun").replace(b"/iris", b"/nobody"))
    stage.service.answers(OK)

    assert [reply.status for reply in stage.client.replies] == [200, 404]
    assert [reply.closes for reply in stage.client.replies] == [False, True]
    assert stage.client.fate is Fate.HALF_CLOSED


async def test_malformed_request_waits_for_the_one_before(stage: Stage) -> None:
    """
    The response to what makes no sense comes after the response to the request before it.
    """
    stage.client.sends(GET + b"\x00\x01\x02\r\n\r\n")
    assert stage.client.received == b""
    stage.service.answers(OK)

    assert [reply.status for reply in stage.client.replies] == [200, 501]
    assert stage.client.fate is Fate.HALF_CLOSED


async def test_allowed_page_may_call(open_stage: OpenStage) -> None:
    """
    A request of an allowed origin is forwarded, and its `Origin` with it.
    """
    stage = open_stage(origins=frozenset({b"https://page.test"}))
    fields = (b"Origin: https://page.test", b"Sec-Fetch-Site: cross-site")
    stage.client.sends(request(b"GET", None, *fields))
    stage.service.answers(OK)

    assert stage.service.received == forwarded(b"GET", b"", b"Origin: https://page.test")
    assert stage.client.received == OK


async def test_identity_of_the_client_is_not_forwarded(stage: Stage) -> None:
    """
    Tokens, cookies, hop-by-hop fields and what `Connection` names are replaced by our token.
    """
    fields = (
        b"X-Auth-Token: theirs",
        b"Authorization: theirs",
        b"Cookie: a=b",
        b"X-Forwarded-For: 1.2.3.4",
        b"Connection: X-Hop, X-Auth-Token",
        b"X-Hop: 1",
        b"X-End: 2",
    )
    stage.client.sends(request(b"GET", None, *fields, target=b"/iris/a%20b?q=%2F"))
    stage.service.answers(OK)

    assert stage.service.received == forwarded(b"GET", b"/a%20b?q=%2F", b"X-End: 2")


async def test_service_answers_at_its_own_path(stage: Stage) -> None:
    """
    The path of the service's URL leads to it as its name does.
    """
    stage.client.sends(GET.replace(b"/iris", b"/v1/infers/abc/x"))
    stage.service.answers(OK)

    assert stage.service.received == forwarded(b"GET", b"/x")


async def test_repeated_head_is_treated_like_the_first(stage: Stage) -> None:
    """
    Its lines are remembered; nothing else changes.
    """
    for _ in range(4):
        stage.client.sends(POST)
        stage.service.answers(OK)

    assert stage.client.received == OK * 4
    fields = (b"Content-Type: application/json", b"Content-Length: 2")
    assert stage.service.received == forwarded(b"POST", b"/predict", *fields, body=b"{}") * 4


async def test_repeated_refusal_is_refused_every_time(stage: Stage) -> None:
    """
    A head whose lines are remembered is judged as it was before.
    """
    for _ in range(4):
        stage.client.sends(POST.replace(b"/iris", b"/nobody"))

    assert [error_in(reply)[0] for reply in stage.client.replies] == [404] * 4
    assert len({reply.values(b"x-request-id")[0] for reply in stage.client.replies}) == 4
