"""Builds a gateway from its settings: the one place where all rooms meet."""

import random
import ssl
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar, assert_never

from pydantic import SecretStr

from gateway.errors import ConfigError
from gateway.http.host import AllowedHosts
from gateway.identity.clock import LoopAlarm, boottime
from gateway.identity.file import AnonymousSource, FileSource
from gateway.identity.keeper import Keeper
from gateway.identity.keystone import ApplicationCredentialLogin, KeystoneSource, PasswordLogin
from gateway.identity.refresh import RefreshResult, RefreshTrigger
from gateway.identity.secret import SecretFile
from gateway.identity.source import CredentialSource
from gateway.identity.store import TokenStore
from gateway.observe.access_log import AccessLog
from gateway.observe.metrics import (
    NO_SERVICE,
    ConnectionGauges,
    IdentityGauges,
    IdentityMetrics,
    Metrics,
    ServiceMetrics,
)
from gateway.proxy.admission import KNOWN_METHODS, Rules
from gateway.proxy.deadlines import Deadlines
from gateway.proxy.exchange import RETRY_REASONS, Proxy
from gateway.proxy.observation import Observer
from gateway.proxy.service import RouteTable, Service
from gateway.serve.data_listener import DataListener
from gateway.serve.gateway import Address, Gateway, Parts
from gateway.settings import Identity, ListenAddress, Settings, Tls
from gateway.settings import Service as ServiceSettings
from gateway.upstream.pool import Origin, Pool

MAX_IN_FLIGHT = 1000
"""Requests of one service under way at a time; the next one is refused at once."""

wall_clock = time.time  # noqa: TID251  # for people, gauges and skew; nothing is decided by it

_T = TypeVar("_T")
Watcher = Callable[[], Coroutine[Any, Any, None]]


@dataclass(frozen=True, slots=True)
class BuiltIdentity:
    """A source of credentials and the files that it reads secrets from."""

    source: CredentialSource
    secret_files: tuple[SecretFile, ...] = ()


def build_gateway(settings: Settings, access_log: AccessLog) -> Gateway:
    """Build everything; nothing is opened or read yet but certificates.

    Args:
        settings: checked.
        access_log: takes a line per request.

    Raises:
        ConfigError: a certificate or key cannot be used.
    """
    metrics = Metrics()
    metrics.reload_success_at = wall_clock()
    store = TokenStore(boottime)
    keepers: dict[str, Keeper] = {}
    watchers: list[Watcher] = []
    for name, identity in settings.identities.items():
        keepers[name] = _build_keeper(name, identity, store, metrics, watchers)
    services = [
        _build_service(name, service, keepers[service.identity], metrics)
        for name, service in settings.services.items()
    ]
    unrouted = ServiceMetrics(NO_SERVICE, KNOWN_METHODS, RETRY_REASONS)
    metrics.add_service(unrouted, lambda: ConnectionGauges(0, 0))
    own_name = [] if settings.listen.path else [_host_name(settings.listen.host)]
    proxy = Proxy(
        rules=Rules(
            RouteTable(tuple(services)),
            AllowedHosts([*settings.allowed_hosts, *own_name]),
            frozenset(origin.encode("ascii") for origin in settings.allowed_origins),
        ),
        deadlines=Deadlines(boottime, tick_s=_tick_of(settings)),
        clock=boottime,
        observer=Observer(access_log, unrouted, clock=boottime, wall_clock=wall_clock),
    )
    metrics.before_scrape = proxy.observer.settle
    return Gateway(
        Parts(
            data=DataListener(proxy),
            services=services,
            identity_of={name: s.identity for name, s in settings.services.items()},
            keepers=keepers,
            watchers=watchers,
            metrics=metrics,
            listen=_address(settings.listen),
            admin_listen=_address(settings.admin_listen),
            quit_enabled=settings.quitquitquit,
            announce_s=settings.drain.announce,
            drain_s=settings.drain.timeout,
        )
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


def build_origin(name: str, settings: ServiceSettings) -> Origin:
    """Say where a service lives and how it is reached.

    Raises:
        ConfigError: a certificate or key cannot be used.
    """
    is_https = settings.scheme == "https"
    return Origin(
        host=settings.host,
        port=settings.port,
        tls=tls_context(f"services.{name}.tls", settings.tls) if is_https else None,
        server_name=settings.tls.server_name,
        connect_timeout_s=settings.timeouts.connect,
    )


def _build_keeper(
    name: str, identity: Identity, store: TokenStore, metrics: Metrics, watchers: list[Watcher]
) -> Keeper:
    built = build_identity(name, identity)
    counts = IdentityMetrics(name, map(str, RefreshTrigger), map(str, RefreshResult))
    keeper = Keeper(
        name,
        built.source,
        store=store,
        clock=boottime,
        alarm=LoopAlarm(),
        observer=counts,
        random=random.random,
    )
    metrics.add_identity(counts, lambda: _gauges_of(keeper))
    watchers.extend(partial(file.watch, keeper.secret_changed) for file in built.secret_files)
    return keeper


def _gauges_of(keeper: Keeper) -> IdentityGauges:
    status = keeper.status(boottime())
    return IdentityGauges(
        expiry_timestamp_s=status.wall_expires_at or 0.0,
        locked=status.locked,
        clock_skew_s=status.skew_s or 0.0,
    )


def _build_service(
    name: str, settings: ServiceSettings, keeper: Keeper, metrics: Metrics
) -> Service:
    pool = Pool(build_origin(name, settings), clock=boottime)
    methods = {*settings.methods, "GET"} if settings.websocket else settings.methods
    counts = ServiceMetrics(name, methods, RETRY_REASONS)
    metrics.add_service(counts, lambda: ConnectionGauges(pool.active, pool.idle))
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


def _address(address: ListenAddress) -> Address:
    return Address(address.host, address.port, address.path)
