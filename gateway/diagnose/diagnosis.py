"""The doctor's steps in order: configuration, environment, identities, services, limits."""

import asyncio
from collections.abc import AsyncIterator, Hashable, Iterable, Iterator, Mapping
from pathlib import Path

from gateway.clock import wall_clock
from gateway.diagnose.environment_checks import surroundings
from gateway.diagnose.findings import Finding, Level, Step, counted, has_failed
from gateway.diagnose.listeners import examine_listeners
from gateway.diagnose.local_gateway import advised_limits, refused_logins
from gateway.diagnose.named_files import problems_of
from gateway.diagnose.online import examine_identity, examine_skew, examine_way
from gateway.diagnose.probe_request import visit
from gateway.diagnose.sharing import examine_fleet, examine_sinks
from gateway.diagnose.vendor_codes import failure_text, is_known_to_vendor, meaning_of
from gateway.errors import UpstreamError
from gateway.identity.source import Login
from gateway.settings import Identity, Loaded, Service, Settings
from gateway.settings.identity import SECRETS


async def diagnose(
    loaded: Loaded, file: Path | None, environ: Mapping[str, str]
) -> AsyncIterator[Finding]:
    """Yield the findings, each as soon as it is known.

    Args:
        loaded: the configuration.
        file: where it is from, if not from the environment alone.
        environ: the process's environment.

    Cancellation: safe; leaves no connection behind.
    """
    settings = loaded.settings
    problems = problems_of(settings)
    for finding in _of_configuration(problems, loaded.warnings):
        yield finding
    if problems:
        return
    services = counted(len(settings.services), "service", "services")
    identities = counted(len(settings.identities), "identity", "identities")
    origin = "the environment" if file is None else f"{file} and the environment"
    text = f"{services}, {identities}; from {origin}"
    yield Finding(Level.OK, "", Step.CONFIGURATION, text)
    async for finding in _around(settings, environ):
        yield finding
    logins: dict[str, Login | None] = {}
    refused: set[Hashable] = set()
    held_back = await asyncio.to_thread(refused_logins, settings.admin_listen)
    for name, identity in settings.identities.items():
        # The running gateway may have another secret in its environment than this process.
        is_same = not any(getattr(identity, key) for key in SECRETS)
        spare = held_back.get(name, "") if is_same else ""
        found, logins[name] = await examine_identity(name, identity, refused, spare=spare)
        for finding in (*found, *await asyncio.to_thread(examine_sinks, name, identity)):
            yield finding
    examinations = [
        asyncio.create_task(
            _examine_service(
                name, service, settings.identities[service.identity], logins[service.identity]
            ),
            name=f"doctor-{name}",
        )
        for name, service in settings.services.items()
    ]
    try:
        for examination in examinations:
            for finding in await examination:
                yield finding
    finally:
        for examination in examinations:
            examination.cancel()
    for finding in await _examine_limits(settings):
        yield finding


async def _around(settings: Settings, environ: Mapping[str, str]) -> AsyncIterator[Finding]:
    """Return findings about the environment, the gateway's own listeners and its fleet."""
    for finding in surroundings(environ):
        yield finding
    for finding in await asyncio.to_thread(examine_listeners, settings):
        yield finding
    for finding in await examine_fleet(settings):
        yield finding


def _of_configuration(problems: Iterable[str], warnings: Iterable[str]) -> Iterator[Finding]:
    for problem in problems:
        yield Finding(Level.FAIL, "", Step.CONFIGURATION, problem, is_local=True)
    for warning in warnings:
        yield Finding(Level.WARN, "", Step.CONFIGURATION, warning)


async def _examine_limits(settings: Settings) -> list[Finding]:
    """Return findings about limits that do not fit, from a gateway that runs on this machine."""
    advice = await asyncio.to_thread(advised_limits, settings.admin_listen)
    return [
        Finding(Level.WARN, f"services.{name}", Step.LIMITS, advice[name])
        for name in settings.services
        if name in advice
    ]


async def _examine_service(
    name: str, service: Service, identity: Identity, login: Login | None
) -> list[Finding]:
    """Connect to the service and, if there is a credential, send one harmless request."""
    key = f"services.{name}"
    findings = await examine_way(name, service)
    if has_failed(findings):
        return findings
    if login is None:
        text = f"not tried: identities.{service.identity} has no token; see above"
        return [*findings, Finding(Level.WARN, key, Step.PROBE, text)]
    try:
        visited = await visit(name, service, login.credential)
    except UpstreamError as error:
        text = failure_text(error, service)
        return [*findings, Finding(Level.FAIL, key, Step.PROBE, text)]
    meaning = meaning_of(visited, login_method=identity.method)
    if meaning.step is not Step.URL and is_known_to_vendor(visited):
        text = f"a service is published at {service.path or '/'}"
        findings.append(Finding(Level.OK, key, Step.URL, text))
    findings.append(Finding(meaning.level, key, meaning.step, meaning.text, code=visited.code))
    if login.skew_s is None and visited.date is not None:
        findings += examine_skew(key, wall_clock() - visited.date, "the service")
    return findings
