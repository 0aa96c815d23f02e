"""A scripted IAM on a real socket: says exactly the bytes it is told to, and keeps what it got."""

import asyncio
import json
import ssl
from collections import deque
from collections.abc import Mapping
from typing import Self

HANG = b"hang"
"""In a script: accept, read the request, never answer."""


class FakeIam:
    """Answers each request with the next of `script`, then closes; the last is repeated."""

    def __init__(self, *script: bytes, tls: ssl.SSLContext | None = None) -> None:
        self.script = deque(script)
        self.requests: list[tuple[str, dict[str, str], bytes]] = []
        """Request line, fields by lower-case name, body."""
        self.asked = asyncio.Event()
        """Set once a request has come."""
        self.left = asyncio.Event()
        """Set once a client has left without its answer."""
        self.port = 0
        self._tls = tls
        self._connections: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0, ssl=self._tls)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_exc: object) -> None:
        self._server.close()
        for connection in self._connections:
            connection.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)
        await self._server.wait_closed()

    @property
    def tokens_url(self) -> str:
        scheme = "http" if self._tls is None else "https"
        return f"{scheme}://127.0.0.1:{self.port}/v3/auth/tokens"

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = asyncio.create_task(self._serve(reader, writer))
        self._connections.add(connection)
        connection.add_done_callback(self._connections.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            first = await reader.readexactly(1)
            if first == b"\x16":  # a TLS hello: answer as web servers do on a plain port
                writer.write(reply(400, b""))
                return
            head = (first + await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            line, *rest = head.rstrip().split("\r\n")
            fields = {}
            for row in rest:
                name, _, value = row.partition(":")
                fields[name.lower()] = value.strip()
            body = await reader.readexactly(int(fields.get("content-length", "0")))
            self.requests.append((line, fields, body))
            self.asked.set()
            answer = self.script[0] if len(self.script) == 1 else self.script.popleft()
            if answer is HANG:
                await reader.read()
                self.left.set()
            else:
                writer.write(answer)
                await writer.drain()
        except (OSError, asyncio.IncompleteReadError):
            pass  # the client left: what it did is what the test looks at
        finally:
            writer.close()


def reply(
    status: int, body: bytes, fields: Mapping[str, str | bytes] | None = None, *, length: int = -1
) -> bytes:
    """Return a response; `length` other than -1 is declared instead of the true one."""
    head = [f"HTTP/1.1 {status} Any".encode()]
    for name, value in (fields or {}).items():
        head.append(name.encode() + b": " + (value if isinstance(value, bytes) else value.encode()))
    head.append(f"Content-Length: {len(body) if length < 0 else length}".encode())
    return b"\r\n".join(head) + b"\r\n\r\n" + body


def token_body(
    *,
    issued_at: str | None = "2030-01-01T00:00:00.000000Z",
    expires_at: object = "2030-01-02T00:00:00.000000Z",
    project: object = None,
    padding: int = 0,
) -> bytes:
    """Return the body of a 201."""
    token: dict[str, object] = {
        "methods": ["password"],
        "expires_at": expires_at,
        "user": {"id": "u1", "name": "infer", "domain": {"id": "d1", "name": "my-account"}},
        "project": project
        if project is not None
        else {"id": "p1", "name": "region-1", "domain": {"id": "d1", "name": "my-account"}},
        "roles": [{"id": "r1", "name": "te_admin"}, {"id": "r2", "name": "op"}],
    }
    if issued_at is not None:
        token["issued_at"] = issued_at
    return json.dumps({"token": token, "padding": "x" * padding}).encode()
