"""An aiohttp application on a free port of loopback."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import web


@asynccontextmanager
async def web_server(application: web.Application) -> AsyncIterator[int]:
    """Serve `application`; yield the port. Requests still held at the end are broken off."""
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    port = runner.addresses[0][1]
    assert isinstance(port, int)
    try:
        yield port
    finally:
        await runner.cleanup()
