"""Settings → a gateway, and other parts for it on reload: the one place where all rooms meet."""

import resource
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from gateway.admin.server import MOST_FRESH
from gateway.assembly.fleet import build_fleet
from gateway.assembly.identities import BuiltCache, build_cache
from gateway.assembly.listen_tls import (
    BuiltListenTls,
    build_listen_tls,
    watch_certificate,
)
from gateway.assembly.memory import (
    CONNECTION_BYTES,
    MIXED_CONNECTION_BYTES,
    TLS_CONNECTION_BYTES,
    ResidentBound,
    available_bytes,
    budget_bytes,
    most_connections,
    resident_bytes,
)
from gateway.assembly.secrets import unusable_secrets
from gateway.assembly.services import (
    BuiltPools,
    build_pools,
    build_service,
    service_gauges,
)
from gateway.assembly.tls import TlsContexts
from gateway.clock import boottime, wall_clock
from gateway.downstream.listener import REFUSED_POLITELY, DataListener
from gateway.errors import ConfigError
from gateway.http.date import DateField
from gateway.http.host import AllowedHosts, AnyHost
from gateway.http.request_head import METHODS
from gateway.identity.refusal_file import RefusalFile
from gateway.identity.store import TokenStore
from gateway.lifecycle.allocation import freed_memory_returner
from gateway.lifecycle.burst import MANY_FILES, most_waiting
from gateway.lifecycle.gateway import Gateway
from gateway.lifecycle.parts import Parts, Rebuilt
from gateway.lifecycle.supervisor import Supervisor
from gateway.observe.access_log import AccessLog
from gateway.observe.metrics import NO_SERVICE, Metrics
from gateway.observe.service_metrics import ServiceGauges, ServiceMetrics
from gateway.proxy.accounting import Observer, Tracer
from gateway.proxy.admission import Rules
from gateway.proxy.context import ExchangeContext
from gateway.proxy.deadlines import Deadlines
from gateway.proxy.gate import Gate
from gateway.proxy.replay import Retry
from gateway.proxy.service import RouteTable
from gateway.settings import ListenAddress, Loaded, Settings
from gateway.settings.effective import EffectiveValue, effective
from gateway.tokens.listener import MOST_CONNECTIONS as MOST_TOKEN_CONNECTIONS
from gateway.tokens.listener import TokenListener
from gateway.upstream.pool import ConnectionLimit

if TYPE_CHECKING:
    from gateway.identity.fleet.fleet import Fleet

_RESERVED_FILES = MOST_FRESH + REFUSED_POLITELY + 32
"""For the admin listener, callers who are told that there are too many, logins, secrets and what
Python itself opens."""

_ONLY_AT_START = (
    "listen",
    "reuse_port",
    "listen_mode",
    "limits",
    "admin_listen",
    "token_listen",
    "token_listen_mode",
    "fleet",
    "quitquitquit",
)

_S = TypeVar("_S")
_B = TypeVar("_B")

Read = Callable[[], Loaded]
"""Reads the configuration; raises ConfigError."""


def build_gateway(
    settings: Settings,
    access_log: AccessLog,
    *,
    configuration: Sequence[EffectiveValue] = (),
    read: Read | None = None,
    supervisor: Supervisor | None = None,
    tracer: Tracer | None = None,
) -> Gateway:
    """Build everything; nothing is opened or read yet but certificates.

    Args:
        settings: checked.
        access_log: takes a line per request.
        configuration: the same settings as the status page shows them.
        read: reads the configuration again, for a reload; None: it stays as it is.
        supervisor: is told the state of the gateway.
        tracer: takes a span per exchange.

    Raises:
        ConfigError: a certificate or key cannot be used.
    """
    builder = _GatewayBuilder(settings, access_log, tracer)
    return Gateway(
        replace(builder.build(settings), configuration=configuration),
        rebuild=None if read is None else partial(builder.rebuild, read),
        supervisor=supervisor,
    )


