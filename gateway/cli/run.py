"""Runs a gateway until it is told to end, with signal handlers in place before anything slow."""

import asyncio
import gc
import logging
import os
import signal
import sys
from collections.abc import Callable, Coroutine
from contextlib import AbstractAsyncContextManager
from typing import Any

import click
from aiohttp import http_parser

from gateway.errors import ConfigError
from gateway.observe.access_log import AccessLog
from gateway.serve.gateway import Gateway

EXIT_CANNOT_LISTEN = 2
_PARSER_MISSING = (
    "aiohttp runs without its compiled parser, which the gateway relies on to be strict: "
    "install aiohttp from a wheel, and unset AIOHTTP_NO_EXTENSIONS"
)


def set_up_logging() -> None:
    """Send our own log to standard error, one line each; the access log goes to standard output."""
    logging.basicConfig(
        stream=sys.stderr,
        level=os.environ.get("GATEWAY_LOG_LEVEL", "INFO").upper(),
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
    )


def require_compiled_parser() -> None:
    """Refuse to run on aiohttp's pure-Python parser, which takes requests that the C one refuses.

    Raises:
        ConfigError: it is not there.
    """
    if http_parser.HttpRequestParser is http_parser.HttpRequestParserPy:
        raise ConfigError([_PARSER_MISSING])


Build = Callable[[AccessLog], AbstractAsyncContextManager[Gateway]]


def run_until_told(build: Build, announce: Callable[[str, str], None]) -> None:
    """Run a gateway until SIGTERM, SIGINT or a request to quit; then drain and stop it.

    Args:
        build: makes the gateway, once signal handlers are in place.
        announce: called with the two URLs once both listeners are open.
    """
    try:
        require_compiled_parser()
        run_loop(_run(build, announce))
    except ConfigError as error:
        for problem in error.problems:
            click.echo(problem, err=True)
        sys.exit(2)
    except OSError as error:
        click.echo(f"cannot listen: {error.strerror or error}", err=True)
        sys.exit(EXIT_CANNOT_LISTEN)


def run_loop(main: Coroutine[Any, Any, None]) -> None:
    """Run `main` on uvloop where there is one, else on asyncio's own loop."""
    try:
        import uvloop
    except ImportError:
        asyncio.run(main)
    else:
        uvloop.run(main)


async def _run(build: Build, announce: Callable[[str, str], None]) -> None:
    told = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, told.set)
    async with build(AccessLog(sys.stdout.fileno())) as gateway:
        announce(*await gateway.start())
        gc.collect()
        gc.freeze()  # what lives as long as the process need not be looked at again
        await _until_told(gateway, told)


async def _until_told(gateway: Gateway, told: asyncio.Event) -> None:
    waiting = [
        asyncio.create_task(event.wait(), name="wait-for-end")
        for event in (told, gateway.quit_requested)
    ]
    await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    for task in waiting:
        task.cancel()
    told.clear()
    second = asyncio.create_task(told.wait(), name="second-signal")
    stopping = asyncio.create_task(gateway.stop(), name="stop")
    await asyncio.wait([stopping, second], return_when=asyncio.FIRST_COMPLETED)
    if not stopping.done():
        stopping.cancel()
        logging.getLogger("gateway").warning("told to end twice: breaking off what is in flight")
        await gateway.stop(drain=False)
    second.cancel()
