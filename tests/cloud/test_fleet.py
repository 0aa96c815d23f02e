"""One login for several gateways, by a real Redis with TLS and a password."""

import asyncio
import base64
import os
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from gateway.diagnose.findings import Level
from gateway.diagnose.sharing import examine_fleet
from gateway.errors import CredentialError
from gateway.identity.refresh import RefreshResult
from gateway.settings import load
from gateway.twin import IRIS_ID, Account, Twin
from gateway.twin.iam_faults import IamFault, IamFaultSpec
from tests.cloud.gate import Gate
from tests.cloud.serving import CALL, password_identity
from tests.life.test_reload import ask
from tests.support.redis_server import PASSWORD, RedisServer, redis_server
from tests.support.served import Served, served, settings_of
from tests.support.shared_replicas import shared_replica, shared_replicas, tokens_of
from tests.support.twin import running_twin
from tests.support.until import until

pytestmark = pytest.mark.timeout(300, func_only=True)

KEY = base64.urlsafe_b64encode(b"k" * 32).decode()
OTHER_KEY = base64.urlsafe_b64encode(b"o" * 32).decode()
_PACE_S = 0.02
"""Between calls that go on and on: they are there to fail, not to keep the machine busy."""
_TRIALS = 5
MANY = int(os.environ.get("FLEET_SIZE", "20"))


@pytest.fixture
async def redis(tmp_path: Path) -> AsyncIterator[RedisServer]:
    async with redis_server(tmp_path / "redis", KEY) as server:
        yield server


@pytest.fixture
async def twin() -> AsyncIterator[Twin]:
    async with running_twin() as one:
        yield one


def settings(folder: Path, twin: Twin, fleet: dict[str, Any]) -> dict[str, Any]:
    """Return the configuration of one gateway."""
    return settings_of(
        0,
        {
            "identities": {"default": password_identity(twin.auth_url, folder)},
            "services": {"iris": {"url": twin.service_url(IRIS_ID)}},
            "fleet": fleet,
        },
    )


@asynccontextmanager
async def processes(
    count: int, folder: Path, twin: Twin, fleet: dict[str, Any]
) -> AsyncIterator[list[Served]]:
    """Several gateways as users run them, started at once."""
    async with AsyncExitStack() as stack:

        async def start(number: int) -> Served:
            own = folder / f"gateway-{number}"
            own.mkdir(parents=True)
            return await stack.enter_async_context(served(own, 0, settings(own, twin, fleet)))

        yield [await start(number) for number in range(count)]


async def disturbed(gateways: list[Served]) -> list[float | None]:
    """Wait until all can use Redis; return how often each could not."""
    for one in gateways:
        while await one.sample("gateway_fleet_up") != 1:  # noqa: ASYNC110  # comes from outside
            await asyncio.sleep(_PACE_S)
    return [await one.sample("gateway_fleet_errors_total") for one in gateways]


async def test_processes_share_one_login(tmp_path: Path, redis: RedisServer, twin: Twin) -> None:
    """At the start and after a revocation under traffic; and Redis holds nothing readable.

    A machine may be too busy for Redis to respond in time; then each logs in by itself, as it
    should. So the start is judged only if that was not so, and tokens are revoked until it is not.
    """
    stats = twin._state.stats
    async with processes(2, tmp_path, twin, redis.settings()) as gateways:
        for _ in range(3):
            assert [(await ask(one, CALL))[0] for one in gateways] == [200] * 2
        errors = await disturbed(gateways)
        if errors == [0, 0]:
            assert stats.login_attempts == 1
        token = twin._state.tokens._good()[-1].token
        logins = 0
        for _ in range(4):  # more, one after the other, are taken for what no token cures
            before = stats.login_attempts
            twin._state.tokens.revoke_all()
            replies = await asyncio.gather(*(ask(one, CALL) for one in gateways for _ in range(4)))
            assert [status for status, _ in replies] == [200] * 8
            logins = stats.login_attempts - before
            if errors == (errors := await disturbed(gateways)):
                break
        assert logins == 1
        shared = [
            await one.sample("gateway_token_refreshes_total", trigger="fleet", result="ok")
            for one in gateways
        ]
        assert sum(count or 0 for count in shared) >= 1

    keys = await redis.do("KEYS", "*")
    assert len(keys) >= 3
    text = b" ".join([*keys, *[await redis.do("DUMP", key) for key in keys]])
    account = Account()
    for secret in (token, account.password, account.user, account.project, KEY, PASSWORD):
        assert secret.encode() not in text


