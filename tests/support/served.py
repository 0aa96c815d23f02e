"""A gateway in a process of its own, started by `serve` as users start it."""

import asyncio
import json
import os
import re
import signal
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from tests.support.client import Reply, connect

_WAIT_S = 60
_LISTENING = re.compile(r"listening on (\S+) for .*; admin on \S+:(\d+)")


class Served:
    """The process, and where it listens."""

    def __init__(self, process: asyncio.subprocess.Process, file: Path) -> None:
        self.process = process
        self.file = file
        """Its configuration."""
        self.address = ""
        """Where callers connect, as announced."""
        self.port = 0
        self.admin_port = 0
        self.log: list[str] = []
        """Lines of standard error so far."""
        self._more = asyncio.Event()
        self._silent = False
        self._reading = asyncio.create_task(self._read(), name="served-log")

    def signal(self, number: signal.Signals) -> None:
        """Send a signal."""
        self.process.send_signal(number)

    async def ended(self) -> int:
        """Wait for the end; return the exit code."""
        async with asyncio.timeout(_WAIT_S):
            await self._reading
            return await self.process.wait()

    async def says(self, text: str, *, times: int = 1) -> str:
        """Wait for the line number `times` that holds `text`, and return it."""
        async with asyncio.timeout(_WAIT_S):
            while len(found := [line for line in self.log if text in line]) < times:
                assert not self._silent, f"it ended without {text!r}: {self.log}"
                self._more.clear()
                await self._more.wait()
        return found[times - 1]

    def write(self, settings: Mapping[str, Any]) -> None:
        """Change its configuration file, which it need not notice."""
        self.file.write_text(json.dumps(settings))  # JSON is YAML

    async def ask_admin(self, path: str, *, method: str = "GET", fields: str = "") -> Reply:
        """Ask the admin listener."""
        caller = await connect(self.admin_port)
        caller.send(
            f"{method} {path} HTTP/1.1\r\nHost: localhost\r\n{fields}Content-Length: 0\r\n"
            "Connection: close\r\n\r\n".encode()
        )
        async with asyncio.timeout(_WAIT_S):
            reply = await caller.reply()
        caller.leave()
        return reply

    async def sample(self, name: str, **labels: str) -> float | None:
        """Return the sum of the samples called `name` that have these labels; None without any."""
        page = (await self.ask_admin("/metrics")).body.decode()
        lines = [line for line in page.splitlines() if line.startswith(name)]
        found = [
            sample.value
            for family in text_string_to_metric_families("\n".join(lines) + "\n")
            for sample in family.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        ]
        return sum(found) if found else None

    async def _read(self) -> None:
        assert self.process.stderr is not None
        while line := await self.process.stderr.readline():
            self.log.append(line.decode().rstrip("\n"))
            self._more.set()
        self._silent = True
        self._more.set()


def settings_of(upstream_port: int, settings: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return a configuration with service `iris` and no credentials, overlaid with `settings`."""
    return {
        "listen": "127.0.0.1:0",
        "admin_listen": "127.0.0.1:0",
        "identities": {"default": {"method": "none"}},
        "services": {"iris": {"url": f"http://127.0.0.1:{upstream_port}/v1/infers/abc"}},
    } | dict(settings or {})


@asynccontextmanager
async def served(
    folder: Path,
    upstream_port: int,
    settings: Mapping[str, Any] | None = None,
    *,
    prefix: Sequence[str] = (),
    environ: Mapping[str, str] | None = None,
    stdout: int = asyncio.subprocess.DEVNULL,
    module: str = "gateway",
) -> AsyncIterator[Served]:
    """Run `serve` with service `iris` and no credentials; kill it at the end if it still runs.

    Args:
        folder: for its configuration.
        upstream_port: where the service is, on loopback.
        settings: over those of `settings_of`.
        prefix: a command that becomes it, such as a shell that has set a limit.
        environ: added to the environment.
        stdout: of the process.
        module: what Python runs; one that does the same and more.
    """
    # With it Python keeps nothing of what it cannot write: it would hide what users see.
    inherited = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    file = folder / "gateway.yaml"
    file.write_text(json.dumps(settings_of(upstream_port, settings)))  # JSON is YAML
    process = await asyncio.create_subprocess_exec(
        *prefix, sys.executable, "-m", module, "serve", "--config", str(file),
        stdout=stdout, stderr=asyncio.subprocess.PIPE, env={**inherited, **(environ or {})},
    )  # fmt: skip
    running = Served(process, file)
    try:
        found = _LISTENING.search(await running.says("listening on"))
        assert found is not None
        running.address = found[1]
        running.port = 0 if found[1].startswith("unix:") else int(found[1].rpartition(":")[2])
        running.admin_port = int(found[2])
        yield running
    finally:
        if process.returncode is None:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()
        running._reading.cancel()
        await asyncio.gather(running._reading, return_exceptions=True)
        process._transport.close()  # type: ignore[attr-defined]  # else the pipe stays open
