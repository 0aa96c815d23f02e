"""`serve`: runs the gateway."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import click

from gateway.cli.build import build_gateway
from gateway.cli.configuration import config_option, load_or_exit
from gateway.cli.run import run_until_told, set_up_logging
from gateway.observe.access_log import AccessLog
from gateway.serve.gateway import Gateway


@click.command(
    epilog="""\b
Examples:
  modelarts-gateway serve --config gateway.yaml
  modelarts-gateway serve --config gateway.yaml --listen 127.0.0.1:8000

\b
Signals: SIGTERM and SIGINT withdraw readiness, let requests in flight finish (`drain`), and
end with 0; a second one ends at once."""
)
@config_option
@click.option("--listen", metavar="ADDRESS", help="Where callers connect; over the file's.")
@click.option("--admin-listen", metavar="ADDRESS", help="Where probes and Prometheus connect.")
def command(file: Path | None, listen: str | None, admin_listen: str | None) -> None:
    """Run the gateway until it is told to end.

    It starts whether or not IAM can be reached, and says on the admin listener when it is ready.
    The access log goes to standard output, everything else to standard error.
    """
    loaded = load_or_exit(file, {"listen": listen, "admin_listen": admin_listen})
    set_up_logging()
    for warning in loaded.warnings:
        click.echo(f"warning: {warning}", err=True)

    @asynccontextmanager
    async def build(access_log: AccessLog) -> AsyncIterator[Gateway]:
        yield build_gateway(loaded.settings, access_log)

    def announce(data_url: str, admin_url: str) -> None:
        services = ", ".join(f"/{name}" for name in loaded.settings.services)
        click.echo(f"listening on {data_url} for {services}; admin on {admin_url}", err=True)

    run_until_told(build, announce)
