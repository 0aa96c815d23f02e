"""The running gateway: its listeners, and its life from start through drain to stop."""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

from aiohttp import web

from gateway.admin.listener import Reload, admin_application
from gateway.downstream.listener import DataListener
from gateway.errors import ConfigError
from gateway.http.host import AllowedHosts
from gateway.identity.keeper import Keeper
from gateway.identity.report import KeeperStatus
from gateway.lifecycle.socket_file import SocketFile
from gateway.lifecycle.supervisor import Supervisor, heartbeat
from gateway.observe.access_log import Record
from gateway.observe.metrics import IdentitySeries, Metrics, ServiceSeries
from gateway.proxy.admission import Rules
from gateway.proxy.service import Service
from gateway.settings.effective import EffectiveValue

_ADMIN_END_S = 1.0
"""For how long answers of the admin listener may keep the process from ending."""
_RETIRE_S = 2.0
"""For how long a replaced keeper goes on: whoever waits for its login waits 1.8 s at most."""

_log = logging.getLogger("gateway.serve")


@dataclass(frozen=True, slots=True)
class Address:
    """Where a listener is: TCP when `path` is empty, else a Unix socket."""

    host: str
    port: int
    path: str = ""
    mode: int = 0o660
    """Of the socket file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What a gateway is made of; built in cli/, started, replaced and stopped here.

    A reload brings other `Parts`, in which what has not changed is the same object; the listeners
    and `metrics` always are.
    """

    data: DataListener
    rules: Rules
    tick_s: float
    """How late a deadline may be noticed."""
    services: Sequence[Service]
    service_series: Sequence[ServiceSeries]
    identity_series: Sequence[IdentitySeries]
    loaded_at: float
    """When the configuration was read, in seconds since the epoch."""
    identity_of: Mapping[str, str]
    """Name of the identity, by name of the service."""
    keepers: Mapping[str, Keeper]
    watchers: Mapping[str, Sequence[Callable[[], Coroutine[Any, Any, None]]]]
    """By identity: each makes a coroutine that watches a secret's file until it is cancelled."""
    metrics: Metrics
    listen: Address
    admin_listen: Address
    admin_hosts: AllowedHosts
    """Names under which people may call the admin listener."""
    configuration: Sequence[EffectiveValue] = ()
    """The settings that all this was built from, to be shown."""
    quit_enabled: bool
    announce_s: float
    """How long to go on accepting after readiness is withdrawn."""
    drain_s: float
    """How long requests in flight may then take."""


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """What reading the configuration anew has come to."""

    parts: Parts
    warnings: tuple[str, ...]
    changed_secrets: frozenset[str]
    """Identities whose keeper stays and whose secret is another now."""


Rebuild = Callable[[], Rebuilt]
"""Reads the configuration and builds other parts; blocks, and changes nothing that is at work.
Raises ConfigError: it is no good."""


