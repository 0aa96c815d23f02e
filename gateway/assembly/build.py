"""Builds a gateway from its settings: the one place where all rooms meet."""

import hashlib
import random
import resource
import ssl
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TypeVar, assert_never

from pydantic import SecretStr

from gateway.downstream.listener import DataListener
from gateway.errors import ConfigError
from gateway.http.host import AllowedHosts
from gateway.identity.clock import LoopAlarm, boottime
from gateway.identity.file import AnonymousSource, FileSource
from gateway.identity.keeper import Keeper
from gateway.identity.keystone import ApplicationCredentialLogin, KeystoneSource, PasswordLogin
from gateway.identity.refresh import RefreshResult, RefreshTrigger
from gateway.identity.secret import SecretFile
from gateway.identity.source import CredentialSource, LoginError
from gateway.identity.store import TokenStore
from gateway.lifecycle.gateway import Address, Gateway, Parts, Rebuilt
from gateway.lifecycle.supervisor import Supervisor
from gateway.observe.access_log import AccessLog
from gateway.observe.metrics import (
    NO_SERVICE,
    ConnectionGauges,
    IdentityGauges,
    IdentityMetrics,
    IdentitySeries,
    Metrics,
    ServiceMetrics,
)
from gateway.proxy.admission import KNOWN_METHODS, Rules
from gateway.proxy.deadlines import Deadlines
from gateway.proxy.exchange import RETRY_REASONS, Proxy
from gateway.proxy.observation import Observer, Tracer
from gateway.proxy.service import RouteTable, Service
from gateway.settings import Identity, ListenAddress, Loaded, Settings, Tls
from gateway.settings import Service as ServiceSettings
from gateway.settings.effective import EffectiveValue, effective
from gateway.upstream.pool import Origin, Pool

MAX_IN_FLIGHT = 1000
"""Requests of one service under way at a time; the next one is refused at once."""
_RESERVED_FILES = 32
"""For the admin listener, logins, secrets and what Python itself opens."""

