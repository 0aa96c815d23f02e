"""`twin`: runs the stand-in cloud alone."""

import asyncio
import signal
import sys

import click

from gateway.lifecycle.run import run_loop
from gateway.settings.addresses import parse_listen_tcp
from gateway.settings.values import parse_duration
from gateway.twin import ECHO_ID, IMAGE_ID, IRIS_ID, LLM_ID, SLOW_ID, Account, FaultError, Twin


@click.command(
    epilog="""\b
Examples:
  modelarts-gateway twin
  modelarts-gateway twin --listen 127.0.0.1:8081 --token-ttl 90s

\b
Faults on request and everything else it can do: gateway/twin/README.md"""
)
@click.option(
    "--listen",
    default="127.0.0.1:8081",
    show_default=True,
    metavar="ADDRESS",
    help="Where the stand-in cloud listens.",
)
@click.option(
    "--token-ttl", default="24h", show_default=True, metavar="DURATION", help="Life of a token."
)
@click.option(
    "--slots",
    default=4,
    show_default=True,
    help="How many requests service `slow` handles at a time.",
)
@click.option(
    "--service-time",
    metavar="DURATION",
    default="50ms",
    show_default=True,
    help="How long service `slow` takes for each request.",
)
@click.option(
    "--rate",
    default=0,
    help="Requests per second that service `slow` accepts; others get 429. 0: no limit.",
)
def command(listen: str, token_ttl: str, slots: int, service_time: str, rate: int) -> None:
    """Run IAM and real-time services on loopback, to test your own programs against."""
    try:
        address = parse_listen_tcp(listen)
        ttl_s = parse_duration(token_ttl)
    except ValueError as error:
        raise click.BadParameter(str(error)) from error
    twin = Twin(token_ttl_s=ttl_s)
    try:
        twin.set_capacity({"slots": slots, "service_time": service_time, "rate": rate})
    except FaultError as error:
        raise click.BadParameter(str(error)) from error
    try:
        run_loop(_run(twin, address.host, address.port))
    except OSError as error:
        click.echo(f"cannot listen on {listen}: {error.strerror or error}", err=True)
        sys.exit(2)


async def _run(twin: Twin, host: str, port: int) -> None:
    told = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, told.set)
    await twin.start(host, port)
    account = Account()
    click.echo(f"stand-in cloud  {twin.url}")
    click.echo(
        f"""
  export OS_AUTH_URL={twin.auth_url} OS_USERNAME={account.user} OS_PASSWORD={account.password}
  export OS_USER_DOMAIN_NAME={account.domain} OS_PROJECT_NAME={account.project}

  iris   {twin.service_url(IRIS_ID)}
  image  {twin.service_url(IMAGE_ID)}
  echo   {twin.service_url(ECHO_ID)}
  llm    {twin.service_url(LLM_ID, version="v2")}
  slow   {twin.service_url(SLOW_ID)}
"""
    )
    await told.wait()
    await twin.stop()
