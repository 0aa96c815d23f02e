"""`serve`: runs the gateway."""

import gc
import logging
import os
import platform
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from gateway import __version__
from gateway import build as build_kind
from gateway.cli.configuration import config_option, exit_with
from gateway.errors import ConfigError
from gateway.lifecycle.signals import Signals

if TYPE_CHECKING:
    from gateway.lifecycle.gateway import Gateway
    from gateway.observe.access_log import AccessLog
    from gateway.settings import Loaded


_WHILE_STARTING = 20_000
"""Objects made before the garbage collector looks at them: what is imported makes little garbage.
By default it looks 144 times, which takes 50 ms more; without it, 0.4 MiB more is never given back.
"""
_AUTHORITIES = "SSL_CERT_FILE"


@contextmanager
def _no_authorities() -> Iterator[None]:
    """Let no file of authorities be read that the system or the environment names.

    As it is imported, aiohttp reads the system's twice, for connections that get a context of ours:
    60 ms, and 3 MiB.
    """
    given = os.environ.get(_AUTHORITIES)
    os.environ[_AUTHORITIES] = os.devnull
    try:
        yield
    finally:
        del os.environ[_AUTHORITIES]
        if given is not None:
            os.environ[_AUTHORITIES] = given


@click.command(
    epilog="""\b
Examples:
  modelarts-gateway serve --config gateway.yaml
  modelarts-gateway serve --config gateway.yaml --listen 127.0.0.1:8000

\b
Signals: SIGTERM and SIGINT withdraw readiness, let requests in flight finish (`drain`), and
end with 0; a second one ends at once, with 143 or 130. SIGHUP reads the configuration, secrets
and certificates again, as POST /reload on the admin listener does."""
)
@config_option
@click.option("--listen", metavar="ADDRESS", help="Where callers connect; overrides the file.")
@click.option("--admin-listen", metavar="ADDRESS", help="Where probes and Prometheus connect.")
def command(file: Path | None, listen: str | None, admin_listen: str | None) -> None:
    """Run the gateway until it gets SIGTERM or SIGINT.

    It starts whether or not IAM can be reached, and says on the admin listener when it is ready.
    The access log goes to standard output, everything else to standard error: as text on a
    terminal, else as JSON (GATEWAY_LOG_FORMAT=text or json decides, GATEWAY_LOG_LEVEL how much).
    """
    signals = Signals(reload=True)  # what follows imports for half a second
    gc.set_threshold(_WHILE_STARTING)
    with _no_authorities():
        import aiohttp  # noqa: F401
    from gateway.assembly.gateway import build_gateway
    from gateway.assembly.secrets import unusable_secrets
    from gateway.assembly.tracing import tracer_of
    from gateway.clock import boottime, wall_clock
    from gateway.lifecycle.allocation import keep_freed_memory
    from gateway.lifecycle.run import (
        forbid_core_dumps,
        logs_json,
        raise_file_limit,
        refuse_to_start,
        run_until_told,
        set_up_logging,
        widen_file_table,
    )
    from gateway.lifecycle.supervisor import supervisor_of
    from gateway.settings import load
    from gateway.settings.effective import effective

    flags = {"listen": listen, "admin_listen": admin_listen}
    refuse = refuse_to_start if logs_json(os.environ) else exit_with
    try:
        loaded = load(file=file, environ=os.environ, flags=flags)
    except ConfigError as error:
        refuse(error.problems)
    if problems := unusable_secrets(loaded.settings, tokens=False):
        refuse(problems)
    set_up_logging()
    forbid_core_dumps()
    raise_file_limit()
    widen_file_table()
    keep_freed_memory()
    python = platform.python_version()
    log = logging.getLogger("gateway")
    log.info("modelarts-gateway %s (%s), Python %s", __version__, build_kind.NAME, python)
    for warning in loaded.warnings:
        log.warning("configuration: %s", warning)

    def read() -> "Loaded":
        return load(file=file, environ=os.environ, flags=flags)

    @asynccontextmanager
    async def build(access_log: "AccessLog") -> "AsyncIterator[Gateway]":
        supervisor = supervisor_of(os.environ, pid=os.getpid())
        tracer = tracer_of(
            os.environ,
            lambda warning: log.warning("%s", warning),
            clock=boottime,
            wall_clock=wall_clock,
        )
        try:
            gateway = build_gateway(
                loaded.settings,
                access_log,
                configuration=effective(loaded),
                read=read,
                supervisor=supervisor,
                tracer=tracer,
            )
            yield gateway
        finally:
            if tracer is not None:
                await tracer.close()

    def announce(data_url: str, admin_url: str) -> None:
        services = ", ".join(f"/{name}" for name in loaded.settings.services)
        log.info(
            "listening on %s for %s; admin on %s for probes and metrics",
            data_url,
            services,
            admin_url,
        )

    run_until_told(build, announce, signals)