async def test_many_replicas_log_in_once_and_renew_once(tmp_path: Path, redis: RedisServer) -> None:
    """The first one does it for all."""
    async with running_twin(token_ttl_s=20.0) as twin:
        identity = password_identity(twin.auth_url, tmp_path)
        async with shared_replicas(MANY, redis, identity) as replicas:
            assert len(await tokens_of(replicas)) == 1
            assert twin._state.stats.login_attempts == 1
            await until(lambda: twin._state.stats.login_attempts == 2)
            (first, second) = [
                f"X-Auth-Token: {grant.token}\r\n".encode() for grant in twin._state.tokens._good()
            ]
            tokens = {first}
            async with asyncio.timeout(100):
                while tokens != {second}:
                    await asyncio.sleep(0.1)  # each look asks every replica
                    tokens = await tokens_of(replicas)
                    assert tokens <= {first, second}
            assert twin._state.stats.login_attempts == 2


async def killed_in_login(folder: Path, redis: RedisServer, twin: Twin) -> list[bytes]:
    """Kill a gateway while it logs in; return the locks that it held when that was seen."""
    twin._state.plan.iam.append(IamFaultSpec(IamFault.HANG, times=1))
    before = twin._state.stats.login_attempts
    async with processes(1, folder, twin, redis.settings()) as (holder,):
        await until(lambda: twin._state.stats.login_attempts > before)
        locks: list[bytes] = await redis.do("KEYS", "gw:*:lock")
        holder.process.kill()
        await holder.process.wait()
    return locks


async def test_who_is_killed_while_he_logs_in_is_followed(
    tmp_path: Path, redis: RedisServer, twin: Twin, capsys: pytest.CaptureFixture[str]
) -> None:
    """By kill -9: his lock lives for 1.5 s at most, and then the next one logs in.

    That this takes less than 2 s is asserted by the clock of a simulation, in
    tests/unit/identity/test_shared_logins.py; here it is printed. On a busy machine the lock may
    have gone before the look at it; then another one is killed.
    """
    trials = 1
    locks = await killed_in_login(tmp_path / "1", redis, twin)
    while not locks and trials < _TRIALS:
        trials += 1
        locks = await killed_in_login(tmp_path / str(trials), redis, twin)
    killed_at = time.monotonic()
    (lock,) = locks
    # -2: it has ended already
    assert -2 <= await redis.do("PTTL", lock) <= 1500
    before = twin._state.stats.login_attempts
    identity = password_identity(twin.auth_url, tmp_path)
    async with shared_replica(redis, identity) as follower:
        follower.cache.start()
        await until(lambda: twin._state.stats.login_attempts == before + 1)
        took_s = time.monotonic() - killed_at
        await until(lambda: follower.logins()["ok"] == 1)
    with capsys.disabled():
        print(f"\nthe next login {took_s:.2f} s after kill -9 of who held the lock")


@pytest.mark.long
async def test_no_request_fails_whatever_becomes_of_redis(
    tmp_path: Path, redis: RedisServer, twin: Twin
) -> None:
    """Paused, emptied, killed and started anew, each with a revocation: all calls succeed."""
    async with processes(2, tmp_path, twin, redis.settings()) as gateways:
        statuses: list[int] = []
        stop = asyncio.Event()

        async def call(one: Served) -> None:
            while not stop.is_set():
                statuses.append((await ask(one, CALL))[0])
                await asyncio.sleep(_PACE_S)

        callers = [asyncio.create_task(call(one)) for one in gateways]

        async def served_more(count: int = 10) -> None:
            target = len(statuses) + count
            await until(lambda: len(statuses) >= target)

        async def fleet_is(up: int) -> None:
            async with asyncio.timeout(100):
                for one in gateways:
                    while await one.sample("gateway_fleet_up") != up:  # noqa: ASYNC110  # comes from outside
                        await asyncio.sleep(_PACE_S)

        await served_more()
        await redis.do("CLIENT", "PAUSE", "2500", "ALL")
        twin._state.tokens.revoke_all()
        await served_more()
        await fleet_is(1)
        await redis.do("FLUSHALL")
        twin._state.tokens.revoke_all()
        await served_more()
        await redis.stop()
        twin._state.tokens.revoke_all()
        await served_more()
        await fleet_is(0)
        await redis.start()
        await fleet_is(1)
        before = twin._state.stats.login_attempts
        twin._state.tokens.revoke_all()
        await served_more()
        assert twin._state.stats.login_attempts == before + 1
        stop.set()
        await asyncio.gather(*callers)
        assert set(statuses) == {200}
        for one in gateways:  # one warning for each of the outages, at most
            assert 1 <= sum("Redis cannot be used" in line for line in one.log) <= 3


