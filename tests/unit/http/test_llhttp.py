"""llhttp as the oracle: what we accept it accepts, with the same meaning; the list is true."""

import pytest

from tests.programs.oracle.agreement import judge_requests, judge_response
from tests.programs.oracle.campaign import KINDS, Kind, judge_cases
from tests.programs.oracle.llhttp import read_by_llhttp
from tests.unit.http.outcomes import octets_of

_HOST = b"Host: localhost\r\n"
_CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n"
_POST = b"POST / HTTP/1.1\r\n" + _HOST
_OK = b"HTTP/1.1 200 OK\r\n"
_EMPTY = b"Content-Length: 0\r\n\r\n"
_CASES = 2000


@pytest.mark.parametrize("kind", KINDS)
def test_what_we_accept_llhttp_accepts_with_the_same_meaning(kind: Kind) -> None:
    """Some thousand messages, always the same; `make fuzz` tries many more."""
    result = judge_cases(kind, 4, range(_CASES))

    assert result.failures == []
    assert result.accepted > _CASES // 3, "most of it is refused, so that little is compared"


_STRICTER_REQUESTS = [
    b"PURGE / HTTP/1.1\r\n" + _HOST + b"\r\n",
    b"CONNECT a:443 HTTP/1.1\r\n" + _HOST + b"\r\n",
    b"GET  / HTTP/1.1\r\n" + _HOST + b"\r\n",
    b"GET /  HTTP/1.1\r\n" + _HOST + b"\r\n",
    b"GET /\r\n\r\n",
    b"GET /\n",
    b"GET / RTSP/1.0\r\n" + _HOST + b"\r\n",
    b"GET / HTTP/0.9\r\n" + _HOST + b"\r\n",
    b"GET / HTTP/2.0\r\n" + _HOST + b"\r\n",
    b"GET / HTTP/1.1\r\n\r\n",
    b"GET / HTTP/1.1\r\n" + _HOST * 2 + b"\r\n",
    _POST + b"A: b\r\n" * 100 + b"\r\n",
    _POST + b"Content-Length: 00000000000000000002\r\n\r\n{}",
    _POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    _POST + b"Transfer-Encoding: gzip\r\n" + _CHUNKED + b"0\r\n\r\n",
    b"POST / HTTP/1.0\r\n" + _CHUNKED + b"0\r\n\r\n",
    _POST + _CHUNKED + b"ffffffffffffffff\r\n",
    _POST + _CHUNKED + b'2;="b"\r\n{}\r\n0\r\n\r\n',
    _POST + _CHUNKED + b"2;;a\r\n{}\r\n0\r\n\r\n",
    _POST + _CHUNKED + b'2;a=b"c"\r\n{}\r\n0\r\n\r\n',
    _POST + _CHUNKED + b"0\r\nA: " + b"b" * 200_000 + b"\r\n\r\n",
]
_STRICTER_RESPONSES = [
    b"HTTP/1.1 099 Low\r\n" + _EMPTY,
    b"HTTP/1.1 600 High\r\n" + _EMPTY,
    b"HTTP/1.1 200 O\x00K\r\n" + _EMPTY,
    b"\r\n" + _OK + _EMPTY,
    _OK + b"A: b\r\n" * 257 + _EMPTY,
    _OK + b"Transfer-Encoding: gzip\r\n\r\n",
    _OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    _OK + b"Transfer-Encoding: chunked\t\r\n\r\n0\r\n\r\n",
    _OK + _CHUNKED + b"0\r\nTransfer-Encoding: chunked\r\n\r\n",
    b"HTTP/1.1 204 No\r\n" + _CHUNKED,
    b"HTTP/1.1 204 No\r\nContent-Length: 2\r\n\r\n",
    b"HTTP/1.1 103 Go\r\nContent-Length: 2\r\n\r\n",
    b"HTTP/1.1 103 Go\r\n\r\n" * 17 + _OK + _EMPTY,
    b"HTTP/1.1 103 Go\r\nConnection: close\r\n\r\n",
    b"HTTP/1.0 103 Go\r\n\r\n",
    b"HTTP/1.1 101 Up\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
]


@pytest.mark.parametrize(
    ("kind", "stream"),
    [
        *(("requests", stream) for stream in _STRICTER_REQUESTS),
        *(("responses", stream) for stream in _STRICTER_RESPONSES),
    ],
)
def test_the_list_of_where_we_are_stricter_is_true(kind: Kind, stream: bytes) -> None:
    """llhttp takes it, and we do not."""
    assert read_by_llhttp([stream], requests=kind == "requests").error == ""
    verdict = (judge_requests if kind == "requests" else judge_response)([stream])
    assert (verdict.accepted, verdict.problems) == (0, [])


@pytest.mark.parametrize(
    "stream",
    [
        b"GET / HTTP/1.2\r\n" + _HOST + b"\r\n",
        b"GET / HTTP/1.9\r\n" + _HOST + b"\r\n",
        *(
            _POST + _CHUNKED + b"2" + extension + b"\r\n{}\r\n0\r\n\r\n"
            for extension in (b" ;a", b"; a", b";a\t=b", b'; a= "b ; c"')
        ),
    ],
)
def test_the_list_of_where_we_accept_more_is_true(stream: bytes) -> None:
    """We take it, and llhttp only in the form in which it is told."""
    assert read_by_llhttp([stream], requests=True).error
    for pieces in ([stream], octets_of(stream)):
        verdict = judge_requests(pieces)
        assert (verdict.accepted, verdict.problems) == (1, [])
