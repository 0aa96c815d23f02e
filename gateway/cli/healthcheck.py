"""`healthcheck`: asks a running gateway whether it is alive."""

import sys
from pathlib import Path

import click

from gateway.cli.configuration import EXIT_REMOTE, config_option
from gateway.cli.output import tell
from gateway.diagnose.admin_query import admin_address, ask


@click.command(
    epilog="""\b
Examples:
  modelarts-gateway healthcheck
  modelarts-gateway healthcheck --admin-listen 127.0.0.1:9090

\b
Exit codes: 0 alive, 2 the address is wrong, 3 no response, or not the expected one."""
)
@config_option
@click.option("--admin-listen", metavar="ADDRESS", help="Where the gateway's admin listener is.")
def command(file: Path | None, admin_listen: str | None) -> None:
    """Exit with 0 if the gateway responds on its admin listener; needs no curl in the image."""
    good, text = ask(*admin_address(file, admin_listen), "/livez")
    tell(text, err=not good)
    if not good:
        sys.exit(EXIT_REMOTE)
