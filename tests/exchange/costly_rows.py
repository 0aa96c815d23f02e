"""Requests of at most 10 KiB that try to cost much: what parsers, patterns and sets could mind."""

from functools import cache

from tests.exchange.hostile_rows import CLASSES, HOST, chunked, get, post

MAX_BYTES = 10 * 1024
PLAIN = post()


@cache
def _words(count: int, length: int = 3) -> tuple[bytes, ...]:
    """Return `count` different words of letters."""
    letters = b"abcdefghijklmnopqrstuvwxyz"
    words = []
    for number in range(count):
        word, left = [], number
        for _ in range(length):
            left, place = divmod(left, len(letters))
            word.append(letters[place])
        words.append(bytes(word))
    return tuple(words)


def _filled(head: bytes, filler: bytes, tail: bytes, size: int = MAX_BYTES) -> bytes:
    """Return `head` and `tail` with as many `filler` between them as make `size` octets."""
    return head + filler * ((size - len(head) - len(tail)) // len(filler)) + tail


_START = b"POST /iris HTTP/1.1\r\n" + HOST
_TARGET = 8180
"""A little less than the longest target."""

COSTLY = {
    "plain": PLAIN,
    "one long body": _filled(_START + b"Content-Length: 10150\r\n\r\n", b"x", b"")[:10_240],
    "a hundred short fields": post(*(b"%b: 1" % word for word in _words(97))),
    "a hundred long fields": post(*(b"%b: %b" % (word, b"v" * 90) for word in _words(97))),
    "a hundred unknown fields with underscores": post(
        *(b"x_%b_: %b" % (word, b"v" * 80) for word in _words(97))
    ),
    "Connection names 2400 fields": post(b"Connection: " + b",".join(_words(2400))),
    "Connection names 4000 nothings": _filled(_START + b"Connection: ", b",", b"\r\n\r\n"),
    "Connection names the same field 1600 times": _filled(
        _START + b"Connection: a", b",keep-", b"\r\n\r\n"
    ),
    "ninety Connection fields of 25 names": post(
        *(b"Connection: " + b",".join(_words(2400)[n * 25 : n * 25 + 25]) for n in range(90))
    ),
    "every field is named by Connection": post(
        b"Connection: " + b",".join(_words(95)), *(b"%b: %b" % (w, b"v" * 90) for w in _words(95))
    ),
    "long target of letters": _filled(b"GET /iris/", b"a", b" HTTP/1.1\r\n%b\r\n" % HOST, _TARGET),
    "long target of segments": _filled(b"GET /iris", b"/a", b" HTTP/1.1\r\n%b\r\n" % HOST, _TARGET),
    "long target of octets": _filled(
        b"GET /iris/", b"%C3%A9", b" HTTP/1.1\r\n%b\r\n" % HOST, _TARGET
    ),
    "long target that is wrong at its end": _filled(
        b"GET /iris/", b"a", b"%%2e HTTP/1.1\r\n%b\r\n" % HOST, _TARGET
    ),
    "segments that are wrong at their end": _filled(
        b"GET /iris", b"/a", b"/.. HTTP/1.1\r\n%b\r\n" % HOST, _TARGET
    ),
    "octets that are no UTF-8 at their end": _filled(
        b"GET /iris/", b"%C3%A9", b"%%C3 HTTP/1.1\r\n%b\r\n" % HOST, _TARGET
    ),
    "long query": _filled(b"GET /iris?", b"a", b" HTTP/1.1\r\n%b\r\n" % HOST, _TARGET),
    "query of marks": _filled(b"GET /iris?", b"?&=%", b" HTTP/1.1\r\n%b\r\n" % HOST, _TARGET),
    "target too long": _filled(b"GET /iris/", b"a", b" HTTP/1.1\r\n%b\r\n" % HOST),
    "long Host": post(host=b"Host: " + b"a" * 9_000 + b"\r\n"),
    "Host of dots": post(host=b"Host: " + b"." * 9_000 + b"\r\n"),
    "long method": _filled(b"", b"A", b" /iris HTTP/1.1\r\n\r\n"),
    "long name": _filled(_START, b"n", b": 1\r\n\r\n"),
    "long value": _filled(_START + b"x: ", b"v", b"\r\n\r\n"),
    "value of white space": _filled(_START + b"x: a", b" \t", b"\r\n\r\n"),
    "long X-Request-Id": _filled(_START + b"X-Request-Id: ", b"v", b"\r\n\r\n"),
    "empty lines first": _filled(b"", b"\r\n", PLAIN),
    "chunks of one octet": _filled(
        _START + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n", b"0\r\n\r\n"
    ),
    "long chunk extension": _filled(
        _START + b"Transfer-Encoding: chunked\r\n\r\n1;", b"e", b"\r\nx\r\n0\r\n\r\n"
    ),
    "long trailer": _filled(
        _START + b"Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\nt: ", b"e", b"\r\n\r\n"
    ),
    "many trailers": _filled(
        _START + b"Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n", b"t: 1\r\n", b"\r\n"
    ),
    "chunk size of zeros": _filled(
        _START + b"Transfer-Encoding: chunked\r\n\r\n", b"0", b"1\r\nx\r\n0\r\n\r\n"
    ),
    "the greatest length": post(b"Content-Length: 999999999999999", length=False),
    "garbage": bytes(range(256)) * 40,
    "zeros": bytes(MAX_BYTES),
    "line ends": b"\r\n" * (MAX_BYTES // 2),
    "nothing that ends": b"x" * MAX_BYTES,
    "a head that does not end": _filled(_START + b"x: ", b"v", b""),
    "pipelined to the bound": get(b"/iris") * 60,
    "a refused chunked body": chunked(b"zz" * 4_000),
}
"""Requests, or what is none, by name."""

EVERY = COSTLY | {
    f"hostile: {row.name}": row.sent
    for rows in CLASSES.values()
    for row in rows
    if len(row.sent) <= MAX_BYTES
}
"""And the hostile rows."""
