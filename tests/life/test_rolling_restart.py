"""Two gateways behind one nginx, restarted in turn under load; and one that is reloaded.

Long form: `ROLLING_REQUESTS=100000`.
"""

import asyncio
import os
import signal
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from tests.life.test_nothing_lost import ask
from tests.programs.bench.peers import find, how_to_install
from tests.support.client import connect
from tests.support.gateway import POST
from tests.support.keystone import _free_port
from tests.support.served import Served, served, settings_of
from tests.support.tools import lacking
from tests.support.until import PATIENCE_S, until
from tests.support.upstream import OK, scripted_upstream

REQUESTS = int(os.environ.get("ROLLING_REQUESTS", "3000"))
CALLERS = 16
CONFIG = """
daemon off; pid {folder}/nginx.pid; error_log stderr; worker_processes 1; {user}
events {{ worker_connections 512; }}
http {{
  access_log off; keepalive_requests 1000000;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  upstream gateways {{ {servers} keepalive 16; }}
  server {{
    listen 127.0.0.1:{port};
    location / {{
      proxy_pass http://gateways; proxy_http_version 1.1;
      proxy_set_header Connection ""; proxy_set_header Host localhost;
    }}
  }}
}}
"""


@asynccontextmanager
async def nginx_before(ports: list[int], folder: Path) -> AsyncIterator[int]:
    """Run nginx in front of gateways at `ports`; yield its own port."""
    program = find("nginx")
    if program is None:
        lacking(f"nginx is not installed ({how_to_install('nginx')})")
    port = _free_port()
    file = folder / "nginx.conf"
    servers = " ".join(f"server 127.0.0.1:{gateway} max_fails=0;" for gateway in ports)
    user = "user root;" if os.geteuid() == 0 else ""
    file.write_text(CONFIG.format(folder=folder, servers=servers, port=port, user=user))
    process = await asyncio.create_subprocess_exec(
        str(program), "-p", str(folder), "-c", str(file), stderr=asyncio.subprocess.DEVNULL
    )
    try:
        async with asyncio.timeout(PATIENCE_S):
            while True:
                try:
                    (await connect(port)).leave()
                except OSError:
                    await asyncio.sleep(0.02)
                else:
                    break
        yield port
    finally:
        process.terminate()
        await process.wait()


async def call(port: int, seen: Counter[str], enough: asyncio.Event) -> None:
    """Send one request after the other until it is enough; count what comes."""
    while not enough.is_set():
        caller = await connect(port)
        while await ask(caller, POST, seen) and not enough.is_set():
            pass
        caller.leave()


@asynccontextmanager
async def called(port: int, seen: Counter[str], at_least: int) -> AsyncIterator[None]:
    """Have callers send requests meanwhile, and further ones until they are `at_least` so many."""
    enough = asyncio.Event()
    calls = [asyncio.create_task(call(port, seen, enough)) for _ in range(CALLERS)]
    try:
        await until(lambda: seen.total() > 2 * CALLERS)
        yield
        await until(lambda: seen.total() >= at_least, within_s=PATIENCE_S + at_least / 100)
    finally:
        enough.set()
        await asyncio.gather(*calls)


@pytest.mark.long
async def test_rolling_restart_fails_no_request(tmp_path: Path) -> None:
    """Each gateway ends in its turn and another takes its port, which is then reloaded; again and
    again in the long form. nginx answers every request.
    """
    seen: Counter[str] = Counter()
    ports = [_free_port(), _free_port()]
    async with AsyncExitStack() as stack:
        upstream = await stack.enter_async_context(scripted_upstream(OK))

        def settings(number: int, announce: str) -> dict[str, Any]:
            more = {"listen": f"127.0.0.1:{ports[number]}", "drain": {"announce": announce}}
            return settings_of(upstream.port, more)

        async def start(number: int, folder: str) -> Served:
            (tmp_path / folder).mkdir()
            gateway = served(tmp_path / folder, upstream.port, settings(number, "200ms"))
            return await stack.enter_async_context(gateway)

        gateways = [await start(number, f"old-{number}") for number in range(2)]
        port = await stack.enter_async_context(nginx_before(ports, tmp_path))
        async with called(port, seen, REQUESTS):
            for turn in count():
                number = turn % 2
                gateways[number].signal(signal.SIGTERM)
                assert await gateways[number].ended() == 0
                gateway = gateways[number] = await start(number, f"new-{turn}")
                gateway.write(settings(number, "300ms"))
                gateway.signal(signal.SIGHUP)
                await gateway.says("configuration reloaded")
                if number and seen.total() >= REQUESTS:
                    break
    assert set(seen) == {"200"}, seen


async def test_reload_fails_no_request(tmp_path: Path) -> None:
    """The configuration changes back and forth under load."""
    seen: Counter[str] = Counter()
    async with (
        scripted_upstream(OK) as upstream,
        served(tmp_path, upstream.port) as gateway,
        called(gateway.port, seen, REQUESTS // 4),
    ):
        for times in range(1, 6):
            gateway.write(settings_of(upstream.port, {"drain": {"announce": f"{times}s"}}))
            gateway.signal(signal.SIGHUP)
            await gateway.says("configuration reloaded", times=times)
    assert set(seen) == {"200"}, seen
