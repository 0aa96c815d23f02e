"""A gateway around one command: the command starts when the gateway is ready; both end together."""

import asyncio
import os
import signal
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from gateway.admin.health import readiness
from gateway.errors import ConfigError
from gateway.lifecycle.ending import end_with
from gateway.lifecycle.gateway import Gateway
from gateway.lifecycle.run import (
    EXIT_CANNOT_LISTEN,
    Build,
    require_compiled_parser,
    run_loop,
    say,
    tell_refusal,
)
from gateway.observe.access_log import AccessLog

READY_S: Final = 30.0
"""How long the first token may take."""
EXIT_NOT_READY = 3
_EXIT_NOT_EXECUTABLE, _EXIT_NOT_FOUND = 126, 127  # as shells say it
_POLL_S: Final = 0.05
_PASSED_ON: Final = (
    signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2,
)  # fmt: skip
_PLACEHOLDER: Final = "unused"
"""OpenAI's clients insist on a key; the gateway drops it."""
_OURS: Final = ("GATEWAY_", "OS_")
_PROXIES: Final = frozenset({"HTTP_PROXY", "ALL_PROXY"})

EnvironmentOf = Callable[[str], dict[str, str]]
"""Returns the environment of the command, given the gateway's URL."""


def command_environment(
    environ: Mapping[str, str], url: str, services: Mapping[str, str], *, openai: str | None
) -> dict[str, str]:
    """Return the environment of the command. Pure.

    Args:
        environ: our own; our settings and secrets in it are left out.
        url: of the gateway, without a final slash.
        services: path of each service's URL by the service's name.
        openai: the service that OpenAI's clients are to use, or None.
    """
    made = {name: value for name, value in environ.items() if not name.upper().startswith(_OURS)}
    for name in services:
        made[f"{name.upper().replace('-', '_')}_URL"] = f"{url}/{name}"
    made["GATEWAY_URL"] = url
    if openai is not None:
        below = "" if services[openai].endswith("/v1") else "/v1"
        made["OPENAI_BASE_URL"] = f"{url}/{openai}{below}"
        made["OPENAI_API_KEY"] = _PLACEHOLDER
    if any(name.upper() in _PROXIES for name in made):
        # A proxy of the command's would get its calls to the gateway, and could not deliver them.
        for name in ("no_proxy", "NO_PROXY"):
            known = made.get(name, made.get("NO_PROXY" if name == "no_proxy" else "no_proxy", ""))
            made[name] = ",".join(filter(None, [known, "127.0.0.1"]))
    return made


def run_around(
    build: Build, command: Sequence[str], environment_of: EnvironmentOf, *, patience_s: float
) -> None:
    """Run the gateway and the command, and exit with the command's exit code.

    128 and a signal's number if a signal ended it; 126 and 127 if it cannot be started; 2 if the
    gateway cannot be; 3 if no service can be served within 30 s.

    Args:
        build: makes the gateway.
        command: program and arguments.
        environment_of: returns the command's environment.
        patience_s: how long the command has to end after SIGTERM; then it is killed.
    """
    code = 0

    async def main(nowhere: int) -> None:
        nonlocal code
        async with build(AccessLog(nowhere)) as gateway:
            code = await _Wrapped(gateway, patience_s).run(command, environment_of)

    try:
        require_compiled_parser()
        with Path(os.devnull).open("wb") as nowhere:  # standard output is the command's
            run_loop(main(nowhere.fileno()))
    except ConfigError as error:
        tell_refusal(error.problems)
        code = EXIT_CANNOT_LISTEN
    end_with(code)


class _Wrapped:
    """One gateway and the one command that it is there for.

    Invariant: the command gets every signal that we get, but those that a terminal sends to both.
    """

    def __init__(self, gateway: Gateway, patience_s: float) -> None:
        self._gateway = gateway
        self._patience_s = patience_s
        self._child: asyncio.subprocess.Process | None = None
        self._told: signal.Signals | None = None  # before there was a child
        self._killing: asyncio.TimerHandle | None = None
        self._woken = asyncio.Event()

    async def run(self, command: Sequence[str], environment_of: EnvironmentOf) -> int:
        """Return the exit code."""
        loop = asyncio.get_running_loop()
        for number in _PASSED_ON:
            loop.add_signal_handler(number, self._hear, number)
        try:
            url, _ = await self._gateway.start()
        except OSError as error:
            tell_refusal([error.strerror or str(error)])
            return EXIT_CANNOT_LISTEN
        try:
            return await self._run_command(command, environment_of(url))
        finally:
            if self._killing is not None:
                self._killing.cancel()
            await self._gateway.stop()

    async def _run_command(self, command: Sequence[str], environment: dict[str, str]) -> int:
        if (reason := await self._until_ready()) is not None:
            say(f"not ready within {READY_S:g} s, so the command was not started: {reason}")
            return EXIT_NOT_READY
        if self._told is not None:
            return 128 + self._told
        try:
            self._child = await asyncio.create_subprocess_exec(*command, env=environment)
        except FileNotFoundError:
            say(f"{command[0]}: no such command")
            return _EXIT_NOT_FOUND
        except OSError as error:
            say(f"{command[0]}: cannot be started: {error.strerror or error}")
            return _EXIT_NOT_EXECUTABLE
        if self._told is not None:  # while it was being started
            self._pass_on(self._child, self._told)
        code = await self._child.wait()
        return code if code >= 0 else 128 - code

    async def _until_ready(self) -> str | None:
        """Wait until ready, or until a signal comes; return why it is not ready, or None."""
        state = readiness(self._gateway)
        with suppress(TimeoutError):
            async with asyncio.timeout(READY_S):
                while not state.ready and self._told is None:
                    with suppress(TimeoutError):
                        async with asyncio.timeout(_POLL_S):
                            await self._woken.wait()
                    state = readiness(self._gateway)
        if state.ready or self._told is not None:
            return None
        return "; ".join(f"{name}: {why}" for name, why in state.services.items())

    def _hear(self, number: signal.Signals) -> None:
        if self._child is not None:
            self._pass_on(self._child, number)
        elif number in {signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT}:
            self._told = number
            self._woken.set()

    def _pass_on(self, child: asyncio.subprocess.Process, number: signal.Signals) -> None:
        if number in {signal.SIGINT, signal.SIGQUIT} and _is_in_foreground():
            return  # the terminal has told the command as well
        with suppress(ProcessLookupError):
            if number is signal.SIGTERM and self._killing is not None:
                child.kill()  # told twice
                return
            child.send_signal(number)
        if number is signal.SIGTERM:
            loop = asyncio.get_running_loop()
            self._killing = loop.call_later(self._patience_s, self._kill, child)

    def _kill(self, child: asyncio.subprocess.Process) -> None:
        say(f"the command has not ended {self._patience_s:g} s after SIGTERM: killing it")
        with suppress(ProcessLookupError):
            child.kill()


def _is_in_foreground() -> bool:
    """Whether a terminal sends its signals to our process group, of which the command is one."""
    try:
        return os.tcgetpgrp(0) == os.getpgrp()
    except OSError:
        return False  # standard input is no terminal
