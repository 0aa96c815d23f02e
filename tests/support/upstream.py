"""A scripted upstream on a real socket: records the exact bytes, says exactly what it is told."""

import asyncio
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Self

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
_LIMIT = 64 * 1024
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


def answer(status: int, body: bytes = b"", *fields: bytes) -> bytes:
    """Return a response with a Content-Length."""
    head = b"".join(field + b"\r\n" for field in fields)
    return b"HTTP/1.1 %d Any\r\n%bContent-Length: %d\r\n\r\n%b" % (status, head, len(body), body)


class Request:
    """One request as it came: `head` ends with the empty line, `body` is raw, framing included."""

    def __init__(self, head: bytes, body: bytes = b"") -> None:
        self.head = head
        self.raw = bytearray(body)
        """The body so far; it grows in place, since a large one may have ten thousand lines."""
        self.whole = False
        """Whether the body has come to its end."""

    @property
    def body(self) -> bytes:
        return bytes(self.raw)

    @property
    def line(self) -> bytes:
        return self.head.partition(b"\r\n")[0]

    @property
    def target(self) -> bytes:
        return self.line.split(b" ")[1]

    @property
    def fields(self) -> list[tuple[bytes, bytes]]:
        """Names and values as sent."""
        return fields_of(self.head)

    def values(self, name: bytes) -> list[bytes]:
        """Values of every field called `name`, in any letter case."""
        return [value for other, value in self.fields if other.lower() == name.lower()]

    @property
    def content(self) -> bytes:
        """Body without its framing."""
        return unchunked(self.body) if self.values(b"transfer-encoding") else self.body


def fields_of(head: bytes) -> list[tuple[bytes, bytes]]:
    """Return the fields of a head as names and values, in order."""
    lines = head.removesuffix(b"\r\n\r\n").split(b"\r\n")[1:]
    return [(name, value.strip(b" \t")) for name, _, value in (x.partition(b":") for x in lines)]


def unchunked(raw: bytes) -> bytes:
    """Undo chunked framing; fails on anything but well-formed and complete chunks."""
    body = b""
    while True:
        size, mark, raw = raw.partition(b"\r\n")
        assert mark, "a chunk has no size line"
        length = int(size, 16)
        if length == 0:
            assert raw == b"\r\n", "trailers, or bytes after the last chunk"
            return body
        assert raw[length : length + 2] == b"\r\n", "a chunk is cut or too long"
        body, raw = body + raw[:length], raw[length + 2 :]


