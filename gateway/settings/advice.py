"""What is allowed and still deserves a second look, as `key: sentence` lines.

Looks at folders that are named; otherwise pure.
"""

import os
from collections import Counter
from collections.abc import Iterator

from gateway.settings.addresses import Url, parse_url
from gateway.settings.identity import Identity
from gateway.settings.models import Service, Settings
from gateway.settings.sinks import Sink
from gateway.settings.tls import Tls

_PATIENCE_S = 10.0
"""Many clients give up after 10 to 30 s."""


_NEW_PATHS = ("/v2/infers", "/v2/infer/")
_LARGEST_SIGNED = 12 * 2**20


def warnings_of(settings: Settings) -> tuple[str, ...]:
    """Return one line per risk that the settings take, none when there is none."""
    return tuple(_warnings(settings))


def _warnings(settings: Settings) -> Iterator[str]:
    tls = settings.listen_tls
    if not settings.listen.is_local and (tls is None or tls.client_ca_file is None):
        yield (
            f"listen: {settings.listen} can be reached from other machines, "
            "and everything that reaches it uses the gateway's token; use a loopback address, or "
            "listen_tls.client_ca_file"
        )
    yield from _token_listener(settings)
    yield from _fleet(settings)
    for name, identity in settings.identities.items():
        if identity.auth_url:
            url = parse_url(identity.auth_url)
            yield from _way(f"identities.{name}", "auth_url", url, identity.tls, "the login")
        for place, sink in enumerate(identity.sinks):
            yield from _sink(f"identities.{name}.sinks[{place}]", sink)
    paths = Counter(service.path for service in settings.services.values())
    for name, service in settings.services.items():
        secret = "" if settings.identities[service.identity].method == "none" else "the token"
        yield from _way(f"services.{name}", "url", service.parts, service.tls, secret)
        yield from _kind(name, service, settings.identities[service.identity])
        yield from _patience(f"services.{name}", service)
        if paths[service.path] > 1:
            yield (
                f"services.{name}.url: another service has the path {service.path or '/'} too; "
                f"neither is served there, this one only at /{name}"
            )
        elif service.path != f"/{name}" and service.path[1:] in settings.services:
            yield (
                f"services.{name}.url: the path {service.path} is another service's name, which "
                f"is served there; this one only at /{name}"
            )


def _fleet(settings: Settings) -> Iterator[str]:
    """Yield what is unsafe about the fleet's Redis."""
    fleet = settings.fleet
    if fleet is not None and fleet.url.password is not None:
        yield "fleet.url: holds a password, which others can see; use username and password_file"
    if fleet is not None and not fleet.tls.verify:
        yield (
            "fleet.tls.verify: false; any machine that answers gets the password, use ca_file "
            "instead"
        )


def _token_listener(settings: Settings) -> Iterator[str]:
    """Yield who may take the token from the token endpoint, if it is more than one user."""
    address, mode = settings.token_listen, settings.token_listen_mode
    if address is not None and not address.path:
        yield (
            f"token_listen: every process that can connect to {address} gets the token; "
            "use unix:/path, whose mode says who may"
        )
    elif address is not None and int(mode, 8) & 0o006:
        yield (
            f"token_listen_mode: {mode} lets every user of this machine take the token; "
            "use 0600, or 0660 and a group"
        )


def _kind(name: str, service: Service, identity: Identity) -> Iterator[str]:
    """Yield what is wrong about the kind of credential for a service's URL."""
    key, method = f"services.{name}.identity", identity.method
    is_app_code = (identity.header or "").lower() == "x-apig-appcode"
    kind = "an AppCode" if is_app_code else "an API key" if method == "api_key" else "a signature"
    if service.path.startswith(_NEW_PATHS) and (method == "ak_sk" or is_app_code):
        yield (
            f"{key}: {service.identity} has {kind}, which services of the new version "
            "(/v2/infers) do not take; use method api_key, password or oidc"
        )
    if service.path.startswith("/v1/infers") and method == "api_key":
        yield (
            f"{key}: {service.identity} has an API key, which services of the old version "
            "(/v1/infers) do not take; use method password, or header with X-Apig-AppCode"
        )
    is_key = identity.field_name.lower() == "authorization"
    if service.host.endswith(".modelarts-maas.com") and not is_key:
        yield f"{key}: MaaS takes API keys only; use an identity with method api_key"
    if method == "ak_sk" and service.max_body > _LARGEST_SIGNED:
        yield (
            f"services.{name}.max_body: the cloud takes no signed request above 12 MiB; use 12MiB, "
            "or a token"
        )


def _sink(section: str, sink: Sink) -> Iterator[str]:
    """Yield what keeps a sink from being written, or lets others read it."""
    folder = sink.path.parent
    if not folder.is_dir():
        yield f"{section}.path: there is no folder {folder}; make it, or mount one there"
    elif not os.access(folder, os.W_OK | os.X_OK):
        yield (
            f"{section}.path: {folder} is not writable for this user, so no token is written; "
            "correct its mode or owner"
        )
    if int(sink.mode, 8) & 0o007:
        yield (
            f"{section}.mode: {sink.mode} lets every user of this machine read the token; "
            "use 0600, or 0640 and a group"
        )


def _patience(section: str, service: Service) -> Iterator[str]:
    """Yield that requests wait for longer than callers are likely to."""
    wait_s = service.queue.wait
    if service.is_limited and service.queue.depth != 0 and wait_s > _PATIENCE_S:
        yield (
            f"{section}.queue.wait: {wait_s:g}s is longer than many callers wait, so requests "
            f"would be served whose callers have given up; use {_PATIENCE_S:g}s or less, "
            "and give callers a longer timeout than that"
        )


def _way(section: str, key: str, url: Url, tls: Tls, secret: str) -> Iterator[str]:
    """Yield what is unsafe on the way to `url`, where `secret` is sent unless empty."""
    if url.is_open and secret:
        yield (
            f"{section}.{key}: http to another machine; {secret} can be read on the way, use https"
        )
    if url.scheme == "http" and tls != Tls():
        yield f"{section}.tls: has no effect; the URL is not https"
    elif not tls.verify:
        yield (
            f"{section}.tls.verify: false; any machine that answers as {url.authority} gets "
            f"{secret or 'the requests'}, use ca_file instead"
        )
