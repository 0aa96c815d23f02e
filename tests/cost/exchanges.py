"""Whole exchanges in memory: the gateway as `serve` builds it, between two transports of bytes.

Everything but sockets and the event loop's own work happens as in production: parsing, admission,
token, forwarding, relaying, metrics and the access log. One exchange follows the other, on a clock
that only being read moves, so the same work is done on a fast machine and on a slow one.
"""

import asyncio
import os
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count, cycle, islice
from typing import Any

from gateway.assembly.gateway import build_gateway
from gateway.downstream.connection import ClientConnection
from gateway.downstream.listener import DataListener
from gateway.identity.credential import Credential
from gateway.observe.access_log import AccessLog
from gateway.proxy.context import ExchangeContext
from gateway.proxy.service import Service
from gateway.settings import load
from gateway.upstream.connection import Connection
from tests.programs.bench.shapes import JSON_BODY
from tests.programs.bench.upstream import TOKEN, answer

WARM_UP = 192
"""Exchanges before counting, so that the interpreter has adapted its code."""
_BEGIN_S, _EPOCH_S = 1000.0, 1.8e9
_STEP_S = 0.0005
"""From one reading of the clock to the next; an exchange of JSON reads it three times."""
_PIECE = bytes(range(256)) * 1024
"""256 KiB: what uvloop reads at a time."""
_PIECES = 4


def _request(length: int, field: bytes = b"") -> bytes:
    return (
        b"POST /bench/predict HTTP/1.1\r\nHost: 127.0.0.1:8080\r\nUser-Agent: cost/1\r\n"
        b"Accept: */*\r\nContent-Type: application/json\r\nContent-Length: %d\r\n%b\r\n"
    ) % (length, field)


_LARGE = _PIECES * len(_PIECE)
_BODY = JSON_BODY.encode()
_RESULT = b'{"predictresult":"1"}' * 8
_SMALL_REQUEST = [_request(len(_BODY)) + _BODY]
_SMALL_ANSWER = [answer("200 OK", _RESULT, "Server: cost\r\n")]
_REAL_REQUEST = (
    b"POST /bench/predict HTTP/1.1\r\nHost: 127.0.0.1:8080\r\n"
    b"User-Agent: python-requests/2.32.5\r\n"
    b"Accept-Encoding: gzip, deflate\r\nAccept: */*\r\nConnection: keep-alive\r\n"
    b"Content-Type: application/json\r\n"
    b"traceparent: 00-%032x-%016x-01\r\nContent-Length: %d\r\n\r\n%b"
)
_REAL_ANSWER = (
    b"HTTP/1.1 200 OK\r\nDate: Sat, 28 Nov 2026 12:00:%02d GMT\r\n"
    b"Content-Type: application/json\r\n"
    b"Content-Length: %d\r\nConnection: keep-alive\r\nServer: api-gateway\r\n"
    b"X-Request-Id: %032x\r\n\r\n%b"
)
_STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
)
_EVENTS = 20
_EVENT = b"6e\r\ndata: %b\n\n\r\n" % (b"7" * 102)


