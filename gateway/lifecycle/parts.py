"""What a gateway is made of, and what a reload replaces."""

import ssl
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gateway.downstream.client_names import ClientNames
from gateway.downstream.listener import DataListener
from gateway.http.host import AllowedHosts
from gateway.identity.credential_cache import CredentialCache
from gateway.identity.sinks import Sinks
from gateway.observe.metrics import IdentitySeries, Metrics, ServiceSeries
from gateway.proxy.admission import Rules
from gateway.proxy.service import Service
from gateway.settings import ListenAddress
from gateway.settings.effective import EffectiveValue
from gateway.tokens.listener import TokenListener

if TYPE_CHECKING:  # the extra `fleet` need not be installed
    from gateway.identity.fleet.fleet import Fleet


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What a gateway is made of; built in assembly/, started, replaced and stopped by `Gateway`.

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
    credential_caches: Mapping[str, CredentialCache]
    sinks: Mapping[str, Sinks]
    """Of each identity, even one without files."""
    watchers: Mapping[str, Sequence[Callable[[], Coroutine[Any, Any, None]]]]
    """By identity: each makes a coroutine that watches a secret's file until it is cancelled."""
    metrics: Metrics
    listen: ListenAddress
    reuse_port: bool
    """Whether other processes may listen there, too."""
    listen_tls: ssl.SSLContext | None
    """For callers; another object when its files have changed."""
    watch_certificate: Callable[[], Coroutine[Any, Any, None]] | None
    """Makes a coroutine that renews `listen_tls` until it is cancelled."""
    client_names: ClientNames | None
    """Who may call, if callers need a certificate."""
    socket_mode: int
    """Of the socket file, if `listen` is one."""
    admin_listen: ListenAddress
    fleet: "Fleet | None"
    """What is shared with other replicas, if anything is."""
    tokens: TokenListener | None
    """The token endpoint, if there is one."""
    token_sources: Mapping[str, CredentialCache]
    """What the token endpoint hands out, by name of the service."""
    token_listen: ListenAddress | None
    token_socket_mode: int
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
    """The parts that a reload has built from the configuration."""

    parts: Parts
    warnings: tuple[str, ...]
    changed_secrets: frozenset[str]
    """Identities that keep their cache and whose secret has changed."""


Rebuild = Callable[[], Rebuilt]
"""Reads the configuration and builds new parts; blocks, and leaves the parts in use unchanged.
Raises ConfigError: the configuration cannot be used."""
