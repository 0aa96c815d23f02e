"""Starts stand-in clouds for tests: in the test's own event loop, or in a thread beside it."""

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import requests

from gateway.twin import Account, Twin


@asynccontextmanager
async def running_twin(**options: Any) -> AsyncIterator[Twin]:
    """A twin on a free loopback port, stopped at the end. `options` are those of `Twin`."""
    twin = Twin(**options)
    await twin.start()
    try:
        yield twin
    finally:
        await twin.stop()


@contextmanager
def twin_in_thread(**options: Any) -> Iterator[Twin]:
    """As `running_twin`, with a loop of its own, for clients that block.

    Only `url`, `auth_url` and `service_url` may be used from the test's thread; the rest goes
    through `/twin/…`.
    """
    twin = Twin(**options)
    started = threading.Event()
    stop = asyncio.Event()
    loop: asyncio.AbstractEventLoop | None = None

    async def run() -> None:
        nonlocal loop
        loop = asyncio.get_running_loop()
        await twin.start()
        started.set()
        try:
            await stop.wait()
        finally:
            await twin.stop()

    thread = threading.Thread(target=lambda: asyncio.run(run()), name="twin")
    thread.start()
    try:
        assert started.wait(100), "the twin did not start"
        yield twin
    finally:
        if loop is not None:
            loop.call_soon_threadsafe(stop.set)
        thread.join(10)


def login_body(account: Account = Account(), **scope: Any) -> dict[str, Any]:  # noqa: B008  # frozen
    """A password login for the account's project, or for the given scope."""
    domain = {"name": account.domain}
    user = {"name": account.user, "password": account.password, "domain": domain}
    project = {"name": account.project, "domain": domain}
    return {
        "auth": {
            "identity": {"methods": ["password"], "password": {"user": user}},
            "scope": scope or {"project": project},
        }
    }


def fetch_token(twin_url: str) -> str:
    """Log in at the twin at `twin_url` as its default account. Blocks."""
    answer = requests.post(
        f"{twin_url}/v3/auth/tokens?nocatalog=true", json=login_body(), timeout=60
    )
    answer.raise_for_status()
    return answer.headers["X-Subject-Token"]
