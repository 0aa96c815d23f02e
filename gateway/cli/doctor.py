"""`doctor`: tries every step between a configuration and an answer, and says what to do."""

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Hashable, Iterable, Iterator, Mapping
from pathlib import Path

import click

from gateway.cli import not_followed
from gateway.cli.check import problems_of
from gateway.cli.configuration import EXIT_CONFIG, EXIT_REMOTE, config_option
from gateway.clock import wall_clock
from gateway.diagnose.environment_checks import surroundings
from gateway.diagnose.findings import Finding, Level, Step, has_failed
from gateway.diagnose.local_gateway import advised_limits, refused_logins
from gateway.diagnose.online import examine_identity, examine_skew, examine_way
from gateway.diagnose.probe_request import visit
from gateway.diagnose.vendor_codes import failure_text, is_known_to_vendor, meaning_of
from gateway.errors import ConfigError, UpstreamError
from gateway.identity.source import Login
from gateway.settings import Identity, Loaded, Service, Settings, load
from gateway.settings.identity import SECRETS

_COLOURS = {Level.OK: "green", Level.WARN: "yellow", Level.FAIL: "red"}


@click.command(
    epilog="""\b
Examples:
  modelarts-gateway doctor --config gateway.yaml
  modelarts-gateway doctor --config gateway.yaml --json
  kubectl exec my-pod -c gateway -- modelarts-gateway doctor

\b
--json: exit_code, first (place of the finding to see to first, or null) and findings, each with
level, about (key of the configuration, or null), step, text, and the vendor's code or null.

\b
Exit codes: 0 good, 2 something on this machine is wrong, 3 something remote is. Warnings are good.
Colour: in a terminal, unless NO_COLOR is set."""
)
@config_option
@click.option("--json", "as_json", is_flag=True, help="One JSON document instead of lines.")
def command(file: Path | None, as_json: bool) -> None:
    """Find out what is wrong, step by step, and what to do about it.

    Configuration, secrets, name, connection, certificate, login, project, clock, the service's URL,
    and one harmless request to each service (GET without a body; no prediction, none of your data).
    Each line is OK, WARN or FAIL, with the remedy.

    It logs in once per identity, and not at all when a gateway that runs here says that IAM refuses
    this login. One that IAM refuses counts towards the account's lock-out: correct what is said
    before you run it again.
    """
    findings = asyncio.run(_collect(file, quiet=as_json))
    code = _exit_code(findings)
    if as_json:
        click.echo(json.dumps(_document(findings, code), indent=2))
    else:
        click.echo(_summary(findings), color=_colour())
    sys.exit(code)


async def diagnose(
    loaded: Loaded, file: Path | None, environ: Mapping[str, str]
) -> AsyncIterator[Finding]:
    """Yield what is found, as soon as it is known.

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
    text = (
        f"{len(settings.services)} service(s), {len(settings.identities)} identity(ies); from "
        f"{'' if file is None else f'{file} and '}the environment"
    )
    yield Finding(Level.OK, "", Step.CONFIGURATION, text)
    for finding in surroundings(environ):
        yield finding
    logins: dict[str, Login | None] = {}
    refused: set[Hashable] = set()
    held_back = await asyncio.to_thread(refused_logins, settings.admin_listen)
    for name, identity in settings.identities.items():
        # A secret of the environment may be another one here than there.
        is_same = not any(getattr(identity, key) for key in SECRETS)
        spare = held_back.get(name, "") if is_same else ""
        found, logins[name] = await examine_identity(name, identity, refused, spare=spare)
        for finding in found:
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


def _of_configuration(problems: Iterable[str], warnings: Iterable[str]) -> Iterator[Finding]:
    for problem in problems:
        yield Finding(Level.FAIL, "", Step.CONFIGURATION, problem, is_local=True)
    for warning in warnings:
        yield Finding(Level.WARN, "", Step.CONFIGURATION, warning)


async def _examine_limits(settings: Settings) -> list[Finding]:
    """Ask a gateway that runs here whether limits are far from what the services show."""
    advice = await asyncio.to_thread(advised_limits, settings.admin_listen)
    return [
        Finding(Level.WARN, f"services.{name}", Step.LIMITS, advice[name])
        for name in settings.services
        if name in advice
    ]


async def _examine_service(
    name: str, service: Service, identity: Identity, login: Login | None
) -> list[Finding]:
    """Go to the service and, if there is a credential, ask it something harmless."""
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


async def _collect(file: Path | None, *, quiet: bool) -> list[Finding]:
    """Return all findings; print each as it comes, unless told to be quiet."""
    try:
        loaded = load(file=file, environ=os.environ)
    except ConfigError as error:
        findings = [
            Finding(Level.FAIL, "", Step.CONFIGURATION, problem, is_local=True)
            for problem in error.problems
        ]
        for finding in findings * (not quiet):
            click.echo(_line(finding, 0), color=_colour())
        return findings
    settings = loaded.settings
    keys = [*(f"identities.{n}" for n in settings.identities)]
    keys += [f"services.{n}" for n in settings.services]
    findings = []
    async for finding in diagnose(loaded, file, {**os.environ, **not_followed}):
        findings.append(finding)
        if not quiet:
            click.echo(_line(finding, max(map(len, keys))), color=_colour())
    return findings


def _line(finding: Finding, key_width: int) -> str:
    level = click.style(f"{finding.level:<4}", fg=_COLOURS[finding.level], bold=True)
    if finding.key:
        return f"{level}  {finding.key:<{key_width}}  {finding.step:<6}  {finding.text}"
    return f"{level}  {finding.step}  {finding.text}"


def _first(findings: list[Finding]) -> Finding | None:
    """Return the failure to see to first: on this machine before others, causes before effects."""
    failures = [finding for finding in findings if finding.level is Level.FAIL]
    return next((f for f in failures if f.is_local), failures[0] if failures else None)


def _summary(findings: list[Finding]) -> str:
    failures = sum(finding.level is Level.FAIL for finding in findings)
    warnings = sum(finding.level is Level.WARN for finding in findings)
    aside = f", {_count(warnings, 'warning')}" if warnings else ""
    first = _first(findings)
    if first is None:
        return f"{click.style('good', fg='green', bold=True)}{aside}"
    failed = click.style(_count(failures, "failure"), fg="red", bold=True)
    return f"{failed}{aside}; first of all: {' '.join(filter(None, (first.key, first.step)))}: " + (
        first.text
    )


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' * (number != 1)}"


def _document(findings: list[Finding], code: int) -> dict[str, object]:
    first = _first(findings)
    return {
        "exit_code": code,
        "first": None if first is None else findings.index(first),
        "findings": [
            {
                "level": finding.level,
                "about": finding.key or None,
                "step": finding.step,
                "text": finding.text,
                "code": finding.code or None,
            }
            for finding in findings
        ],
    }


def _exit_code(findings: list[Finding]) -> int:
    if not has_failed(findings):
        return 0
    is_local = any(finding.is_local for finding in findings if finding.level is Level.FAIL)
    return EXIT_CONFIG if is_local else EXIT_REMOTE


def _colour() -> bool | None:
    """Return False where colour is not wanted (no-color.org), None where click is to decide."""
    if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return False
    return None
