"""`whoami`: logs in with each identity and shows as whom."""

import asyncio
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import click

from gateway.cli.configuration import EXIT_CONFIG, EXIT_REMOTE, config_option, load_or_exit
from gateway.cli.output import tell
from gateway.clock import wall_clock
from gateway.diagnose.findings import duration_text
from gateway.diagnose.online import log_in
from gateway.errors import ConfigError
from gateway.identity.source import Login, LoginError, TokenFacts
from gateway.settings import Identity

_UNKNOWN_END = {
    "token": "not known; what writes the file replaces it",
    "access key": "not known; what writes the files replaces it",
    "key": "not known; set `expires` to the date that the console shows",
}


@click.command(
    epilog="""\b
Examples:
  modelarts-gateway whoami --config gateway.yaml
  . ./openrc && GATEWAY_SERVICE_URL=https://… modelarts-gateway whoami

\b
Exit codes: 0 all identities logged in, 2 the configuration is wrong, 3 a login failed."""
)
@config_option
def command(file: Path | None) -> None:
    """Log in once with each identity; print user, project, roles and expiry, never the token.

    Every refused login counts towards the account's lock-out, so it is tried only once.
    """
    loaded = load_or_exit(file)
    failed = misconfigured = False
    for name, identity in loaded.settings.identities.items():
        try:
            login = asyncio.run(log_in(name, identity))
        except ConfigError as error:
            for problem in error.problems:
                tell(problem, err=True)
            misconfigured = True
        except LoginError as error:
            tell(f"identities.{name}: {error.result}: {error}", err=True)
            failed = True
        else:
            _show(name, identity, login)
    if misconfigured:
        sys.exit(EXIT_CONFIG)
    if failed:
        sys.exit(EXIT_REMOTE)


def _show(name: str, identity: Identity, login: Login) -> None:
    tell(f"identity {name}")
    tell(f"  {'method':<12} {identity.method}")
    facts = login.facts
    if facts is None:
        tell(f"  {'token':<12} none is sent")
        return
    what = "token" if login.credential.renewable else "key"
    if login.credential.signs:
        what = "access key"
    rows = {
        "header": identity.field_name,
        "user": facts.user,
        "domain": facts.domain,
        "project": facts.project,
        "project id": facts.project_id,
        "roles": ", ".join(facts.roles),
        "issued": facts.issued_at and facts.issued_at.isoformat(timespec="seconds"),
        "expires": facts.expires_at and facts.expires_at.isoformat(timespec="seconds"),
        "expires in": _left(facts, login.skew_s or 0.0, _UNKNOWN_END[what]),
        what: f"{facts.length} bytes, fingerprint {facts.fingerprint}",
        "clock skew": None if login.skew_s is None else f"{login.skew_s:+.1f} s",
    }
    for key, value in rows.items():
        if value:
            tell(f"  {key:<12} {value}")


def _left(facts: TokenFacts, skew_s: float, unknown: str) -> str:
    if facts.expires_at is None:
        return unknown
    now_at_iam = datetime.fromtimestamp(wall_clock(), UTC) - timedelta(seconds=skew_s)
    return duration_text((facts.expires_at - now_at_iam).total_seconds())
