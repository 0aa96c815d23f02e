"""The fleet's shelf in a real Redis, and the one in memory that stands for it in simulations."""

import asyncio
import base64
import re
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gateway.assembly.fleet import build_fleet
from gateway.identity.fleet.shelf import Shelf, ShelfError
from gateway.settings.fleet import Fleet as FleetSettings
from tests.support.memory_shelf import MemoryShelf
from tests.support.redis_server import PASSWORD, RedisServer, redis_server

KEY = base64.urlsafe_b64encode(b"k" * 32).decode()
README = Path(__file__).parents[2] / "deploy" / "README.md"


def shelf_of(redis: RedisServer, **changes: str) -> Shelf:
    """Return the shelf of a gateway."""
    made = build_fleet(FleetSettings.model_validate(redis.settings(**changes)))
    assert made is not None
    return made.shelf


async def with_documented_rights(redis: RedisServer) -> Shelf:
    """Return the shelf of a user with the rights that deploy/README.md gives it, and no others."""
    (rule,) = re.findall(r"`user gw (on .*?)`", README.read_text())
    await redis.do("ACL", "SETUSER", "gw", *rule.replace("PASSWORD", PASSWORD).split())
    return shelf_of(redis, username="gw")


@pytest.fixture(params=["redis", "memory"])
async def shelf(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Shelf]:
    if request.param == "memory":
        yield MemoryShelf(time.monotonic)
        return
    async with redis_server(tmp_path / "redis", KEY) as server:
        one = await with_documented_rights(server)
        yield one
        await one.aclose()


async def lock_of_somebody_else(shelf: Shelf, owner: str) -> int:
    """Wait until the lock can be had; return its fencing number."""
    async with asyncio.timeout(60):
        while (fence := await shelf.acquire("e", owner, 60.0)) is None:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    return fence


async def test_who_has_lost_the_lock_changes_nothing(shelf: Shelf) -> None:
    """His login ends when another has been made: the newer token stays, and so does the lock."""
    late = await shelf.acquire("e", "late", 60.0)
    assert late is not None
    assert await shelf.acquire("e", "other", 60.0) is None
    assert await shelf.extend("e", "late", 0.05)
    fence = await lock_of_somebody_else(shelf, "other")
    assert fence > late
    assert await shelf.put_token("e", b"new|er", fence, 60.0)

    assert not await shelf.extend("e", "late", 60.0)
    assert not await shelf.put_token("e", b"old", late, 60.0)
    await shelf.release("e", "late")

    found = await shelf.read("e", "a")
    assert found.token == b"new|er"
    assert 0 < found.token_left_s <= 60
    assert await shelf.acquire("e", "third", 60.0) is None
    assert await shelf.extend("e", "other", 60.0)
    await shelf.release("e", "other")
    third = await shelf.acquire("e", "third", 60.0)
    assert third is not None
    assert third > fence


async def test_refusals_count_until_a_login_succeeds(shelf: Shelf) -> None:
    """From whichever replica they come."""
    assert [await shelf.count_refusal("e", 60.0) for _ in range(3)] == [1, 2, 3]
    assert (await shelf.read("e", "a")).refusals == 3
    assert (await shelf.read("other", "a")).refusals == 0

    assert await shelf.put_token("e", b"good", 1, 60.0)

    assert (await shelf.read("e", "a")).refusals == 0


async def test_what_is_told_is_told_for_a_time(shelf: Shelf) -> None:
    """Pauses of an account, tokens that were rejected, refusals, and the keys in use."""
    await shelf.pause("a", b"throttled", 60.0)
    await shelf.report("e", "00000001", 60.0)
    await shelf.report("e", "00000002", 0.05)
    await shelf.count_refusal("short", 0.05)

    found = await shelf.read("e", "a")
    assert found.pause == b"throttled"
    assert 0 < found.pause_left_s <= 60
    assert await shelf.is_reported("e", "00000001")
    async with asyncio.timeout(60):
        while await shelf.is_reported("e", "00000002"):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        while (await shelf.read("short", "a")).refusals:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    assert (await shelf.read("e", "b")).pause is None
    assert await shelf.check(b"one") == b"one"
    assert await shelf.check(b"two") == b"one"
    assert await shelf.check(b"two", replace=True) == b"two"


async def test_rights_that_are_missing_are_an_error_with_a_reason(tmp_path: Path) -> None:
    """And so is another user's password; neither shows anything."""
    async with redis_server(tmp_path / "redis", KEY) as server:
        shelf = await with_documented_rights(server)
        await server.do("ACL", "SETUSER", "gw", "-eval")
        with pytest.raises(ShelfError) as caught:
            await shelf.read("e", "a")
        assert PASSWORD not in str(caught.value)
        await shelf.aclose()
        stranger = shelf_of(server, username="nobody")
        with pytest.raises(ShelfError):
            await stranger.read("e", "a")
        await stranger.aclose()
