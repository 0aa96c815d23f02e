"""Identity settings → sources of credentials and the caches that hold them."""

import os
import random
import ssl
from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar, assert_never

from pydantic import SecretStr

from gateway.assembly.egress import build_proxy
from gateway.assembly.tls import file_digests, tls_context
from gateway.clock import LoopAlarm, boottime, wall_clock
from gateway.errors import ConfigError
from gateway.identity.access_key import (
    AccessKey,
    AccessKeySource,
    KeyProvider,
    TemporaryKeySource,
    access_key_of,
)
from gateway.identity.credential_cache import CredentialCache
from gateway.identity.file import AnonymousSource, FileSource
from gateway.identity.id_token import account_digest, claims_of
from gateway.identity.key import KeySource, key_line
from gateway.identity.keystone import ApplicationCredentialLogin, KeystoneSource, PasswordLogin
from gateway.identity.oidc import OidcLogin, OidcSource
from gateway.identity.platform import (
    POD_TOKEN_FILE_VARIABLE,
    POD_URL_VARIABLE,
    MetadataProvider,
    PodProvider,
)
from gateway.identity.refresh import RefreshResult, RefreshTrigger
from gateway.identity.secret import SecretFile, is_placeholder
from gateway.identity.signature import ServiceClocks
from gateway.identity.sink_file import SinkFile
from gateway.identity.sinks import SinkResult, Sinks
from gateway.identity.source import CredentialSource, LoginError
from gateway.identity.store import TokenStore
from gateway.observe.metrics import IdentityGauges, IdentityMetrics, IdentitySeries, Metrics
from gateway.settings import Identity, Settings
from gateway.settings.identity import SECRETS

if TYPE_CHECKING:
    from gateway.identity.fleet.fleet import Fleet

_T = TypeVar("_T")


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
        case "api_key" | "header":
            is_key = identity.method == "api_key"
            read_secret, files = (
                _secret_of(identity.key, identity.key_file)
                if is_key
                else _secret_of(identity.value, identity.value_file)
            )
            key_source = KeySource(
                identity.field_name,
                "Bearer " if is_key else identity.prefix,
                read_secret,
                expires=identity.expires,
            )
            return BuiltIdentity(key_source, files)
        case "ak_sk":
            return _build_access_key(name, identity)
        case "oidc":
            file = SecretFile(_required(identity.id_token_file), tell=account_digest)
            oidc = OidcLogin(
                auth_url=_required(identity.auth_url),
                idp=_required(identity.idp),
                protocol=identity.protocol,
                project=identity.project,
                project_id=identity.project_id,
                project_domain=identity.project_domain,
                read_token=file.read,
            )
            source_of_oidc = OidcSource(
                oidc,
                clock=boottime,
                wall_clock=wall_clock,
                random=random.random,
                tls=_iam_tls(name, identity),
                server_hostname=identity.tls.server_name,
                proxy=build_proxy(f"identities.{name}.egress_proxy", identity.egress_proxy),
            )
            return BuiltIdentity(source_of_oidc, (file,))
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
                credential_id=identity.id,
                name=identity.name,
                username=identity.username,
                user_domain=identity.user_domain,
                read_secret=read_secret,
            )
        case _:
            assert_never(identity.method)
    source_of_tokens = KeystoneSource(
        login,
        clock=boottime,
        wall_clock=wall_clock,
        random=random.random,
        tls=_iam_tls(name, identity),
        server_hostname=identity.tls.server_name,
        proxy=build_proxy(f"identities.{name}.egress_proxy", identity.egress_proxy),
    )
    return BuiltIdentity(source_of_tokens, files)


def _iam_tls(name: str, identity: Identity) -> ssl.SSLContext | None:
    is_https = identity.tokens_url.startswith("https:")
    return tls_context(f"identities.{name}.tls", identity.tls) if is_https else None


def _build_access_key(name: str, identity: Identity) -> BuiltIdentity:
    clocks = ServiceClocks(boottime, wall_clock)
    if identity.key_origin is None:
        read_key, files = _access_key_reader(identity)
        return BuiltIdentity(AccessKeySource(read_key, clocks), files)
    provider: KeyProvider
    if identity.key_origin == "metadata":
        provider = MetadataProvider(identity.metadata_url)
    else:
        provider = _pod_provider(name)
    source = TemporaryKeySource(
        provider, clocks, clock=boottime, wall_clock=wall_clock, random=random.random
    )
    return BuiltIdentity(source)


