"""The data listener: aiohttp's low-level server, with connections of our own."""

import asyncio
from typing import cast

from aiohttp import web

from gateway.downstream.client_names import ClientNames
from gateway.downstream.connection import CROWD, ClientConnection
from gateway.downstream.memory_budget import MemoryBudget
from gateway.proxy.context import ExchangeContext

REFUSED_POLITELY = 16
"""Connections that may be told so at a time; an answer takes up to 2 s to arrive for sure."""


class DataListener(web.Server):
    """Makes and knows the clients' connections; no router, application, or error pages."""

    def __init__(
        self,
        context: ExchangeContext,
        *,
        max_connections: int = 10_000,
        max_memory: int = 256 * 2**20,
    ) -> None:
        super().__init__(_unused)
        self.context = context
        self.memory = MemoryBudget(
            max_memory, self.clients, lambda: context.replay_budget.kept_bytes
        )
        self.draining = False
        """Set when the gateway is on its way out: answers are the last on their connections."""
        self.closed = False
        """Set when that has been announced for long enough: no request is begun any more."""
        self.clients_by_name: ClientNames | None = None
        """Who may call, by client certificate; None: no certificate is asked for."""
        self._max_connections = max_connections
        self._count = 0
        self._all_ended: asyncio.Event | None = None

    def __call__(self) -> web.RequestHandler:
        """Make the protocol of a new connection; it need not be one of aiohttp's."""
        return cast(web.RequestHandler, ClientConnection(self))

    def clients(self) -> list[ClientConnection]:
        """Return the open connections."""
        return cast(list[ClientConnection], self.connections)

    @property
    def crowded(self) -> bool:
        """Whether a further connection has to make do with less memory."""
        return self._count > CROWD

    @property
    def full(self) -> bool:
        """Whether there are more connections than are served, the newest among them."""
        return self._count > self._max_connections

    @property
    def flooded(self) -> bool:
        """Whether there are so many that not even a 503 can be sent."""
        return self._count > self._max_connections + REFUSED_POLITELY

    def bars(self, transport: asyncio.Transport) -> bool:
        """Return whether the client's certificate is not one of those that may call."""
        names = self.clients_by_name
        return names is not None and not names.admit(transport.get_extra_info("peercert"))

    def connection_made(self, handler: web.RequestHandler, transport: asyncio.Transport) -> None:
        """Count a connection."""
        self._count += 1
        super().connection_made(handler, transport)

    def connection_lost(
        self, handler: web.RequestHandler, exc: BaseException | None = None
    ) -> None:
        """Count one less."""
        self._count -= 1
        super().connection_lost(handler, exc)

    async def drain(self, timeout_s: float) -> bool:
        """Close idle connections, and wait until requests in flight have been answered.

        Returns:
            Whether that was so before `timeout_s` were over; what was not is broken off.
        """
        await asyncio.sleep(0)  # a request that had arrived by now is read, and is one in flight
        self.closed = True
        self._all_ended = asyncio.Event()
        for client in self.clients():
            client.drain()
        self.note_end()
        try:
            async with asyncio.timeout(timeout_s):
                await self._all_ended.wait()
        except TimeoutError:
            for client in self.clients():
                client.stream.abort()
            return False
        return True

    def note_end(self) -> None:
        """Called when a request has been answered; during a drain it may have been the last."""
        if self._all_ended is not None and not any(client.busy for client in self.clients()):
            self._all_ended.set()


async def _unused(request: web.BaseRequest) -> web.StreamResponse:
    """Stand where aiohttp wants a handler: connections begin exchanges themselves."""
    raise NotImplementedError(request)