class _GatewayBuilder:
    """Builds the parts of one gateway, and again when its configuration changes.

    Invariants: what would be made of the same settings and the same files is not made again, so
    that tokens, connections and counters outlive a reload; a build that fails leaves no trace.
    """

    def __init__(
        self, settings: Settings, access_log: AccessLog, tracer: Tracer | None = None
    ) -> None:
        self._first = settings
        folder = settings.state_dir
        refusals = None if folder is None else RefusalFile(folder, wall_clock)
        self._store = TokenStore(boottime, refusals=refusals)
        self._metrics = Metrics()
        self._metrics.lost_log_lines = lambda: access_log.lost
        unrouted = ServiceMetrics(NO_SERVICE, METHODS, list(Retry))
        self._metrics.add_service(unrouted, lambda: ServiceGauges(0, 0))
        context = ExchangeContext(
            rules=Rules(RouteTable(()), AllowedHosts([])),
            deadlines=Deadlines(boottime),
            clock=boottime,
            observer=Observer(
                access_log, unrouted, clock=boottime, wall_clock=wall_clock, tracer=tracer
            ),
            dates=DateField(wall_clock),
        )
        self._metrics.before_scrape = context.observer.settle
        self._listener = _data_listener(context, settings)
        self._metrics.add_up_waiting = self._listener.memory.add_up
        self._listen_tls: BuiltListenTls | None = None
        self._tokens = _token_listener(settings)
        self._fleet = None if settings.fleet is None else build_fleet(settings.fleet)
        if settings.fleet is not None:
            self._metrics.fleet = partial(_fleet_state, self._fleet)
        self._caches: dict[str, BuiltCache] = {}
        self._pools: dict[str, BuiltPools] = {}
        self._connection_limit = ConnectionLimit(_most_connections(settings))
        self._gates: dict[str, Gate] = {}
        self._contexts = TlsContexts()

    def rebuild(self, read: Read) -> Rebuilt:
        """Read the configuration and build other parts; see `Rebuild`."""
        loaded_at = wall_clock()
        loaded = read()
        settings = loaded.settings
        problems = unusable_secrets(settings)
        if problems:
            raise ConfigError(problems)
        before = self._caches
        parts = replace(self.build(settings), loaded_at=loaded_at, configuration=effective(loaded))
        changed = frozenset(
            name
            for name, built in self._caches.items()
            if before.get(name) is built and built.is_secret_stale()
        )
        return Rebuilt(parts, (*loaded.warnings, *self._not_applied(settings)), changed)

    def build(self, settings: Settings) -> Parts:
        """Build the parts that `settings` describe.

        Raises:
            ConfigError: a certificate or key cannot be used.
        """
        contexts = TlsContexts(self._contexts)
        problems: list[str] = []
        caches = _build_each(
            settings.identities,
            self._caches,
            partial(
                build_cache,
                store=self._store,
                metrics=self._metrics,
                contexts=contexts,
                fleet=self._fleet,
            ),
            problems,
        )
        pools = _build_each(
            settings.services,
            self._pools,
            partial(build_pools, contexts=contexts, limit=self._connection_limit),
            problems,
        )
        listen_tls = self._listen_tls
        if settings.listen_tls is not None and self._first.listen_tls is not None:
            try:
                listen_tls = build_listen_tls(settings.listen_tls, self._listen_tls)
            except ConfigError as error:
                problems += error.problems
        if problems:
            raise ConfigError(problems)
        contexts.forget_previous()
        self._listen_tls = listen_tls
        self._caches, self._pools, self._contexts = caches, pools, contexts
        services = [
            build_service(
                name,
                service,
                caches[service.identity].cache,
                pools[name].pool,
                self._metrics,
                self._gates,
                field_name=settings.identities[service.identity].field_name,
            )
            for name, service in settings.services.items()
        ]
        for name in self._gates.keys() - settings.services.keys():
            del self._gates[name]
        first = self._first
        # The permissions of a socket file have let its callers in.
        hosts = (
            AnyHost()
            if first.listen.path
            else AllowedHosts([*settings.allowed_hosts, *_own_names(first.listen)])
        )
        return Parts(
            data=self._listener,
            rules=Rules(
                RouteTable(tuple(services)),
                hosts,
                frozenset(origin.encode("ascii") for origin in settings.allowed_origins),
            ),
            tick_s=_tick_of(settings),
            services=services,
            service_series=[
                (s.metrics, partial(service_gauges, s, pools[s.name])) for s in services
            ],
            identity_series=[built.series for built in caches.values()],
            loaded_at=wall_clock(),
            identity_of={name: s.identity for name, s in settings.services.items()},
            credential_caches={name: built.cache for name, built in caches.items()},
            sinks={name: built.sinks for name, built in caches.items()},
            watchers={
                name: [partial(f.watch, built.cache.secret_changed) for f in built.secret_files]
                for name, built in caches.items()
            },
            metrics=self._metrics,
            listen=first.listen,
            reuse_port=first.reuse_port,
            listen_tls=listen_tls.context if listen_tls is not None else None,
            watch_certificate=(
                partial(watch_certificate, settings.listen_tls, listen_tls.context)
                if listen_tls is not None and settings.listen_tls is not None
                else None
            ),
            client_names=listen_tls.names if listen_tls is not None else None,
            socket_mode=int(first.listen_mode, 8),
            admin_listen=first.admin_listen,
            fleet=self._fleet,
            tokens=self._tokens,
            token_sources={
                name: caches[service.identity].cache
                for name, service in settings.services.items()
                # a signature is for one request, which the endpoint does not see
                if settings.identities[service.identity].method != "ak_sk"
            },
            token_listen=first.token_listen,
            token_socket_mode=int(first.token_listen_mode, 8),
            admin_hosts=AllowedHosts(
                [*settings.allowed_hosts, _host_name(first.admin_listen)], addresses=True
            ),
            quit_enabled=first.quitquitquit,
            announce_s=settings.drain.announce,
            drain_s=settings.drain.timeout,
        )

    def _not_applied(self, settings: Settings) -> Iterator[str]:
        """Yield a warning for each changed key that takes effect only at the start."""
        if (settings.listen_tls is None) != (self._first.listen_tls is None):
            yield "listen_tls: taking it in or out takes effect at the next start"
        for key in _ONLY_AT_START:
            now, then = getattr(settings, key), getattr(self._first, key)
            if now != then:
                yield f"{key}: {now} takes effect at the next start; until then it is {then}"


