"""`check`: reports every problem of a configuration at once."""

from pathlib import Path

import click

from gateway.cli.build import build_identity, tls_context
from gateway.cli.configuration import EXIT_CONFIG, config_option, load_or_exit
from gateway.errors import ConfigError


@click.command(
    epilog="""\b
Examples:
  modelarts-gateway check --config gateway.yaml

\b
Exit codes: 0 good, 2 the configuration is wrong."""
)
@config_option
def command(file: Path | None) -> None:
    """Check the configuration: what was wrong, what is allowed, what may have been meant."""
    loaded = load_or_exit(file)
    problems: list[str] = []
    for name, service in loaded.settings.services.items():
        try:
            tls_context(f"services.{name}.tls", service.tls)
        except ConfigError as error:
            problems.extend(error.problems)
    for name, identity in loaded.settings.identities.items():
        try:
            build_identity(name, identity)
        except ConfigError as error:
            problems.extend(error.problems)
    for problem in problems:
        click.echo(problem, err=True)
    for warning in loaded.warnings:
        click.echo(f"warning: {warning}", err=True)
    if problems:
        raise SystemExit(EXIT_CONFIG)
    click.echo(
        f"good: {len(loaded.settings.services)} service(s), "
        f"{len(loaded.settings.identities)} identity(ies)"
    )
