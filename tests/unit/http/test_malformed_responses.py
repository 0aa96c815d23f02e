"""Malformed responses, row by row: whole, octet by octet and at every cut, none of them passes."""

import pytest

from gateway.errors import ErrorCode
from gateway.http.reader_state import REFUSED
from tests.support.rows import every_row
from tests.unit.http.outcomes import Outcome, octets_of, read_response

_OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
_EVERY_CUT_BYTES = 1000
_STATUS = b"HTTP/1.1 200 OK\r\n"
_EMPTY = b"Content-Length: 0\r\n\r\n"
_CHUNKED = _STATUS + b"Transfer-Encoding: chunked\r\n\r\n"

FRAMING = [
    _STATUS + b"Transfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n0\r\n\r\n",
    _STATUS + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\nok",
    _STATUS + b"Content-Length: 2\r\nContent-Length: 2\r\n\r\nok",
    _STATUS + b"Content-Length: 2\r\ncontent-length: 3\r\n\r\nok",
    _STATUS + b"Transfer-Encoding: chunked\r\n" * 2 + b"\r\n0\r\n\r\n",
    _STATUS + b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
    _STATUS + b"Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n",
    *(
        _STATUS + b"Content-Length: " + length + b"\r\n\r\nok"
        for length in (
            b"+2", b"-2", b"", b"2, 2", b"2;", b"0x2", b"2 2", b"2_0", b"two", b"\xb2", b"2\x00",
            b"2.0", b"\xd9\xa2", b"1000000000000000", b"18446744073709551618", b"9" * 5000,
            b"00000000000000000002",
        )
    ),
    *(
        _STATUS + b"Transfer-Encoding: " + coding + b"\r\n\r\n0\r\n\r\n"
        for coding in (
            b"", b"identity", b"gzip", b"xchunked", b"gzip, chunked", b"chunked, gzip",
            b"chunked, chunked", b"chunked;a", b"\x0bchunked", b"chunked,", b"chunked\x00",
            b"chunked\xa0", b"chunked\t", b"chunked\t ", b"chunked \t",
        )
    ),
    b"HTTP/1.1 204 No\r\nContent-Length: 5\r\n\r\nhello",
    b"HTTP/1.1 204 No\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    b"HTTP/1.1 100 Go\r\nContent-Length: 2\r\n\r\nok" + _OK,
    b"HTTP/1.1 103 Go\r\nTransfer-Encoding: chunked\r\n\r\n" + _OK,
    b"HTTP/1.1 103 Go\r\nConnection: x, Close\r\n\r\n" + _OK,
    b"HTTP/1.0 102 Go\r\n\r\n" + _OK,
    b"HTTP/1.0 100 Go\r\nConnection: keep-alive\r\n\r\n" + _OK,
]  # fmt: skip

STATUS_LINES = [
    *(
        line + b"\r\n" + _EMPTY
        for line in (
            b"HTTP/1.1 099 Low", b"HTTP/1.1 000 Nil", b"HTTP/1.1 600 High", b"HTTP/1.1 999 High",
            b"HTTP/1.1 20 Short", b"HTTP/1.1 2000 Long", b"HTTP/1.1 2x0 Hm", b"HTTP/1.1 -200 Hm",
            b"HTTP/1.1 +20 Hm", b"HTTP/1.1  200 OK", b"HTTP/1.1\t200 OK", b"HTTP/1.1 200\tOK",
            b"HTTP/1.1 200OK", b"HTTP/1.1 ", b"HTTP/1.1", b"HTTP/1. 200 OK", b"HTTP/1 200 OK",
            b"HTTP/1.2 200 OK", b"HTTP/1.11 200 OK", b"HTTP/01.1 200 OK", b"HTTP/2.0 200 OK",
            b"HTTP/0.9 200 OK", b"http/1.1 200 OK", b"RTSP/1.0 200 OK", b"ICY 200 OK",
            b"HTTP/1.1 200 O\x00K", b"HTTP/1.1 200 O\x1bK", b"HTTP/1.1 200 O\x7fK",
            b"HTTP/1.1 200 O\rK", b"HTTP/1.1 200 O\nK", b"HTTP/1.1 200 OK\r",
            b"HTTP/1.1 2\xb200 OK", b"HTTP/1.1 \xd9\xa200 OK",
        )
    ),
    b"HTTP/2 200\r\n\r\n",
    b"HTTP/1.1 101 Switching\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
    b"HTTP/1.1 101 Switching\r\n\r\n",
    b"HTTP/1.1 100 Go\r\n\r\nHTTP/1.1 101 Up\r\nUpgrade: h2c\r\n\r\n",
    b"HTTP/1.1 102 G\x00o\r\n\r\n" + _OK,
    b"HTTP/1.1 100 Go\r\n\r\n\r\n" + _OK,
    b"\r\n" + _OK,
    b"\n" + _OK,
    b" " + _OK,
    b"GET / HTTP/1.1\r\n\r\n",
    b"\x00",
    b"garbage\r\n\r\n",
    b"SSH-2.0-OpenSSH_9.0\r\n",
    b"\x15\x03\x01\x00\x02\x02\x46",
    b"<html>",
]  # fmt: skip

FIELD_LINES = [
    *(
        _STATUS + line + b"\r\n" + _EMPTY
        for line in (
            b"X: a\rb", b"X: a\nb", b"X: a\r", b"X: a\x00b", b"X: a\x01", b"X: a\x7f", b"X: a\x0bb",
            b"X: a\r\n b", b"X: a\r\n\tb", b" X: a", b"X : a", b"X\t: a", b"X", b": a", b"X\xff: a",
            b"X Y: a", b"X(Y): a", b"X\x00Y: a", b" ", b":",
        )
    ),
    _STATUS + b" Content-Length: 2\r\n\r\nok",
    b"HTTP/1.1 200 OK\nContent-Length: 0\n\n",
    b"HTTP/1.1 200 OK\nContent-Length: 0\r\n\r\n",
    _STATUS + b"Content-Length: 0\n\n",
    _STATUS + b"Content-Length: 2\r\n\nok",
    _STATUS + b"Content-Length: 2\r\n\r\r\nok",
    _STATUS + b"Content-Length: 2\n\r\n\rok",
]  # fmt: skip

