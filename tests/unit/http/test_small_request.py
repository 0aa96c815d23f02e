"""Whose first bytes look like a small request that is there whole: each rule from both sides."""

import pytest

from gateway.http.small_request import SMALL_BYTES, is_small_request

LINE = b"POST / HTTP/1.1\r\nHost: localhost\r\n"


@pytest.mark.parametrize(
    ("data", "is_small"),
    [
        (LINE + b"\r\n", True),
        (LINE, False),
        (LINE + b"Content-Length: 5\r\n\r\nhello", True),
        (LINE + b"content-length:5\r\n\r\n", True),  # its body comes right behind
        (LINE + b"Content-Length: %d\r\n\r\n" % SMALL_BYTES, True),
        (LINE + b"Content-Length: %d\r\n\r\n" % (SMALL_BYTES + 1), False),
        (LINE + b"X-Content-Length: 5000\r\n\r\n", True),
        (LINE + b"Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n", False),
        (LINE + b"Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n", True),
        (2 * (LINE + b"\r\n"), True),
        (LINE + b"X: " + b"x" * (SMALL_BYTES - len(LINE) - 7) + b"\r\n\r\n", True),
        (LINE + b"X: " + b"x" * (SMALL_BYTES - len(LINE) - 6) + b"\r\n\r\n", False),
        (b"\x16\x03\x01", False),
    ],
)
def test_small_request(data: bytes, is_small: bool) -> None:
    """What may never end is not small, nor what is large."""
    assert is_small_request(data) == is_small
