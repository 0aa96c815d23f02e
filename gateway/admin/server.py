"""The admin listener's connections: their number is limited, and a probe always gets one."""

import asyncio
from typing import Final

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from gateway.admin.connection import MAX_HEAD_BYTES, AdminConnection
from gateway.clock import wall_clock
from gateway.http.date import DateField

MOST_CONNECTIONS: Final = 32
"""More than probes, scrapers and people together need."""
MOST_FRESH: Final = 64
"""Most connections while new ones have not sent anything yet."""
_FRESH_S: Final = 0.05
_BACKLOG: Final = 4096
"""Connections that may wait in a flood; beyond it a probe's would only be tried again after 1 s."""
_END_S: Final = 1.0
"""Seconds for which responses may delay the end of the process."""


class AdminServer:
    """Serves an application within bounds of its own, so that no client can keep others out.

    Invariants: at most `MOST_FRESH` connections are open, and soon at most `MOST_CONNECTIONS`: the
    one that has been silent longest is closed for a new one, those that wait for an answer last.
    """

    def __init__(self, application: web.Application) -> None:
        """Take an application, which must not be frozen yet."""
        application.middlewares.insert(0, self._noting_answers())
        application.on_response_prepare.append(_without_versions)
        self._runner = web.AppRunner(
            application,
            access_log=None,
            handle_signals=False,
            shutdown_timeout=_END_S,
            auto_decompress=False,
            max_line_size=MAX_HEAD_BYTES,
            max_field_size=MAX_HEAD_BYTES,
        )
        self._dates = DateField(wall_clock)
        self._server: asyncio.Server | None = None
        self._open: dict[AdminConnection, None] = {}  # the one that is silent longest is first
        self._shedding: asyncio.TimerHandle | None = None

    async def start(self, host: str, port: int) -> tuple[str, int]:
        """Listen; return where.

        Raises:
            OSError: the address cannot be bound.
        """
        await self._runner.setup()
        self._server = await asyncio.get_running_loop().create_server(
            self._make, host, port, backlog=_BACKLOG
        )
        bound_host, bound_port = self._server.sockets[0].getsockname()[:2]
        return str(bound_host), int(bound_port)

    async def start_unix(self, path: str) -> None:
        """Listen on a socket file.

        Raises:
            OSError: the file cannot be made.
        """
        await self._runner.setup()
        self._server = await asyncio.get_running_loop().create_unix_server(
            self._make, path, backlog=_BACKLOG
        )

    async def close(self) -> None:
        """Stop listening; answers under way have a second."""
        if self._server is not None:
            self._server.close()
        await self._runner.cleanup()
        if self._shedding is not None:
            self._shedding.cancel()
        for connection in list(self._open):
            connection.close()

    # Called by connections: `ConnectionOwner`.

    def opened(self, connection: AdminConnection) -> None:
        """Make room for it."""
        self._open[connection] = None
        if len(self._open) > MOST_FRESH:
            self._shed(MOST_FRESH)
        elif len(self._open) > MOST_CONNECTIONS and self._shedding is None:
            loop = asyncio.get_running_loop()
            self._shedding = loop.call_later(_FRESH_S, self._shed_silent)

    def heard(self, connection: AdminConnection) -> None:
        """Note that it has just been active, so that it is the last one to be closed."""
        if connection in self._open:
            del self._open[connection]
            self._open[connection] = None

    def lost(self, connection: AdminConnection) -> None:
        """Forget it."""
        self._open.pop(connection, None)

    def _shed_silent(self) -> None:
        self._shedding = None
        self._shed(MOST_CONNECTIONS)

    def _shed(self, most: int) -> None:
        """Close connections until there are `most`."""
        silent = [connection for connection in self._open if not connection.answering]
        answering = [connection for connection in self._open if connection.answering]
        for connection in [*silent, *answering][: len(self._open) - most]:
            self._open.pop(connection)
            connection.close()

    def _make(self) -> AdminConnection:
        server = self._runner.server
        if server is None:
            raise RuntimeError("the admin listener has been closed")
        return AdminConnection(self, server, self._dates)

    def _noting_answers(self) -> Middleware:
        """Return a middleware that tells the connection when its request has been handled."""

        @web.middleware
        async def note(request: web.Request, handler: Handler) -> web.StreamResponse:
            transport = request.transport
            try:
                return await handler(request)
            finally:
                for connection in self._open:
                    if connection.transport is transport:
                        connection.answered()
                        break

        return note


async def _without_versions(_request: web.Request, response: web.StreamResponse) -> None:
    """Remove the `Server` field, which names aiohttp and Python."""
    response.headers.pop("Server", None)