def _real(number: int) -> tuple[list[bytes], list[bytes]]:
    """Return one exchange as production has it: ids of its own, a body of another length."""
    body, result = _BODY + b" " * (number * 7 % 61), _RESULT + b" " * (number * 5 % 47)
    trace = 0x0AF7651916CD43DD8448EB211C80319C ^ number * 0x9E3779B97F4A7C15
    request = _REAL_REQUEST % (trace, 0xB7AD6B7169203331 ^ number, len(body), body)
    return [request], [_REAL_ANSWER % (number // 8, len(result), trace, result)]


SHAPES: dict[str, list[tuple[list[bytes], list[bytes]]]] = {
    "real": [_real(number) for number in range(256)],
    "json": [(_SMALL_REQUEST, _SMALL_ANSWER)],
    "json-new": [
        (
            [_request(len(_BODY), b"X-Request-Id: %d\r\n" % number) + _BODY],
            [answer("200 OK", _RESULT, f"Server: cost\r\nX-Request-Id: {number}\r\n")],
        )
        for number in range(2)
    ],
    "stream": [(_SMALL_REQUEST, [_STREAM_HEAD, *[_EVENT] * _EVENTS, b"0\r\n\r\n"])],
    "upload-1m": [([_request(_LARGE), *[_PIECE] * _PIECES], _SMALL_ANSWER)],
    "download-1m": [
        (
            _SMALL_REQUEST,
            [b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % _LARGE, *[_PIECE] * _PIECES],
        )
    ],
}
"""Name → exchanges that take turns: what the caller sends and what the service answers, read by
read. In `json-new` no head is that of the exchange before, so that none is ever remembered."""


class MemoryTransport(asyncio.Transport):
    """Takes everything at once and keeps nothing but the last of it.

    `write` and `writelines` are no functions of Python, lest they count as work of the gateway.
    """

    def __init__(self) -> None:
        super().__init__()
        self.last: deque[Any] = deque(maxlen=1)
        self.write = self.last.append  # type: ignore[assignment,method-assign]
        self.writelines = self.last.append  # type: ignore[assignment,method-assign]

    def is_closing(self) -> bool:
        return False

    def get_write_buffer_size(self) -> int:
        return 0

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass


class Pair:
    """A caller's connection and one to the service, which takes `pause_s` to answer."""

    def __init__(self, listener: DataListener, service: Service, pause_s: float) -> None:
        self._pause_s = pause_s
        self._caller = MemoryTransport()
        down = ClientConnection(listener)
        down.connection_made(self._caller)
        now = listener.context.clock()
        up = Connection(now + 300.0)
        up.connection_made(MemoryTransport())
        service.pool.active += 1
        service.pool.give_back(up, now)
        self._receive, self._answer = down.data_received, up.data_received

    def exchange(self, request: list[bytes], answer: list[bytes]) -> None:
        """Run one exchange, and see that it took place."""
        for data in request:
            self._receive(data)
        if self._pause_s:
            time.sleep(self._pause_s)
        for data in answer:
            self._answer(data)
        assert self._caller.last
        self._caller.last.clear()


def _set_clocks(context: ExchangeContext) -> None:
    """Replace the clocks by two that move on by a step at each reading, and not otherwise.

    What accounting does depends on time: each other millisecond is formatted, each duration is
    looked for from the bucket of the last one, and each digit lengthens what is written. Like the
    real clocks, these are no functions of Python.
    """
    clock = count(_BEGIN_S, _STEP_S).__next__
    context.clock = context.deadlines._clock = context.observer._clock = clock
    context.observer.wall_clock = count(_EPOCH_S, 1.0).__next__


@contextmanager
def prepared(
    services: int = 2, identities: int = 1, pause_s: float = 0.0
) -> Iterator[Callable[[str, int], None]]:
    """Yield a function that runs so many exchanges of a shape; within a running event loop.

    Args:
        services: how many there are; all exchanges are with the first one.
        identities: how many the services use in turns.
        pause_s: how long each exchange waits for its answer.
    """
    names = ["default", *(f"identity-{number}" for number in range(1, identities))]
    flags = {
        "identities": {name: {"method": "none"} for name in names},
        "services": {
            name: {
                "url": f"http://127.0.0.1:9/v1/infers/{name}",
                "methods": "POST",
                "identity": names[number % identities],
            }
            for number, name in enumerate(
                ["bench", "other", *(f"service-{number}" for number in range(2, services))]
            )
        },
    }
    sink = os.open(os.devnull, os.O_WRONLY)
    gateway = build_gateway(load(file=None, environ={}, flags=flags).settings, AccessLog(sink))
    parts = gateway._parts
    service = parts.services[0]
    never = float("inf")
    for cache in parts.credential_caches.values():
        line = f"X-Auth-Token: {TOKEN}\r\n".encode("ascii")
        cache._credential = Credential(line, stale_at=never, expires_at=never)
    _set_clocks(parts.data.context)
    pair = Pair(parts.data, service, pause_s)

    def run(shape: str, times: int) -> None:
        exchange = pair.exchange
        for request, reply in islice(cycle(SHAPES[shape]), times):
            exchange(request, reply)
        parts.data.context.observer.settle()

    try:
        yield run
    finally:
        assert service.metrics.started == service.metrics.finished
        os.close(sink)
