"""Cases that the tests of llhttp, h11, Go's net/http and Http11Probe name, in our words.

Each is a fact about RFC 9112: a request that must be understood, with its body, or must not be.
"""

import pytest

from gateway.http.reader_state import DONE
from gateway.http.request_reader import RequestReader

HEAD = b"POST /a HTTP/1.1\r\nHost: h\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"

UNDERSTOOD: dict[str, tuple[bytes, bytes]] = {
    "no body": (b"GET / HTTP/1.1\r\nHost: h\r\n\r\n", b""),
    "empty line before the request": (b"\r\nGET / HTTP/1.1\r\nHost: h\r\n\r\n", b""),
    "length with zeros in front": (HEAD + b"Content-Length: 003\r\n\r\nabc", b"abc"),
    "length in odd letters": (HEAD + b"conTENT-Length: 3\r\n\r\nabc", b"abc"),
    "length between spaces": (HEAD + b"Content-Length:  3 \t\r\n\r\nabc", b"abc"),
    "GET with a length": (b"GET / HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\n\r\nx", b"x"),
    "size in small letters": (CHUNKED + b"a\r\n0123456789\r\n0\r\n\r\n", b"0123456789"),
    "size in capitals": (CHUNKED + b"A\r\n0123456789\r\n0\r\n\r\n", b"0123456789"),
    "size with zeros in front": (CHUNKED + b"005\r\nhello\r\n000\r\n\r\n", b"hello"),
    "two chunks": (CHUNKED + b"5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n", b"hello world"),
    "trailers": (CHUNKED + b"1\r\nx\r\n0\r\nVary: *\r\nX-A: b\r\n\r\n", b"x"),
    "extensions": (CHUNKED + b"1;a;b=c;d\r\nx\r\n0;e\r\n\r\n", b"x"),
    "quoted extension": (CHUNKED + b'1;a="b c";d\r\nx\r\n0\r\n\r\n', b"x"),
    "white space around an extension": (CHUNKED + b"1 ; a = b\r\nx\r\n0\r\n\r\n", b"x"),
    "coding in capitals": (HEAD + b"Transfer-Encoding: CHUNKED\r\n\r\n0\r\n\r\n", b""),
    "empty value": (b"GET / HTTP/1.1\r\nHost: h\r\nX-A:\r\n\r\n", b""),
    "tab in a value": (b"GET / HTTP/1.1\r\nHost: h\r\nX-A: a\tb\r\n\r\n", b""),
    "octets above 127 in a value": (b"GET / HTTP/1.1\r\nHost: h\r\nX-A: \xe9\r\n\r\n", b""),
    "every sign of a name": (b"GET / HTTP/1.1\r\nHost: h\r\n!#$%&'*+-.^_`|~1: a\r\n\r\n", b""),
}