def _access_key_reader(
    identity: Identity,
) -> tuple[Callable[[], AccessKey], tuple[SecretFile, ...]]:
    """Return what reads an access key, and the files that it reads."""
    given_id = None if identity.access_key is None else SecretStr(identity.access_key)
    read_id, files = _secret_of(given_id, identity.access_key_file)
    read_secret, more_files = _secret_of(identity.secret_key, identity.secret_key_file)
    files += more_files
    read_token: Callable[[], SecretStr | None] = lambda: None  # noqa: E731
    if identity.security_token is not None or identity.security_token_file is not None:
        read_token, more_files = _secret_of(identity.security_token, identity.security_token_file)
        files += more_files

    def read_key() -> AccessKey:
        return access_key_of(read_id().get_secret_value(), read_secret(), read_token())

    return read_key, files


def _pod_provider(name: str) -> PodProvider:
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
    return PodProvider(url, SecretFile(Path(file)).read)


def build_cache(
    name: str,
    identity: Identity,
    known: BuiltCache | None,
    *,
    store: TokenStore,
    metrics: Metrics,
    fleet: "Fleet | None" = None,
) -> BuiltCache:
    """Build the cache of an identity's credentials, or return `known` if it would be the same.

    Args:
        name: of the identity.
        identity: its settings.
        known: what has been built under this name before, if anything.
        store: shared by all caches.
        metrics: counters of this name are taken from there, if there are any.
        fleet: shares logins with other replicas, if there are any.

    Raises:
        ConfigError: a certificate or key cannot be used.
    """
    proxy = build_proxy(f"identities.{name}.egress_proxy", identity.egress_proxy)
    made_of = (identity, file_digests(identity.tls), proxy)
    if known is not None and known.made_of == made_of:
        return known
    built = build_identity(name, identity)
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


def unusable_secrets(settings: Settings, *, tokens: bool = True) -> list[str]:
    """Return a line for each secret file that has no usable content. Blocks.

    `tokens` False passes over `token_file`, which somebody else may have yet to fill.
    """
    problems = [*unusable_keys(settings), *unusable_proxies(settings)]
    for name, identity in settings.identities.items():
        for key in ("password_file", "secret_file", "token_file")[: 2 + tokens]:
            file = getattr(identity, key)
            if file is not None:
                try:
                    SecretFile(file).read()
                except LoginError as error:
                    problems.append(f"identities.{name}.{key}: {error}")
    return problems


def unusable_proxies(settings: Settings) -> list[str]:
    """Return a line for each egress proxy whose password cannot be used. Blocks."""
    proxies = {f"identities.{n}": i.egress_proxy for n, i in settings.identities.items()}
    proxies |= {f"services.{n}": s.egress_proxy for n, s in settings.services.items()}
    problems: list[str] = []
    for key, proxy in proxies.items():
        try:
            build_proxy(f"{key}.egress_proxy", proxy)
        except ConfigError as error:
            problems += error.problems
    return problems


def placeholders(settings: Settings) -> dict[str, str]:
    """Return identities whose secret file holds what `init` wrote, and a line for each. Blocks."""
    return {
        name: f"identities.{name}.{key}: {file} still holds init's placeholder; write the secret "
        "into it, before the gateway can start"
        for name, identity in settings.identities.items()
        for key in (*SECRETS.values(), "token_file", "id_token_file")
        if (file := getattr(identity, key)) is not None and is_placeholder(file)
    }


def unusable_keys(settings: Settings, *, besides: Collection[str] = ()) -> list[str]:
    """Return a line for each key that cannot be sent as it is. Blocks.

    Identities named in `besides` are passed over.
    """
    problems = []
    for name, identity in settings.identities.items():
        if name in besides:
            continue
        for plain in ("key", "value"):
            value, file = getattr(identity, plain), getattr(identity, SECRETS[plain])
            if value is not None or file is not None:
                read_secret, _ = _secret_of(value, file)
                try:
                    key_line(identity.field_name, "", read_secret())
                except LoginError as error:
                    where = plain if file is None else SECRETS[plain]
                    problems.append(f"identities.{name}.{where}: {error}")
        if identity.id_token_file is not None:
            try:
                claims_of(SecretFile(identity.id_token_file).read())
            except LoginError as error:
                problems.append(f"identities.{name}.id_token_file: {error}")
        if identity.method == "ak_sk" and identity.key_origin is None:
            try:
                _access_key_reader(identity)[0]()
            except LoginError as error:
                problems.append(f"identities.{name}: {error}")
    return problems


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


def _secret_of(
    value: SecretStr | None, file: Path | None
) -> tuple[Callable[[], SecretStr], tuple[SecretFile, ...]]:
    if value is not None:
        return lambda: value, ()
    secret_file = SecretFile(_required(file))
    return secret_file.read, (secret_file,)


def _required(value: _T | None) -> _T:
    if value is None:
        raise ConfigError(["identities: a required key is missing"])  # the settings' own rule
    return value
