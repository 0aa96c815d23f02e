"""Callers who pipeline, leave, and look whose response they get."""

import asyncio
from collections import deque
from collections.abc import Iterator
from random import Random
from typing import cast

import httptools

from tests.programs.chaos.books import Books

_MOST_AT_ONCE = 4
_PATIENCE_S = 60.0


class Caller(asyncio.Protocol):
    """One connection, used for as long as the gateway keeps it."""

    def __init__(self, books: Books, random: Random, numbers: Iterator[int]) -> None:
        self.ended = asyncio.get_running_loop().create_future()
        self._books = books
        self._random = random
        self._numbers = numbers
        self._asked: deque[int] = deque()
        self._transport: asyncio.Transport | None = None
        self._has_left = False
        self._parser = httptools.HttpResponseParser(self)
        self._begin()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is none by name
        self._ask()

    def data_received(self, data: bytes) -> None:
        if self._has_left:
            return
        if not self._asked:
            self._books.wrong.append(f"a response that nobody has asked for: {data[:100]!r}")
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._books.wrong.append(f"a caller got what is not HTTP: {error}: {data[:100]!r}")
            self._leave()

    def connection_lost(self, exc: Exception | None) -> None:
        if exc is None and self._has_head and self._until_close and self._asked:
            self.on_message_complete()
        for number in self._asked:
            self._books.cut(number, left=self._has_left)
        self._asked.clear()
        if not self.ended.done():
            self.ended.set_result(None)

    # What the parser tells.

    def on_header(self, name: bytes, value: bytes) -> None:
        match name.lower():
            case b"x-own-id":
                self._named = value
            case b"proxy-status":
                self._is_ours = True
            case b"content-length" | b"transfer-encoding":
                self._until_close = False
            case _:
                pass

    def on_headers_complete(self) -> None:
        self._has_head = True
        self._status = self._parser.get_status_code()
        if self._status == 204:
            self._until_close = False

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        if self._status < 200 or not self._asked:
            self._books.wrong.append(f"a response with status {self._status} came by itself")
            return
        number = self._asked.popleft()
        self._books.got(number, self._status, self._named, self._body, is_ours=self._is_ours)
        self._begin()
        if not self._asked and self._transport is not None and not self._transport.is_closing():
            self._ask()

    # What it does.

    def _begin(self) -> None:
        """Expect the next response."""
        self._named = self._body = b""
        self._status = 0
        self._is_ours = self._has_head = False
        self._until_close = True

    def _ask(self) -> None:
        """Send one request or several; now and then leave without waiting for all responses."""
        random = self._random
        count = 1 if random.random() < 0.8 else random.randrange(2, _MOST_AT_ONCE + 1)
        sent = b""
        for _, number in zip(range(count), self._numbers, strict=False):
            self._asked.append(number)
            sent += self._request(number)
        if not sent:
            self._end()
            return
        assert self._transport is not None
        self._transport.write(sent)
        if random.random() < 0.02:
            delay_s = random.random() * 0.01
            asyncio.get_running_loop().call_later(delay_s, self._leave)

    def _request(self, number: int) -> bytes:
        line = b" /iris?id=%d HTTP/1.1\r\nHost: localhost\r\n" % number
        kind = self._random.random()
        if kind < 0.4:
            return b"GET" + line + b"\r\n"
        body = b"y" * self._random.choice((0, 1, 50, 5000))
        if kind < 0.8:
            return b"POST" + line + b"Content-Length: %d\r\n\r\n" % len(body) + body
        chunk = b"%x\r\n%b\r\n" % (len(body), body) if body else b""
        return b"POST" + line + b"Transfer-Encoding: chunked\r\n\r\n" + chunk + b"0\r\n\r\n"

    def _leave(self) -> None:
        self._has_left = True
        if self._transport is not None:
            self._transport.abort()

    def _end(self) -> None:
        if self._transport is not None:
            self._transport.close()


async def call_again_and_again(
    address: tuple[str, int], books: Books, random: Random, numbers: Iterator[int]
) -> None:
    """Use one connection after the other until there are no more numbers."""
    loop = asyncio.get_running_loop()
    for number in numbers:
        rest = iter([number])
        _, caller = await loop.create_connection(
            lambda: Caller(books, random, _chain(rest, numbers)),  # noqa: B023  # made at once
            *address,
        )
        before = -1
        while not caller.ended.done():
            if before == books.exchanges:
                books.wrong.append("nothing has happened for a minute")
                return
            before = books.exchanges
            await asyncio.wait({caller.ended}, timeout=_PATIENCE_S)


def _chain(first: Iterator[int], others: Iterator[int]) -> Iterator[int]:
    yield from first
    yield from others
