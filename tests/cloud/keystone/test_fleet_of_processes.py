"""One login for a fleet of processes: a real Keystone, a real Redis with TLS and a password.

`FLEET_PROCESSES=20` is the whole proof, which CI runs; three processes show the same in seconds.
"""

import asyncio
import base64
import os
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from gateway.identity.fleet.entry import decode
from gateway.identity.fleet.keys import keys_in
from tests.cloud.keystone.conftest import keystone_or_skip
from tests.cloud.keystone.test_keystone import identity_of
from tests.cloud.serving import CALL
from tests.life.test_reload import ask
from tests.support.keystone import DOMAIN, PROJECT, Keystone, User
from tests.support.redis_server import RedisServer, redis_server
from tests.support.served import Served, served, settings_of

pytestmark = pytest.mark.timeout(600, func_only=True)

COUNT = int(os.environ.get("FLEET_PROCESSES", "3"))
LIFE_S = 8 + 2 * COUNT
"""Of tokens: on a machine that is not busy, all processes start before the first is renewed."""
_LEAST_BETWEEN_S = 0.4 * LIFE_S
"""No token is renewed sooner: what is counted is held against the time that has passed."""
KEY = base64.urlsafe_b64encode(b"k" * 32).decode()


@pytest.fixture(scope="module")
def patient_keystone(
    pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Keystone]:
    """A Keystone of its own, whose tokens live for longer."""
    yield from keystone_or_skip(pytestconfig, tmp_path_factory, life_s=LIFE_S)


@pytest.fixture
async def redis(tmp_path: Path) -> AsyncIterator[RedisServer]:
    async with redis_server(tmp_path / "redis", KEY) as server:
        yield server


@asynccontextmanager
async def fleet(
    count: int, keystone: Keystone, identity: dict[str, Any], redis: RedisServer, folder: Path
) -> AsyncIterator[list[Served]]:
    """So many processes of `serve`, started at once."""
    settings = settings_of(
        0,
        {
            "identities": {"default": identity},
            "services": {"iris": {"url": keystone.service_url("strict")}},
            "fleet": redis.settings(),
        },
    )
    async with AsyncExitStack() as stack:

        async def start(number: int) -> Served:
            own = folder / f"gateway-{number}"
            own.mkdir()
            return await stack.enter_async_context(served(own, 0, settings))

        yield list(await asyncio.gather(*(start(number) for number in range(count))))


async def test_processes_log_in_once_at_the_start_per_renewal_and_after_a_revocation(
    patient_keystone: Keystone,
    redis: RedisServer,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """And of all calls meanwhile none fails."""
    keystone = patient_keystone
    user = await asyncio.to_thread(keystone.new_user)
    identity = identity_of(keystone, user, tmp_path)
    counted = Logins(keystone, user)
    async with fleet(COUNT, keystone, identity, redis, tmp_path) as gateways:
        first = await same_new_token(gateways, set())
        counted.are_one_more(gateways)

        statuses: list[int] = []
        stop = asyncio.Event()

        async def call(one: Served) -> None:
            while not stop.is_set():
                statuses.append((await ask(one, CALL))[0])
                with suppress(TimeoutError):
                    async with asyncio.timeout(0.2):
                        await stop.wait()

        callers = [asyncio.create_task(call(one)) for one in gateways]
        second = await same_new_token(gateways, first)
        counted.are_one_more(gateways)

        await asyncio.to_thread(keystone.revoke, await token_in(redis))
        await same_new_token(gateways, first | second)
        counted.are_one_more(gateways)
        stop.set()
        await asyncio.gather(*callers)
        assert set(statuses) == {200}
        assert len(statuses) > COUNT
    with capsys.disabled():
        print(f"\n{COUNT} processes, start, renewal, revocation: {counted.total} logins")


async def test_a_wrong_password_in_five_processes_is_refused_twice(
    patient_keystone: Keystone,
    redis: RedisServer,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Keystone would lock the user after five; it does not come to that."""
    keystone = patient_keystone
    user = await asyncio.to_thread(keystone.new_user)
    identity = identity_of(keystone, user, tmp_path, password="wrong")
    async with fleet(5, keystone, identity, redis, tmp_path) as gateways:
        for one in gateways:
            async with asyncio.timeout(60):
                while await one.sample("gateway_identity_locked") != 1:
                    pass
        replies = await asyncio.gather(*(ask(one, CALL) for one in gateways for _ in range(4)))
        assert {status for status, _ in replies} == {503}
        refused = keystone.logins(user.name)
        assert set(refused) == {401}
        assert len(refused) <= 2 + len(alone(gateways)), [one.log for one in gateways]
    with capsys.disabled():
        print(f"\n5 processes, wrong password: {len(refused)} refused")
    if len(refused) <= 2:  # as it is where Redis answers in time
        assert keystone.token(user.name, user.password, DOMAIN, PROJECT)


async def token_in(redis: RedisServer) -> str:
    """Return the token that the fleet shares."""
    (name,) = await redis.do("KEYS", "gw:*:token")
    content = keys_in(KEY).decrypt((await redis.do("GET", name)).partition(b"|")[2])
    entry = None if content is None else decode(content)
    assert entry is not None
    return entry.field_lines.decode().removeprefix("X-Auth-Token: ").strip()


def alone(gateways: list[Served]) -> list[str]:
    """Return what those said that had no answer of Redis in time, as on a busy machine."""
    return [line for one in gateways for line in one.log if "logs in by itself" in line]


class Logins:
    """Counts a user's logins, all of which were accepted."""

    def __init__(self, keystone: Keystone, user: User) -> None:
        self._keystone, self._user = keystone, user
        self._since = time.monotonic()
        self.total = 0

    def are_one_more(self, gateways: list[Served]) -> None:
        """Fail unless there was one since the last time, and one for each renewal since then."""
        made = self._keystone.logins(self._user.name)
        assert set(made) == {201}
        passed_s = time.monotonic() - self._since
        most = 1 + int(passed_s / _LEAST_BETWEEN_S) + len(alone(gateways))
        assert 1 <= len(made) - self.total <= most
        self._since, self.total = time.monotonic(), len(made)


async def same_new_token(gateways: list[Served], before: set[bytes]) -> set[bytes]:
    """Wait until all gateways send one token that is not among `before`; return its answer."""
    async with asyncio.timeout(2 * LIFE_S + 60):
        while True:
            replies = await asyncio.gather(*(ask(one, CALL) for one in gateways))
            assert {status for status, _ in replies} == {200}
            bodies = {body for _, body in replies}
            if len(bodies) == 1 and not bodies & before:
                return bodies
            await asyncio.sleep(0.1)