class Gateway:
    """Owns what `Parts` lists, from `start` to `stop`.

    Invariants: no secret is read and no connection made before `start`; `stop` leaves no task,
    connection, listener or socket file behind; a reload is done as a whole or not at all, and no
    two at a time.
    """

    def __init__(
        self,
        parts: Parts,
        *,
        rebuild: Rebuild | None = None,
        supervisor: Supervisor | None = None,
    ) -> None:
        """Take what has been built; without `rebuild` the configuration stays as it is."""
        self._parts = parts
        self._rebuild = rebuild
        self._supervisor = supervisor or Supervisor()
        self._clock = parts.data.proxy.clock
        self._started_at = self._clock()
        self._data_server: asyncio.Server | None = None
        self._socket_file: SocketFile | None = None
        self._admin: web.AppRunner | None = None
        self._watching: dict[str, list[asyncio.Task[None]]] = {}
        self._retiring: set[asyncio.Task[None]] = set()
        self._beating: asyncio.Task[None] | None = None
        self._reloading = asyncio.Lock()
        self._reloads: set[asyncio.Task[Reload]] = set()
        self._next_reload: asyncio.Task[Reload] | None = None
        self._put_in_force(parts)
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

    @property
    def admin_hosts(self) -> AllowedHosts:
        """Names under which people may ask."""
        return self._parts.admin_hosts

    def wall_time_s(self) -> float:
        """Return the time of day, for people."""
        return self._parts.data.proxy.observer.wall_clock()

    def latest_requests(self) -> list[tuple[float, Record]]:
        """Return the latest requests, newest first, each with its end since the epoch."""
        return self._parts.data.proxy.observer.latest()

    def configuration(self) -> Sequence[EffectiveValue]:
        """Return the settings in force, secrets masked."""
        return self._parts.configuration

    async def start(self) -> tuple[str, str]:
        """Open both listeners and begin to log in; does not wait for IAM.

        Returns:
            Where callers and where scrapers connect, as URLs (`unix:…` for a socket).

        Raises:
            OSError: an address cannot be bound; nothing is left open.
        """
        parts = self._parts
        self._beating = asyncio.create_task(
            heartbeat(self._supervisor, parts.metrics.loop_lag), name="heartbeat"
        )
        try:
            self._admin = web.AppRunner(
                admin_application(
                    self,
                    parts.metrics,
                    quit_requested=self.quit_requested.set if parts.quit_enabled else None,
                    reload=self.reload if self._rebuild is not None else None,
                ),
                access_log=None,
                handle_signals=False,
                shutdown_timeout=_ADMIN_END_S,
            )
            await self._admin.setup()
            admin_url = await self._open_admin(self._admin)
            data_url = await self._open_data()
        except BaseException:
            await self.stop(drain=False)
            raise
        for name, keeper in parts.keepers.items():
            keeper.start()
            self._watch(name)
        self.started = True
        self._supervisor.ready(f"serving on {data_url}, admin on {admin_url}")
        return data_url, admin_url

    async def reload(self) -> Reload:
        """Read the configuration anew and put it in force, or say why not and keep the old one.

        Requests in flight keep what they began with. A call that comes before another has begun to
        read shares its outcome, so that callers cannot queue up work.

        Cancellation: gives up this caller's wait; the reload goes on.
        """
        if self._next_reload is None:
            self._next_reload = asyncio.create_task(self._reload_in_turn(), name="reload")
            self._reloads.add(self._next_reload)
            self._next_reload.add_done_callback(self._reloads.discard)
        return await asyncio.shield(self._next_reload)

    async def _reload_in_turn(self) -> Reload:
        async with self._reloading:
            self._next_reload = None  # who asks from here on may have written after we have read
            if self._rebuild is None or self.draining or not self.started:
                return Reload(("the gateway is starting or ending; nothing was read",), ())
            self._supervisor.reloading()
            done = await self._reload_with(self._rebuild)
            self._parts.metrics.reload_successful = not done.problems
            for warning in done.warnings:
                _log.warning("%s", warning)
            for problem in done.problems:
                _log.error("not reloaded, the old configuration stays: %s", problem)
            if done.problems:
                self._supervisor.ready(f"reload failed, old configuration: {done.problems[0]}")
            else:
                names = ", ".join(self._parts.identity_of)
                _log.info("configuration reloaded; services: %s", names)
                self._supervisor.ready(f"serving {names}")
            return done

    async def _reload_with(self, rebuild: Rebuild) -> Reload:
        try:
            rebuilt = await asyncio.to_thread(rebuild)
        except ConfigError as error:
            return Reload(tuple(error.problems), ())
        except Exception:  # noqa: BLE001  # a fault of ours must not end what works
            _log.exception("reload failed by a bug of the gateway")
            return Reload(("a bug of the gateway; see its log",), ())
        if self.draining:
            return Reload(("the gateway is ending; what was read is not used",), ())
        old = self._parts
        self._put_in_force(rebuilt.parts)
        self._replace_keepers(old, rebuilt)
        kept = {service.pool for service in rebuilt.parts.services}
        for service in old.services:
            if service.pool not in kept:
                service.pool.close()
        return Reload((), rebuilt.warnings)

    def _put_in_force(self, parts: Parts) -> None:
        """Let every request that begins from here on go by `parts`."""
        old, self._parts = self._parts, parts
        metrics = parts.metrics
        for service, connections in parts.service_series:
            metrics.add_service(service, connections)
        for identity, gauges in parts.identity_series:
            metrics.add_identity(identity, gauges)
        for name in old.identity_of.keys() - parts.identity_of.keys():
            metrics.remove_service(name)
        for name in old.keepers.keys() - parts.keepers.keys():
            metrics.remove_identity(name)
        metrics.reload_success_at = parts.loaded_at
        parts.data.proxy.rules = parts.rules
        parts.data.proxy.deadlines.tick_s = parts.tick_s

    def _replace_keepers(self, old: Parts, rebuilt: Rebuilt) -> None:
        new = rebuilt.parts.keepers
        for name, keeper in old.keepers.items():
            if new.get(name) is not keeper:
                for task in self._watching.pop(name, []):
                    task.cancel()
                    self._hold(task)
                self._hold(asyncio.create_task(_retire(keeper), name="retire"))
        for name, keeper in new.items():
            if old.keepers.get(name) is not keeper:
                keeper.start()
                self._watch(name)
            elif name in rebuilt.changed_secrets:
                keeper.secret_changed()

    def _watch(self, name: str) -> None:
        self._watching[name] = [
            asyncio.create_task(watch(), name="secret-watch")
            for watch in self._parts.watchers.get(name, ())
        ]

    def _hold(self, task: asyncio.Task[None]) -> None:
        self._retiring.add(task)
        task.add_done_callback(self._retiring.discard)

    async def stop(self, *, drain: bool = True) -> None:
        """End in order: withdraw readiness, go on accepting, close, let requests finish.

        Args:
            drain: False breaks off requests in flight instead of waiting for them.
        """
        parts = self._parts  # no reload is put in force from here on
        parts.data.draining = True
        self._supervisor.stopping()
        if drain and self._data_server is not None:
            await asyncio.sleep(parts.announce_s)
        if self._data_server is not None:
            self._data_server.close()
        if self._socket_file is not None:
            self._socket_file.remove()
        if not await parts.data.drain(parts.drain_s if drain else 0.0):
            _log.warning("requests still in flight were broken off")
        await parts.data.shutdown(0)
        ending = [*self._retiring, *self._reloads, *chain(*self._watching.values())]
        for task in ending:
            task.cancel()
        await asyncio.gather(*ending, return_exceptions=True)
        for keeper in parts.keepers.values():
            await keeper.aclose()
        for service in parts.services:
            service.pool.close()
        parts.data.proxy.deadlines.close()
        parts.data.proxy.observer.close()
        if self._admin is not None:
            await self._admin.cleanup()
        if self._beating is not None:
            self._beating.cancel()
            await asyncio.gather(self._beating, return_exceptions=True)
        self._supervisor.close()

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
            self._socket_file = SocketFile(address.path, address.mode)
            self._data_server = await loop.create_unix_server(
                self._parts.data, sock=self._socket_file.socket, backlog=1024
            )
            return f"unix:{address.path}"
        self._data_server = await loop.create_server(
            self._parts.data, address.host, address.port, backlog=1024
        )
        return _url(self._data_server.sockets[0].getsockname())


async def _retire(keeper: Keeper) -> None:
    """Let those who wait for a login have it; then no other is made."""
    try:
        await asyncio.sleep(_RETIRE_S)
    finally:
        await keeper.aclose()


def _url(address: tuple[Any, ...]) -> str:
    host, port = address[0], address[1]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
