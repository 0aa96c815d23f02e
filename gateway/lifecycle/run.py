"""Runs a gateway until it is told to end, with signal handlers in place before anything slow."""

import asyncio
import ctypes
import fcntl
import gc
import logging
import os
import resource
import select
import signal
import sys
import threading
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, suppress
from typing import Any, NoReturn, TextIO

import click
from aiohttp import http_parser

from gateway.admin.listener import Reload
from gateway.clock import boottime
from gateway.errors import ConfigError
from gateway.lifecycle.ending import end_with
from gateway.lifecycle.gateway import Gateway
from gateway.lifecycle.signals import Signals
from gateway.observe.access_log import AccessLog
from gateway.observe.process_log import FloodFilter, JsonFormatter, LineFormatter, log_loop_fault
from gateway.settings import find_log_level
from gateway.settings.environment import find_log_format

EXIT_CANNOT_LISTEN = 2
_LAST_S = 1.0
_YOUNG_OBJECTS = 5000
"""Objects made and not freed before the collector looks at them. By default (700) it does so once
in 140 requests, and finds nothing, since what has ended is no cycle: 3 % of what they take,
compiled 4.5 %."""
_YOUNG_COLLECTIONS = 1
"""Before what has outlived them is looked at once more (default: 10), so that no pass looks at much
more than three times the objects above: the event loop waits for it."""
_FULL_COLLECTION = 100
"""Such passes before a full one (default: 10), which takes 50 ms with thousands of clients."""
_STDOUT, _STDERR = 1, 2
_FILES = 16_384
_PR_SET_DUMPABLE = 4
_PARSER_MISSING = (
    "aiohttp runs without its compiled parser, and the one in Python is too lenient for the admin "
    "listener and IAM: install aiohttp from a wheel, and unset AIOHTTP_NO_EXTENSIONS"
)

_log = logging.getLogger("gateway")


class _StandardError(logging.StreamHandler[TextIO]):
    """Writes to standard error without waiting: a reader that stops cannot block the gateway."""

    def __init__(self) -> None:
        super().__init__(sys.stderr)
        self._poll = select.poll()
        self._poll.register(_STDERR, select.POLLOUT)

    def emit(self, record: logging.LogRecord) -> None:
        if self._poll.poll(0):
            super().emit(record)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802  # logging's name
        """Ignore the error: it cannot be logged anywhere."""


def logs_json(environ: Mapping[str, str]) -> bool:
    """Return whether the log is JSON: as `GATEWAY_LOG_FORMAT` says, or not on a terminal."""
    match find_log_format(environ):
        case "json":
            return True
        case "text":
            return False
        case _:
            return not os.isatty(_STDERR)


def set_up_logging() -> None:
    """Send our own log to standard error, one line each; the access log goes to standard output.

    Lines are text on a terminal, and JSON for a program that collects them; see `logs_json`.

    A standard stream that is closed at the start is opened on /dev/null: otherwise the next socket
    would get its number, and our log lines.
    """
    for fd in (0, _STDOUT, _STDERR):
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number, which is `fd`
    handler = _StandardError()
    handler.setFormatter(JsonFormatter() if logs_json(os.environ) else LineFormatter())
    handler.addFilter(FloodFilter(boottime))
    logging.basicConfig(handlers=[handler], level=find_log_level(os.environ))


