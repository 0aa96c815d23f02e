"""A real Redis, with TLS and a password, as a process that a test can freeze, empty and restart."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import redis.asyncio
import trustme

from tests.support.tools import tool

PASSWORD = "redis-password"


class RedisServer:
    """The process, and where it listens."""

    def __init__(self, folder: Path, port: int) -> None:
        self.folder, self.port = folder, port
        self.url = f"rediss://localhost:{port}/0"
        self.process: asyncio.subprocess.Process | None = None

    async def do(self, *command: str | bytes) -> Any:
        """Send one command on a connection of its own; return the reply."""
        client = redis.asyncio.Redis(
            host="localhost",
            port=self.port,
            password=PASSWORD,
            ssl=True,
            ssl_ca_certs=str(self.folder / "ca.pem"),
        )
        try:
            return await client.execute_command(*command)  # type: ignore[no-untyped-call]
        finally:
            await client.aclose()

    async def start(self) -> None:
        """Start it, and wait until it answers."""
        program = tool("redis-server", "redis-server")
        self.process = await asyncio.create_subprocess_exec(
            program, str(self.folder / "redis.conf"), stdout=asyncio.subprocess.DEVNULL
        )
        async with asyncio.timeout(100):
            while True:
                with suppress(redis.exceptions.ConnectionError, OSError):
                    await self.do("PING")
                    return
                assert self.process.returncode is None, "redis-server has ended"
                await asyncio.sleep(0.02)

    async def stop(self) -> None:
        """Kill it, as a crash does."""
        if self.process is not None and self.process.returncode is None:
            self.process.kill()
            await self.process.wait()

    def settings(self, **changes: Any) -> dict[str, Any]:
        """Return the settings of a fleet that uses it."""
        return {
            "url": self.url,
            "password_file": str(self.folder / "password"),
            "key_file": str(self.folder / "key"),
            "tls": {"ca_file": str(self.folder / "ca.pem")},
        } | changes


@asynccontextmanager
async def redis_server(folder: Path, key: str) -> AsyncIterator[RedisServer]:
    """Run a Redis; `key` is what its fleet's key file holds."""
    folder.mkdir(exist_ok=True)  # noqa: ASYNC240  # before anything waits
    authority = trustme.CA()
    authority.cert_pem.write_to_path(folder / "ca.pem")
    certificate = authority.issue_cert("localhost")
    certificate.private_key_pem.write_to_path(folder / "tls.key")
    certificate.cert_chain_pems[0].write_to_path(folder / "tls.pem")
    (folder / "password").write_text(PASSWORD)
    (folder / "key").write_text(key)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    (folder / "redis.conf").write_text(
        f"bind 127.0.0.1\nport 0\ntls-port {port}\ntls-auth-clients no\nsave ''\n"
        f"tls-cert-file {folder}/tls.pem\ntls-key-file {folder}/tls.key\n"
        f"tls-ca-cert-file {folder}/ca.pem\nrequirepass {PASSWORD}\ndir {folder}\n"
        "logfile redis.log\nenable-debug-command yes\n"
    )
    server = RedisServer(folder, port)
    await server.start()
    try:
        yield server
    finally:
        await server.stop()