def _fleet_state(fleet: "Fleet | None") -> tuple[bool, int]:
    """Return whether the fleet's store works, and how many steps have failed."""
    return (False, 1) if fleet is None else (fleet.up, fleet.errors)


def _token_listener(settings: Settings) -> TokenListener | None:
    """Return the token endpoint, if there is to be one."""
    address = settings.token_listen
    if address is None:
        return None
    hosts = None if address.path else AllowedHosts([_host_name(address)])
    return TokenListener(boottime, hosts, most_connections=_most_token_connections())


def _build_each(
    settings: Mapping[str, _S],
    known: Mapping[str, _B],
    build: Callable[[str, _S, _B | None], _B],
    problems: list[str],
) -> dict[str, _B]:
    """Build one thing per name; append to `problems` what cannot be built."""
    built = {}
    for name, its_settings in settings.items():
        try:
            built[name] = build(name, its_settings, known.get(name))
        except ConfigError as error:
            problems += error.problems
    return built


def _data_listener(context: ExchangeContext, settings: Settings) -> DataListener:
    """Return the listener, within the limits of the settings, the files and the memory."""
    limits = settings.limits
    available, resident = available_bytes(), resident_bytes()
    bound = ResidentBound(
        available, resident=resident_bytes, give_back=freed_memory_returner(), clock=context.clock
    )
    clients = min(limits.connections, _most_connections(settings))
    if limits.memory == "auto":
        over_tls = settings.listen_tls is not None
        each = TLS_CONNECTION_BYTES if over_tls else MIXED_CONNECTION_BYTES
        clients = most_connections(available, resident, clients, each)
        each = TLS_CONNECTION_BYTES if over_tls else CONNECTION_BYTES
        budget = budget_bytes(available, resident, clients, each)
    else:
        budget = limits.memory
    return DataListener(context, max_connections=clients, max_memory=budget, excess=bound.excess)


def _most_connections(settings: Settings) -> int:
    """Return how many clients there may be: each needs a second file for its way upstream."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    for_tokens = 0 if settings.token_listen is None else _most_token_connections()
    waiting = most_waiting(limit) if limit > MANY_FILES else 0  # of few files, few wait
    return max(8, (limit - _RESERVED_FILES - for_tokens - waiting) // 2)


def _most_token_connections() -> int:
    """Return how many connections the token endpoint may have: an eighth of the files at most."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return max(8, min(MOST_TOKEN_CONNECTIONS, limit // 8))


def _tick_of(settings: Settings) -> float:
    """Return how late, in seconds, a deadline may be noticed: a fifth of the shortest timeout."""
    shortest = min(
        min(s.timeouts.first_byte, s.timeouts.first_chunk, s.timeouts.idle)
        for s in settings.services.values()
    )
    return max(0.02, min(0.5, shortest / 5))


def _own_names(address: ListenAddress) -> list[str]:
    """Return the name of a listen address; one that means all addresses is nobody's name."""
    return [] if address.host in {"0.0.0.0", "::"} else [_host_name(address)]


def _host_name(address: ListenAddress) -> str:
    return f"[{address.host}]" if ":" in address.host else address.host
