"""`run`: the gateway around one command."""

import logging
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from gateway.cli.configuration import config_option, exit_with, load_or_exit

if TYPE_CHECKING:
    from gateway.lifecycle.gateway import Gateway
    from gateway.observe.access_log import AccessLog
    from gateway.settings import Loaded


@click.command(
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
    epilog="""\b
Examples:
  modelarts-gateway run --config gateway.yaml -- python job.py
  modelarts-gateway run --openai llm -- node chat.mjs
  modelarts-gateway run -- sh -c 'curl -d @input.json "$IRIS_URL"'

\b
Exit codes: the command's own; 128 and a signal's number if a signal ended it; 126 or 127 if it
cannot be started; 2 if the configuration is wrong; 3 if no service can be served within 30 s.""",
)
@config_option
@click.option(
    "--openai",
    metavar="SERVICE",
    help="Set OPENAI_BASE_URL and a placeholder OPENAI_API_KEY for this service.",
)
@click.argument("command_line", metavar="-- COMMAND [ARGUMENT]…", nargs=-1, required=True)
def command(file: Path | None, openai: str | None, command_line: tuple[str, ...]) -> None:
    """Run COMMAND with a gateway of its own on free loopback ports.

    COMMAND starts when the gateway is ready, and finds it by GATEWAY_URL and, for each service, by
    its name in capitals and _URL. Our settings and secrets (GATEWAY_…, OS_…) are not in its
    environment. Signals are passed on; SIGTERM is followed by SIGKILL after `drain.timeout`. When
    COMMAND has ended, so does the gateway, with the same exit code. There is no access log, because
    standard output is COMMAND's.
    """
    from gateway.assembly.gateway import build_gateway
    from gateway.assembly.secrets import unusable_secrets
    from gateway.lifecycle.command import command_environment, run_around
    from gateway.lifecycle.run import hide_memory, set_up_logging
    from gateway.settings import load
    from gateway.settings.effective import effective

    flags = {"listen": "127.0.0.1:0", "admin_listen": "127.0.0.1:0"}
    loaded = load_or_exit(file, flags)
    settings = loaded.settings
    problems = unusable_secrets(settings, tokens=False)
    if openai is not None and openai not in settings.services:
        known = ", ".join(settings.services)
        problems.append(f"--openai: {openai} is not a service; use one of: {known}")
    if problems:
        exit_with(problems)
    set_up_logging()
    hide_memory()
    log = logging.getLogger("gateway")
    for warning in loaded.warnings:
        log.warning("configuration: %s", warning)

    def read() -> "Loaded":
        return load(file=file, environ=os.environ, flags=flags)

    @asynccontextmanager
    async def build(access_log: "AccessLog") -> "AsyncIterator[Gateway]":
        yield build_gateway(settings, access_log, configuration=effective(loaded), read=read)

    def environment_of(url: str) -> dict[str, str]:
        paths = {name: service.path for name, service in settings.services.items()}
        return command_environment(os.environ, url, paths, openai=openai)

    run_around(build, command_line, environment_of, patience_s=settings.drain.timeout)
