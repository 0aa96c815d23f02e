"""The command line: one module per command, imported only when that command runs."""

import importlib
import os
from typing import Any

import click

from gateway import __version__, build
from gateway.lifecycle.ending import end_with

_COMMANDS = {
    # name: what the list of commands says; the command is `command` in `gateway.cli.<name>`
    "serve": "Run the gateway.",
    "run": "Run one command, such as a job or a notebook, with a gateway around it.",
    "demo": "Try it out: the stand-in cloud and the gateway on loopback, no account needed.",
    "twin": "Run the stand-in cloud alone: IAM and real-time services, with faults on request.",
    "init": "Write a first configuration, from a service's URL and a kind of credential.",
    "check": "Check the configuration and report every problem at once.",
    "doctor": "Try each step up to the service's response; name the first failure and the fix.",
    "whoami": "Log in; show user, project, roles and expiry, never the token.",
    "wait": "Wait until a running gateway is ready.",
    "healthcheck": "Ask a running gateway whether it is alive.",
}


not_followed: dict[str, str] = {}
"""Variables that were taken out of the environment, so that no library follows them."""


class _Commands(click.Group):
    """Imports a command when it is needed: probes run every few seconds and must start fast."""

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """Run a command; its exit code stands even if the end of what it printed is lost."""
        try:
            return super().main(*args, **kwargs)
        except SystemExit as end:
            code = end.code
            end_with(code if isinstance(code, int) else int(code is not None))

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002  # click's signature
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002  # as above
        if cmd_name not in _COMMANDS:
            return None
        # aiohttp makes contexts when it is imported, and OpenSSL would begin a file of TLS keys.
        if (file := os.environ.pop("SSLKEYLOGFILE", None)) is not None:
            not_followed["SSLKEYLOGFILE"] = file
        command = importlib.import_module(f"gateway.cli.{cmd_name}").command
        if not isinstance(command, click.Command):
            raise TypeError(f"gateway.cli.{cmd_name}.command is not a command")
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command, or name the one that was meant."""
        name = args[0]
        if name in _COMMANDS or name.startswith("-"):
            return super().resolve_command(ctx, args)
        from difflib import get_close_matches

        near = get_close_matches(name, _COMMANDS, n=1, cutoff=0.5)
        meant = f"Did you mean '{near[0]}'?" if near else f"Commands: {', '.join(_COMMANDS)}."
        raise click.UsageError(f"No such command '{name}'. {meant}", ctx)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002  # as above
        with formatter.section("Commands"):
            formatter.write_dl(list(_COMMANDS.items()))


_EPILOG = """\b
Examples:
  modelarts-gateway demo
  modelarts-gateway check --config gateway.yaml
  modelarts-gateway serve --config gateway.yaml
  GATEWAY_SERVICE_URL=https://… OS_AUTH_URL=https://… modelarts-gateway serve

\b
Completion of commands and options, for this shell (bash, zsh or fish):
  eval "$(_MODELARTS_GATEWAY_COMPLETE=bash_source modelarts-gateway)"

\b
Exit codes:
  0  good
  2  the configuration or the command line is wrong
  3  something remote is wrong or cannot be reached
  130, 143  a second SIGINT or SIGTERM: stopped at once, requests were cut off
They are the same where the output cannot be written.
"""


@click.command(cls=_Commands, epilog=_EPILOG, context_settings={"max_content_width": 100})
@click.version_option(
    __version__,
    prog_name="modelarts-gateway",
    message=f"%(prog)s, version %(version)s ({build.NAME})",
)
def main() -> None:
    """Call token-protected inference services without knowing a credential.

    The gateway listens on loopback, adds a cached and refreshed X-Auth-Token to every request,
    forwards it to the service, streams the response back, and exports metrics.
    """
