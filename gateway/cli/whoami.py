"""`whoami`: logs in with each identity and shows as whom."""

import asyncio
import sys
from pathlib import Path

import click

from gateway.cli.build import build_identity
from gateway.cli.configuration import EXIT_REMOTE, config_option, load_or_exit
from gateway.errors import ConfigError
from gateway.identity.source import Login, LoginError
from gateway.settings import Identity


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

    Every failed login counts towards the account's lock-out, so it is tried only once.
    """
    loaded = load_or_exit(file)
    failed = False
    for name, identity in loaded.settings.identities.items():
        try:
            login = asyncio.run(_log_in(name, identity))
        except ConfigError as error:
            for problem in error.problems:
                click.echo(problem, err=True)
            raise SystemExit(2) from error
        except LoginError as error:
            click.echo(f"identity {name}: {error.result}: {error}", err=True)
            failed = True
        else:
            _show(name, login)
    if failed:
        sys.exit(EXIT_REMOTE)


async def _log_in(name: str, identity: Identity) -> Login:
    return await build_identity(name, identity).source.fetch()


def _show(name: str, login: Login) -> None:
    facts = login.facts
    click.echo(f"identity {name}")
    if facts is None:
        click.echo("  method none: no token is sent")
        return
    rows = {
        "user": facts.user,
        "domain": facts.domain,
        "project": facts.project,
        "project id": facts.project_id,
        "roles": ", ".join(facts.roles),
        "issued": facts.issued_at and facts.issued_at.isoformat(timespec="seconds"),
        "expires": facts.expires_at and facts.expires_at.isoformat(timespec="seconds"),
        "token": f"{facts.length} bytes, fingerprint {facts.fingerprint}",
        "clock skew": None if login.skew_s is None else f"{login.skew_s:+.1f} s",
    }
    for key, value in rows.items():
        if value:
            click.echo(f"  {key:<11} {value}")
