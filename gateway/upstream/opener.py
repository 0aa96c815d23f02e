"""How a connection to an origin is opened: where to, through what, and with how much patience."""

import asyncio
import ipaddress
import socket
import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, cast

from aiohappyeyeballs import start_connection

from gateway.errors import ErrorCode, UpstreamError
from gateway.http.connect import EgressProxy, tunnel_error
from gateway.upstream.connection import Connection
from gateway.upstream.tunnel import open_tunnel

_AddressInfo = tuple[socket.AddressFamily, socket.SocketKind, int, str, tuple[Any, ...]]
_NEXT_ADDRESS_S: Final = 0.25
"""When to try the next address beside one that does not answer (RFC 8305 section 8)."""
_WRITE_BUFFER_BYTES: Final = 64 * 1024
"""What may wait in memory for a service that reads slowly, per connection."""
_FRESH_S: Final = 1.0
"""For how long a look-up is used for further connections, so that a burst needs only one."""
_AGES_DIFFER_BY: Final = 0.2
"""Share of `max_age_s`. Connections that were opened together must not all end together."""
_GOLDEN: Final = 0.6180339887498949
"""Its multiples, less their whole part, are spread evenly, however many there are."""


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


class Opener:
    """Opens connections to one origin, in as few turns of the event loop as possible."""

    def __init__(self, origin: Origin, *, clock: Callable[[], float]) -> None:
        self._origin = origin
        self._clock = clock
        self._opened = 0
        self._is_address = _is_address(origin.host)
        self._resolved: tuple[Sequence[_AddressInfo], float] = ((), 0.0)
        self._looking_up: asyncio.Task[Sequence[_AddressInfo]] | None = None

    async def open(self) -> Connection:
        """Return a new connection.

        Raises:
            UpstreamError: always `replayable`, since nothing has been written.

        Cancellation: safe; nothing is left open.
        """
        origin = self._origin
        connection = Connection(self._clock() + self._next_age_s())
        try:
            async with asyncio.timeout(origin.connect_timeout_s):
                if origin.proxy is not None:
                    transport = await self._connect_through(origin.proxy, connection)
                elif self._is_address:
                    transport = await self._connect_to(origin.host, origin.port, connection)
                else:
                    transport = await self._connect_to_one_of(await self._addresses(), connection)
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
        """Resolve the name, anew after a second, so that connections follow it when it moves.

        Connections that wait at the same time share one look-up, also one that others have given
        up: it holds one of the few threads that names are looked up in, which other services and
        logins need as well. While no name server answers, what it last said holds for as long as a
        connection might.
        """
        known, since = self._resolved
        if known and self._clock() - since < _FRESH_S:
            return known
        if self._looking_up is None:
            self._looking_up = asyncio.create_task(self._look_up(), name="look-up")
            self._looking_up.add_done_callback(self._looked_up)
        return await asyncio.shield(self._looking_up)

    async def _look_up(self) -> Sequence[_AddressInfo]:
        next_hop, now = self._origin.proxy or self._origin, self._clock()
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
        stands = error.errno == socket.EAI_AGAIN and now - since < self._origin.max_age_s
        return known if stands else ()

    async def _connect_through(
        self, proxy: EgressProxy, connection: Connection
    ) -> asyncio.Transport:
        """Have a tunnel opened, and speak TLS in it."""
        origin = self._origin
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

    async def _connect_to(self, host: str, port: int, connection: Connection) -> asyncio.Transport:
        """Connect to an address: one wait, or two over TLS."""
        origin = self._origin
        transport, _ = await asyncio.get_running_loop().create_connection(
            lambda: cast(asyncio.Protocol, connection),
            host,
            port,
            ssl=origin.tls,
            server_hostname=_name_in_certificate(origin),
        )
        return transport

    async def _connect_to_one_of(
        self, addresses: Sequence[_AddressInfo], connection: Connection
    ) -> asyncio.Transport:
        """Connect to whichever address answers first, trying them a little apart (RFC 8305)."""
        if len(addresses) == 1:
            host, port = addresses[0][4][:2]
            return await self._connect_to(str(host), int(port), connection)
        origin, loop = self._origin, asyncio.get_running_loop()
        sock = await start_connection(
            addresses, happy_eyeballs_delay=_NEXT_ADDRESS_S, interleave=1, loop=loop
        )
        try:
            transport, _ = await loop.create_connection(
                lambda: cast(asyncio.Protocol, connection),
                sock=sock,
                ssl=origin.tls,
                server_hostname=_name_in_certificate(origin),
            )
        except BaseException:
            sock.close()
            raise
        return transport

    def _next_age_s(self) -> float:
        """Return how long the next connection may be used."""
        share = self._opened * _GOLDEN % 1.0
        self._opened += 1
        return self._origin.max_age_s * (1.0 - _AGES_DIFFER_BY * share)


def _is_address(host: str) -> bool:
    """Whether `host` is an IP address, which needs no look-up."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _name_in_certificate(origin: Origin) -> str | None:
    """Return the name that TLS asks for and verifies; None without TLS."""
    return (origin.server_name or origin.host) if origin.tls else None


def _unconnected(code: ErrorCode, detail: str) -> UpstreamError:
    return UpstreamError(code, detail, replayable=True)
