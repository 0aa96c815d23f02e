"""Putting another configuration in force while the gateway runs."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Sequence
from itertools import chain
from pathlib import Path

from gateway.admin.listener import Reload
from gateway.errors import ConfigError
from gateway.identity.credential_cache import CredentialCache
from gateway.identity.sinks import Sinks
from gateway.lifecycle.background import in_background
from gateway.lifecycle.parts import Parts, Rebuild, Rebuilt
from gateway.lifecycle.supervisor import Supervisor

_RETIRE_S = 2.0
"""Seconds that a replaced cache keeps running: requests wait for its login for 1.8 s at most."""

_log = logging.getLogger("gateway.lifecycle")


class CachesAtWork:
    """Owns the tasks around credential caches: they watch secrets, and close replaced caches."""

    def __init__(self) -> None:
        self._watching: dict[str, list[asyncio.Task[None]]] = {}
        self._retiring: set[asyncio.Task[None]] = set()

    def start(self, parts: Parts) -> None:
        """Start every cache, which logs in, and watch its secrets."""
        for name in parts.credential_caches:
            self._begin(name, parts)

    def replace(self, old: Parts, rebuilt: Rebuilt) -> None:
        """Close removed caches, start new ones, and report new secrets to the others."""
        new = rebuilt.parts.credential_caches
        left = frozenset().union(*(sinks.paths() for sinks in rebuilt.parts.sinks.values()))
        closing = []
        for name, cache in old.credential_caches.items():
            if new.get(name) is not cache:
                closing.append(self._close_sinks(old.sinks[name], left))
                for task in self._watching.pop(name, []):
                    task.cancel()
                    self._hold(task)
                self._hold(asyncio.create_task(_retire(cache), name="retire"))
        for name, cache in new.items():
            if old.credential_caches.get(name) is not cache:
                self._begin(name, rebuilt.parts, closing)
            elif name in rebuilt.changed_secrets:
                cache.secret_changed()

    def tasks(self) -> list[asyncio.Task[None]]:
        """Return all tasks that have not ended, so that the caller can end them."""
        return [*self._retiring, *chain(*self._watching.values())]

    def _close_sinks(self, sinks: Sinks, left: Collection[Path]) -> asyncio.Task[None]:
        """End sinks; leave the files alone that another identity's sinks write from now on."""
        task = asyncio.create_task(sinks.aclose(left), name="close-sinks")
        self._hold(task)
        return task

    def _begin(self, name: str, parts: Parts, after: Sequence[asyncio.Task[None]] = ()) -> None:
        parts.sinks[name].start(after)
        parts.credential_caches[name].start()
        self._watching[name] = [
            in_background(watch(), "secret-watch") for watch in parts.watchers.get(name, ())
        ]

    def _hold(self, task: asyncio.Task[None]) -> None:
        self._retiring.add(task)
        task.add_done_callback(self._retiring.discard)


