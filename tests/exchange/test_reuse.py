"""Connections to a service are used again, however many requests are under way at a time."""

import asyncio
import ssl
from contextlib import AsyncExitStack
from pathlib import Path
from typing import cast

import pytest
import trustme

from tests.support.gateway import POST, running_gateway
from tests.support.upstream import OK

CALLERS = 900
STEADY_REQUESTS = 3
"""Of each caller, after the one with which the connections are opened."""


class CountingService:
    """Counts the connections that it accepts; answers at first when all callers have asked."""

    def __init__(self) -> None:
        self.accepted: list[ServiceConnection] = []
        self._held: list[ServiceConnection] | None = []

    def asked(self, connection: "ServiceConnection") -> None:
        """Answer, or wait for the others."""
        if self._held is None:
            connection.transport.write(OK)
            return
        self._held.append(connection)
        if len(self._held) == CALLERS:
            for held in self._held:
                held.transport.write(OK)
            self._held = None

    def close(self) -> None:
        for connection in self.accepted:
            connection.transport.abort()


class ServiceConnection(asyncio.Protocol):
    """One connection of the service."""

    def __init__(self, service: CountingService) -> None:
        self.transport: asyncio.Transport
        self._service = service
        self._pending = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self._service.accepted.append(self)

    def data_received(self, data: bytes) -> None:
        self._pending += data
        if self._pending.endswith(b"\r\n\r\n{}"):
            self._pending = b""
            self._service.asked(self)


class ClosedLoop(asyncio.Protocol):
    """A caller who asks again as soon as it is answered, as often as there are `turns`."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport
        self.turns = 0
        self.answered = 0
        self.done: asyncio.Future[None]
        self._pending = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def ask(self, turns: int) -> asyncio.Future[None]:
        """Begin; return what is done when the last answer is here."""
        self.turns = turns
        self.done = asyncio.get_running_loop().create_future()
        self.transport.write(POST)
        return self.done

    def data_received(self, data: bytes) -> None:
        self._pending += data
        if not self._pending.startswith(b"HTTP/1.1 200 "):
            self.done.set_exception(AssertionError(self._pending))
            self.transport.abort()
            return
        if not self._pending.endswith(b"\r\n\r\nok"):
            return
        self._pending = b""
        self.turns -= 1
        self.answered += 1
        if self.turns:
            self.transport.write(POST)
        else:
            self.done.set_result(None)

    def connection_lost(self, _exc: Exception | None) -> None:
        if not self.done.done():
            self.done.set_exception(ConnectionError("closed unanswered"))


@pytest.mark.parametrize(
    "secure",
    [pytest.param(False, id="plain"), pytest.param(True, id="tls", marks=pytest.mark.long)],
)
async def test_nearly_every_request_of_a_steady_load_finds_a_connection(
    secure: bool, tmp_path: Path
) -> None:
    """At 900 callers, 99.9 % and more; what is accepted is counted at the service."""
    tls, ca_file = None, tmp_path / "ca.pem"
    if secure:
        authority = trustme.CA()
        authority.cert_pem.write_to_path(str(ca_file))
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("127.0.0.1").configure_cert(tls)
    service = CountingService()
    loop = asyncio.get_running_loop()
    async with AsyncExitStack() as stack:
        server = await loop.create_server(
            lambda: ServiceConnection(service), "127.0.0.1", 0, backlog=1024,
            ssl=tls,
        )  # fmt: skip
        stack.callback(server.close)
        stack.callback(service.close)
        gateway = await stack.enter_async_context(
            running_gateway(
                server.sockets[0].getsockname()[1],
                scheme="https" if secure else "http",
                service={
                    "tls": {"ca_file": str(ca_file)} if secure else {},
                    "timeouts": {"connect": "10m", "first_byte": "10m"},  # of a busy machine
                },
            )
        )
        callers = []
        for _ in range(CALLERS):
            _, caller = await loop.create_connection(ClosedLoop, "127.0.0.1", gateway.port)
            stack.callback(caller.transport.abort)
            callers.append(caller)
        await asyncio.gather(*(caller.ask(1) for caller in callers))
        at_first = len(service.accepted)
        await asyncio.gather(*(caller.ask(STEADY_REQUESTS) for caller in callers))
        opened = len(service.accepted) - at_first
        answered = sum(caller.answered for caller in callers)

    assert at_first == CALLERS
    assert answered == CALLERS * (1 + STEADY_REQUESTS)
    assert opened <= CALLERS * STEADY_REQUESTS / 1000