@pytest.mark.long
async def test_no_request_fails_while_redis_is_cut_off(
    tmp_path: Path, redis: RedisServer, twin: Twin
) -> None:
    """A partition: connections stay, nothing arrives. Calls that need a new token succeed, too.

    When it is over, logins are shared again.
    """
    gate = Gate(redis.port)
    await gate.open()
    fleet = redis.settings(url=f"rediss://localhost:{gate.port}/0")
    try:
        async with processes(2, tmp_path, twin, fleet) as gateways:
            assert twin._state.stats.login_attempts == 1
            gate.part()
            twin._state.tokens.revoke_all()
            replies = await asyncio.gather(*(ask(one, CALL) for one in gateways for _ in range(4)))
            assert [status for status, _ in replies] == [200] * 8
            assert twin._state.stats.login_attempts == 3  # each for itself
            for one in gateways:
                await one.says("it does not respond in time; until it can, this replica logs in by")
            await gate.open()
            for one in gateways:
                await one.says("Redis works again")
            twin._state.tokens.revoke_all()
            replies = await asyncio.gather(*(ask(one, CALL) for one in gateways))
            assert [status for status, _ in replies] == [200] * 2
            assert twin._state.stats.login_attempts == 4
    finally:
        await gate.refuse()


async def test_a_wrong_password_is_refused_twice_for_five_replicas(
    tmp_path: Path, redis: RedisServer, twin: Twin
) -> None:
    """The account is not locked, and all say so."""
    identity = password_identity(twin.auth_url, tmp_path, password="wrong")
    async with shared_replicas(5, redis, identity) as replicas:
        await until(lambda: all(one.logins()["refused"] for one in replicas))
        for one in replicas:
            with pytest.raises(CredentialError):
                await one.cache.obtain()
        assert twin._state.stats.login_attempts == 2
        # A right one is another entry: nobody waits for 15 minutes.
        right = password_identity(twin.auth_url, tmp_path)
        async with shared_replicas(1, redis, right) as others:
            assert await tokens_of(others)


async def test_another_replicas_throttling_is_heeded(
    tmp_path: Path, redis: RedisServer, twin: Twin
) -> None:
    """A 429 to one is a 429 to all, for as long as IAM has asked for."""
    twin._state.plan.iam.append(IamFaultSpec(IamFault.THROTTLED, times=1, retry_after=60))
    identity = password_identity(twin.auth_url, tmp_path)
    async with shared_replicas(3, redis, identity) as replicas:
        await until(lambda: all(one.logins()["throttled"] for one in replicas))
        assert twin._state.stats.login_attempts == 1
        for one in replicas:
            assert one.cache.status(0.0).last_result is RefreshResult.THROTTLED


@pytest.mark.parametrize(
    "what",
    [
        "another key",
        *(pytest.param(it, marks=pytest.mark.long) for it in ("no key", "nonsense", "nobody")),
    ],
)
async def test_a_fleet_that_cannot_work_is_said_once_and_costs_nothing(
    tmp_path: Path, redis: RedisServer, twin: Twin, what: str
) -> None:
    """One warning, the gauge, and service goes on."""
    key_file = tmp_path / "key"
    key_file.write_text({"another key": OTHER_KEY, "no key": "short"}.get(what, KEY))
    fleet = redis.settings(key_file=str(key_file))
    server = None
    if what == "another key":
        await redis.do("SET", "gw:check", "what nobody can read")
    if what == "nobody":
        await redis.stop()
    if what == "nonsense":
        server = await asyncio.start_server(_talk_nonsense, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        fleet = {"url": f"redis://127.0.0.1:{port}", "key_file": str(key_file)}
    async with processes(1, tmp_path, twin, fleet) as (gateway,):
        assert (await ask(gateway, CALL))[0] == 200
        line = await gateway.says("this replica logs in by itself")
        assert PASSWORD not in line
        assert KEY not in line
        assert (await ask(gateway, CALL))[0] == 200
        assert await gateway.sample("gateway_fleet_up") == 0
        assert (await gateway.sample("gateway_fleet_errors_total") or 0) >= 1
        assert sum("this replica logs in by itself" in line for line in gateway.log) == 1
    if server is not None:
        server.close()


async def test_the_doctor_tries_it(tmp_path: Path, redis: RedisServer, twin: Twin) -> None:
    """It tells a Redis that works from one where others use another key."""
    loaded = load(file=None, environ={}, flags=settings(tmp_path, twin, redis.settings())).settings
    (found,) = await examine_fleet(loaded)
    assert (found.level, found.text) == (
        Level.OK, f"{redis.url} works, and our keys are those in use",
    )  # fmt: skip
    await redis.do("SET", "gw:check", "what nobody can read")
    (found,) = await examine_fleet(loaded)
    assert found.level is Level.WARN
    assert "another gateway uses another key" in found.text


async def _talk_nonsense(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read(100)
    writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    writer.close()
