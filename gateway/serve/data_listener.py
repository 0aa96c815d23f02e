"""The data listener: aiohttp's low-level server, with connections of our own."""

import asyncio

from aiohttp import web

from gateway.proxy.exchange import Proxy
from gateway.serve.downstream import DownstreamConnection


class DataListener(web.Server):
    """Makes and knows the callers' connections; no router, application, or error pages."""

    def __init__(self, proxy: Proxy) -> None:
        super().__init__(_unused)
        self.proxy = proxy
        self.draining = False
        """Set when the gateway is on its way out: answers are the last on their connections."""
        self._all_ended: asyncio.Event | None = None

    def __call__(self) -> DownstreamConnection:
        """Make the protocol of a new connection."""
        return DownstreamConnection(self, self)

    async def drain(self, timeout_s: float) -> bool:
        """Close idle connections, and wait until requests in flight have been answered.

        Returns:
            Whether that was so before `timeout_s` were over; what was not is broken off.
        """
        self._all_ended = asyncio.Event()
        for connection in self.connections:
            if isinstance(connection, DownstreamConnection) and not connection.busy:
                connection.force_close()
        self.note_end()
        try:
            async with asyncio.timeout(timeout_s):
                await self._all_ended.wait()
        except TimeoutError:
            for connection in self.connections:
                if isinstance(connection, DownstreamConnection):
                    connection.abort()
            return False
        return True

    def note_end(self) -> None:
        """Hear that a request has been answered; during a drain it may have been the last."""
        if self._all_ended is not None and not any(
            isinstance(connection, DownstreamConnection) and connection.busy
            for connection in self.connections
        ):
            self._all_ended.set()


async def _unused(request: web.BaseRequest) -> web.StreamResponse:
    """Stand where aiohttp wants a handler: connections begin exchanges themselves."""
    raise NotImplementedError(request)
