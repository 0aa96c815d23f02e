"""Identity settings → sources of credentials and the caches that hold them."""

import os
import random
import ssl
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, assert_never

from gateway.assembly.egress import build_proxy
from gateway.assembly.secrets import access_key_reader, next_secret_file, required, secret_of
from gateway.assembly.tls import ContextOf, TlsContexts, file_digests, tls_context
from gateway.clock import LoopAlarm, boottime, wall_clock
from gateway.errors import ConfigError
from gateway.identity.access_key import (
    AccessKeySource,
    KeyProvider,
    TemporaryKeySource,
)
from gateway.identity.credential_cache import CredentialCache
from gateway.identity.file import AnonymousSource, FileSource
from gateway.identity.id_token import account_digest
from gateway.identity.key import KeySource
from gateway.identity.keystone import ApplicationCredentialLogin, KeystoneSource, PasswordLogin
from gateway.identity.oidc import OidcLogin, OidcSource
from gateway.identity.platform import (
    POD_TOKEN_FILE_VARIABLE,
    POD_URL_VARIABLE,
    MetadataProvider,
    PodProvider,
)
from gateway.identity.refresh import RefreshResult, RefreshTrigger
from gateway.identity.secret import SecretFile
from gateway.identity.signature import ServiceClocks
from gateway.identity.sink_file import SinkFile
from gateway.identity.sinks import SinkResult, Sinks
from gateway.identity.source import CredentialSource, LoginError
from gateway.identity.store import TokenStore
from gateway.observe.identity_metrics import IdentityGauges, IdentityMetrics
from gateway.observe.metrics import IdentitySeries, Metrics
from gateway.settings import Identity

if TYPE_CHECKING:
    from gateway.identity.fleet.fleet import Fleet


@dataclass(frozen=True, slots=True)
class BuiltIdentity:
    """A source of credentials and the files that it reads secrets from."""

    source: CredentialSource
    secret_files: tuple[SecretFile, ...] = ()


@dataclass(frozen=True, slots=True)
class BuiltCache:
    """The cache of an identity, and what belongs to it."""

    made_of: object
    """Equal for settings and files that would make the same."""
    cache: CredentialCache
    secret_files: tuple[SecretFile, ...]
    sinks: Sinks
    series: IdentitySeries

    def is_secret_stale(self) -> bool:
        """Return whether a secret file's content differs from what was last used. Blocks."""
        return any(map(_is_stale, self.secret_files))


def build_identity(
    name: str,
    identity: Identity,
    store: TokenStore | None = None,
    context_of: ContextOf = tls_context,
) -> BuiltIdentity:
    """Build the source of an identity's credentials.

    Args:
        name: of the identity.
        identity: its settings.
        store: the process's tokens and accounts; None: this identity shares them with no other.
        context_of: makes the context for connections to who issues the credentials.

    Raises:
        ConfigError: a certificate or key cannot be used.
    """
    match identity.method:
        case "none":
            return BuiltIdentity(AnonymousSource())
        case "file":
            source = FileSource(required(identity.token_file))
            return BuiltIdentity(source, (source.file,))
        case "api_key" | "header":
            return _build_key(identity)
        case "ak_sk":
            return _build_access_key(name, identity, context_of)
        case "oidc":
            return _build_oidc(name, identity, context_of)
        case "password":
            login, files = _password_login(identity)
            return _build_keystone(name, identity, login, files, store, context_of=context_of)
        case "application_credential":
            credential_login, files = _application_credential_login(identity)
            return _build_keystone(
                name, identity, credential_login, files, store, context_of=context_of
            )
        case _:
            assert_never(identity.method)


def _build_key(identity: Identity) -> BuiltIdentity:
    is_key = identity.method == "api_key"
    read_secret, files = (
        secret_of(identity.key, identity.key_file)
        if is_key
        else secret_of(identity.value, identity.value_file)
    )
    source = KeySource(
        identity.field_name,
        "Bearer " if is_key else identity.prefix,
        read_secret,
        expires=identity.expires,
    )
    return BuiltIdentity(source, files)


def _build_oidc(name: str, identity: Identity, context_of: ContextOf) -> BuiltIdentity:
    file = SecretFile(required(identity.id_token_file), tell=account_digest)
    login = OidcLogin(
        auth_url=required(identity.auth_url),
        idp=required(identity.idp),
        protocol=identity.protocol,
        project=identity.project,
        project_id=identity.project_id,
        project_domain=identity.project_domain,
        read_token=file.read,
    )
    source = OidcSource(
        login,
        clock=boottime,
        wall_clock=wall_clock,
        random=random.random,
        tls=_tls_to(identity.tokens_url, name, identity, context_of),
        server_hostname=identity.tls.server_name,
        proxy=build_proxy(f"identities.{name}.egress_proxy", identity.egress_proxy),
    )
    return BuiltIdentity(source, (file,))


def _password_login(identity: Identity) -> tuple[PasswordLogin, tuple[SecretFile, ...]]:
    """Return the login, and the files that hold its passwords."""
    read_secret, files = secret_of(identity.password, identity.password_file)
    next_file = next_secret_file(identity)
    login = PasswordLogin(
        tokens_url=identity.tokens_url,
        username=required(identity.username),
        user_domain=required(identity.user_domain),
        project=identity.project,
        project_id=identity.project_id,
        project_domain=identity.project_domain,
        read_secret=read_secret,
        read_next_secret=None if next_file is None else next_file.read,
    )
    return login, files if next_file is None else (*files, next_file)


def _application_credential_login(
    identity: Identity,
) -> tuple[ApplicationCredentialLogin, tuple[SecretFile, ...]]:
    """Return the login, and the file that holds its secret, if there is one."""
    read_secret, files = secret_of(identity.secret, identity.secret_file)
    login = ApplicationCredentialLogin(
        tokens_url=identity.tokens_url,
        credential_id=identity.id,
        name=identity.name,
        username=identity.username,
        user_domain=identity.user_domain,
        read_secret=read_secret,
    )
    return login, files


