"""The service behind every contestant, and the IAM that hands out its token; a process of its own.

Lean on purpose: it shares the machine with what is measured. Counts what it was really asked.
"""

import asyncio
import json
import ssl
import sys
import time
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import cast

import uvloop

TOKEN = ("MIIS" + "benchmark0123456789" * 10)[:183]
"""As long as one of Keystone's; `make cost` counts with it."""
IAM_TOKEN = ("MIIS" + "benchmark0123456789" * 210)[:3900]
"""As long as one of IAM's, which names each role. nginx takes no parameter that is much longer."""
EVENTS = 100
"""Of a path that ends in `/stream`, 110 bytes each."""
EVENT_EVERY_S = 0.002
PREFIX = b"/v1/infers/"
"""Every contestant rewrites `/NAME/…` to this; another path is answered 404."""
LARGE = 1 << 20
"""Bytes of the answer to a path that ends in `/large`."""
HOLD_S = 1.0
"""How long a path that ends in `/slow` leaves the body unread: a proxy without backpressure
fills its memory meanwhile."""


def answer(status: str, body: bytes, fields: str = "") -> bytes:
    """Return a whole response; `fields` are header lines that each end in CRLF."""
    head = (
        f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n{fields}\r\n"
    )
    return head.encode() + body


_RESULT = (
    b'{"meta":{"uuid":"10eb0091-887f-4839-9929-cbc884f1e20e"},"data":{"resp_data":'
    b'[{"sepal_length":3,"sepal_width":1,"petal_length":2.2,"predictresult":"1"}]}}'
)
_SENT = b": " + IAM_TOKEN.encode() + b"\r\n"
_SMALL = answer("200 OK", _RESULT)
_STREAM = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
)
_EVENT = b'data: {"choices":[{"index":0,"delta":{"content":" word"}}],"id":"chatcmpl-'
_EVENT += b"7" * (108 - len(_EVENT)) + b"\n\n"
_EVENT_CHUNK = b"%x\r\n%b\r\n" % (len(_EVENT), _EVENT)
assert len(_EVENT) == 110
_LARGE = answer("200 OK", b"0123456789abcdef" * (LARGE // 16))
_REFUSED = answer(
    "401 Unauthorized",
    b'{"error_code":"APIG.0301","error_msg":"Incorrect IAM authentication information"}',
)
_LOST = answer("404 Not Found", b'{"error_code":"APIG.0101","error_msg":"The API does not exist"}')


@dataclass
class Counts:
    """What was answered so far. Only whole requests count, so `body_bytes` is exact."""

    accepted: int = 0
    refused: int = 0
    body_bytes: int = 0
    events: int = 0
    """Of streams, those that were cut off included."""


def new_token(now: datetime) -> bytes:
    """Return IAM's answer: a token that lives 24 hours."""

    def stamp(instant: datetime) -> str:
        return instant.strftime("%Y-%m-%dT%H:%M:%S.%fZ")

    token = {
        "methods": ["password"],
        "issued_at": stamp(now),
        "expires_at": stamp(now + timedelta(hours=24)),
        "user": {"id": "u1", "name": "bench", "domain": {"id": "d1", "name": "bench"}},
        "project": {"id": "p1", "name": "bench", "domain": {"id": "d1", "name": "bench"}},
        "roles": [{"id": "0", "name": "op_bench"}],
    }
    fields = f"X-Subject-Token: {IAM_TOKEN}\r\nDate: {format_datetime(now, usegmt=True)}\r\n"
    return answer("201 Created", json.dumps({"token": token}).encode(), fields)


class Upstream(asyncio.Protocol):
    """One connection. Bodies are counted and thrown away."""

    def __init__(self, counts: Counts) -> None:
        self.counts = counts
        self.transport: asyncio.Transport
        self.pending = bytearray()  # a head, or chunked framing, that is not complete yet
        self.in_body = False
        self.chunked = False
        self.left = 0  # bytes until the end of the body, or of the chunk with its CRLF
        self.last_chunk = False
        self.received = 0
        self.reply = b""
        self.is_real = False
        self.is_stream = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        if self.in_body and not self.chunked:
            self._count(len(data))
            return
        self.pending += data
        if not self.in_body:
            end = self.pending.find(b"\r\n\r\n")
            if end < 0:
                return
            head = bytes(self.pending[: end + 2])
            del self.pending[: end + 4]
            self._begin(head)
        if self.chunked:
            self._read_chunks()
        else:
            present = len(self.pending)
            self.pending.clear()
            self._count(present)

    def _begin(self, head: bytes) -> None:
        lowered = head.lower()
        path = head.split(b" ", 2)[1]
        self.in_body = True
        self.received = 0
        self.chunked = b"\r\ntransfer-encoding: chunked\r\n" in lowered
        self.last_chunk = False
        at = lowered.find(b"\r\ncontent-length:")
        self.left = 0 if at < 0 else int(lowered[at + 17 : lowered.index(b"\r\n", at + 2)])
        if path.partition(b"?")[0].endswith(b"/auth/tokens"):
            self.reply = new_token(datetime.now(UTC))
        elif path == b"/counts":
            self.reply = answer("200 OK", json.dumps(asdict(self.counts)).encode())
        elif lowered.count(b"\r\nx-auth-token:") != 1 or _SENT not in head:
            self.reply = _REFUSED
        elif not path.startswith(PREFIX):
            self.reply = _LOST
        else:
            self.reply = _LARGE if path.endswith(b"/large") else _SMALL
            self.is_real = path.endswith(b"/real")
            self.is_stream = path.endswith(b"/stream")
            if path.endswith(b"/slow"):
                self.transport.pause_reading()
                asyncio.get_running_loop().call_later(HOLD_S, self.transport.resume_reading)

    def _count(self, size: int) -> None:
        self.received += size
        self.left -= size
        if self.left < 0:
            self.transport.abort()  # nobody here pipelines, so somebody mixed up two requests
        elif self.left == 0:
            self._finish()

    def _read_chunks(self) -> None:
        pending = self.pending
        while pending:
            if self.left:
                taken = min(self.left, len(pending))
                del pending[:taken]
                self.left -= taken
                if self.left == 0 and self.last_chunk:
                    self._finish()
                    return
                continue
            end = pending.find(b"\r\n")
            if end < 0:
                return
            size = int(pending[:end], 16)
            del pending[: end + 2]
            self.received += size
            self.last_chunk = size == 0
            self.left = size + 2

    def _finish(self) -> None:
        self.in_body = False
        if self.reply is _SMALL or self.reply is _LARGE:
            self.counts.accepted += 1
            self.counts.body_bytes += self.received
        elif self.reply is _REFUSED or self.reply is _LOST:
            self.counts.refused += 1
        if self.reply is not _SMALL or not (self.is_real or self.is_stream):
            self.transport.write(self.reply)
        elif self.is_real:
            self.transport.write(_real_answer(self.counts.accepted))
        else:
            self.transport.write(_STREAM)
            loop = asyncio.get_running_loop()
            loop.call_later(EVENT_EVERY_S, self._send_event, EVENTS, loop.time() + EVENT_EVERY_S)

    def _send_event(self, left: int, due: float) -> None:
        """Send one of `left` events, and have the next one sent when it is due."""
        if self.transport.is_closing():
            return
        self.counts.events += 1
        if left == 1:
            self.transport.write(_EVENT_CHUNK + b"0\r\n\r\n")
            return
        self.transport.write(_EVENT_CHUNK)
        due += EVENT_EVERY_S
        asyncio.get_running_loop().call_at(due, self._send_event, left - 1, due)


def _real_answer(number: int) -> bytes:
    """Return a response as the API gateway sends it: with a date, and an id of its own."""
    return (
        b"HTTP/1.1 200 OK\r\nDate: %b\r\nContent-Type: application/json\r\n"
        b"Content-Length: %d\r\nConnection: keep-alive\r\nServer: api-gateway\r\n"
        b"X-Request-Id: 7d1a0f3c%024x\r\n\r\n%b" % (_date(), len(_RESULT), number, _RESULT)
    )


_dated: tuple[int, bytes] = (0, b"")


def _date() -> bytes:
    """Return the date of this second."""
    global _dated  # noqa: PLW0603
    second = int(time.monotonic())
    if _dated[0] != second:
        _dated = second, format_datetime(datetime.now(UTC), usegmt=True).encode()
    return _dated[1]


async def serve(certificate: Path) -> None:
    """Listen on two free ports of loopback, tell them on stdout as JSON, run until killed."""
    counts = Counts()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    loop = asyncio.get_running_loop()
    plain = await loop.create_server(lambda: Upstream(counts), "127.0.0.1", 0, backlog=2048)
    secure = await loop.create_server(
        lambda: Upstream(counts), "127.0.0.1", 0, ssl=context, backlog=2048
    )
    ports = {
        "plain": plain.sockets[0].getsockname()[1],
        "secure": secure.sockets[0].getsockname()[1],
    }
    print(json.dumps(ports), flush=True)
    async with plain, secure:
        await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(serve(Path(sys.argv[1])))