class Link:
    """One accepted connection, as a script sees it. Reads only when a step asks for bytes."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int
    ) -> None:
        self.number = number
        """0 for the first connection of the upstream."""
        self.received = bytearray()
        """Every byte read so far."""
        self.requests: list[Request] = []
        self.ended = asyncio.Event()
        """Set once the gateway has closed or reset the connection, as far as we have read."""
        self.was_reset = False
        self.sent = 0
        """Bytes written so far, taken by the kernel or not."""
        self._reader = reader
        self._writer = writer

    async def _more(self, at_most: int = _LIMIT) -> bytes:
        try:
            data = await self._reader.read(at_most)
        except (ConnectionError, ssl.SSLError):
            self.was_reset = True
            data = b""
        if not data:
            self.ended.set()
        self.received += data
        return data

    async def read(self, count: int) -> bytes:
        """Read exactly `count` bytes."""
        begin = len(self.received)
        while (missing := begin + count - len(self.received)) > 0:
            if not await self._more(min(missing, _LIMIT)):
                raise EOFError
        return bytes(self.received[begin:])

    async def _line(self) -> bytes:
        try:
            line = await self._reader.readuntil(b"\n")
        except (asyncio.IncompleteReadError, ConnectionError, ssl.SSLError) as cause:
            self.was_reset = not isinstance(cause, asyncio.IncompleteReadError)
            if isinstance(cause, asyncio.IncompleteReadError):
                self.received += cause.partial
            self.ended.set()
            raise EOFError from None
        self.received += line
        return line

    async def head(self) -> Request:
        """Read a head."""
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += await self._line()
        request = Request(head)
        self.requests.append(request)
        return request

    async def request(self) -> Request:
        """Read a whole request, by its own framing."""
        return await self.body_of(await self.head())

    async def body_of(self, request: Request) -> Request:
        """Read the body of a request whose head has been read."""
        if request.values(b"transfer-encoding"):
            while not request.raw.endswith(b"0\r\n\r\n") or not _is_complete(request.body):
                request.raw += await self._line()
        elif lengths := request.values(b"content-length"):
            request.raw += await self.read(int(lengths[0]))
        request.whole = True
        return request

    def send(self, data: bytes) -> None:
        """Write without waiting."""
        self.sent += len(data)
        self._writer.write(data)

    async def flush(self) -> None:
        """Wait until the gateway takes more."""
        try:
            await self._writer.drain()
        except ConnectionError:
            self.was_reset = True
            raise EOFError from None

    async def hold(self) -> None:
        """Do nothing more until the gateway closes; what it still sends is kept."""
        while await self._more():
            pass

    def half_close(self) -> None:
        """Send FIN, go on reading."""
        self._writer.write_eof()

    def reset(self) -> None:
        """Send RST."""
        sock: socket.socket = self._writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        self._writer.transport.abort()

    def cut(self) -> None:
        """Send FIN at once; over TLS without close_notify."""
        sock: socket.socket = self._writer.get_extra_info("socket")
        with socket.socket(fileno=socket.dup(sock.fileno())) as raw, suppress(OSError):
            raw.shutdown(socket.SHUT_WR)  # unless the other side has reset it before

    def close(self) -> None:
        """Close after what was written; over TLS with close_notify."""
        self._writer.close()

    @property
    def unsent(self) -> int:
        """Bytes written that the kernel has not taken, because the gateway does not read."""
        return self._writer.transport.get_write_buffer_size()


def _is_complete(raw: bytes) -> bool:
    try:
        unchunked(raw)
    except (AssertionError, ValueError):
        return False
    return True


Script = Callable[[Link], Awaitable[None]]


def answering(*replies: bytes) -> Script:
    """Answer each request, on whatever connection, with the next of `replies`; repeat the last."""
    left = list(replies)

    async def script(link: Link) -> None:
        while True:
            await link.request()
            link.send(left.pop(0) if len(left) > 1 else left[0])

    return script


class Upstream:
    """Accepts connections and runs the script on each; closes it when the script ends."""

    def __init__(
        self,
        script: Script,
        *,
        tls: ssl.SSLContext | None = None,
        address: tuple[str, int] = ("127.0.0.1", 0),
    ) -> None:
        self.links: list[Link] = []
        self.failures: list[BaseException] = []
        self.port = 0
        self._script = script
        self._tls = tls
        self._address = address
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(
            self._accept, *self._address, ssl=self._tls, limit=_LIMIT
        )
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_exc: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self.failures:
            raise self.failures[0]

    def forget(self) -> None:
        """Forget what has come so far; connections stay."""
        for link in self.links:
            link.received.clear()
            link.requests.clear()

    @property
    def requests(self) -> list[Request]:
        """Every request that came, by connection."""
        return [request for link in self.links for request in link.requests]

    @property
    def only(self) -> Request:
        """The one request that came."""
        [request] = self.requests
        return request

    @property
    def received(self) -> bytes:
        """Every byte read from every connection."""
        return b"".join(link.received for link in self.links)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        link = Link(reader, writer, len(self.links))
        self.links.append(link)
        task = asyncio.create_task(self._run(link, writer), name=f"upstream-{link.number}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _run(self, link: Link, writer: asyncio.StreamWriter) -> None:
        try:
            await self._script(link)
        except EOFError:
            pass  # the gateway closed: what it had sent is what the test looks at
        except Exception as failure:  # noqa: BLE001  # raised again at the end of the test
            self.failures.append(failure)
        finally:
            writer.close()


@asynccontextmanager
async def scripted_upstream(
    script: Script | bytes, *, tls: ssl.SSLContext | None = None
) -> AsyncIterator[Upstream]:
    """Run an upstream; bytes are the answer to every request."""
    async with Upstream(
        answering(script) if isinstance(script, bytes) else script, tls=tls
    ) as upstream:
        yield upstream
