"""Replicas of one fleet in this process, each with its own cache, store and connection to Redis."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from gateway.assembly.fleet import build_fleet
from gateway.assembly.identities import build_cache
from gateway.assembly.tls import TlsContexts
from gateway.clock import boottime
from gateway.identity.credential_cache import CredentialCache
from gateway.identity.fleet.fleet import Fleet
from gateway.identity.store import TokenStore
from gateway.observe.metrics import Metrics
from gateway.settings import load
from tests.support.redis_server import RedisServer
from tests.support.until import until


class SharedReplica:
    """What one gateway would have."""

    def __init__(self, fleet: Fleet, cache: CredentialCache, metrics: Metrics) -> None:
        self.fleet, self.cache, self.metrics = fleet, cache, metrics

    def logins(self) -> dict[str, int]:
        """Return how many logins had each result, those taken over included."""
        return self.metrics.logins()["default"]


@asynccontextmanager
async def shared_replica(
    redis: RedisServer, identity: dict[str, Any]
) -> AsyncIterator[SharedReplica]:
    """A replica that is connected and has not been started; ended with the block."""
    settings = load(
        file=None,
        environ={},
        flags={
            "identities": {"default": identity},
            "services": {"iris": {"url": "http://127.0.0.1:1/"}},
            "fleet": redis.settings(),
        },
    ).settings
    assert settings.fleet is not None
    made = build_fleet(settings.fleet)
    assert made is not None
    metrics = Metrics()
    built = build_cache(
        "default",
        settings.identities["default"],
        None,
        store=TokenStore(boottime),
        metrics=metrics,
        contexts=TlsContexts(),
        fleet=made,
    )
    metrics.add_identity(*built.series)
    watching = asyncio.create_task(made.watch())
    try:
        await until(lambda: made.up)
        yield SharedReplica(made, built.cache, metrics)
    finally:
        await built.cache.aclose()
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
        await made.aclose()


@asynccontextmanager
async def shared_replicas(
    count: int, redis: RedisServer, identity: dict[str, Any]
) -> AsyncIterator[list[SharedReplica]]:
    """`count` replicas, started at once."""
    async with AsyncExitStack() as stack:
        replicas = [
            await stack.enter_async_context(shared_replica(redis, identity)) for _ in range(count)
        ]
        for one in replicas:
            one.cache.start()
        yield replicas


async def tokens_of(replicas: Iterable[SharedReplica]) -> set[bytes]:
    """Return the header lines that the replicas would send now; waits for those without."""
    found = await asyncio.gather(*(one.cache.obtain() for one in replicas))
    return {one.field_lines for one in found}