wall_clock = time.time  # noqa: TID251  # for people, gauges and skew; nothing is decided by it

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class BuiltIdentity:
    """A source of credentials and the files that it reads secrets from."""

    source: CredentialSource
    secret_files: tuple[SecretFile, ...] = ()


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
        supervisor: is told how the gateway is.
        tracer: takes a span per exchange.

    Raises:
        ConfigError: a certificate or key cannot be used.
    """
    builder = _Builder(settings, access_log, tracer)
    return Gateway(
        replace(builder.build(settings), configuration=configuration),
        rebuild=None if read is None else partial(builder.rebuild, read),
        supervisor=supervisor,
    )


@dataclass(frozen=True, slots=True)
class _BuiltKeeper:
    """An identity at work."""

    made_of: object
    """Equal for settings and files that would make the same."""
    keeper: Keeper
    secret_files: tuple[SecretFile, ...]
    series: IdentitySeries


@dataclass(frozen=True, slots=True)
class _BuiltPools:
    """The way to a service."""

    pool: Pool
    earlier: tuple[Pool, ...]
    """Replaced ones with connections in use."""

    def gauges(self) -> ConnectionGauges:
        """Count connections, those of replaced pools included."""
        pools = (self.pool, *self.earlier)
        return ConnectionGauges(sum(p.active for p in pools), sum(p.idle for p in pools))


_Contexts = dict[tuple[Tls, tuple[bytes, ...]], ssl.SSLContext]
"""By settings, and digests of the files that they name."""


class _Builder:
    """Builds the parts of one gateway, and again when its configuration changes.

    Invariants: what would be made of the same settings and the same files is not made again, so
    that tokens, connections and counters outlive a reload; a build that fails leaves no trace.
    """

    def __init__(
        self, settings: Settings, access_log: AccessLog, tracer: Tracer | None = None
    ) -> None:
        self._first = settings
        self._store = TokenStore(boottime)
        self._metrics = Metrics()
        self._metrics.lost_log_lines = lambda: access_log.lost
        unrouted = ServiceMetrics(NO_SERVICE, KNOWN_METHODS, RETRY_REASONS)
        self._metrics.add_service(unrouted, lambda: ConnectionGauges(0, 0))
        proxy = Proxy(
            rules=Rules(RouteTable(()), AllowedHosts([])),
            deadlines=Deadlines(boottime),
            clock=boottime,
            observer=Observer(
                access_log, unrouted, clock=boottime, wall_clock=wall_clock, tracer=tracer
            ),
        )
        self._metrics.before_scrape = proxy.observer.settle
        self._listener = DataListener(proxy, max_connections=_most_connections())
        self._keepers: dict[str, _BuiltKeeper] = {}
        self._pools: dict[str, _BuiltPools] = {}
        self._contexts: _Contexts = {}

    def rebuild(self, read: Read) -> Rebuilt:
        """Read and build anew; see `Rebuild`."""
        loaded_at = wall_clock()
        loaded = read()
        settings = loaded.settings
        problems = unusable_secrets(settings)
        if problems:
            raise ConfigError(problems)
        before = self._keepers
        parts = replace(self.build(settings), loaded_at=loaded_at, configuration=effective(loaded))
        changed = frozenset(
            name
            for name, built in self._keepers.items()
            if before.get(name) is built and any(map(_is_stale, built.secret_files))
        )
        return Rebuilt(parts, (*loaded.warnings, *self._not_applied(settings)), changed)

    def build(self, settings: Settings) -> Parts:
        """Build the parts that `settings` describe.

        Raises:
            ConfigError: a certificate or key cannot be used.
        """
        keepers: dict[str, _BuiltKeeper] = {}
        pools: dict[str, _BuiltPools] = {}
        contexts: _Contexts = {}
        problems: list[str] = []
        for name, identity in settings.identities.items():
            try:
                keepers[name] = self._keeper(name, identity)
            except ConfigError as error:
                problems += error.problems
        for name, service in settings.services.items():
            try:
                pools[name] = self._pool(name, service, contexts)
            except ConfigError as error:
                problems += error.problems
        if problems:
            raise ConfigError(problems)
        services = [
            self._service(name, service, keepers[service.identity].keeper, pools[name].pool)
            for name, service in settings.services.items()
        ]
        self._keepers, self._pools, self._contexts = keepers, pools, contexts
        listen = self._first.listen
        own_name = [] if listen.path else [_host_name(listen.host)]
        return Parts(
            data=self._listener,
            rules=Rules(
                RouteTable(tuple(services)),
                AllowedHosts([*settings.allowed_hosts, *own_name]),
                frozenset(origin.encode("ascii") for origin in settings.allowed_origins),
            ),
            tick_s=_tick_of(settings),
            services=services,
            service_series=[(s.metrics, pools[s.name].gauges) for s in services],
            identity_series=[built.series for built in keepers.values()],
            loaded_at=wall_clock(),
            identity_of={name: s.identity for name, s in settings.services.items()},
            keepers={name: built.keeper for name, built in keepers.items()},
            watchers={
                name: [partial(f.watch, built.keeper.secret_changed) for f in built.secret_files]
                for name, built in keepers.items()
            },
            metrics=self._metrics,
            listen=_address(listen, self._first.listen_mode),
            admin_listen=_address(self._first.admin_listen),
            admin_hosts=AllowedHosts(
                [*settings.allowed_hosts, _host_name(self._first.admin_listen.host)],
                addresses=True,
            ),
            quit_enabled=self._first.quitquitquit,
            announce_s=settings.drain.announce,
            drain_s=settings.drain.timeout,
        )

    def _not_applied(self, settings: Settings) -> Iterator[str]:
        """Yield a warning for each key that is heeded at the start only."""
        for key in ("listen", "listen_mode", "admin_listen", "quitquitquit"):
            now, then = getattr(settings, key), getattr(self._first, key)
            if now != then:
                yield f"{key}: {now} takes effect at the next start; until then it is {then}"

    def _keeper(self, name: str, identity: Identity) -> _BuiltKeeper:
        made_of = (identity, _files_of(identity.tls))
        known = self._keepers.get(name)
        if known is not None and known.made_of == made_of:
            return known
        built = build_identity(name, identity)
        counts = self._metrics.identity(name) or IdentityMetrics(
            name, map(str, RefreshTrigger), map(str, RefreshResult)
        )
        keeper = Keeper(
            name,
            built.source,
            store=self._store,
            clock=boottime,
            alarm=LoopAlarm(),
            observer=counts,
            random=random.random,
        )
        series = (counts, lambda: _gauges_of(keeper))
        return _BuiltKeeper(made_of, keeper, built.secret_files, series)

    def _pool(self, name: str, settings: ServiceSettings, contexts: _Contexts) -> _BuiltPools:
        origin = build_origin(name, settings, partial(self._context, contexts))
        known = self._pools.get(name)
        if known is not None and known.pool.origin == origin:
            return known
        earlier = [] if known is None else [known.pool, *known.earlier]
        return _BuiltPools(Pool(origin, clock=boottime), tuple(p for p in earlier if p.active))

    def _context(self, contexts: _Contexts, key: str, tls: Tls) -> ssl.SSLContext:
        """Return the context that services with the same settings share: each takes a MiB."""
        made_of = (tls, _files_of(tls))
        if made_of not in contexts:
            contexts[made_of] = self._contexts.get(made_of) or tls_context(key, tls)
        return contexts[made_of]

    def _service(self, name: str, settings: ServiceSettings, keeper: Keeper, pool: Pool) -> Service:
        counts = self._metrics.service(name)
        if counts is None:
            counts = ServiceMetrics(name, settings.methods, RETRY_REASONS)
        switch = {"GET"} if settings.websocket else set()
        counts.admit_methods({*settings.methods, *switch})
        return Service(
            name=name,
            path=settings.path.encode("ascii"),
            origin=f"{settings.scheme}://{settings.authority}".encode("ascii"),
            host_line=f"Host: {settings.authority}\r\n".encode("ascii"),
            methods=frozenset(settings.methods),
            max_body_bytes=settings.max_body,
            replay_bytes=settings.replay_buffer,
            first_byte_s=settings.timeouts.first_byte,
            idle_s=settings.timeouts.idle,
            websocket=settings.websocket,
            max_in_flight=MAX_IN_FLIGHT,
            credentials=keeper,
            pool=pool,
            metrics=counts,
        )


def build_identity(name: str, identity: Identity) -> BuiltIdentity:
    """Build the source of an identity's credentials.

    Raises:
        ConfigError: a certificate or key cannot be used.
    """
    match identity.method:
        case "none":
            return BuiltIdentity(AnonymousSource())
        case "file":
            source = FileSource(_required(identity.token_file))
            return BuiltIdentity(source, (source.file,))
        case "password":
            read_secret, files = _secret_of(identity.password, identity.password_file)
            login: PasswordLogin | ApplicationCredentialLogin = PasswordLogin(
                tokens_url=identity.tokens_url,
                username=_required(identity.username),
                user_domain=_required(identity.user_domain),
                project=identity.project,
                project_id=identity.project_id,
                project_domain=identity.project_domain,
                read_secret=read_secret,
            )
        case "application_credential":
            read_secret, files = _secret_of(identity.secret, identity.secret_file)
            login = ApplicationCredentialLogin(
                tokens_url=identity.tokens_url,
                credential_id=_required(identity.id),
                read_secret=read_secret,
            )
        case _:
            assert_never(identity.method)
    source_of_tokens = KeystoneSource(
        login,
        clock=boottime,
        wall_clock=wall_clock,
        random=random.random,
        tls=tls_context(f"identities.{name}.tls", identity.tls)
        if identity.tokens_url.startswith("https:")
        else None,
        server_hostname=identity.tls.server_name,
    )
    return BuiltIdentity(source_of_tokens, files)


def tls_context(key: str, tls: Tls) -> ssl.SSLContext:
    """Make a client's context.

    The environment's SSLKEYLOGFILE is not followed: it would write the keys to every token sent.

    Raises:
        ConfigError: a file does not hold what it should.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        if tls.ca_file:
            context.load_verify_locations(tls.ca_file)
        else:
            context.load_default_certs()
        if tls.client_cert_file:
            context.load_cert_chain(tls.client_cert_file, tls.client_key_file)
    except (ssl.SSLError, OSError) as cause:
        raise ConfigError(
            [f"{key}: a certificate or key cannot be used ({type(cause).__name__}); PEM is needed"]
        ) from cause
    if not tls.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def build_origin(
    name: str,
    settings: ServiceSettings,
    context_of: Callable[[str, Tls], ssl.SSLContext] = tls_context,
) -> Origin:
    """Say where a service lives and how it is reached; `context_of` makes a context for a key.

    Raises:
        ConfigError: a certificate or key cannot be used.
    """
    is_https = settings.scheme == "https"
    return Origin(
        host=settings.host,
        port=settings.port,
        tls=context_of(f"services.{name}.tls", settings.tls) if is_https else None,
        server_name=settings.tls.server_name,
        connect_timeout_s=settings.timeouts.connect,
    )


