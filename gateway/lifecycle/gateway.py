"""The running gateway: its listeners, and its life from start through drain to stop."""

import asyncio
import logging
import os
import socket
from collections.abc import Sequence
from typing import Any

from gateway.admin.listener import Reload, admin_application
from gateway.admin.server import AdminServer
from gateway.admin.status.history import History
from gateway.http.host import AllowedHosts
from gateway.identity.report import IdentityStatus
from gateway.lifecycle.background import in_background
from gateway.lifecycle.backlog import accept_the_last
from gateway.lifecycle.binding import binding
from gateway.lifecycle.burst import BurstServer
from gateway.lifecycle.parts import Parts, Rebuild
from gateway.lifecycle.reloading import Reloader
from gateway.lifecycle.socket_file import SocketFile
from gateway.lifecycle.supervisor import Supervisor, heartbeat
from gateway.observe.access_log import Record
from gateway.settings.effective import EffectiveValue

_log = logging.getLogger("gateway.lifecycle")


class Gateway:
    """Owns what `Parts` lists, from `start` to `stop`.

    Invariants: no secret is read and no connection made before `start`; `stop` leaves no task,
    connection, listener or socket file behind.
    """

    def __init__(
        self,
        parts: Parts,
        *,
        rebuild: Rebuild | None = None,
        supervisor: Supervisor | None = None,
    ) -> None:
        """Take the parts; without `rebuild` the configuration cannot be reloaded."""
        self._supervisor = supervisor or Supervisor()
        self._reloader = Reloader(parts, rebuild, self._supervisor)
        self._clock = parts.data.context.clock
        self._started_at = self._clock()
        self._data_server: BurstServer | None = None
        self._socket_file: SocketFile | None = None
        self._token_file: SocketFile | None = None
        self._admin: AdminServer | None = None
        self._history = History(parts.metrics)
        self._beating: list[asyncio.Task[None]] = []
        self.quit_requested = asyncio.Event()
        """Set when somebody has asked the gateway to end."""

    @property
    def _parts(self) -> Parts:
        return self._reloader.parts

    @property
    def started(self) -> bool:
        """Whether both listeners are open."""
        return self._reloader.started

    @property
    def draining(self) -> bool:
        """Whether the gateway is shutting down."""
        return self._parts.data.draining

    def services(self) -> dict[str, str]:
        """Return the identity of each service."""
        return dict(self._parts.identity_of)

    def identities(self) -> dict[str, IdentityStatus]:
        """Return the present state of each identity."""
        now = self._clock()
        return {name: cache.status(now) for name, cache in self._parts.credential_caches.items()}

    def uptime_s(self) -> float:
        """Return for how long the gateway has been running."""
        return self._clock() - self._started_at

    @property
    def admin_hosts(self) -> AllowedHosts:
        """Names under which people may ask."""
        return self._parts.admin_hosts

    def wall_time_s(self) -> float:
        """Return the time of day, for people."""
        return self._parts.data.context.observer.wall_clock()

    def latest_requests(self, *, failed: bool = False) -> list[tuple[float, Record]]:
        """Return the latest requests, newest first, each with its end since the epoch."""
        return self._parts.data.context.observer.latest(failed=failed)

    def configuration(self) -> Sequence[EffectiveValue]:
        """Return the settings in force, secrets masked."""
        return self._parts.configuration

    async def start(self) -> tuple[str, str]:
        """Open both listeners and begin to log in; does not wait for IAM.

        Returns:
            Where callers and where scrapers connect, as URLs (`unix:…` for a socket).

        Raises:
            OSError: an address cannot be bound; its text names the key and the remedy. Nothing is
                left open.
        """
        parts = self._parts
        self._beating = [
            in_background(heartbeat(self._supervisor, parts.metrics.loop_lag), "heartbeat"),
            in_background(self._history.keep(self.uptime_s), "history"),
        ]
        try:
            self._admin = AdminServer(
                admin_application(
                    self,
                    parts.metrics,
                    self._history,
                    quit_requested=self.quit_requested.set if parts.quit_enabled else None,
                    reload=self._reloader.reload if self._reloader.possible else None,
                )
            )
            with binding("admin_listen", parts.admin_listen):
                admin_url = await self._open_admin(self._admin)
            if parts.token_listen is not None:
                with binding("token_listen", parts.token_listen):
                    await self._open_tokens()
            with binding("listen", parts.listen):
                data_url = await self._open_data()
        except BaseException:
            await self.stop(drain=False)
            raise
        self._reloader.listen_again = self._listen_again
        self._reloader.start()
        await asyncio.gather(*(sinks.begun() for sinks in parts.sinks.values()))
        self._supervisor.ready(f"serving on {data_url}, admin on {admin_url}")
        return data_url, admin_url

    async def reload(self) -> Reload:
        """Put the configuration in force as it reads now; see `Reloader.reload`."""
        return await self._reloader.reload()

    async def stop(self, *, drain: bool = True) -> None:
        """End in order: withdraw readiness, go on accepting, close, let requests finish.

        Args:
            drain: False breaks off requests in flight instead of waiting for them.
        """
        parts = self._parts  # no reload is put in force from here on
        parts.data.announce_end()
        self._supervisor.stopping()
        began = self._clock()
        if drain and self._data_server is not None:
            _log.info(
                "drain begins: not ready from now on, accepting for %g s more, %s",
                *(parts.announce_s, self._in_flight()),
            )
            await asyncio.sleep(parts.announce_s)
        if self._socket_file is not None:
            self._socket_file.remove()
        if (server := self._data_server) is not None:
            if drain:
                await accept_the_last(server.sockets, lambda: server.waiting)
            server.close()
        self._close_tokens()
        in_flight, timeout_s = self._in_flight(), parts.drain_s if drain else 0.0
        if not await parts.data.drain(timeout_s, shakes_hands=parts.listen_tls is not None):
            _log.warning("requests still in flight were cut off; there were %s", in_flight)
        elif drain:
            _log.info("drain ends after %.1f s: all answered", self._clock() - began)
        await parts.data.shutdown(0)
        await self._reloader.stop()
        for service in parts.services:
            service.pool.close()
        parts.data.context.deadlines.close()
        parts.data.context.observer.close()
        if self._admin is not None:
            await self._admin.close()
        for task in self._beating:
            task.cancel()
        await asyncio.gather(*self._beating, return_exceptions=True)
        self._supervisor.close()

    def _in_flight(self) -> str:
        count = sum(client.busy for client in self._parts.data.clients())
        return f"{count} request{'s'[: count != 1]} in flight"

    async def _open_admin(self, admin: AdminServer) -> str:
        address = self._parts.admin_listen
        if address.path:
            await admin.start_unix(address.path)
            return f"unix:{address.path}"
        return _url(await admin.start(address.host, address.port))

    async def _open_tokens(self) -> None:
        address, tokens = self._parts.token_listen, self._parts.tokens
        if address is None or tokens is None:
            return
        if address.path:
            self._token_file = SocketFile(address.path, self._parts.token_socket_mode)
            await tokens.start_unix(self._token_file.socket)
            _log.info("token endpoint on %s", address)
        else:
            bound = await tokens.start(address.host, address.port)
            _log.info("token endpoint on %s", _url(bound))

    def _close_tokens(self) -> None:
        if self._parts.tokens is not None:
            self._parts.tokens.close()
        if self._token_file is not None:
            self._token_file.remove()

    async def _open_data(self) -> str:
        address, loop = self._parts.listen, asyncio.get_running_loop()
        if address.path:
            self._socket_file = SocketFile(address.path, self._parts.socket_mode)
            self._data_server = await BurstServer.open(
                self._parts.data,
                None,
                loop.create_unix_server,
                sock=self._socket_file.socket,
            )
            return f"unix:{address.path}"
        self._data_server = await BurstServer.open(
            self._parts.data,
            self._parts.listen_tls,
            loop.create_server,
            address.host,
            address.port,
            reuse_port=self._parts.reuse_port or None,
        )
        is_tls = self._parts.listen_tls is not None
        return _url(self._data_server.sockets[0].getsockname(), is_tls=is_tls)

    async def _listen_again(self) -> None:
        """Accept with the new certificates, on the same socket: nobody is refused meanwhile."""
        old = self._data_server
        if old is None or self._parts.data.draining:
            return
        same = socket.socket(fileno=os.dup(old.sockets[0].fileno()))
        self._data_server = await BurstServer.open(
            self._parts.data,
            self._parts.listen_tls,
            asyncio.get_running_loop().create_server,
            sock=same,
        )
        old.close()


def _url(address: tuple[Any, ...], *, is_tls: bool = False) -> str:
    host, port = address[0], address[1]
    scheme = "https" if is_tls else "http"
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"
