"""`wait`: waits until a running gateway is ready."""

import sys
import time
from pathlib import Path

import click

from gateway.cli.configuration import EXIT_REMOTE, config_option
from gateway.cli.output import tell
from gateway.diagnose.admin_query import admin_address, ask
from gateway.settings.values import parse_duration

_ASK_AGAIN_S = 0.2


@click.command(
    epilog="""\b
Examples:
  modelarts-gateway wait --max 30s && exec my-application

\b
Exit codes: 0 ready, 2 the address or the time is wrong, 3 not ready in time."""
)
@config_option
@click.option("--admin-listen", metavar="ADDRESS", help="Where the gateway's admin listener is.")
@click.option(
    "--max",
    "maximum",
    default="30s",
    show_default=True,
    metavar="DURATION",
    help="How long to wait.",
)
def command(file: Path | None, admin_listen: str | None, maximum: str) -> None:
    """Exit with 0 as soon as the gateway is ready: for start order, without curl in the image."""
    try:
        limit_s = parse_duration(maximum)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--max") from error
    host, port = admin_address(file, admin_listen)
    give_up_at = time.monotonic() + limit_s
    while True:
        good, text = ask(host, port, "/readyz")
        if good:
            tell(text)
            return
        if time.monotonic() >= give_up_at:
            tell(f"not ready after {maximum}: {text}", err=True)
            sys.exit(EXIT_REMOTE)
        time.sleep(_ASK_AGAIN_S)
