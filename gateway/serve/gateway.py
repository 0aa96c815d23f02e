"""The running gateway: its listeners, and its life from start through drain to stop."""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from gateway.identity.keeper import Keeper
from gateway.identity.report import KeeperStatus
from gateway.observe.metrics import Metrics
from gateway.proxy.service import Service
from gateway.serve.admin import admin_application
from gateway.serve.data_listener import DataListener

_log = logging.getLogger("gateway.serve")


@dataclass(frozen=True, slots=True)
class Address:
    """Where a listener is: TCP when `path` is empty, else a Unix socket."""

    host: str
    port: int
    path: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What a gateway is made of; built in cli/, started and stopped here."""

    data: DataListener
    services: Sequence[Service]
    identity_of: Mapping[str, str]
    """Name of the identity, by name of the service."""
    keepers: Mapping[str, Keeper]
    watchers: Sequence[Callable[[], Coroutine[Any, Any, None]]]
    """Each makes a coroutine that watches a secret's file until it is cancelled."""
    metrics: Metrics
    listen: Address
    admin_listen: Address
    quit_enabled: bool
    announce_s: float
    """How long to go on accepting after readiness is withdrawn."""
    drain_s: float
    """How long requests in flight may then take."""


class Gateway:
    """Owns what `Parts` lists, from `start` to `stop`.

    Invariants: no secret is read and no connection made before `start`; `stop` leaves no task,
    connection or listener behind.
    """

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._clock = parts.data.proxy.clock
        self._started_at = self._clock()
        self._data_server: asyncio.Server | None = None
        self._admin: web.AppRunner | None = None
        self._watching: list[asyncio.Task[None]] = []
        self.started = False
        self.quit_requested = asyncio.Event()
        """Set when somebody has asked the gateway to end."""

    @property
    def draining(self) -> bool:
        """Whether the gateway is on its way out."""
        return self._parts.data.draining

    def services(self) -> dict[str, str]:
        """Return the identity of each service."""
        return dict(self._parts.identity_of)

    def identities(self) -> dict[str, KeeperStatus]:
        """Return the present state of each identity."""
        now = self._clock()
        return {name: keeper.status(now) for name, keeper in self._parts.keepers.items()}

    def uptime_s(self) -> float:
        """Return for how long the gateway has been running."""
        return self._clock() - self._started_at

    async def start(self) -> tuple[str, str]:
        """Open both listeners and begin to log in; does not wait for IAM.

        Returns:
            Where callers and where scrapers connect, as URLs (`unix:…` for a socket).

        Raises:
            OSError: an address cannot be bound; nothing is left open.
        """
        parts = self._parts
        try:
            self._admin = web.AppRunner(
                admin_application(
                    self,
                    parts.metrics,
                    quit_requested=self.quit_requested.set if parts.quit_enabled else None,
                ),
                access_log=None,
                handle_signals=False,
            )
            await self._admin.setup()
            admin_url = await self._open_admin(self._admin)
            data_url = await self._open_data()
        except BaseException:
            await self.stop(drain=False)
            raise
        for keeper in parts.keepers.values():
            keeper.start()
        self._watching = [
            asyncio.create_task(watch(), name="secret-watch") for watch in parts.watchers
        ]
        self.started = True
        return data_url, admin_url

    async def stop(self, *, drain: bool = True) -> None:
        """End in order: withdraw readiness, go on accepting, close, let requests finish.

        Args:
            drain: False breaks off requests in flight instead of waiting for them.
        """
        parts = self._parts
        parts.data.draining = True
        if drain and self._data_server is not None:
            await asyncio.sleep(parts.announce_s)
        if self._data_server is not None:
            self._data_server.close()
        if not await parts.data.drain(parts.drain_s if drain else 0.0):
            _log.warning("requests still in flight were broken off")
        await parts.data.shutdown(0)
        for task in self._watching:
            task.cancel()
        await asyncio.gather(*self._watching, return_exceptions=True)
        for keeper in parts.keepers.values():
            await keeper.aclose()
        for service in parts.services:
            service.pool.close()
        parts.data.proxy.deadlines.close()
        parts.data.proxy.observer.settle()
        if self._admin is not None:
            await self._admin.cleanup()

    async def _open_admin(self, runner: web.AppRunner) -> str:
        address = self._parts.admin_listen
        site: web.BaseSite
        if address.path:
            site = web.UnixSite(runner, address.path)
            await site.start()
            return f"unix:{address.path}"
        site = web.TCPSite(runner, address.host, address.port)
        await site.start()
        return _url(runner.addresses[0])

    async def _open_data(self) -> str:
        address, loop = self._parts.listen, asyncio.get_running_loop()
        if address.path:
            self._data_server = await loop.create_unix_server(self._parts.data, address.path)
            return f"unix:{address.path}"
        self._data_server = await loop.create_server(
            self._parts.data, address.host, address.port, backlog=1024
        )
        return _url(self._data_server.sockets[0].getsockname())


def _url(address: tuple[Any, ...]) -> str:
    host, port = address[0], address[1]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
