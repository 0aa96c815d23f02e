"""A gateway in a process of its own, started by `serve` as users start it."""

import asyncio
import json
import re
import signal
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

_WAIT_S = 15
_LISTENING = re.compile(r"listening on http://127\.0\.0\.1:(\d+) for .*; admin on \S+:(\d+)")


class Served:
    """The process, and where it listens."""

    def __init__(self, process: asyncio.subprocess.Process, port: int, admin_port: int) -> None:
        self.process = process
        self.port = port
        self.admin_port = admin_port

    def signal(self, number: signal.Signals) -> None:
        """Send a signal."""
        self.process.send_signal(number)

    async def ended(self) -> int:
        """Wait for the end; return the exit code."""
        async with asyncio.timeout(_WAIT_S):
            return await self.process.wait()


@asynccontextmanager
async def served(
    folder: Path, upstream_port: int, settings: Mapping[str, Any] | None = None
) -> AsyncIterator[Served]:
    """Run `serve` with service `iris` and no credentials; kill it at the end if it still runs."""
    file = folder / "gateway.yaml"
    config = {
        "listen": "127.0.0.1:0",
        "admin_listen": "127.0.0.1:0",
        "identities": {"default": {"method": "none"}},
        "services": {"iris": {"url": f"http://127.0.0.1:{upstream_port}/v1/infers/abc"}},
    }
    file.write_text(json.dumps(config | dict(settings or {})))  # JSON is YAML
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "gateway", "serve", "--config", str(file),
        stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        assert process.stderr is not None
        found = None
        async with asyncio.timeout(_WAIT_S):
            while found is None:
                line = await process.stderr.readline()
                assert line, "it ended before it listened"
                found = _LISTENING.search(line.decode())
        yield Served(process, int(found[1]), int(found[2]))
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
        process._transport.close()  # type: ignore[attr-defined]  # else the pipe stays open
