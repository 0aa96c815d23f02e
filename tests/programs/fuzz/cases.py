"""What is thrown at the gateway: valid messages, changed, and cut into pieces.

Pure: a case is made by its seed and number alone, or by whatever stands for chance.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from random import Random
from typing import Literal

from tests.exchange.hostile_rows import CLASSES

Ending = Literal["keep", "close", "reset", "late"]

_LARGEST_SEED = 3000
_ROWS = [
    row.sent for rows in CLASSES.values() for row in rows if 0 < len(row.sent) <= _LARGEST_SEED
]


@dataclass(frozen=True)
class RequestCase:
    """What a caller sends, in pieces, for service `iris` at path `/v1/infers/abc`."""

    pieces: tuple[bytes, ...]
    spoilt: bool = True
    """Bytes were changed at random; otherwise it is a series of valid requests."""


@dataclass(frozen=True)
class AnswerCase:
    """What a service answers to a valid request, in pieces, and what it does then.

    `127.0.0.1:00000` stands for its own address.
    """

    pieces: tuple[bytes, ...]
    request: bytes
    ending: Ending
    """`late`: once the caller has its answer, another that nobody has asked for."""
    spoilt: bool = True


Case = RequestCase | AnswerCase


def to_text(case: Case) -> str:
    """Return a case as JSON, for `--replay`."""
    kind = "request" if isinstance(case, RequestCase) else "answer"
    document = {"kind": kind, "spoilt": case.spoilt}
    document["pieces"] = [piece.decode("latin-1") for piece in case.pieces]
    if isinstance(case, AnswerCase):
        document |= {"request": case.request.decode("latin-1"), "ending": case.ending}
    return json.dumps(document, indent=1)


def from_text(text: str) -> Case:
    """Return the case that `to_text` has written."""
    document = json.loads(text)
    pieces = tuple(piece.encode("latin-1") for piece in document["pieces"])
    if document["kind"] == "request":
        return RequestCase(pieces, document["spoilt"])
    request = document["request"].encode("latin-1")
    return AnswerCase(pieces, request, document["ending"], document["spoilt"])


def make_request_case(seed: int, number: int) -> RequestCase:
    """Return case `number` of a run with `seed`."""
    return request_case(Random(f"request {seed} {number}"))


def request_case(random: Random, words: Sequence[bytes] = ()) -> RequestCase:
    """Return a case made of what `random` says, with `words` among what is put in."""
    if random.random() < 0.4:
        data, spoilt = random.choice(_ROWS), True
    else:
        data = b"".join(_request(random) for _ in range(random.choice((1, 1, 1, 2, 3))))
        spoilt = False
    if spoilt or random.random() < 0.8:
        data, spoilt = _spoil(random, data, _ROWS, [*_REQUEST_WORDS, *words]), True
    return RequestCase(_cut(random, data), spoilt)


def make_answer_case(seed: int, number: int) -> AnswerCase:
    """Return case `number` of a run with `seed`."""
    return answer_case(Random(f"answer {seed} {number}"))


def answer_case(random: Random, words: Sequence[bytes] = ()) -> AnswerCase:
    """Return a case made of what `random` says, with `words` among what is put in."""
    answers = [_answer(random) for _ in range(random.choice((1, 1, 1, 1, 2)))]
    spoilt = len(answers) > 1
    data = b"".join([*[random.choice(_INTERIM) for _ in range(random.choice(_FEW))], *answers])
    if random.random() < 0.8:
        data, spoilt = _spoil(random, data, [_answer(random)], [*_ANSWER_WORDS, *words]), True
    ending: Ending = random.choice(("keep", "keep", "keep", "close", "close", "reset", "late"))
    return AnswerCase(_cut(random, data), _asking(random), ending, spoilt)


# Valid messages.

_FEW = (0, 0, 0, 0, 1, 2)
_TAILS = (
    b"", b"/", b"/predict", b"/a%20b/c", b"?x=%2F..%2f&y=;+", b"/p?", b"/%C3%A4?q=[]{}", b"/a:b,c",
    b"/..a/...", b"/a?http://evil.example/../@",
)  # fmt: skip
_FIELDS = (
    b"Accept: */*", b"Content-Type: application/json", b"User-Agent: fuzz", b"X-Own: 1",
    b"x-own: 2", b"X_Own: 3", b"X-Empty:", b"X-8-bit: \x80\xff", b"X-Tab: a\tb", b"Via: 1.0 fred",
    b"Accept-Encoding: gzip, br", b"Content-Encoding: gzip", b"X-Request-Id: r1",
    b"Sec-Fetch-Site: same-origin", b"Range: bytes=0-1", b"If-None-Match: *",
    b"Connection: keep-alive", b"Connection: X-Own, x-named", b"X-Named: stolen",
    b"connection: X-Auth-Token, Host, Content-Length, VIA", b"X-Auth-Token: stolen",
    b"X_Auth-Token: stolen", b"Authorization: Basic stolen", b"Cookie: stolen", b"TE: trailers",
    b"X-Forwarded-For: stolen", b"Forwarded: for=stolen", b"X-Real-IP: stolen",
    b"X-Project-Id: stolen", b"Keep-Alive: timeout=stolen", b"Proxy-Authorization: stolen",
    b"X-Sdk-Date: stolen", b"apikey: stolen", b"HTTP2-Settings: stolen", b"Trailer: X-Own",
    b"X-HTTP-Method-Override: stolen", b"Expect: 100-continue",
)  # fmt: skip
_BODIES = (
    b"", b"{}", b'{"data": [1, 2]}', b"\x00\xff" * 20, b"0\r\n\r\n", b"\r\n\r\n",
    b"GET /iris/stolen HTTP/1.1\r\nHost: localhost\r\n\r\n", b"x" * 1500,
)  # fmt: skip


def _request(random: Random) -> bytes:
    method = random.choice((b"POST", b"POST", b"GET", b"HEAD", b"PUT", b"DELETE", b"OPTIONS"))
    target = random.choice((b"/iris", b"/iris", b"/v1/infers/abc")) + random.choice(_TAILS)
    lines = [b"Host: " + random.choice((b"localhost", b"127.0.0.1:8080", b"[::1]"))]
    lines += random.sample(_FIELDS, random.choice((0, 1, 2, 4)))
    body = random.choice(_BODIES)
    if body or random.random() < 0.5:
        framing, body = _framed(random, body)
        lines.append(framing)
    random.shuffle(lines)
    return _message(b"%b %b HTTP/1.1" % (method, target), lines, body)


_INTERIM = (
    b"HTTP/1.1 100 Continue\r\n\r\n",
    b"HTTP/1.1 102 Processing\r\n\r\n",
    b"HTTP/1.1 103 Early Hints\r\nLink: </x>; rel=preload\r\n\r\n",
)
_ANSWER_FIELDS = (
    b"Content-Type: application/json", b"Server: fuzz", b"Date: x", b"X-Own: 1", b"x-own: 2",
    b"Set-Cookie: stolen=1", b"X-Subject-Token: stolen", b"x-auth-token: stolen",
    b"Connection: keep-alive", b"Connection: X-Own", b"Keep-Alive: timeout=5", b"X-8-bit: \xff",
    b"Content-Encoding: gzip", b"Vary: *", b"Upgrade: h2c", b"Location: /v1/elsewhere",
    b"Proxy-Authenticate: Basic", b"X-Empty:", b"ETag: x", b"Trailer: X-Own", b"TE: trailers",
    b"Retry-After: 1", b"WWW-Authenticate: Basic realm=x", b"Connection: close",
    b"connection: x-own , Close", b"Location: /v1/infers/abc/next",
    b"location: http://127.0.0.1:00000/v1/infers/abc", b"Location: /v1/infers/abc/../other?x#y",
    b"Location: http://user@127.0.0.1:00000/v1/infers/abc/x", b"Location: //evil.example/x",
)  # fmt: skip
_STATUSES = (
    b"200 OK", b"200 OK", b"200 OK", b"201 Created", b"204 No Content", b"206 Partial Content",
    b"302 Found", b"304 Not Modified", b"400 Bad Request", b"401 Unauthorized", b"403 Forbidden",
    b"404 Not Found", b"500 Internal Server Error", b"503 ", b"599 Odd", b"205 Reset Content",
)  # fmt: skip


def _answer(random: Random) -> bytes:
    status = random.choice(_STATUSES)
    lines = random.sample(_ANSWER_FIELDS, random.choice((0, 1, 2, 4)))
    body = random.choice(_BODIES)
    start = (b"HTTP/1.0 " if random.random() < 0.05 else b"HTTP/1.1 ") + status
    if status[:3] in {b"204", b"304"}:
        return _message(start, lines, b"")
    if random.random() < 0.85:
        framing, body = _framed(random, body)
        lines.append(framing)
    random.shuffle(lines)
    return _message(start, lines, body)


def _asking(random: Random) -> bytes:
    """Return the valid request that is answered."""
    method = random.choice((b"POST", b"POST", b"POST", b"GET", b"HEAD"))
    version = b"HTTP/1.0" if random.random() < 0.1 else b"HTTP/1.1"
    lines = [b"Host: localhost"]
    if random.random() < 0.2:
        lines.append(b"Connection: " + random.choice((b"close", b"keep-alive")))
    body = b"{}" if method == b"POST" else b""
    return _message(b"%b /iris %b" % (method, version), [*lines, b"Content-Length: %d" % len(body)],
                    body)  # fmt: skip


def _framed(random: Random, body: bytes) -> tuple[bytes, bytes]:
    if random.random() < 0.5:
        return b"Content-Length: %d" % len(body), body
    at, chunks = 0, b""
    while at < len(body):
        piece = body[at : at + random.choice((1, 7, 100, 4000))][: len(body) - at]
        extension = random.choice((b"", b"", b"", b";a", b';a="b"', b";a=b;c"))
        chunks += b"%x%b\r\n%b\r\n" % (len(piece), extension, piece)
        at += len(piece)
    trailer = random.choice((b"", b"", b"", b"X-Auth-Token: stolen\r\n", b"X-Trailer: stolen\r\n"))
    return b"Transfer-Encoding: chunked", chunks + b"0\r\n" + trailer + b"\r\n"


def _message(start: bytes, lines: Sequence[bytes], body: bytes) -> bytes:
    return b"\r\n".join([start, *lines, b"", body])


# Changes.

_OCTETS = b"\r\n\x00\t :,;=/.%\\_-+0129aAxX\"'\x01\x0b\x7f\x80\xff#?@[]()<>*"
_WORDS = (
    b"\r\n", b"\n", b"\r", b"\r\n\r\n", b"\n\n", b"\r\r\n", b"\n\r\n", b"\r\n ", b"\r\n\t",
    b" \r\n",
    b"0\r\n\r\n", b"0\r\n", b"1\r\nx\r\n", b"Transfer-Encoding: chunked\r\n",
    b"transfer-encoding: identity\r\n", b"Transfer-Encoding : chunked\r\n",
    b"Content-Length: 2\r\n",
    b"Content-Length: 0\r\n", b"Content-Length: +2\r\n", b"content-length:\r\n", b"chunked",
    b", chunked", b"gzip, ", b"Connection: close\r\n", b"Connection: Transfer-Encoding\r\n",
    b"X: y\r\n", b": ", b":", b"\x00", b"HTTP/1.1", b"HTTP/1.0", b"HTTP/2.0", b"HTTP/1.1 ",
    b"fffffffffffffff", b"ffffffffffffffff", b"18446744073709551617", b"4294967298", b";", b";\n",
    b"Upgrade: h2c\r\n", b"Upgrade: websocket\r\nConnection: upgrade\r\n", b"\xef\xbb\xbf",
)  # fmt: skip
_REQUEST_WORDS = (
    *_WORDS, b"..", b"/../", b"/..;/", b"%2e%2e/", b"%252e", b"%2f", b"%5c", b"\\", b"//", b"@",
    b"http://evil.example", b"Host: evil.example\r\n", b"Host:\r\n", b"Origin: null\r\n",
    b"Expect: 100-continue\r\n", b"Expect: x\r\n", b"X-Auth-Token: stolen\r\n",
    b"Connection: X-Auth-Token\r\n", b"X_Auth_Token: stolen\r\n", b"GET /iris HTTP/1.1\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"X-Original-URL: /v3\r\n", b"CONNECT ", b"TRACE ",
    b"get ",
    b"%00", b"%c0%ae", b"#", b"?", b"%", b"*",
)  # fmt: skip
_ANSWER_WORDS = (
    *_WORDS, b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
    b"HTTP/1.1 200 OK\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nstolen", b"100",
    b"101", b"204", b"304", b"600", b"099", b"1000", b"20", b"ICY 200 OK\r\n",
    b"HTTP/1.1 102 \r\n\r\n" * 17,
    b"Set-Cookie: stolen\r\n", b"X-Subject-Token: stolen\r\n", b"set_cookie: stolen\r\n",
)  # fmt: skip

_Change = Callable[[Random, bytes, Sequence[bytes], Sequence[bytes]], bytes]


def _place(random: Random, data: bytes) -> int:
    """Return a place in `data`, in its head more often than not."""
    end = data.find(b"\r\n\r\n") + 4
    return random.randrange((end if end > 3 and random.random() < 0.6 else len(data)) + 1)


def _set_octet(random: Random, data: bytes, _seeds: object, _words: object) -> bytes:
    at = _place(random, data)
    octet = random.choice(_OCTETS) if random.random() < 0.8 else random.randrange(256)
    return data[:at] + bytes([octet]) + data[at + 1 :]


def _insert_octet(random: Random, data: bytes, _seeds: object, _words: object) -> bytes:
    at = _place(random, data)
    return data[:at] + bytes([random.choice(_OCTETS)]) + data[at:]


def _insert_word(random: Random, data: bytes, _seeds: object, words: Sequence[bytes]) -> bytes:
    at = _place(random, data)
    if random.random() < 0.5:
        at = data.find(b"\r\n", at) + 2  # where a line begins
    return data[:at] + random.choice(words) + data[at:]


def _delete(random: Random, data: bytes, _seeds: object, _words: object) -> bytes:
    at = _place(random, data)
    return data[:at] + data[at + random.choice((1, 1, 1, 2, 4, 20)) :]


def _repeat(random: Random, data: bytes, _seeds: object, _words: object) -> bytes:
    at = _place(random, data)
    end = at + random.choice((1, 2, 8, 40, 400))
    return data[:end] + data[at:]


def _change_case(random: Random, data: bytes, _seeds: object, _words: object) -> bytes:
    at = _place(random, data)
    end = at + random.choice((1, 4, 20))
    return data[:at] + data[at:end].swapcase() + data[end:]


def _change_number(random: Random, data: bytes, _seeds: object, _words: object) -> bytes:
    digits = [at for at, octet in enumerate(data) if octet in b"0123456789"]
    if not digits:
        return data
    at = random.choice(digits)
    return data[:at] + random.choice((b"0", b"1", b"2", b"5", b"9", b"00", b"10")) + data[at + 1 :]


def _shuffle_lines(random: Random, data: bytes, _seeds: object, _words: object) -> bytes:
    lines = data.split(b"\r\n")
    one, other = random.randrange(len(lines)), random.randrange(len(lines))
    if random.random() < 0.5:
        lines[one], lines[other] = lines[other], lines[one]
    else:
        lines.insert(one, lines[other])
    return b"\r\n".join(lines)


def _truncate(random: Random, data: bytes, _seeds: object, _words: object) -> bytes:
    return data[: _place(random, data)]


def _splice(random: Random, data: bytes, seeds: Sequence[bytes], _words: object) -> bytes:
    other = random.choice(seeds)
    return data[: _place(random, data)] + other[_place(random, other) :]


def _append(random: Random, data: bytes, seeds: Sequence[bytes], words: Sequence[bytes]) -> bytes:
    return data + random.choice(seeds if random.random() < 0.5 else words)


_CHANGES: tuple[_Change, ...] = (
    _set_octet, _set_octet, _insert_octet, _insert_octet, _insert_word, _insert_word, _insert_word,
    _delete, _repeat, _change_case, _change_number, _shuffle_lines, _truncate, _splice, _append,
)  # fmt: skip


def _spoil(random: Random, data: bytes, seeds: Sequence[bytes], words: Sequence[bytes]) -> bytes:
    for _ in range(random.choice((1, 1, 1, 2, 3, 5))):
        data = random.choice(_CHANGES)(random, data, seeds, words)
    return data


def _cut(random: Random, data: bytes) -> tuple[bytes, ...]:
    if len(data) < 300 and random.random() < 0.05:
        return tuple(bytes([octet]) for octet in data)
    cuts = sorted(random.randrange(len(data) + 1) for _ in range(random.choice((0, 0, 1, 2, 5))))
    return tuple(data[a:b] for a, b in pairwise([0, *cuts, len(data)]) if b > a)
