"""The gateway under test: a real `serve` process, started, watched through /proc, and ended."""

import asyncio
import json
import os
import re
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.error import URLError
from urllib.request import ProxyHandler, build_opener

TOKEN = b"canary-5f1c0d-token"
_LONGEST_LOG_LINE = 2048
_URL = r"http://127\.0\.0\.1:(\d+)"
_LISTENING = re.compile(rf"listening on {_URL} .*admin on {_URL}")


class Gateway:
    """A running gateway."""

    def __init__(self, process: asyncio.subprocess.Process, folder: Path) -> None:
        self.port = 0
        self._admin_port = 0
        self._process = process
        self._folder = folder

    @property
    def is_alive(self) -> bool:
        return self._process.returncode is None

    @property
    def rss_bytes(self) -> int:
        """What the process holds in memory."""
        pages = int(Path(f"/proc/{self._process.pid}/statm").read_text(encoding="ascii").split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    @property
    def open_files(self) -> int:
        return len(list(Path(f"/proc/{self._process.pid}/fd").iterdir()))

    async def started(self) -> None:
        """Wait until it listens."""
        async with asyncio.timeout(100):
            while not (told := _LISTENING.search(self._log("stderr"))):
                assert self.is_alive, self._log("stderr")
                await asyncio.sleep(0.02)
        self.port, self._admin_port = int(told[1]), int(told[2])
        async with asyncio.timeout(100):
            while not await self._is_ready():  # noqa: ASYNC110  # nobody tells us
                await asyncio.sleep(0.02)

    async def samples(self) -> Mapping[str, float]:
        """Return the gateway's own metrics: values by series."""
        page = await asyncio.to_thread(self._get, "/metrics")
        lines = (line.rpartition(" ") for line in page.splitlines())
        return {name: float(value) for name, _, value in lines if name.startswith("gateway_")}

    async def _is_ready(self) -> bool:
        try:
            await asyncio.to_thread(self._get, "/readyz")
        except URLError:
            return False
        return True

    def _get(self, path: str) -> str:
        opener = build_opener(ProxyHandler({}))
        with opener.open(f"http://127.0.0.1:{self._admin_port}{path}", timeout=60) as answer:
            page: bytes = answer.read()
        return page.decode()

    def log_problems(self) -> list[str]:
        """Return what is wrong with what it has written so far."""
        found: list[str] = []
        for name in ("stdout", "stderr"):
            log = self._log(name)
            for word in (TOKEN.decode(), "Traceback", "a defect in the gateway", "Exception in"):
                if word in log:
                    at = log.index(word)
                    found.append(f"{name} has {word!r}: {log[max(0, at - 200) : at + 1500]}")
            longest = max(map(len, log.splitlines()), default=0)
            if longest > _LONGEST_LOG_LINE:
                found.append(f"{name} has a line of {longest} characters")
        return found

    def _log(self, name: str) -> str:
        return (self._folder / name).read_text(encoding="latin-1")


@asynccontextmanager
async def serving(upstream_ports: Mapping[str, int], folder: Path) -> AsyncIterator[Gateway]:
    """Run `serve` with a service for each letter: name `aaaa`, path `/v1/infers/aaa`."""
    token_file = folder / "token"
    token_file.write_bytes(TOKEN)
    config = folder / "gateway.yaml"  # JSON is YAML
    config.write_text(
        json.dumps(
            {
                "listen": "127.0.0.1:0",
                "admin_listen": "127.0.0.1:0",
                "identities": {"default": {"method": "file", "token_file": str(token_file)}},
                "services": {
                    letter * 4: {
                        "url": f"http://127.0.0.1:{port}/v1/infers/{letter * 3}",
                        "methods": ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"],
                    }
                    for letter, port in upstream_ports.items()
                },
            }
        )
    )
    with (folder / "stdout").open("wb") as out, (folder / "stderr").open("wb") as err:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "gateway", "serve", "--config", str(config)),
            stdout=out,
            stderr=err,
            env={k: v for k, v in os.environ.items() if not k.startswith(("GATEWAY_", "OS_"))},
        )
        gateway = Gateway(process, folder)
        try:
            await gateway.started()
            yield gateway
        finally:
            if gateway.is_alive:
                process.kill()
            await process.wait()
