"""The service: whatever it does to a request, it is drawn from a seed."""

import asyncio
from random import Random
from typing import cast

import httptools

from tests.programs.chaos.books import Books, Deed, body_of

_LATE_S = 0.02
_BEFORE_THE_BODY = {Deed.ANSWER_EARLY, Deed.RESET, Deed.GARBAGE}


class Service(asyncio.Protocol):
    """One connection. What it answers holds the id of the request, in the head and in the body."""

    def __init__(self, books: Books, random: Random) -> None:
        self._books = books
        self._random = random
        self._transport: asyncio.Transport | None = None
        self._number = 0
        self._target = b""
        self._deed = Deed.ANSWER
        self._is_over = False
        self._parser = httptools.HttpRequestParser(self)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is none by name

    def data_received(self, data: bytes) -> None:
        if self._is_over:
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._books.wrong.append(f"the service got what is not HTTP: {error}: {data[:100]!r}")
            self._end()

    # What the parser tells.

    def on_message_begin(self) -> None:
        self._target = b""

    def on_url(self, url: bytes) -> None:
        self._target += url

    def on_headers_complete(self) -> None:
        self._number = int(self._target.rpartition(b"=")[2])
        self._deed = self._random.choice(_DEEDS)
        self._books.arrived(self._number, self._parser.get_method(), self._deed)
        if self._deed in _BEFORE_THE_BODY:
            self._do()

    def on_message_complete(self) -> None:
        if self._deed not in _BEFORE_THE_BODY and not self._is_over:
            self._do()

    # What it does.

    def _do(self) -> None:
        deed = self._deed
        at_once, later, is_last = _said(deed, self._number, self._random)
        if deed is Deed.ANSWER_LATE:
            asyncio.get_running_loop().call_later(_LATE_S, self._write, at_once)
            return
        self._write(at_once)
        if later:
            asyncio.get_running_loop().call_soon(self._write, later)
        if deed is Deed.RESET:
            self._is_over = True
            if self._transport is not None:
                self._transport.abort()
        elif is_last:
            self._end()

    def _write(self, data: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)

    def _end(self) -> None:
        self._is_over = True
        if self._transport is not None:
            self._transport.close()


def _said(deed: Deed, number: int, random: Random) -> tuple[bytes, bytes, bool]:
    """Return what is said at once, what a little later, and whether the connection ends then."""
    own = b"%d" % number
    body = body_of(number)
    head = b"HTTP/1.1 200 OK\r\nX-Own-Id: %b\r\n" % own
    length = b"Content-Length: %d\r\n" % len(body)
    whole = head + length + b"\r\n" + body
    half = len(body) // 2
    chunks = [b"%x\r\n%b\r\n" % (len(x), x) for x in (body[:half], body[half:]) if x]
    chunked = head + b"Transfer-Encoding: chunked\r\n\r\n" + b"".join(chunks)
    cut = random.randrange(1, len(whole))
    rows = {
        Deed.ANSWER: (whole, b"", False),
        Deed.IN_PIECES: (whole[:cut], whole[cut:], False),
        Deed.CHUNKED: (chunked + b"0\r\n\r\n", b"", False),
        Deed.INTERIM_FIRST: (b"HTTP/1.1 103 Early\r\nX-Own-Id: 0\r\n\r\n" + whole, b"", False),
        Deed.NO_CONTENT: (b"HTTP/1.1 204 No\r\nX-Own-Id: %b\r\n\r\n" % own, b"", False),
        Deed.UNTIL_CLOSE: (head + b"\r\n" + body, b"", True),
        Deed.ANSWER_AND_CLOSE: (head + length + b"Connection: close\r\n\r\n" + body, b"", True),
        Deed.ANSWER_AND_BE_GONE: (whole, b"", True),
        # Together: later it would answer the next request, for all that anybody can tell.
        Deed.ANSWER_TWICE: (whole + _UNASKED, b"", False),
        Deed.ANSWER_LATE: (whole, b"", False),
        Deed.ANSWER_EARLY: (whole, b"", True),
        Deed.CUT: (whole[:cut], b"", True),
        Deed.CUT_CHUNKED: (chunked, b"", True),
        Deed.RESET: (b"", b"", True),
        Deed.GARBAGE: (b"HTTP/1.1 2x0 \x00\r\n\r\n" + whole, b"", True),
        Deed.TWO_LENGTHS: (head + b"Content-Length: 1\r\n" + length + b"\r\n" + body, b"", True),
    }
    return rows[deed]


_UNASKED = b"HTTP/1.1 200 OK\r\nX-Own-Id: 0\r\nContent-Length: 5\r\n\r\nwrong"
# Most of what it does is good, or no connection would live for long enough to be mixed up.
_DEEDS = [*Deed] + 12 * [Deed.ANSWER] + 4 * [Deed.IN_PIECES, Deed.CHUNKED, Deed.INTERIM_FIRST]