TOO_MUCH = [
    b"HTTP/1.1 200 " + b"O" * 70000 + b"\r\n" + _EMPTY,
    _STATUS + b"X: y\r\n" * 256 + _EMPTY,
    _STATUS + b"X: " + b"y" * 65536 + b"\r\n" + _EMPTY,
    _STATUS + (b"X: " + b"y" * 30000 + b"\r\n") * 3 + _EMPTY,
    _STATUS + b"X" * 70000 + b": y\r\n" + _EMPTY,
    b"HTTP/1.1 102 Processing\r\n\r\n" * 17 + _OK,
    (b"HTTP/1.1 103 Go\r\nX: " + b"y" * 30000 + b"\r\n\r\n") * 3 + _OK,
]

CHUNKS = [
    _CHUNKED + body
    for body in (
        b"+2\r\nok\r\n0\r\n\r\n", b"-2\r\nok\r\n0\r\n\r\n", b"0x2\r\nok\r\n0\r\n\r\n",
        b" 2\r\nok\r\n0\r\n\r\n", b"2 \r\nok\r\n0\r\n\r\n", b"\r\nok\r\n0\r\n\r\n",
        b"g\r\nok\r\n0\r\n\r\n", b"ffffffffffffffff\r\nok", b"10000000000000002\r\nok",
        b"2\nok\r\n0\r\n\r\n", b"2\rok\r\n0\r\n\r\n", b"2\r\r\nok\r\n0\r\n\r\n",
        b"2\r\nok0\r\n\r\n", b"2\r\nokx\r\n0\r\n\r\n", b"2\r\nok\n0\r\n\r\n",
        b"2\r\nok\r0\r\n\r\n", b"2\r\nok\r\n\r\n0\r\n\r\n", b"2\r\nok\r\n0\n\n",
        b"2;\r\nok\r\n0\r\n\r\n", b"2;a \r\nok\r\n0\r\n\r\n", b"2;a=\r\nok\r\n0\r\n\r\n",
        b"2;=b\r\nok\r\n0\r\n\r\n", b"2;a b\r\nok\r\n0\r\n\r\n", b'2;a="b\r\nok\r\n0\r\n\r\n',
        b'2;a="b"c\r\nok\r\n0\r\n\r\n', b"2;a\nb\r\nok\r\n0\r\n\r\n",
        b"2;a\rb\r\nok\r\n0\r\n\r\n", b"2;a=\x00\r\nok\r\n0\r\n\r\n",
        b"2;a=\x7f\r\nok\r\n0\r\n\r\n", b"2;;a\r\nok\r\n0\r\n\r\n", b"2,a\r\nok\r\n0\r\n\r\n",
        b"0\r\nX : y\r\n\r\n", b"0\r\n X: y\r\n\r\n", b"0\r\nX\r\n\r\n", b"0\r\n: y\r\n\r\n",
        b"0\r\nX: a\r\n b\r\n\r\n", b"0\r\nX: a\nY: b\r\n\r\n", b"0\r\nX: a\rb\r\n\r\n",
        b"0\r\nX: a\x00b\r\n\r\n", b"0\r\nContent-Length: 9\r\n\r\n",
        b"0\r\nTRANSFER-ENCODING: chunked\r\n\r\n", b"0\r\nX: y\r\n\n", b"0\r\nX: y\r\n\r\r\n",
        b"0\r\nHTTP/1.1 200 OK\r\n\r\n",
        b"1;a=" + b"b" * 66000 + b"\r\nx\r\n0\r\n\r\n",
        b"0\r\nX: " + b"y" * 66000 + b"\r\n\r\n", b"0\r\n" + b"X: y\r\n" * 11000 + b"\r\n",
    )
]  # fmt: skip
"""The head is good; what its body is turns out later."""


def assert_refused(outcome: Outcome) -> None:
    """Hold an outcome against what every row comes to."""
    assert outcome.code is ErrorCode.HTTP_PROTOCOL_ERROR
    assert outcome.state is REFUSED
    assert not outcome.whole
    assert not outcome.excess


@pytest.mark.parametrize(
    ("rows", "have_heads"),
    [
        (FRAMING, False),
        (STATUS_LINES, False),
        (FIELD_LINES, False),
        (TOO_MUCH, False),
        (CHUNKS, True),
    ],
    ids=["framing", "status lines", "field lines", "too much", "chunks"],
)
def test_row_is_refused_however_it_is_cut(rows: list[bytes], have_heads: bool) -> None:
    """Once, and nothing is read behind that."""
    with every_row() as trying:
        for said in rows:
            with trying(said[:200]):
                assert_refused_however_cut(said, has_head=have_heads)


def assert_refused_however_cut(said: bytes, *, has_head: bool) -> None:
    """Hold one row against that: whole, at its cuts, octet by octet."""
    expected = read_response(said)
    assert_refused(expected)
    assert (expected.head is not None) == has_head

    cuts = range(1, len(said)) if len(said) <= _EVERY_CUT_BYTES else range(1, len(said), 6007)
    for cut in cuts:
        assert read_response(said[:cut], said[cut:]) == expected, cut
    assert read_response(*octets_of(said)) == expected
    assert read_response(said, _OK, b"2\r\nok\r\n0\r\n\r\n") == expected