def raise_file_limit() -> None:
    """Raise the soft limit of open files, often 1024, to the hard one: a caller takes two."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def widen_file_table() -> None:
    """Have the kernel make room for `_FILES` open files now, at 8 bytes each.

    It doubles its table when it is full, at the 256th, 512th, 1024th file and so on, and waits each
    time for all processors to have seen it (`expand_fdtable` in fs/file.c): for 10 to 30 ms, in
    which nobody is served. While there is one thread it need not wait.
    """
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(OSError):  # then it is done when it is needed
        highest = fcntl.fcntl(_STDERR, fcntl.F_DUPFD_CLOEXEC, min(_FILES, limit) - 1)
        os.close(highest)


def forbid_core_dumps() -> None:
    """Prevent core dumps of this process and of those it starts: they would hold secrets.

    A limit of one byte also holds where cores go to a program; a limit of none does not (core(5)).
    """
    hide_memory()
    _, hard = resource.getrlimit(resource.RLIMIT_CORE)
    most = 0 if hard == 0 else 1
    resource.setrlimit(resource.RLIMIT_CORE, (most, most))


def hide_memory() -> None:
    """Make this process one that is not dumped, nor traced by others of its user (prctl(2)).

    Unlike a limit, this does not pass on to a command that it starts. Elsewhere than on Linux
    nothing happens.
    """
    with suppress(AttributeError, OSError):
        ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)


def say(text: str) -> None:
    """Write `text` to standard error; ignore it if that is closed."""
    with suppress(OSError):
        click.echo(text, err=True)


def refuse_to_start(problems: Sequence[str]) -> NoReturn:
    """Say why the gateway cannot start, one line for each problem, and exit with 2."""
    tell_refusal(problems)
    end_with(EXIT_CANNOT_LISTEN)


def tell_refusal(problems: Sequence[str]) -> None:
    """Say why the gateway cannot start, in the format of the log, whatever its level is."""
    for problem in problems:
        record = logging.LogRecord("gateway", logging.ERROR, "", 0, problem, None, None)
        say(JsonFormatter().format(record) if logs_json(os.environ) else problem)


def require_compiled_parser() -> None:
    """Refuse to run on aiohttp's parser in Python, which accepts what its compiled one refuses.

    It reads requests to the admin listener and the responses of IAM.

    Raises:
        ConfigError: the compiled one is not there.
    """
    if http_parser.HttpRequestParser is http_parser.HttpRequestParserPy:
        raise ConfigError([_PARSER_MISSING])


Build = Callable[[AccessLog], AbstractAsyncContextManager[Gateway]]


def run_until_told(build: Build, announce: Callable[[str, str], None], signals: Signals) -> None:
    """Run a gateway until SIGTERM, SIGINT or a request to quit; then drain, stop and exit.

    The exit code is 0, also when `drain.timeout` cut something off; 2 when it could not start;
    128 and the signal's number when a second signal broke off what was in flight.

    Args:
        build: makes the gateway, once signal handlers are in place.
        announce: called with the two URLs once both listeners are open.
        signals: that have been heard since the process began.
    """
    code = 0

    async def main() -> None:
        nonlocal code
        code = await _run(build, announce, signals)
        _exit_in_time(code)

    try:
        require_compiled_parser()
        run_loop(main())
    except ConfigError as error:
        refuse_to_start(error.problems)
    end_with(code)


def _exit_in_time(code: int) -> None:
    """End the process after a second, even if a thread is blocked.

    Python would wait for a thread that reads from a disk that hangs, or resolves a name at a
    server that does not respond. Everything that needs an orderly end has ended before.
    """
    last = threading.Timer(_LAST_S, os._exit, [code])
    last.daemon = True
    last.start()


def run_loop(main: Coroutine[Any, Any, None]) -> None:
    """Run `main` on uvloop where there is one, else on asyncio's own loop."""
    try:
        import uvloop
    except ImportError:
        asyncio.run(main)
    else:
        uvloop.run(main)


def collect_rarely() -> None:
    """Look for garbage that refers to itself, and from now on rarely, and only at what is new.

    That takes 40 ms: it is for the time before anybody can call.
    """
    gc.collect()
    gc.freeze()  # objects that live as long as the process need no more garbage collection
    gc.set_threshold(_YOUNG_OBJECTS, _YOUNG_COLLECTIONS, _FULL_COLLECTION)


async def _run(build: Build, announce: Callable[[str, str], None], signals: Signals) -> int:
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(log_loop_fault)
    heard: asyncio.Queue[signal.Signals] = asyncio.Queue()
    if signals.told_to_end:
        _log.info("told to end during the start: nothing was opened")
        return 0
    signals.follow(lambda number: _call_soon(loop, heard, number))
    async with build(AccessLog(_STDOUT)) as gateway:
        collect_rarely()
        try:
            data_url, admin_url = await gateway.start()
        except OSError as error:
            tell_refusal([error.strerror or str(error)])
            return EXIT_CANNOT_LISTEN
        with suppress(OSError):
            announce(data_url, admin_url)
        await _until_told(gateway, heard)
        code = await _stop(gateway, heard)
        _log.info("ended, exit code %d", code)
        return code


def _call_soon(
    loop: asyncio.AbstractEventLoop, heard: asyncio.Queue[signal.Signals], number: signal.Signals
) -> None:
    with suppress(RuntimeError):  # the loop is closed: nothing is left to end
        loop.call_soon_threadsafe(heard.put_nowait, number)


async def _until_told(gateway: Gateway, heard: asyncio.Queue[signal.Signals]) -> None:
    """Reload whenever SIGHUP says so; return at any other signal, or a request to quit."""
    reloads: set[asyncio.Task[Reload]] = set()
    quitting = asyncio.create_task(gateway.quit_requested.wait(), name="wait-for-quit")
    while not quitting.done():
        hearing = asyncio.create_task(heard.get(), name="wait-for-signal")
        await asyncio.wait([hearing, quitting], return_when=asyncio.FIRST_COMPLETED)
        if not hearing.done():
            hearing.cancel()
        elif hearing.result() is signal.SIGHUP:
            task = asyncio.create_task(gateway.reload(), name="sighup")
            reloads.add(task)
            task.add_done_callback(reloads.discard)
        else:
            _log.info("%s received: the gateway ends", hearing.result().name)
            quitting.cancel()
            return
    _log.info("POST /quitquitquit received: the gateway ends")


async def _stop(gateway: Gateway, heard: asyncio.Queue[signal.Signals]) -> int:
    """Drain and stop; at another signal stop at once. Return the exit code."""
    stopping = asyncio.create_task(gateway.stop(), name="stop")
    while not stopping.done():
        hearing = asyncio.create_task(heard.get(), name="wait-for-signal")
        await asyncio.wait([stopping, hearing], return_when=asyncio.FIRST_COMPLETED)
        if not hearing.done():
            hearing.cancel()
        elif (number := hearing.result()) is not signal.SIGHUP:
            _log.warning("second signal (%s): stopping at once; requests are cut off", number.name)
            stopping.cancel()
            await asyncio.gather(stopping, return_exceptions=True)
            await gateway.stop(drain=False)
            return 128 + number
    await stopping
    return 0
