"""A service as the overload shapes need it. A process of its own; it prints its port.

Its argument says what kind:
    slots: 4 slots of 50 ms, first come, first served. It does not notice that a caller has left,
        as most model servers do not: what it has accepted, it works off.
    throttled: 50 ms for each request, but 429 as the API gateway's above 40 a second.
    dead: takes requests and closes.
    failing: 50 ms for each request; three of ten get 503 as the API gateway's.
GET /seen returns when each request came: its `X-Number`, and seconds on the monotonic clock.
"""

import asyncio
import json
import sys
import time

SLOTS = 4
SERVICE_TIME_S = 0.05
CAPACITY = SLOTS / SERVICE_TIME_S
"""Requests per second."""
THROTTLED_RATE = 40.0
"""Requests per second that a throttled service takes."""
_BURST = 4
_FAILING_OF_TEN = 3
_OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


def _error(status: str, code: str) -> bytes:
    body = json.dumps({"error_code": code, "error_msg": "as the cloud says it"}).encode()
    head = f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
    return head.encode() + b"\r\n\r\n" + body


_TOO_MANY = _error("429 Too Many Requests", "APIG.0308")
_UNAVAILABLE = _error("503 Service Unavailable", "APIG.0613")


class Service:
    """Answers as its kind wants it, and remembers what came."""

    def __init__(self, kind: str) -> None:
        self._kind = kind
        self._free = asyncio.Semaphore(SLOTS)
        self._seen: list[tuple[int, float]] = []
        self._next = 0.0  # when a throttled service is even with what it has taken

    async def client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection."""
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).lower()
                await reader.readexactly(int(_value(head, b"content-length") or 0))
                if head.startswith(b"get /seen "):
                    body = json.dumps(self._seen).encode()
                    writer.write(
                        b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body
                    )
                    continue
                self._seen.append((int(_value(head, b"x-number") or -1), time.monotonic()))
                if self._kind == "dead":
                    writer.close()
                    return
                writer.write(await self._answer())
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    async def _answer(self) -> bytes:
        match self._kind:
            case "throttled":
                now = time.monotonic()
                if self._next - now > _BURST / THROTTLED_RATE:
                    return _TOO_MANY
                self._next = max(self._next, now) + 1 / THROTTLED_RATE
            case "failing" if len(self._seen) * 3 % 10 < _FAILING_OF_TEN:
                return _UNAVAILABLE
            case "slots":
                async with self._free:
                    await asyncio.sleep(SERVICE_TIME_S)
                return _OK
            case _:
                pass
        await asyncio.sleep(SERVICE_TIME_S)
        return _OK


def _value(head: bytes, name: bytes) -> bytes:
    """Return a field's value in a head in lower case; empty without the field."""
    _, _, rest = head.partition(b"\r\n" + name + b":")
    return rest.partition(b"\r\n")[0].strip()


async def serve(kind: str) -> None:
    """Serve on a free port of loopback until the process is ended."""
    service = Service(kind)
    server = await asyncio.start_server(service.client, "127.0.0.1", 0, backlog=2048)
    sys.stdout.write(f"{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1] if len(sys.argv) > 1 else "slots"))
