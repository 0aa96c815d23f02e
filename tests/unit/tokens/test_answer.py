"""What the token endpoint is asked and says, as pure functions."""

import json

import pytest

from gateway.errors import DownstreamError, ErrorCode
from gateway.http.request_reader import RequestReader
from gateway.identity.credential import Credential
from gateway.tokens.answer import Question, fingerprint_in, granted, question_in

INF = float("inf")


def asked(request: bytes, fields: bytes = b"") -> Question:
    reader = RequestReader()
    reader.feed(request + b" HTTP/1.1\r\nHost: x\r\n" + fields + b"\r\n")
    assert reader.request is not None
    return question_in(reader.request.head)


def refusal(request: bytes, fields: bytes = b"") -> ErrorCode:
    with pytest.raises(DownstreamError) as caught:
        asked(request, fields)
    return caught.value.code


@pytest.mark.parametrize(
    "request_line",
    [
        b"GET /auth/iris",
        b"POST /auth/iris/v1/infers/a?b=c",  # Envoy appends its caller's path
        b"GET /auth/iris?b=c",  # Caddy its query
        b"DELETE /auth/iris/a%2Fb/../c",  # whatever that path may be
        b"GET /auth/iris/rejected",
        b"POST /auth/iris/rejected/more",
    ],
)
def test_only_the_name_of_the_service_counts(request_line: bytes) -> None:
    """Data planes send what their callers sent."""
    question = asked(request_line, b"X-Original-URL: /x\r\nExpect: nothing\r\n")

    assert (question.service, question.is_report) == ("iris", False)


def test_a_report_is_a_post_to_rejected() -> None:
    """And its query goes along."""
    question = asked(b"POST /auth/iris/rejected?fingerprint=0123abcd")

    assert (question.service, question.is_report) == ("iris", True)
    assert fingerprint_in(question.query, b"") == "0123abcd"


@pytest.mark.parametrize("body", [b"0123abcd", b"0123abcd\n", b'{"fingerprint": "0123abcd"}'])
def test_a_fingerprint_may_stand_in_the_body(body: bytes) -> None:
    """Alone or in JSON; the whole SHA-256 is taken too."""
    assert fingerprint_in(b"", body) == "0123abcd"
    assert fingerprint_in(b"fingerprint=" + b"0123abcd" * 8, b"") == "0123abcd"


@pytest.mark.parametrize("body", [b"", b"0123abc", b"0123ABCD", b"x0123abcd", b"0" * 65])
def test_a_report_without_a_fingerprint_is_refused(body: bytes) -> None:
    """So that nobody can take a token away without knowing it."""
    with pytest.raises(DownstreamError) as caught:
        fingerprint_in(b"", body)
    assert caught.value.code is ErrorCode.BAD_REQUEST


def test_web_pages_and_other_paths_are_refused() -> None:
    """A browser says what it is."""
    assert refusal(b"GET /auth/iris", b"Origin: http://a\r\n") is ErrorCode.BROWSER_REFUSED
    assert refusal(b"GET /auth/iris", b"Sec-Fetch-Site: none\r\n") is ErrorCode.BROWSER_REFUSED
    assert refusal(b"GET /") is ErrorCode.UNKNOWN_SERVICE
    assert refusal(b"GET /authiris") is ErrorCode.UNKNOWN_SERVICE


@pytest.mark.parametrize(("left_s", "fresh_s"), [(INF, 5), (100, 5), (5.9, 5), (3.2, 3), (0.5, 0)])
def test_nobody_keeps_a_token_beyond_its_life(left_s: float, fresh_s: int) -> None:
    """Five seconds at most, less near the end."""
    one = Credential(b"X-Auth-Token: t\r\n", stale_at=0, expires_at=1000 + left_s)

    head = granted(one, "0123abcd", now=1000, as_json=False, close=False)

    lines = head.split(b"\r\n")
    assert b"Cache-Control: private, max-age=%d" % fresh_s in lines
    # nginx 1.22 takes the first of the two that it meets
    assert lines[1] == b"X-Accel-Expires: %d" % fresh_s
    assert lines.count(b"X-Auth-Token: t") == 1
    assert lines[-2:] == [b"", b""]


def test_json_is_for_those_who_ask_for_it() -> None:
    """Such as External Secrets, which makes a Secret out of it."""
    one = Credential(b"X-Auth-Token: t\r\n", stale_at=0, expires_at=INF, wall_expires_at=1.79e9)

    assert asked(b"GET /auth/iris", b"Accept: application/json\r\n").as_json
    assert not asked(b"GET /auth/iris", b"Accept: */*\r\n").as_json
    body = granted(one, "", now=0, as_json=True, close=True).partition(b"\r\n\r\n")[2]
    assert json.loads(body) == {"token": "t", "expires_at": "2026-09-21T14:13:20Z"}
