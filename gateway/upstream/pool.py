"""The connections to one origin: which to use, which to keep, and how to open another."""

import asyncio
import socket
import ssl
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, cast

from aiohappyeyeballs import start_connection
from mypy_extensions import mypyc_attr

from gateway.errors import ErrorCode, UpstreamError
from gateway.http.connect import EgressProxy, tunnel_error
from gateway.upstream.connection import Connection
from gateway.upstream.tunnel import open_tunnel

_AddressInfo = tuple[socket.AddressFamily, socket.SocketKind, int, str, tuple[Any, ...]]
_NEXT_ADDRESS_S: Final = 0.25
"""When to try the next address beside one that does not answer (RFC 8305 section 8)."""
_WRITE_BUFFER_BYTES: Final = 64 * 1024
"""What may wait in memory for a service that reads slowly, per connection."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Where a service lives and how it is reached."""

    host: str
    port: int
    tls: ssl.SSLContext | None = None
    server_name: str | None = None
    """Name in the handshake and in the certificate, when it differs from `host`."""
    connect_timeout_s: float = 5.0
    """Name resolution, TCP, the proxy and TLS together."""
    proxy: EgressProxy | None = None
    """What opens a tunnel to `host` and `port`; only with `tls`."""
    idle_limit_s: float = 30.0
    """Below the 60 s after which gateways and load balancers commonly close, so that the race
    between their closing and our writing is rare."""
    max_age_s: float = 300.0
    """Busy connections, too, must follow a name to its new address in the end."""
    max_idle: int = 64


