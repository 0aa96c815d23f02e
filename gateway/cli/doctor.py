"""`doctor`: tries each step from the configuration to a response, and says what to do."""

import asyncio
import json
import os
import sys
from pathlib import Path

import click

from gateway.cli import not_followed
from gateway.cli.configuration import EXIT_CONFIG, EXIT_REMOTE, config_option
from gateway.cli.output import tell
from gateway.diagnose.diagnosis import diagnose
from gateway.diagnose.findings import Finding, Level, Step, counted, has_failed
from gateway.errors import ConfigError
from gateway.settings import load

_COLOURS = {Level.OK: "green", Level.WARN: "yellow", Level.FAIL: "red"}


@click.command(
    epilog="""\b
Examples:
  modelarts-gateway doctor --config gateway.yaml
  modelarts-gateway doctor --config gateway.yaml --json
  kubectl exec my-pod -c modelarts-gateway -- modelarts-gateway doctor

\b
--json: exit_code, first (index of the finding to fix first, or null) and findings, each with
level, about (key of the configuration, or null), step, text, and the vendor's code or null.

\b
Exit codes: 0 good, 2 something on this machine is wrong, 3 something remote is. Warnings are good.
Colour: in a terminal, unless NO_COLOR is set."""
)
@config_option
@click.option("--json", "as_json", is_flag=True, help="One JSON document instead of lines.")
def command(file: Path | None, as_json: bool) -> None:
    """Find out what is wrong, step by step, and what to do about it.

    Configuration, the gateway's own listeners, fleet and sinks, secrets, name, connection,
    certificate, login, project, clock, the service's URL, and one harmless request to each service
    (GET without a body; no prediction, none of your data).
    Each line is OK, WARN or FAIL, with the remedy.

    It logs in once per identity, and not at all when a gateway that runs here says that IAM refuses
    this login. One that IAM refuses counts towards the account's lock-out: correct the problem
    before you run doctor again.
    """
    findings = asyncio.run(_collect(file, quiet=as_json))
    code = _exit_code(findings)
    if as_json:
        tell(json.dumps(_document(findings, code), indent=2))
    else:
        tell(_summary(findings), color=_colour())
    sys.exit(code)


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
            tell(_line(finding, 0), color=_colour())
        return findings
    settings = loaded.settings
    keys = [*(f"identities.{n}" for n in settings.identities)]
    keys += [f"services.{n}" for n in settings.services]
    findings = []
    async for finding in diagnose(loaded, file, {**os.environ, **not_followed}):
        findings.append(finding)
        if not quiet:
            tell(_line(finding, max(map(len, keys))), color=_colour())
    return findings


def _line(finding: Finding, key_width: int) -> str:
    level = click.style(f"{finding.level:<4}", fg=_COLOURS[finding.level], bold=True)
    if finding.key:
        return f"{level}  {finding.key:<{key_width}}  {finding.step:<6}  {finding.text}"
    return f"{level}  {finding.step}  {finding.text}"


def _first(findings: list[Finding]) -> Finding | None:
    """Return the failure to fix first: those of this machine, then causes before effects."""
    failures = [finding for finding in findings if finding.level is Level.FAIL]
    return next((f for f in failures if f.is_local), failures[0] if failures else None)


def _summary(findings: list[Finding]) -> str:
    failures = sum(finding.level is Level.FAIL for finding in findings)
    warnings = sum(finding.level is Level.WARN for finding in findings)
    aside = f", {counted(warnings, 'warning', 'warnings')}" if warnings else ""
    first = _first(findings)
    if first is None:
        return f"{click.style('good', fg='green', bold=True)}{aside}"
    failed = click.style(counted(failures, "failure", "failures"), fg="red", bold=True)
    return f"{failed}{aside}; fix first: {' '.join(filter(None, (first.key, first.step)))}: " + (
        first.text
    )


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
