"""`check`: reports every problem of a configuration at once; --online tries IAM and services."""

import asyncio
import sys
from pathlib import Path

import click

from gateway.assembly.fleet import fleet_problems
from gateway.assembly.secrets import (
    forgotten_refusals,
    odd_secrets,
    placeholders,
    unusable_keys,
    unusable_passwords,
)
from gateway.cli.configuration import EXIT_CONFIG, EXIT_REMOTE, config_option, load_or_exit
from gateway.cli.output import tell
from gateway.diagnose.findings import counted
from gateway.diagnose.named_files import problems_of
from gateway.errors import ConfigError
from gateway.settings import Loaded, Settings


@click.command(
    epilog="""\b
Examples:
  modelarts-gateway check --config gateway.yaml
  modelarts-gateway check --config gateway.yaml --show
  modelarts-gateway check --config gateway.yaml --online

\b
Exit codes: 0 good, 2 the configuration is wrong, 3 something remote is (with --online)."""
)
@config_option
@click.option(
    "--online", is_flag=True, help="Also log in, once per identity, and connect to each service."
)
@click.option(
    "--show", is_flag=True, help="Also print every value that is used, and where it comes from."
)
def command(file: Path | None, online: bool, show: bool) -> None:
    """Check the configuration; report each problem with what is allowed.

    With --online one line per finding, OK, WARN or FAIL, with the remedy. A login that IAM refuses
    counts towards the account's lock-out, so it is tried only once. With --show one line per
    value, secrets masked: key, value, and the flag, variable, or line of the file that it is from.
    """
    loaded = load_or_exit(file)
    unfilled = placeholders(loaded.settings)
    secrets = [
        *unusable_keys(loaded.settings, besides=unfilled),
        # With --online a file that cannot be read is among the findings.
        *unusable_passwords(loaded.settings, besides=unfilled, unreadable=not online),
    ]
    problems = [*problems_of(loaded.settings), *secrets]
    for problem in problems:
        tell(problem, err=True)
    fleet = _fleet_warnings(loaded.settings)
    doubts = [*odd_secrets(loaded.settings), *forgotten_refusals(loaded.settings)]
    for warning in (*loaded.warnings, *fleet, *unfilled.values(), *doubts):
        tell(f"warning: {warning}", err=True)
    if problems:
        sys.exit(EXIT_CONFIG)
    if show:
        _show(loaded)
    if online:
        _go_online(loaded.settings)
    services = counted(len(loaded.settings.services), "service", "services")
    identities = counted(len(loaded.settings.identities), "identity", "identities")
    tell(f"good: {services}, {identities}")


def _fleet_warnings(settings: Settings) -> list[str]:
    """Return why this replica cannot share logins; it serves requests nevertheless."""
    try:
        return [] if settings.fleet is None else fleet_problems(settings.fleet)
    except ConfigError:  # among the problems already
        return []


def _show(loaded: Loaded) -> None:
    from gateway.settings.effective import effective

    values = effective(loaded)
    key_width = max(len(value.key) for value in values)
    value_width = min(max(len(value.value_shown) for value in values), 60)
    for value in values:
        tell(f"{value.key:<{key_width}}  {value.value_shown:<{value_width}}  {value.origin}")


def _go_online(settings: Settings) -> None:
    """Print the findings; exit if one is a failure."""
    from gateway.diagnose.findings import Level
    from gateway.diagnose.online import examine

    findings = asyncio.run(examine(settings))
    for finding in findings:
        tell(f"{finding.level:<4}  {finding.key}  {finding.text}")
    failures = [finding for finding in findings if finding.level is Level.FAIL]
    if failures:
        is_local = any(finding.is_local for finding in failures)
        sys.exit(EXIT_CONFIG if is_local else EXIT_REMOTE)