def _build_keystone(
    name: str,
    identity: Identity,
    login: PasswordLogin | ApplicationCredentialLogin,
    files: tuple[SecretFile, ...],
    store: TokenStore | None,
    *,
    context_of: ContextOf,
) -> BuiltIdentity:
    accounts = TokenStore(boottime) if store is None else store
    source = KeystoneSource(
        login,
        clock=boottime,
        wall_clock=wall_clock,
        random=random.random,
        ledger=accounts.ledger(login.account),
        passwords=accounts.passwords(login.account),
        refusals=accounts.refusals,
        tls=_tls_to(identity.tokens_url, name, identity, context_of),
        server_hostname=identity.tls.server_name,
        proxy=build_proxy(f"identities.{name}.egress_proxy", identity.egress_proxy),
    )
    return BuiltIdentity(source, files)


def _tls_to(
    url: str, name: str, identity: Identity, context_of: ContextOf
) -> ssl.SSLContext | None:
    is_https = url.startswith("https:")
    return context_of(f"identities.{name}.tls", identity.tls) if is_https else None


def _build_access_key(name: str, identity: Identity, context_of: ContextOf) -> BuiltIdentity:
    clocks = ServiceClocks(boottime, wall_clock)
    if identity.key_origin is None:
        read_key, files = access_key_reader(identity)
        return BuiltIdentity(AccessKeySource(read_key, clocks), files)
    provider: KeyProvider
    if identity.key_origin == "metadata":
        url = identity.metadata_url
        provider = MetadataProvider(url, _tls_to(url, name, identity, context_of))
    else:
        provider = _pod_provider(name, identity, context_of)
    source = TemporaryKeySource(
        provider, clocks, clock=boottime, wall_clock=wall_clock, random=random.random
    )
    return BuiltIdentity(source)


def _pod_provider(name: str, identity: Identity, context_of: ContextOf) -> PodProvider:
    """Return the provider that the cluster's variables describe.

    Raises:
        ConfigError: they do not.
    """
    url, file = os.environ.get(POD_URL_VARIABLE, ""), os.environ.get(POD_TOKEN_FILE_VARIABLE, "")
    if not url.startswith(("http://", "https://")) or not file:
        problem = (
            f"identities.{name}.from: pod, but {POD_URL_VARIABLE} and {POD_TOKEN_FILE_VARIABLE} "
            "are not set; associate the pod's service account with an agency (CCE, pod identity), "
            "and restart the pod"
        )
        raise ConfigError([problem])
    tls = _tls_to(url, name, identity, context_of)
    return PodProvider(url, SecretFile(Path(file)).read, tls)


def build_cache(
    name: str,
    identity: Identity,
    known: BuiltCache | None,
    *,
    store: TokenStore,
    metrics: Metrics,
    contexts: TlsContexts,
    fleet: "Fleet | None" = None,
) -> BuiltCache:
    """Build the cache of an identity's credentials, or return `known` if it would be the same.

    Args:
        name: of the identity.
        identity: its settings.
        known: what has been built under this name before, if anything.
        store: shared by all caches.
        metrics: counters of this name are taken from there, if there are any.
        contexts: shared with all services and identities.
        fleet: shares logins with other replicas, if there are any.

    Raises:
        ConfigError: a certificate or key cannot be used.
    """
    proxy = build_proxy(f"identities.{name}.egress_proxy", identity.egress_proxy)
    made_of = (identity, file_digests(identity.tls), proxy)
    if known is not None and known.made_of == made_of:
        return known
    built = build_identity(name, identity, store, contexts.get)
    source = built.source
    if fleet is not None and isinstance(source, KeystoneSource | OidcSource):
        source = _shared(source, fleet, store)
    counts = metrics.identity(name) or IdentityMetrics(
        name, map(str, RefreshTrigger), map(str, RefreshResult)
    )
    sinks = _build_sinks(name, identity, counts)
    cache = CredentialCache(
        name,
        source,
        store=store,
        clock=boottime,
        alarm=LoopAlarm(),
        observer=sinks,
        random=random.random,
    )
    gauges = partial(_gauges_of, cache)
    return BuiltCache(made_of, cache, built.secret_files, sinks, (counts, gauges))


def _shared(
    source: KeystoneSource | OidcSource, fleet: "Fleet", store: TokenStore
) -> CredentialSource:
    from gateway.identity.fleet.source import FleetSource

    return FleetSource(
        source,
        fleet,
        store=store,
        clock=boottime,
        wall_clock=wall_clock,
        random=random.random,
    )


def _build_sinks(name: str, identity: Identity, counts: IdentityMetrics) -> Sinks:
    if identity.sinks:
        counts.expect_sinks(map(str, SinkResult))
    files = [
        SinkFile(
            path=sink.path,
            format=sink.format,
            name=sink.name or name,
            mode=int(sink.mode, 8),
            remove_on_exit=sink.remove_on_exit,
        )
        for sink in identity.sinks
    ]
    return Sinks(
        name, files, observer=counts, clock=boottime, wall_clock=wall_clock, alarm=LoopAlarm()
    )


def _gauges_of(cache: CredentialCache) -> IdentityGauges:
    status = cache.status(boottime())
    return IdentityGauges(
        expiry_timestamp_s=status.wall_expires_at or 0.0,
        locked=status.locked,
        clock_skew_s=status.skew_s or 0.0,
    )


def _is_stale(file: SecretFile) -> bool:
    try:
        return file.is_stale()
    except LoginError:  # it was readable a moment ago; its watcher will report it
        return False
