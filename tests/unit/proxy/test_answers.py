"""The bytes of our own errors."""

import json

import pytest

from gateway.errors import ErrorCode
from gateway.proxy.answers import error_answer

ANSWERED = [code for code in ErrorCode if code.status]


@pytest.mark.parametrize("code", ANSWERED, ids=lambda code: code.label)
def test_every_code_has_an_answer(code: ErrorCode) -> None:
    """With the shape of the vendor's, a length that is true, and no field twice."""
    answer = error_answer(code, "id-1", retry_after_s=None, allow=(), with_body=True, close=False)
    head, _, body = answer.partition(b"\r\n\r\n")
    line, *fields = head.split(b"\r\n")

    assert line.startswith(b"HTTP/1.1 %d " % code.status)
    assert json.loads(body) == {
        "error_code": f"Gateway.{code.value.name}",
        "error_msg": code.value.sentence,
        "request_id": "id-1",
    }
    assert fields == [
        b"Content-Type: application/json",
        b"Content-Length: %d" % len(body),
        b"X-Request-Id: id-1",
        b"Proxy-Status: modelarts-gateway; error=" + code.value.proxy_error.encode(),
    ]


def test_without_body_only_the_body_is_missing() -> None:
    """HEAD gets the same head as GET."""
    whole, head = (
        error_answer(
            ErrorCode.OVERLOADED, "i", retry_after_s=1, allow=(), with_body=with_body, close=True
        )
        for with_body in (True, False)
    )

    assert head.endswith(b"\r\n\r\n")
    assert whole.startswith(head)
    assert len(whole) > len(head)


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0.0, b"1"), (0.001, b"1"), (1.0, b"1"), (1.001, b"2"), (900.0, b"900"), (-5.0, b"1")],
)
def test_retry_after_is_whole_seconds_rounded_up(seconds: float, shown: bytes) -> None:
    """And never 0, which would invite a storm."""
    answer = error_answer(
        ErrorCode.OVERLOADED, "i", retry_after_s=seconds, allow=(), with_body=True, close=False
    )

    assert b"\r\nRetry-After: " + shown + b"\r\n" in answer


def test_allow_is_sorted_and_close_is_said() -> None:
    """Both only where they are meant."""
    answer = error_answer(
        ErrorCode.METHOD_NOT_ALLOWED,
        "i",
        retry_after_s=None,
        allow={"PUT", "GET"},
        with_body=True,
        close=True,
    )

    assert b"\r\nAllow: GET, PUT\r\nConnection: close\r\n\r\n" in answer
