"""The bytes of our own errors."""

import json

import pytest

from gateway.errors import (
    CredentialError,
    DownstreamError,
    ErrorCode,
    GatewayError,
    Rejection,
    UnavailableError,
    UpstreamError,
)
from gateway.proxy.admission import RefusedByServiceError
from gateway.proxy.answers import error_response
from tests.unit.proxy.test_routes import service

ANSWERED = [code for code in ErrorCode if code.status]


DATE = b"Date: Sun, 29 Nov 2026 03:00:00 GMT"


def response_to(error: GatewayError, *, with_body: bool = True, close: bool = False) -> bytes:
    return error_response(error, "id-1", DATE, with_body=with_body, close=close)


@pytest.mark.parametrize("code", ANSWERED, ids=lambda code: code.label)
def test_every_code_has_a_response(code: ErrorCode) -> None:
    """With the shape of the vendor's, a length that is true, and no field twice."""
    head, _, body = response_to(UpstreamError(code)).partition(b"\r\n\r\n")
    line, *fields = head.split(b"\r\n")

    assert line.startswith(b"HTTP/1.1 %d " % code.status)
    assert json.loads(body) == {
        "error_code": f"Gateway.{code.value.name}",
        "error_msg": code.value.sentence,
        "request_id": "id-1",
    }
    assert fields == [
        DATE,
        b"Content-Type: application/json",
        b"Content-Length: %d" % len(body),
        b"X-Request-Id: id-1",
        b"Proxy-Status: modelarts-gateway; error=" + code.value.proxy_error.encode(),
    ]


def test_without_body_only_the_body_is_missing() -> None:
    """HEAD gets the same head as GET."""
    error = UnavailableError(ErrorCode.OVERLOADED, Rejection.CONNECTIONS)
    whole, head = (response_to(error, with_body=with_body) for with_body in (True, False))

    assert head.endswith(b"\r\n\r\n")
    assert whole.startswith(head)
    assert len(whole) > len(head)


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0.0, b"1"), (0.001, b"1"), (1.0, b"1"), (1.001, b"2"), (900.0, b"900"), (-5.0, b"1")],
)
def test_retry_after_is_whole_seconds_rounded_up(seconds: float, shown: bytes) -> None:
    """And never 0, which would invite a storm."""
    error = CredentialError(ErrorCode.LOGIN_THROTTLED, retry_after_s=seconds)

    assert b"\r\nRetry-After: " + shown + b"\r\n" in response_to(error)


def test_the_reason_of_a_refused_login_is_told() -> None:
    """Before the page that says more, so that a caller can pass it to who can act."""
    code, reason = ErrorCode.LOGIN_REFUSED, "IAM refuses the password: check the secret"
    body = response_to(CredentialError(code, "secret", reason=reason)).partition(b"\r\n\r\n")[2]

    summary, page = code.value.summary, "See docs: Gateway.LoginRefused"
    assert json.loads(body)["error_msg"] == f"{summary} The reason: {reason}. {page}"


def test_only_what_passes_by_itself_says_when_to_come_back() -> None:
    """We are busy or without a token for a while; a bad request stays one."""
    assert b"\r\nRetry-After: 1\r\n" in response_to(
        UnavailableError(ErrorCode.DRAINING, Rejection.DRAINING)
    )
    assert b"Retry-After" not in response_to(DownstreamError(ErrorCode.BAD_REQUEST))
    assert b"Retry-After" not in response_to(UpstreamError(ErrorCode.DNS_ERROR))


def test_allow_is_sorted_and_close_is_said() -> None:
    """Both only where they are meant."""
    refused = service("a", b"/a", methods="PUT,GET")
    error = RefusedByServiceError(ErrorCode.METHOD_NOT_ALLOWED, refused)
    too_large = RefusedByServiceError(ErrorCode.BODY_TOO_LARGE, refused)

    assert b"\r\nAllow: GET, PUT\r\nConnection: close\r\n\r\n" in response_to(error, close=True)
    assert b"Allow" not in response_to(too_large)
