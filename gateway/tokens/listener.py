"""The token endpoint: other data planes ask it for the credential that they send.

It has a listener of its own, because every program that can connect to it gets the token.
"""

import asyncio
import socket
from collections.abc import Mapping
from typing import Final

from gateway.clock import Clock
from gateway.errors import DownstreamError, ErrorCode
from gateway.http.host import AllowedHosts
from gateway.tokens.connection import CredentialsOfIdentity, TokenConnection

MOST_CONNECTIONS: Final = 512
"""Most connections at a time, where there are files for as many."""
_BACKLOG: Final = 1024


class TokenListener:
    """Owns the endpoint's listener and connections, from `start` to `close`."""

    def __init__(
        self,
        clock: Clock,
        hosts: AllowedHosts | None,
        *,
        most_connections: int = MOST_CONNECTIONS,
    ) -> None:
        """Prepare to listen.

        Args:
            clock: of credentials.
            hosts: Host values that are accepted; None: any, on a socket file.
            most_connections: at a time; for a further one the one silent longest is closed.
        """
        self._clock = clock
        self._hosts = hosts
        self._most_connections = most_connections
        self._server: asyncio.Server | None = None
        self._open: dict[TokenConnection, None] = {}  # the one that is silent longest is first
        self.sources: Mapping[str, CredentialsOfIdentity] = {}
        """Credentials by service; replaced by a reload."""

    async def start(self, host: str, port: int) -> tuple[str, int]:
        """Listen on a loopback address; return where.

        Raises:
            OSError: the address cannot be bound.
        """
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(self._make, host, port, backlog=_BACKLOG)
        bound_host, bound_port = self._server.sockets[0].getsockname()[:2]
        return str(bound_host), int(bound_port)

    async def start_unix(self, bound: socket.socket) -> None:
        """Listen on a socket that is bound to a file."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_unix_server(self._make, sock=bound, backlog=_BACKLOG)

    def close(self) -> None:
        """Stop listening and close all connections."""
        if self._server is not None:
            self._server.close()
        for connection in list(self._open):
            connection.close()

    # For the connections: `TokenOwner`.

    def now(self) -> float:
        """Return the time by the clock of credentials."""
        return self._clock()

    def admit(self, host: bytes | None) -> None:
        """Return if this Host value is allowed.

        Raises:
            DownstreamError: it may not.
        """
        if self._hosts is not None and host is not None:
            self._hosts.admit(host)

    def find(self, service: str) -> CredentialsOfIdentity:
        """Return the credentials of a service.

        Raises:
            DownstreamError: there is no such service.
        """
        source = self.sources.get(service)
        if source is None:
            raise DownstreamError(ErrorCode.UNKNOWN_SERVICE)
        return source

    def opened(self, connection: TokenConnection) -> None:
        """Make room for it."""
        self._open[connection] = None
        if len(self._open) > self._most_connections:
            silent = next(iter(self._open))
            del self._open[silent]
            silent.close()

    def heard(self, connection: TokenConnection) -> None:
        """Note that it has just been active, so that it is the last one to be closed."""
        if connection in self._open:
            del self._open[connection]
            self._open[connection] = None

    def lost(self, connection: TokenConnection) -> None:
        """Forget it."""
        self._open.pop(connection, None)

    def _make(self) -> TokenConnection:
        return TokenConnection(self)