@mypyc_attr(allow_interpreted_subclasses=True)
class Pool:
    """Connections to one origin; all state changes are synchronous.

    Invariants:
        - a connection is handed to one exchange at a time, and only while `reusable`;
        - no more than `max_idle` are kept, none longer than `idle_limit_s` or `max_age_s`;
        - `active` + `idle` is the number of open connections we answer for.
    """

    def __init__(self, origin: Origin, *, clock: Callable[[], float]) -> None:
        self.origin = origin
        self.active = 0
        """Connections that an exchange holds, or is opening."""
        self._clock = clock
        self._closed = False
        self._idle: deque[Connection] = deque()  # the most recently used is last
        self._sweep: asyncio.TimerHandle | None = None
        self._resolved: tuple[Sequence[_AddressInfo], float] = ((), 0.0)
        self._looking_up: asyncio.Task[Sequence[_AddressInfo]] | None = None

    def __repr__(self) -> str:
        return f"<Pool active={self.active} idle={len(self._idle)}>"

    @property
    def idle(self) -> int:
        """Connections kept for the next exchange; one that died since is not counted."""
        return sum(connection.reusable for connection in self._idle)

    def take(self, now: float) -> Connection | None:
        """Hand out the most recently used idle connection, or None when there is no good one."""
        while self._idle:
            connection = self._idle.pop()
            if connection.reusable and now < connection.good_until:
                self.active += 1
                return connection
            connection.close()
        return None

    async def connect(self) -> Connection:
        """Open a connection.

        Raises:
            UpstreamError: always `replayable`, since nothing has been written.

        Cancellation: safe; nothing is left open.
        """
        self.active += 1
        try:
            return await self._open()
        except BaseException:
            self.active -= 1
            raise

    def give_back(self, connection: Connection, now: float) -> None:
        """Take a connection back after its exchange; keep it if it can serve another."""
        origin, idle = self.origin, self._idle
        self.active -= 1
        if len(idle) >= origin.max_idle:
            self._drop_stale(now)  # a dead one must not take the place of a good one
        too_old_at = connection.opened_at + origin.max_age_s
        if (
            connection.reusable
            and now < too_old_at
            and not self._closed
            and len(idle) < origin.max_idle
        ):
            idle_until = now + origin.idle_limit_s
            connection.good_until = min(idle_until, too_old_at)
            idle.append(connection)
            if self._sweep is None:
                self._sweep_later()
        else:
            connection.close()

    def close(self) -> None:
        """Close every idle connection; those in use are closed when they come back."""
        self._closed = True
        if self._sweep is not None:
            self._sweep.cancel()
            self._sweep = None
        while self._idle:
            self._idle.pop().close()

    def _sweep_later(self) -> None:
        self._sweep = asyncio.get_running_loop().call_later(
            self.origin.idle_limit_s, self._close_stale
        )

    def _close_stale(self) -> None:
        self._sweep = None
        self._drop_stale(self._clock())
        if self._idle:
            self._sweep_later()

    def _drop_stale(self, now: float) -> None:
        stale = [
            connection
            for connection in self._idle
            if not connection.reusable or now >= connection.good_until
        ]
        for connection in stale:
            self._idle.remove(connection)
            connection.close()

    async def _open(self) -> Connection:
        origin = self.origin
        connection = Connection(self._clock())
        try:
            async with asyncio.timeout(origin.connect_timeout_s):
                if origin.proxy is None:
                    transport = await self._connect_to_one_of(await self._addresses(), connection)
                else:
                    transport = await self._connect_through(origin.proxy, connection)
        except asyncio.CancelledError:
            connection.abort()  # it may have been opened before the cancellation arrived
            raise
        except TimeoutError as cause:
            connection.abort()
            raise _unconnected(ErrorCode.CONNECTION_TIMEOUT, "connect deadline") from cause
        except socket.gaierror as cause:
            raise _unconnected(ErrorCode.DNS_ERROR, f"name resolution: {cause.errno}") from cause
        except ssl.SSLCertVerificationError as cause:
            raise _unconnected(ErrorCode.TLS_CERTIFICATE_ERROR, cause.verify_message) from cause
        except (ssl.SSLError, ssl.CertificateError, ConnectionResetError) as cause:
            code = ErrorCode.TLS_PROTOCOL_ERROR if origin.tls else ErrorCode.CONNECTION_REFUSED
            raise _unconnected(code, type(cause).__name__) from cause
        except OSError as cause:
            raise _unconnected(ErrorCode.CONNECTION_REFUSED, f"errno {cause.errno}") from cause
        transport.set_write_buffer_limits(high=_WRITE_BUFFER_BYTES)
        return connection

    async def _addresses(self) -> Sequence[_AddressInfo]:
        """Resolve the name, anew for each connection, so that they follow it when it moves.

        Connections that wait at the same time share one look-up, also one that others have given
        up: it holds one of the few threads that names are looked up in, which other services and
        logins need as well. While no name server answers, what it last said holds for as long as a
        connection might.
        """
        if self._looking_up is None:
            self._looking_up = asyncio.create_task(self._look_up(), name="look-up")
            self._looking_up.add_done_callback(self._looked_up)
        return await asyncio.shield(self._looking_up)

    async def _look_up(self) -> Sequence[_AddressInfo]:
        next_hop, now = self.origin.proxy or self.origin, self._clock()
        try:
            found = await asyncio.get_running_loop().getaddrinfo(
                next_hop.host, next_hop.port, type=socket.SOCK_STREAM
            )
        except socket.gaierror as error:
            if known := self._still_known_after(error, now):
                return known
            raise
        self._resolved = (found, now)
        return found

    def _looked_up(self, task: asyncio.Task[Sequence[_AddressInfo]]) -> None:
        self._looking_up = None
        if not task.cancelled():
            task.exception()  # seen, even if everybody who asked has left

    def _still_known_after(self, error: socket.gaierror, now: float) -> Sequence[_AddressInfo]:
        known, since = self._resolved
        stands = error.errno == socket.EAI_AGAIN and now - since < self.origin.max_age_s
        return known if stands else ()

    async def _connect_through(
        self, proxy: EgressProxy, connection: Connection
    ) -> asyncio.Transport:
        """Have a tunnel opened, and speak TLS in it."""
        origin = self.origin
        try:
            sock = await start_connection(
                await self._addresses(), happy_eyeballs_delay=_NEXT_ADDRESS_S, interleave=1
            )
        except OSError as cause:  # a name that cannot be resolved, too
            raise tunnel_error(f"it cannot be connected to ({type(cause).__name__})") from cause
        try:
            await open_tunnel(sock, proxy, origin.host, origin.port)
            transport, _ = await asyncio.get_running_loop().create_connection(
                lambda: cast(asyncio.Protocol, connection),
                sock=sock,
                ssl=origin.tls,
                server_hostname=origin.server_name or origin.host,
            )
        except BaseException:
            sock.close()
            raise
        return transport

    async def _connect_to_one_of(
        self, addresses: Sequence[_AddressInfo], connection: Connection
    ) -> asyncio.Transport:
        """Connect to whichever address answers first, trying them a little apart (RFC 8305)."""
        origin, loop = self.origin, asyncio.get_running_loop()
        server_hostname = (origin.server_name or origin.host) if origin.tls else None
        if len(addresses) == 1:
            host, port = addresses[0][4][:2]
            transport, _ = await loop.create_connection(
                lambda: cast(asyncio.Protocol, connection), str(host), int(port),
                ssl=origin.tls, server_hostname=server_hostname,
            )  # fmt: skip
            return transport
        sock = await start_connection(
            addresses, happy_eyeballs_delay=_NEXT_ADDRESS_S, interleave=1, loop=loop
        )
        try:
            transport, _ = await loop.create_connection(
                lambda: cast(asyncio.Protocol, connection),
                sock=sock,
                ssl=origin.tls,
                server_hostname=server_hostname,
            )
        except BaseException:
            sock.close()
            raise
        return transport


def _unconnected(code: ErrorCode, detail: str) -> UpstreamError:
    return UpstreamError(code, detail, replayable=True)
