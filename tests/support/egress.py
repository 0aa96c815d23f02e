"""A real egress proxy, Debian's tinyproxy, as a process of the test's own."""

import asyncio
import getpass
import grp
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from gateway.http.connect import EgressProxy
from tests.support.tools import tool

USER, PASSWORD = "gateway", "let-me-out"


@asynccontextmanager
async def running_tinyproxy(
    folder: Path, *allowed_ports: int, authenticates: bool = True
) -> AsyncIterator[EgressProxy]:
    """Run it until the end; it opens tunnels to `allowed_ports` only. Its log is `proxy.log`."""
    program = tool("tinyproxy", "tinyproxy")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    lines = [
        f"User {getpass.getuser()}",
        f"Group {grp.getgrgid(os.getgid()).gr_name}",
        f"Port {port}",
        "Listen 127.0.0.1",
        "Timeout 60",
        "MaxClients 20",
        f'LogFile "{folder}/proxy.log"',
        "LogLevel Connect",
        *(f"ConnectPort {allowed}" for allowed in allowed_ports),
    ]
    if authenticates:
        lines.append(f"BasicAuth {USER} {PASSWORD}")
    (folder / "tinyproxy.conf").write_text("\n".join(lines) + "\n")
    process = await asyncio.create_subprocess_exec(
        program, "-d", "-c", str(folder / "tinyproxy.conf"), stdout=asyncio.subprocess.DEVNULL
    )
    try:
        async with asyncio.timeout(100):
            while not await _accepts(port):  # it does not say when it is ready
                assert process.returncode is None, "tinyproxy does not start"
                await asyncio.sleep(0.05)
        yield EgressProxy(host="127.0.0.1", port=port)
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


async def _accepts(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    return True