def _gauges_of(keeper: Keeper) -> IdentityGauges:
    status = keeper.status(boottime())
    return IdentityGauges(
        expiry_timestamp_s=status.wall_expires_at or 0.0,
        locked=status.locked,
        clock_skew_s=status.skew_s or 0.0,
    )


def unusable_secrets(settings: Settings, *, tokens: bool = True) -> list[str]:
    """Return a line for each secret file that has no usable content. Blocks.

    `tokens` False passes over `token_file`, which somebody else may have yet to fill.
    """
    problems = []
    for name, identity in settings.identities.items():
        for key in ("password_file", "secret_file", "token_file")[: 2 + tokens]:
            file = getattr(identity, key)
            if file is not None:
                try:
                    SecretFile(file).read()
                except LoginError as error:
                    problems.append(f"identities.{name}.{key}: {error}")
    return problems


def _is_stale(file: SecretFile) -> bool:
    try:
        return file.is_stale()
    except LoginError:  # it was readable a moment ago; its watcher will say so
        return False


def _files_of(tls: Tls) -> tuple[bytes, ...]:
    """Return digests of what the certificates' files hold, the system's included."""
    system = ssl.get_default_verify_paths().cafile
    files = (tls.ca_file or (system and Path(system)), tls.client_cert_file, tls.client_key_file)
    return tuple(_digest_of(file) for file in files if file)


def _digest_of(file: Path) -> bytes:
    try:
        return hashlib.sha256(file.read_bytes()).digest()
    except OSError:
        return b""  # whoever needs it will say so


def _most_connections() -> int:
    """Return how many callers there may be: each needs a second file for its way upstream."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return max(8, limit // 2 - _RESERVED_FILES)


def _secret_of(
    value: SecretStr | None, file: Path | None
) -> tuple[Callable[[], SecretStr], tuple[SecretFile, ...]]:
    if value is not None:
        return lambda: value, ()
    secret_file = SecretFile(_required(file))
    return secret_file.read, (secret_file,)


def _tick_of(settings: Settings) -> float:
    """Choose how late a deadline may be noticed: a fifth of the shortest, within reason."""
    shortest = min(min(s.timeouts.first_byte, s.timeouts.idle) for s in settings.services.values())
    return max(0.02, min(0.5, shortest / 5))


def _required(value: _T | None) -> _T:
    if value is None:
        raise ConfigError(["identities: a required key is missing"])  # the settings' own rule
    return value


def _host_name(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _address(address: ListenAddress, mode: str = "0600") -> Address:
    return Address(address.host, address.port, address.path, int(mode, 8))