REFUSED: dict[str, bytes] = {
    "another protocol": b"GET / ICE/1.0\r\nHost: h\r\n\r\n",
    "another protocol that ends like HTTP": b"GET / IHTTP/1.0\r\nHost: h\r\n\r\n",
    "protocol in small letters": b"GET / http/1.1\r\nHost: h\r\n\r\n",
    "major version 5": b"GET / HTTP/5.6\r\nHost: h\r\n\r\n",
    "two digits of a version": b"GET / HTTP/1.10\r\nHost: h\r\n\r\n",
    "no version": b"GET /\r\nHost: h\r\n\r\n",
    "version without a digit": b"GET / HTTP/1.\r\nHost: h\r\n\r\n",
    "unknown method that begins like a known one": b"GETA / HTTP/1.1\r\nHost: h\r\n\r\n",
    "method with a colon": b"G:T / HTTP/1.1\r\nHost: h\r\n\r\n",
    "two spaces after the method": b"GET  / HTTP/1.1\r\nHost: h\r\n\r\n",
    "tab after the method": b"GET\t/ HTTP/1.1\r\nHost: h\r\n\r\n",
    "space after the version": b"GET / HTTP/1.1 \r\nHost: h\r\n\r\n",
    "space before the first field": b"GET / HTTP/1.1\r\n Host: h\r\n\r\n",
    "fields separated by CR": b"GET / HTTP/1.1\r\nHost: h\r\nX-A: 1\rX-B: 2\r\n\r\n",
    "fields separated by LF": HEAD + b"X-A: 1\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "CR in place of the end of the head": HEAD + b"\rZGET /b HTTP/1.1\r\nHost: h\r\n\r\n",
    "empty value ended by CR": HEAD + b"X-A:\rTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "empty value ended by LF": HEAD + b"X-A:\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "LF alone everywhere": b"GET / HTTP/1.1\nHost: h\n\n",
    "@ in a name": b"GET / HTTP/1.1\r\nHost: h\r\nFo@: a\r\n\r\n",
    "control octet in a name": b"GET / HTTP/1.1\r\nHost: h\r\nX\x01A: a\r\n\r\n",
    "CR in a name": HEAD + b"Content\rLength: 3\r\n\r\nabc",
    "empty name": b"GET / HTTP/1.1\r\nHost: h\r\n: a\r\n\r\n",
    "space before the colon": HEAD + b"Content-Length : 3\r\n\r\nabc",
    "name alone": b"GET / HTTP/1.1\r\nHost: h\r\nX-A\r\n\r\n",
    "folded name": b"GET / HTTP/1.1\r\nHost: h\r\nX-A\r\n : a\r\n\r\n",
    "folded value": HEAD + b"X-A: a\r\n Content-Length: 38\r\n\r\n",
    "NUL in a value": b"GET / HTTP/1.1\r\nHost: h\r\nX-A: a\x00b\r\n\r\n",
    "length beyond 64 bits": HEAD + b"Content-Length: 1000000000000000000000\r\n\r\n",
    "two lengths": HEAD + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nx",
    "length and coding": HEAD + b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "length with a space inside": HEAD + b"Content-Length: 4 2\r\n\r\n",
    "length with a sign": HEAD + b"Content-Length: +3\r\n\r\nabc",
    "length in hexadecimal": HEAD + b"Content-Length: 0x3\r\n\r\nabc",
    "empty length": HEAD + b"Content-Length:\r\n\r\n",
    "empty coding": HEAD + b"Transfer-Encoding:\r\nContent-Length: 5\r\n\r\nhello",
    "unknown coding": HEAD + b"Transfer-Encoding: pigeons\r\n\r\n",
    "identity and a length": HEAD + b"Transfer-Encoding: identity\r\nContent-Length: 1\r\n\r\nx",
    "chunked twice": HEAD + b"Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
    "chunked and then another": HEAD + b"Transfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n",
    "chunked with a parameter": HEAD + b"Transfer-Encoding: chunked;a\r\n\r\n0\r\n\r\n",
    "extension without a semicolon": CHUNKED + b"1 abc\r\nx\r\n0\r\n\r\n",
    "quote that does not end": CHUNKED + b'1;a="b\r\nx\r\n0\r\n\r\n',
    "size in hexadecimal notation": CHUNKED + b"0x1\r\nx\r\n0\r\n\r\n",
    "size with a sign": CHUNKED + b"-1\r\nx\r\n0\r\n\r\n",
    "size with an underscore": CHUNKED + b"1_0\r\n0123456789abcdef\r\n0\r\n\r\n",
    "empty size": CHUNKED + b"\r\nx\r\n0\r\n\r\n",
    "size beyond 64 bits": CHUNKED + b"ffffffffffffffffff\r\nx\r\n0\r\n\r\n",
    "size ended by LF": CHUNKED + b"1\nx\r\n0\r\n\r\n",
    "chunk longer than its size": CHUNKED + b"1\r\nxy\r\n0\r\n\r\n",
    "chunk ended by LF": CHUNKED + b"1\r\nx\n0\r\n\r\n",
    "chunk not ended": CHUNKED + b"1\r\nx0\r\n\r\n",
}  # fmt: skip


@pytest.mark.parametrize("name", UNDERSTOOD)
def test_request_that_must_be_understood_is(name: str) -> None:
    """
    Whole, with its body, and nothing is left over.
    """
    stream, body = UNDERSTOOD[name]
    reader = RequestReader()
    reader.feed(stream)

    request = reader.request
    assert reader.refusal is None
    assert reader.state is DONE
    assert request is not None
    assert (request.head.fault or request.head.line.fault) is None
    assert b"".join(request.body) == body


@pytest.mark.parametrize("name", REFUSED)
def test_request_that_must_not_be_understood_is_refused(name: str) -> None:
    """
    By the reader, or at admission for its version or a fault of its head; nothing is sent then.
    """
    reader = RequestReader()
    reader.feed(REFUSED[name])

    request = reader.request
    if request is not None and reader.refusal is None:
        line = request.head.line
        assert request.head.fault or line.fault or not line.supported