class Reloader:
    """Owns the parts in force, and replaces them.

    Invariant: a reload is done as a whole or not at all, and no two at a time.
    """

    def __init__(self, parts: Parts, rebuild: Rebuild | None, supervisor: Supervisor) -> None:
        """Put `parts` in force; without `rebuild` they stay as they are."""
        self._rebuild = rebuild
        self._supervisor = supervisor
        self._caches = CachesAtWork()
        self._one_at_a_time = asyncio.Lock()
        self._reloads: set[asyncio.Task[Reload]] = set()
        self._next: asyncio.Task[Reload] | None = None
        self._watching_fleet: asyncio.Task[None] | None = None
        self._watching_certificate: asyncio.Task[None] | None = None
        self.parts = parts
        """The parts that new requests use."""
        self.started = False
        """Whether `start` has been called."""
        self.listen_again: Callable[[], Awaitable[None]] = _nothing
        """Called when callers' TLS has changed."""
        self._put_in_force(parts)

    @property
    def possible(self) -> bool:
        """Whether there is a configuration to be read again."""
        return self._rebuild is not None

    def start(self) -> None:
        """Begin to log in; reloads are made from here on, until the gateway drains."""
        if self.parts.fleet is not None:
            self._watching_fleet = in_background(self.parts.fleet.watch(), "fleet-watch")
        self._caches.start(self.parts)
        self._watch_certificate()
        self.started = True

    async def reload(self) -> Reload:
        """Read the configuration again and use it; or return why not, and keep the old one.

        Requests in flight keep what they began with. A call that comes before another has begun to
        read shares its outcome, so that callers cannot queue up work.

        Cancellation: gives up this caller's wait; the reload goes on.
        """
        if self._next is None:
            self._next = asyncio.create_task(self._reload_in_turn(), name="reload")
            self._reloads.add(self._next)
            self._next.add_done_callback(self._reloads.discard)
        return await asyncio.shield(self._next)

    async def stop(self) -> None:
        """End reloads, watching and logins. Called when the gateway drains already."""
        ending: list[asyncio.Task[None] | asyncio.Task[Reload]] = [
            *self._reloads,
            *self._caches.tasks(),
        ]
        if self._watching_certificate is not None:
            ending.append(self._watching_certificate)
        for task in ending:
            task.cancel()
        await asyncio.gather(*ending, return_exceptions=True)
        for cache in self.parts.credential_caches.values():
            await cache.aclose()
        await asyncio.gather(*(sinks.aclose() for sinks in self.parts.sinks.values()))
        if self.parts.fleet is not None:
            if self._watching_fleet is not None:
                self._watching_fleet.cancel()
                await asyncio.wait({self._watching_fleet})
            await self.parts.fleet.aclose()

    async def _reload_in_turn(self) -> Reload:
        async with self._one_at_a_time:
            # From here on the file is being read: a later caller needs another reload.
            self._next = None
            if self._rebuild is None or self.parts.data.draining or not self.started:
                return Reload(("the gateway is starting or ending; nothing was read",), ())
            self._supervisor.reloading()
            done = await self._reload_with(self._rebuild)
            self.parts.metrics.reload_successful = not done.problems
            for warning in done.warnings:
                _log.warning("%s", warning)
            for problem in done.problems:
                _log.error("not reloaded, the old configuration stays: %s", problem)
            if done.problems:
                self._supervisor.ready(f"reload failed, old configuration: {done.problems[0]}")
            else:
                names = ", ".join(self.parts.identity_of)
                _log.info("configuration reloaded; services: %s", names)
                self._supervisor.ready(f"serving {names}")
            return done

    async def _reload_with(self, rebuild: Rebuild) -> Reload:
        try:
            rebuilt = await asyncio.to_thread(rebuild)
        except ConfigError as error:
            return Reload(tuple(error.problems), ())
        except Exception:  # noqa: BLE001  # a fault of ours must not end what works
            _log.exception("the reload failed because of a defect in the gateway; please report it")
            return Reload(("a defect in the gateway; see its log",), ())
        if self.parts.data.draining:
            return Reload(("the gateway is ending; what was read is not used",), ())
        old = self.parts
        self._put_in_force(rebuilt.parts)
        self._caches.replace(old, rebuilt)
        if rebuilt.parts.listen_tls is not old.listen_tls:
            self._watch_certificate()
            await self.listen_again()
        kept = {service.pool for service in rebuilt.parts.services}
        for service in old.services:
            if service.pool not in kept:
                service.pool.close()
        return Reload((), rebuilt.warnings)

    def _watch_certificate(self) -> None:
        """Watch the files of the certificate in use, and no others."""
        if self._watching_certificate is not None:
            self._watching_certificate.cancel()
        watch = self.parts.watch_certificate
        self._watching_certificate = (
            None if watch is None else in_background(watch(), "certificate-watch")
        )

    def _put_in_force(self, parts: Parts) -> None:
        old, self.parts = self.parts, parts
        metrics = parts.metrics
        for counts, state in parts.service_series:
            metrics.add_service(counts, state)
        for identity, gauges in parts.identity_series:
            metrics.add_identity(identity, gauges)
        for name in old.identity_of.keys() - parts.identity_of.keys():
            metrics.remove_service(name)
        for name in old.credential_caches.keys() - parts.credential_caches.keys():
            metrics.remove_identity(name)
        for service in parts.services:
            if service.gate is not None and service.limits is not None:
                service.gate.adopt(service.limits)
        metrics.reload_success_at = parts.loaded_at
        parts.data.context.rules = parts.rules
        parts.data.clients_by_name = parts.client_names
        names = parts.client_names
        metrics.client_connections = names.connections if names is not None else {}
        if parts.tokens is not None:
            parts.tokens.sources = parts.token_sources
        parts.data.context.deadlines.tick_s = parts.tick_s


async def _nothing() -> None:
    """Do nothing: used until a listener registers."""


async def _retire(cache: CredentialCache) -> None:
    """Close `cache` once requests that wait for its login have had their time."""
    try:
        await asyncio.sleep(_RETIRE_S)
    finally:
        await cache.aclose()
